"""Models by resolutions by precisions: which rows, in which runtime, and what is compared."""

from dataclasses import replace

import pytest

from understudy import models
from understudy.compress import latency_grid as grid
from understudy.compress.latency_grid import measure_grid, ratios
from understudy.compress.timing import LatencyConfig
from understudy.core.errors import ConfigError, ModelError

QUICK = LatencyConfig(rounds=1, inferences=4, trim=1)


@pytest.fixture(scope="module")
def found():
    model = models.create("cnn-tiny", seed=0).eval()
    return measure_grid(
        model, QUICK, precisions=["fp32", "bf16", "int8"], resolutions=[32, 48], name="tiny"
    )


def test_rows(found):
    assert [(r.dtype, r.runtime, r.size) for r in found] == [
        ("float32", "torch", 32),
        ("float32", "torch", 48),
        ("bfloat16", "torch", 32),
        ("bfloat16", "torch", 48),
        ("float32", "onnxruntime", 32),
        ("int8", "onnxruntime", 32),
        ("float32", "onnxruntime", 48),
        ("int8", "onnxruntime", 48),
    ]
    assert {(r.name, r.tower, r.fold, r.threads, r.batch) for r in found} == {
        ("tiny", "image", "all", 1, 1)
    }
    assert len({r.parameters for r in found}) == 1
    assert all(0 < r.min_ms <= r.mean_ms <= r.max_ms for r in found)


def test_ratios_stay_within_a_runtime(found):
    times = iter([2.0, 8.0, 1.0, 2.0, 10.0, 5.0, 90.0, 30.0])
    fixed = [replace(r, mean_ms=next(times)) for r in found]
    assert [(r.dtype, r.runtime, r.size, r.ratio) for r in ratios(fixed)] == [
        ("bfloat16", "torch", 32, 2.0),
        ("bfloat16", "torch", 48, 4.0),
        ("int8", "onnxruntime", 32, 2.0),
        ("int8", "onnxruntime", 48, 3.0),
    ]
    assert ratios([r for r in fixed if r.dtype != "float32"]) == []


def test_what_is_timed_is_what_was_asked_for(monkeypatch):
    sizes = []

    def scripted(path, config):
        sizes.append(path.stat().st_size)
        return real(path, config)

    real = grid.measure_onnx
    monkeypatch.setattr(grid, "measure_onnx", scripted)
    model = models.create("mobileclip-nano", seed=0).eval()
    found = measure_grid(model, QUICK, precisions=["int8"], resolutions=[64])
    assert [(r.tower, r.size, r.dtype) for r in found] == [
        ("image", 64, "float32"),
        ("image", 64, "int8"),
        ("text", 24, "float32"),
        ("text", 24, "int8"),
    ]
    assert sizes[1] < sizes[0]
    assert sizes[3] < sizes[2]


def test_bad_input():
    model = models.create("cnn-tiny", seed=0)
    with pytest.raises(ConfigError, match="precision: 'int4' is not one of fp32, bf16"):
        measure_grid(model.eval(), QUICK, precisions=["int4"])
    with pytest.raises(ConfigError, match="name a precision"):
        measure_grid(model, QUICK, precisions=[])
    with pytest.raises(ConfigError, match="float16 is for CUDA"):
        measure_grid(model, QUICK, precisions=["fp16"])
    for precision in ("fp32", "int8"):
        with pytest.raises(ConfigError, match="tower: 'text' is not one of image"):
            measure_grid(model, QUICK, precisions=[precision], towers=["text"])
        with pytest.raises(ModelError, match="training mode"):
            measure_grid(model.train(), QUICK, precisions=[precision])
        model.eval()
