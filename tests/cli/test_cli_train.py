"""`understudy train`: dry run, a run, going on, both kinds of student, refusals."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from understudy import models
from understudy.cli import main
from understudy.data import scenes
from understudy.data.store import Store

BUDGET = ["--train.steps", "2", "--train.batch-size", "8", "--train.warmup-steps", "0",
          "--train.device", "cpu", "--workers", "0"]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "store"
    scenes.to_store("pairs", path, train=24, teacher=0, test=16, seed=1000, masks=False)
    return str(path)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "digits"
    scenes.to_store("digits", path)
    return str(path)


def _plain(store, *more):
    words = ["train", store, "--model", "clip-conv-nano", "--lam", "0", "--captions", "both"]
    return main([*words, *BUDGET, *more])


def test_dry_run_checks_everything_and_trains_nothing(store, capsys, tmp_path):
    out = tmp_path / "x"
    assert _plain(store, "--dry-run", "--json", "--out", str(out)) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model"] == "clip-conv-nano"
    assert (facts["rows"], facts["held_out_rows"], facts["samples_seen"]) == (24, 16, 16)
    assert facts["batch"]["images"] == [8, 3, 48, 48]
    assert not out.exists()
    assert _plain(store, "--dry-run") == 0
    assert "objective      ClipStep" in capsys.readouterr().out


def test_a_run_is_scored_on_the_held_out_split(store, capsys, tmp_path):
    out = tmp_path / "run"
    assert _plain(store, "--out", str(out)) == 0
    text = capsys.readouterr().out
    assert "retrieval.mean_r1" in text
    assert "zeroshot.top1" in text
    assert "best (chosen on test)" in text
    assert f"{out}: 2 steps" in text
    for name in ("model.safetensors", "model-best.safetensors", "student.json", "record.json"):
        assert (out / name).exists()
    assert _plain(store, "--out", str(out), "--resume", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["steps"] == 2
    assert set(data["weights"]) == {"final", "best"}


def test_a_run_that_the_time_limit_stopped_goes_on(store, capsys, tmp_path):
    out = str(tmp_path / "run")
    assert _plain(store, "--out", out, "--train.seconds-limit-s", "0.000001") == 0
    assert "run again to go on" in capsys.readouterr().out
    assert _plain(store, "--out", out) == 0
    assert "2 steps" in capsys.readouterr().out


def test_options_may_come_from_a_file(store, capsys, tmp_path):
    file = tmp_path / "student.yaml"
    file.write_text("model: clip-conv-nano\nlam: 0.0\naugment: {random_crop: {padding: 4}}\n")
    words = ["train", store, "--config", str(file), "--dry-run", "--json", *BUDGET]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "clip-conv-nano"
    file.write_text("model: clip-conv-nano\nlamda: 0.0\n")
    assert main(words) == 2
    assert "unknown key 'lamda'. Did you mean 'lam'?" in capsys.readouterr().err


def test_a_classifier_takes_its_own_options(digits, capsys, tmp_path):
    words = ["train", digits, "--model", "cnn-tiny", "--learn", "labels", "--smoothing", "0.1",
             "--rows", "split = 'student'", *BUDGET]  # fmt: skip
    assert main([*words, "--out", str(tmp_path / "run"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert "classify.top1" in data["weights"]["best"]
    file = tmp_path / "student.yaml"
    file.write_text("model: cnn-tiny\nlearn: labels\n")
    assert main(["train", digits, "--config", str(file), "--dry-run", *BUDGET]) == 0
    assert "ClassifierStep" in capsys.readouterr().out


def test_a_classifier_asks_teachers_online(digits, capsys, tmp_path):
    path = str(models.save(models.create("cnn-tiny", seed=3).eval(), tmp_path / "t.safetensors"))
    words = ["train", digits, "--model", "cnn-tiny", "--learn", "online", "--rows",
             "split = 'student'", *BUDGET]  # fmt: skip
    assert main([*words, "--teachers", path, path, "--out", str(tmp_path / "run")]) == 0
    assert "2 steps" in capsys.readouterr().out
    # another teacher is another run
    other = str(models.save(models.create("cnn-tiny", seed=4).eval(), tmp_path / "u.safetensors"))
    assert main([*words, "--teachers", other, "--out", str(tmp_path / "run")]) == 2
    assert "teachers" in capsys.readouterr().err
    assert main([*words, "--teachers", path, "--dry-run"]) == 0
    assert "OnlineKdStep" in capsys.readouterr().out
    assert main([*words, "--dry-run"]) == 2
    assert "'--learn online' asks trained classifiers" in capsys.readouterr().err


def test_a_validation_split_chooses_the_best_weights(capsys, tmp_path):
    first = scenes.to_store("digits", tmp_path / "first")
    table = first.take(range(first.num_rows), ["id", "image", "label", "split"])
    splits = ["val" if s == "teacher" else s for s in table.column("split").to_pylist()]
    table = table.set_column(table.schema.get_field_index("split"), "split", pa.array(splits))
    Store.create(tmp_path / "store", [table], meta=first.meta)
    words = ["train", str(tmp_path / "store"), "--model", "cnn-tiny", "--learn", "labels", *BUDGET]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "best (chosen on val)" in capsys.readouterr().out
    data = json.loads((tmp_path / "run" / "student.json").read_text())
    assert data["facts"]["rows"] == 300
    assert data["weights"]["best"]["rows"] == 897
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    watched = [json.loads(line) for line in lines if "eval/rows" in line]
    assert watched[-1]["eval/rows"] == 600


def test_published_settings_are_a_start(digits, capsys):
    words = ["train", digits, "--preset", "cifar100-plain", "--model", "cnn-tiny", "--dry-run"]
    assert main([*words, "--json", *BUDGET]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["model"], facts["objective"]) == ("cnn-tiny", "ClassifierStep")
    assert facts["steps"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the store first"),
        (["STORE", "--preset", "imagenet-plane"], "Did you mean 'imagenet-plain'"),
        (["STORE", "--preset", "imagenet-online", "--model", "cnn-tiny"], "asks trained"),
        (["STORE", "--preset", "imagenet-plain", "--config", "x.yaml"], "exclude each other"),
        (
            ["STORE", "--lam", "0", "--seed", "1", "--train.seed", "2", "--out", "x", *BUDGET],
            "a run has one seed",
        ),
        (
            ["STORE", "--model", "cnn-tiny", "--view-set", "a", "--smoothing", "0.1"],
            "smoothing: 0.1 would have no effect",
        ),
        (["STORE"], "lam: 1.0 imitates"),
        (["STORE", "--lam", "0", *BUDGET], "say where the run goes"),
        (["STORE", "--fresh", "--resume"], "exclude each other"),
        (["STORE", "--model", "mobileclip-nanno", "--lam", "0"], "Did you mean mobileclip-nano"),
        (["STORE", "--view-set", "main", "--out", "x"], "no embeddings of view set 'main'"),
    ],
)
def test_bad_input_train(store, capsys, words, message):
    assert main(["train", *[store if word == "STORE" else word for word in words]]) == 2
    assert message in capsys.readouterr().err
