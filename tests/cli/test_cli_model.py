"""`understudy model export` and `model latency`."""

import json

import pytest

from understudy import models
from understudy.cli import main

FAST = ("--rounds", "1", "--inferences", "4", "--trim", "1")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    models.save(
        models.create("cnn-tiny", seed=0, num_classes=3).eval(), folder / "model.safetensors"
    )
    return folder


def test_export(run, capsys):
    assert main(["model", "export", str(run), "--data", "digits"]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [
        str(run / "export" / name)
        for name in (
            "image.onnx",
            "preprocess.json",
            "model.safetensors",
            "export.json",
            "README.md",
        )
    ]
    assert "Training data: digits" in (run / "export" / "README.md").read_text()
    onnx = str(run / "export" / "image.onnx")
    assert main(["model", "latency", onnx, str(run), *FAST]) == 0
    table = capsys.readouterr().out
    assert "onnx" in table
    assert str(run) in table


def test_export_without_onnx_beside_preprocessing(run, tmp_path, capsys):
    arguments = ["--no-onnx", "--preprocess", "file", "--fold", "branches", "--json"]
    assert main(["model", "export", str(run), "--out", str(tmp_path), *arguments]) == 0
    files = json.loads(capsys.readouterr().out)
    assert sorted(files) == sorted(str(p) for p in tmp_path.iterdir())
    data = json.loads((tmp_path / "preprocess.json").read_text())
    assert data["image"]["dtype"] == "float32"
    assert models.config_of(tmp_path / "model.safetensors")["folded"] == "branches"


def test_latency_table(capsys):
    assert main(["model", "latency", "mobileclip-nano", "cnn-tiny", *FAST]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["model", "tower", "size", "parameters"]
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["mobileclip-nano", "image"],
        ["mobileclip-nano", "text"],
        ["cnn-tiny", "image"],
    ]
    assert "batch 1, float32, cpu, threads 1; folding all; 1 rounds of 4" in out


def test_latency_json(capsys):
    options = ["--towers", "image", "--resolutions", "32", "64", "--dtype", "bfloat16", "--json"]
    assert main(["model", "latency", "cnn-tiny", *FAST, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(r["size"], r["dtype"]) for r in found] == [(32, "bfloat16"), (64, "bfloat16")]
    assert all(r["mean_ms"] > 0 for r in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["latency", "cnn-tyny"], "there is no model 'cnn-tyny'. Did you mean cnn-tiny"),
        (["latency", "cnn-tiny", "--inferences", "5"], "5 leave nothing"),
        (["latency", "cnn-tiny", "--towers", "text"], "has no text tower"),
        (["export", "nowhere"], "no such run's folder or weights file"),
        (["export", "nowhere", "--preprocess", "inside"], "'inside' is not one of graph, file"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert main(["model", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert error[-1].startswith("understudy: ")
