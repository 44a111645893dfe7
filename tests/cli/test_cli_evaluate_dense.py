"""`understudy evaluate dense|compare|captions`."""

from __future__ import annotations

import json

import pytest

from understudy import models
from understudy.cli import main
from understudy.data import scenes
from understudy.models.text.train_tokenizer import train_words

SMALL = (
    "--width", "8", "--hidden", "8", "--size", "32", "--steps", "2", "--batch-size", "4",
    "--objects", "digits",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("dense")
    store = scenes.to_store(
        "photo-scenes", root / "scenes", train=14, teacher=0, test=4, size=32, num_captions=1
    )
    words = store.take(range(18), ["text"]).column(0).to_pylist()
    tokenizer = train_words(words, context_length=24)
    for name, seed in (("a", 0), ("b", 1)):
        clip = models.create("mobileclip-nano", seed=seed, tokenizer=tokenizer).eval()
        models.save(clip, root / name / "model.safetensors")
        (root / name / "record.json").write_text(json.dumps({"samples_seen": 640}))
    models.save(clip.fold(), root / "folded.safetensors")
    return root


def run(*arguments):
    return main(["evaluate", *map(str, arguments)])


def test_segmentation_then_a_comparison(place, tmp_path, capsys):
    reports = []
    for arm in ("a", "b"):
        for seed in (0, 1):
            out = tmp_path / f"{arm}{seed}"
            reports.append(out)
            options = ("--labels", "4", "--seed", seed, "--out", out, *SMALL)
            assert run("dense", place / arm, place / "scenes", *options) == 0
    printed = capsys.readouterr()
    assert "miou" in printed.out
    assert "transfer_report.json" in printed.err
    data = json.loads((reports[0] / "transfer_report.json").read_text())
    assert {r["samples_seen"] for r in data["rows"]} == {640}
    assert {r["labels"] for r in data["rows"]} == {4}
    assert run("compare", *reports, "--baseline", "a", "--out", tmp_path / "c.json") == 0
    text = capsys.readouterr().out
    assert "learning rates tried: a 1, b 1" in text
    found = json.loads((tmp_path / "c.json").read_text())
    assert {e["arm"] for e in found} == {"a", "b"}
    assert len(found[1]["values"]) == 2
    assert run("compare", *reports, "--json") == 0
    assert json.loads(capsys.readouterr().out) == found


def test_depth(place, tmp_path, capsys):
    options = (
        "--task", "depth", "--depth-scale", str(1 / 65535), "--depth-range", "0.01", "1.5",
        "--out", tmp_path / "d", "--json", "--lrs", "1e-3", "1e-4", "--validation", "4", *SMALL,
    )  # fmt: skip
    assert run("dense", "mci-nano", place / "scenes", *options) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["metric"] == "rmse_pixels"
    assert rows[0]["samples_seen"] == 0
    assert rows[0]["lrs_tried"] == 2
    assert rows[0]["arm"] == "mci-nano"


def test_captions(place, tmp_path, capsys):
    nouns = tmp_path / "nouns.txt"
    nouns.write_text("# digits\nseven\n7=seven\nthree\n3=three\n")
    options = ("--scorer", place / "a", "--arms", "alt=text", "mix=text+3*caption.template",
               "--nouns", nouns, "--facts", "digits", "--out", tmp_path / "s.json")  # fmt: skip
    assert run("captions", place / "scenes", *options) == 0
    text = capsys.readouterr().out
    assert "near_duplicates" in text
    assert "scorer mobileclip-nano (" in text
    found = json.loads((tmp_path / "s.json").read_text())
    assert set(found["arms"]) == {"alt", "mix"}
    assert "grounded" in found["arms"]["alt"]


def test_help_names_the_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for words in ("evaluate dense", "evaluate compare", "evaluate captions"):
        assert words in text


def test_bad_input_is_one_line(place, tmp_path, capsys):
    seen = tmp_path / "seen"
    assert run("dense", place / "a", place / "scenes", "--out", seen, "--samples-seen", "9",
               *SMALL) == 0  # fmt: skip
    other = tmp_path / "other"
    assert run("dense", place / "b", place / "scenes", "--out", other, *SMALL) == 0
    capsys.readouterr()
    scenes_at, two = place / "scenes", tmp_path / "two.txt"
    two.write_text("ground\ndigit\n")
    for arguments, message in (
        (("dense", place / "folded.safetensors", scenes_at, *SMALL), "fine-tune the unfolded"),
        (("dense", place / "a", scenes_at, "--head", "upper", *SMALL), "Did you mean 'uper'"),
        (
            ("dense", place / "a", scenes_at, "--task", "depth", *SMALL[:-2], "--depth-scale", "1"),
            "give the unit",
        ),
        (
            ("dense", place / "a", scenes_at, *SMALL[:-2], "--classes", two),
            "neither below 2 (classes)",
        ),
        (("dense", place / "a", scenes_at, "--labels", "99", *SMALL), "there are 14"),
        (("dense", place / "a", scenes_at, "--split", "val", *SMALL), "no row has split 'val'"),
        (("compare", seen, other), "saw 9 samples in pretraining and 'b' 640"),
        (("compare", tmp_path / "none"), "no such file"),
        (("captions", scenes_at, "--scorer", place / "a", "--arms", "x="), "expression is empty"),
        (("captions", scenes_at, "--scorer", place / "a", "--arms", "txt"), "no column 'txt'"),
    ):
        assert run(*arguments, *(("--out", tmp_path / "x") if arguments[0] == "dense" else ())) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
