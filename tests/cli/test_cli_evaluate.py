"""`understudy evaluate RUN STORE`."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from understudy import models
from understudy.cli import main
from understudy.data.store import Store
from understudy.models.text.train_tokenizer import train_words

NAMES = ("red", "green", "blue")


def png(i):
    out = io.BytesIO()
    pixels = np.full((16, 16, 3), 30, np.uint8)
    pixels[..., i % 3] = 150 + 10 * i
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    rows = {
        "id": [f"s{i}" for i in range(6)],
        "image": [png(i) for i in range(6)],
        "text": [f"a {NAMES[i % 3]} square" for i in range(6)],
        "label": [i % 3 for i in range(6)],
        "split": ["test"] * 4 + ["train"] * 2,
    }
    Store.create(root / "store", [rows], meta={"classes": list(NAMES)})
    tokenizer = train_words(rows["text"], context_length=24)
    clip = models.create("clip-conv-nano", seed=0, tokenizer=tokenizer).eval()
    models.save(clip, root / "clip" / "model.safetensors")
    other = models.create("clip-conv-nano", seed=1, tokenizer=tokenizer).eval()
    models.save(other, root / "other.safetensors")
    classifier = models.create("cnn-tiny", seed=0, num_classes=3).eval()
    models.save(classifier, root / "classifier.safetensors")
    for folder in ("shifts/v2", "corrupted/noise/1"):
        for i, name in enumerate(NAMES):
            path = root / folder / name / "0.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(png(i))
    return root


def run(*arguments):
    return main(["evaluate", *map(str, arguments)])


def test_clip(place, capsys):
    assert run(place / "clip", place / "store", "--split", "test", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 4.0
    assert {"retrieval.t2i_r1", "zeroshot.top1", "zeroshot.ece"} <= set(found)


def test_options_reach_the_evaluation(place, tmp_path, capsys):
    classes, templates = tmp_path / "classes.txt", tmp_path / "templates.txt"
    classes.write_text("red\ngreen\nblue\n")
    templates.write_text("a {} square\n")
    out = tmp_path / "scores.json"
    options = ("--tasks", "zeroshot", "--classes", classes, "--templates", templates, "--out", out)
    assert run(place / "clip", place / "store", *options) == 0
    text = capsys.readouterr().out
    assert "zeroshot.top1" in text
    assert "retrieval" not in text
    from understudy.evaluate.run import evaluate_model
    from understudy.models.runs import load_run

    expected = evaluate_model(
        load_run(place / "clip"),
        Store.open(place / "store"),
        tasks=["zeroshot"],
        prompts=("a {} square",),
    )
    assert json.loads(out.read_text()) == pytest.approx(expected)
    assert (
        run(place / "clip", place / "store", *options, "--ensemble", place / "other.safetensors")
        == 0
    )
    assert json.loads(out.read_text()) != pytest.approx(expected)


def test_classifier_shifts_and_corruptions(place, tmp_path, capsys):
    baseline = tmp_path / "baseline.json"
    baseline.write_text('{"noise": [0.5]}')
    folders = ("--shifts", place / "shifts", "--corruptions", place / "corrupted")
    assert (
        run(
            place / "classifier.safetensors",
            place / "store",
            *folders,
            "--baseline",
            baseline,
            "--json",
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["shift.sets"] == 1.0
    assert found["corruption.mce"] == pytest.approx(2 * found["corruption.mean_error"])
    assert 0 <= found["classify.top1"] <= 1
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps(NAMES))
    assert run(place / "classifier.safetensors", *folders[:2], "--classes", classes, "--json") == 0
    assert "classify.top1" not in json.loads(capsys.readouterr().out)


def test_bad_input_is_one_line(place, tmp_path, capsys):
    double = tmp_path / "double.txt"
    double.write_text("red\nred\nblue\n")
    released = models.create(
        "mci-nano",
        seed=0,
        num_classes=3,
        weights="mci0",
        preprocess={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    ).eval()
    models.save(released, tmp_path / "released.safetensors")
    for arguments, message in (
        ((place / "none", place / "store"), "no such run's folder or weights file"),
        ((place / "clip",), "give a store, --shifts or --corruptions"),
        ((place / "clip", place / "nowhere"), "nowhere"),
        ((place / "clip", place / "store", "--split", "val"), "there are: test, train"),
        ((place / "clip", place / "store", "--classes", double), "'red' is class 0 and class 1"),
        (
            (tmp_path / "released.safetensors", place / "store", "--mean", "0.5", "0.5", "0.5"),
            "mci0 was trained with [0.0, 0.0, 0.0]",
        ),
        (
            (
                place / "clip",
                "--shifts",
                place / "shifts",
                "--ensemble",
                place / "other.safetensors",
            ),
            "leave out --ensemble",
        ),
    ):
        assert run(*arguments) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert message in error[-1]
