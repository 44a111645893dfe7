"""Time to the first token, races of towers, the vision part as ONNX."""

from dataclasses import replace

import pytest
import torch

from understudy.compress.race import check_equal_size, factor, race
from understudy.compress.timing import LatencyConfig
from understudy.compress.ttft import (
    TTFTConfig,
    bench_many,
    bench_ttft,
    check_ratio,
    ttft_ratio,
)
from understudy.compress.ttft_path import PARTS, TokenPath
from understudy.compress.vision_onnx import export_vision
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.files import read_json
from understudy.data.decode import decode
from understudy.models.language.cost import QWEN2_05B, VICUNA_7B, kv_bytes, prefill_flop
from vlm_toys import toy


def test_the_parts_add_up_to_the_whole():
    model = toy()
    found = bench_ttft(model, 64, TTFTConfig(samples=5, warmup=1, prompt_tokens=3), name="toy")
    assert tuple(found.parts_ms) == PARTS
    assert min(found.parts_ms.values()) > 0
    assert found.gap <= 0.02
    assert found.consistent
    assert abs(found.sum_ms - found.end_to_end_ms) <= 0.02 * found.end_to_end_ms
    assert found.paper_ms == found.parts_ms["vision"] + found.visual_prefill_ms
    assert (found.resolution, found.visual_tokens, found.prompt_tokens) == (64, 1, 3)
    assert len(found.rounds_ms) == 5
    assert found.to_dict()["consistent"] is True
    assert model.preprocess.size == 128  # left as it is
    assert not model.is_folded


def test_the_path_ends_in_the_models_own_first_token():
    model = toy()
    path = TokenPath(model, 4, 0)
    value = None
    with torch.no_grad():
        for _, step in path.steps():
            value = step(value)
        pixels = model.views(decode(path.file))
        logits, _ = model.prefill(model.splice([path.prompt], pixels))
    assert value == int(logits.argmax(-1)[0])


def test_bad_input_no_ratios_from_too_little():
    model = toy()
    few = bench_ttft(model, 64, TTFTConfig(samples=2, warmup=1))
    cold = replace(few, samples=9, warmup=0)
    good = replace(few, samples=9, warmup=2)
    with pytest.raises(DataError, match="2 samples after 1 warm-up rounds; a ratio needs"):
        ttft_ratio(few, good)
    with pytest.raises(DataError, match="after 0 warm-up rounds"):
        check_ratio(good, cold)
    assert ttft_ratio(good, good) == 1.0
    with pytest.raises(ConfigError, match="nearest legal sizes are 64 and 128"):
        bench_ttft(model, 70)
    with pytest.raises(ConfigError, match="4 visual and 200 text tokens do not fit the context"):
        bench_ttft(model, config=TTFTConfig(prompt_tokens=200))
    with pytest.raises(ConfigError, match="in training mode"):
        bench_ttft(toy().train())
    with pytest.raises(ConfigError, match="samples: expected at least 1"):
        TTFTConfig(samples=0)


def test_models_are_timed_turn_by_turn():
    pair = bench_many({"a": toy(), "b": toy(64)}, 0, TTFTConfig(samples=1, warmup=0))
    assert [r.name for r in pair] == ["a", "b"]
    assert [r.visual_tokens for r in pair] == [4, 1]


def test_the_formulas_of_a_prompt():
    assert prefill_flop(QWEN2_05B, 100) == 2 * 494_032_768 * 100 + 4 * 24 * 896 * 100**2
    assert kv_bytes(VICUNA_7B, 10) == 2 * 32 * 10 * 32 * 128 * 2
    assert kv_bytes(QWEN2_05B, 0) == 0
    with pytest.raises(ConfigError, match="tokens: expected at least 0"):
        prefill_flop(QWEN2_05B, -1)


def test_towers_race_turn_by_turn():
    towers = {"a": torch.nn.Conv2d(3, 4, 3), "b": torch.nn.Conv2d(3, 4, 3)}
    assert check_equal_size(towers) == {"a": 112, "b": 112}
    config = LatencyConfig(rounds=3, inferences=3, discard=1, trim=0)
    times = race(towers, [8, 16], config)
    assert {n: {s: len(v) for s, v in t.items()} for n, t in times.items()} == {
        "a": {8: 3, 16: 3}, "b": {8: 3, 16: 3}
    }  # fmt: skip
    fixed = {"a": {8: [2.0, 9.0, 4.0]}, "b": {8: [1.0, 3.0, 4.0]}}
    assert factor(fixed, "a", "b", 8) == 2.0
    with pytest.raises(ConfigError, match="may differ by 2%"):
        check_equal_size({**towers, "c": torch.nn.Conv2d(3, 5, 3)})
    with pytest.raises(ConfigError, match="at least one tower"):
        race({}, [8], config)


def test_the_vision_part_as_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    model = toy(64)
    files = export_vision(model, tmp_path)
    assert [f.name for f in files] == ["vision.onnx", "preprocess.json", "export.json"]
    facts = read_json(tmp_path / "preprocess.json")["image"]
    assert facts["resize"] == "pad"
    assert facts["output_shape"] == [-1, 1, 32]
    assert read_json(tmp_path / "export.json")["max_difference"]["vision.onnx"] <= 1e-4
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_bad_input_export(tmp_path):
    with pytest.raises(ModelError, match="float32"):
        export_vision(toy(64).double().eval(), tmp_path)
    with pytest.raises(ConfigError, match="fold"):
        export_vision(toy(64), tmp_path, fold="half")
    with pytest.raises(ModelError, match="training mode"):
        export_vision(toy(64).train(), tmp_path)
