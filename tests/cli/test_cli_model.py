"""`understudy model export` and `model latency`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from understudy import models
from understudy.cli import main
from understudy.models.io import weights_hash

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from original_names import original_state

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


def test_latency_over_resolutions_and_precisions(tmp_path, capsys):
    files = ["--out", str(tmp_path / "l.json"), "--report", str(tmp_path / "l.html")]
    options = ["--resolutions", "32,40", "--precisions", "fp32", "bf16", "int8", *files]
    assert main(["model", "latency", "cnn-tiny", *FAST, *options]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split()[:6] == ["model", "tower", "size", "precision", "runtime", "parameters"]
    assert lines[0].endswith("x fp32")
    assert len(lines) == 2 + 8 + 2
    assert "float32, bfloat16, int8, cpu" in lines[-1]
    assert f"written: {tmp_path / 'l.json'}" in captured.err
    assert f"report: {tmp_path / 'l.html'}" in captured.err
    found = json.loads((tmp_path / "l.json").read_text())
    assert [(r["size"], r["dtype"], r["times_fp32"] is None) for r in found] == [
        (32, "float32", True),
        (40, "float32", True),
        (32, "bfloat16", False),
        (40, "bfloat16", False),
        (32, "float32", True),
        (32, "int8", False),
        (40, "float32", True),
        (40, "int8", False),
    ]
    page = (tmp_path / "l.html").read_text()
    assert "cnn-tiny, int8, onnxruntime" in page
    assert "Image tower over resolutions" in page


def test_export_in_eight_bits_and_of_the_map(tmp_path, capsys):
    import io

    from PIL import Image

    from understudy.data.store import Store

    small = {"image.channels": (8, 16, 32, 64, 128), "image.blocks": (1,) * 5}
    model = models.create("mci-nano5", seed=0, **small, **{"image.image_size": 64}).eval()
    path = models.save(model, tmp_path / "m.safetensors")
    pictures, rng = [], np.random.default_rng(0)
    for _ in range(6):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(file, "PNG")
        pictures.append(file.getvalue())
    rows = {"id": list("abcdef"), "image": pictures}
    Store.create(tmp_path / "store", [rows])
    options = [
        "--towers",
        "map",
        "--int8",
        str(tmp_path / "store"),
        "--calibration",
        "4",
        "--no-card",
    ]
    out = ["--out", str(tmp_path / "out")]
    assert main(["model", "export", str(path), *out, *options, "--no-safetensors"]) == 0
    printed = {Path(line).name for line in capsys.readouterr().out.split()}
    assert printed == {"map.onnx", "map-int8.onnx", "preprocess.json", "export.json"}
    manifest = json.loads((tmp_path / "out" / "export.json").read_text())
    assert manifest["int8"]["map-int8.onnx"]["cosine"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["latency", "cnn-tiny", "--precisions", "int3"], "'int3' is not one of fp32, bf16"),
        (["latency", "cnn-tiny", "--resolutions", "32,x"], "expected pixels, got 'x'"),
        (
            ["latency", "cnn-tiny", "--precisions", "bf16", "--dtype", "bfloat16"],
            "give --precisions or --dtype, not both",
        ),
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


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A checkpoint in the original naming, of a small model that stands for mobileclip-s0."""
    changes = {
        "image.channels": (8, 16, 32, 64), "image.blocks": (1, 2, 1, 2), "text.depth": 1,
        "text.vocab_size": 64, "text.width": 32, "text.num_heads": 4, "text.context_length": 16,
        "embed_dim": 24,
    }  # fmt: skip
    model = models.create("mobileclip-s0", seed=0, **changes).eval()
    real = models.config
    monkeypatch.setattr(
        models, "config", lambda n, **c: model.config if n == "mobileclip-s0" else real(n, **c)
    )
    torch.save(original_state(model), tmp_path / "released.pt")
    return model, tmp_path / "released.pt"


def test_released_weights_become_a_file_that_every_command_takes(released, tmp_path, capsys):
    model, path = released
    out = tmp_path / "new" / "s0.safetensors"
    words = ["model", "import", str(path), "--model", "mobileclip-s0", "--out", str(out)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["weights"], found["folded"]) == ("mobileclip-s0", "no")
    again = models.load(out)
    assert weights_hash(again) == weights_hash(model)
    assert models.config_of(out)["extra"]["source"] == "released.pt"
    assert main(["model", "latency", str(out), "--towers", "image", *FAST]) == 0
    assert main(words) == 0
    assert "no tokenizer: give CLIP's vocabulary" in capsys.readouterr().err


def test_bad_input_released_weights(released, tmp_path, capsys):
    _, path = released
    words = ["model", "import", str(path), "--model", "mobileclip-s0", "--out"]
    assert main([*words, str(tmp_path / "s0.pt")]) == 2
    assert "expected a .safetensors file" in capsys.readouterr().err
    assert main(["model", "latency", str(path), *FAST]) == 2
    assert "'understudy model import" in capsys.readouterr().err
    words = [
        "model",
        "import",
        str(path),
        "--model",
        "mci0",
        "--tokenizer",
        "x",
        "--out",
        "y.safetensors",
    ]
    assert main(words) == 2
    assert "'mci0' reads no texts" in capsys.readouterr().err
