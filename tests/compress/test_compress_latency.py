"""The protocol's arithmetic, what is timed and how, and settings that cannot work."""

import statistics
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy import models
from understudy.compress import compare as comparing
from understudy.compress import latency as lat
from understudy.compress import timing
from understudy.compress.compare import compare
from understudy.compress.timing import LatencyConfig, summarise, time_rounds, trimmed
from understudy.core.errors import ConfigError, ModelError

QUICK = LatencyConfig(rounds=2, inferences=5, trim=1)


def test_defaults_are_the_protocol():
    config = LatencyConfig()
    assert (config.rounds, config.inferences, config.discard, config.trim) == (20, 50, 1, 10)
    assert (config.batch, config.fold, config.dtype) == (1, "all", "float32")
    # 50 inferences: the first gone, ten off each end of 49
    assert trimmed(list(range(50)), 1, 10) == list(range(11, 40))


@settings(max_examples=40, deadline=None)
@given(
    rounds=st.lists(st.lists(st.floats(0.1, 100), min_size=7, max_size=7), min_size=1, max_size=4),
    discard=st.integers(0, 2),
    trim=st.integers(0, 2),
)
def test_summary_equals_a_loop(rounds, discard, trim):
    kept = []
    for latencies in rounds:
        rest = list(latencies[discard:])
        for _ in range(trim):
            rest.remove(min(rest))
            rest.remove(max(rest))
        kept.append(rest)
    found = summarise(rounds, discard, trim)
    assert found["mean"] == pytest.approx(statistics.fmean(statistics.fmean(r) for r in kept))
    assert found["min"] == min(min(r) for r in kept)
    assert found["max"] == max(max(r) for r in kept)
    everything = [x for r in rounds for x in r[discard:]]
    assert found["p50"] == pytest.approx(statistics.median(everything))
    assert found["p50"] <= found["p95"] <= max(everything)


def test_outliers_do_not_count():
    steady = [9.0, *[1.0] * 6, 50.0, 0.01]
    found = summarise([steady, steady], discard=1, trim=1)
    assert (found["mean"], found["min"], found["max"]) == (1.0, 1.0, 1.0)
    assert found["p95"] > 1.0


def scripted(run, device="cpu"):
    """Stands for the clock: a run returns its own latency."""
    return float(run())


def test_every_round_loads_anew_and_discards_its_first(monkeypatch):
    monkeypatch.setattr(timing, "time_once", scripted)
    loads = []

    def load():
        # the first inference of a graph is slow, as warming up is
        loads.append(iter([100.0, 1.0, 2.0, 3.0, 9.0]))
        return lambda graph=loads[-1]: next(graph)

    config = LatencyConfig(rounds=3, inferences=5, trim=1)
    found = time_rounds(load, config)
    assert (len(loads), found) == (3, [[100.0, 1.0, 2.0, 3.0, 9.0]] * 3)
    assert summarise(found, config.discard, config.trim)["mean"] == 2.5


def test_the_clock_is_in_milliseconds():
    assert 4.0 < timing.time_once(lambda: time.sleep(0.004)) < 1000.0


def test_both_towers_of_a_clip():
    model = models.create("mobileclip-nano", seed=0).eval()
    found = lat.measure(model, QUICK)
    assert [(r.tower, r.size) for r in found] == [("image", 48), ("text", 24)]
    for r in found:
        assert r.name == "mobileclip-nano"
        assert 0 < r.min_ms <= r.mean_ms <= r.max_ms
        assert len(r.round_ms) == 2
        assert statistics.fmean(r.round_ms) == pytest.approx(r.mean_ms)
        assert (r.threads, r.dtype, r.fold, r.batch) == (1, "float32", "all", 1)
    assert found[0].parameters == sum(p.numel() for p in model.fold().image.parameters())
    assert not model.is_folded


def test_resolutions_batches_forms_and_layouts():
    model = models.create("mobileclip-nano", seed=0).eval()
    found = lat.measure(model, QUICK, resolutions=[32, 64], towers=["image"])
    assert [r.size for r in found] == [32, 64]
    config = LatencyConfig(rounds=1, inferences=4, trim=1, batch=3, fold="no", channels_last=True)
    unfolded = lat.measure(model, config, towers=["image"], name="mine")[0]
    assert (unfolded.name, unfolded.batch, unfolded.fold) == ("mine", 3, "no")
    assert unfolded.parameters > found[0].parameters
    config = LatencyConfig(rounds=1, inferences=4, trim=1, dtype="bfloat16", fold="branches")
    halves = lat.measure(model, config)
    assert {(r.dtype, r.fold) for r in halves} == {("bfloat16", "branches")}
    assert next(model.parameters()).dtype == torch.float32


def test_what_runs_is_what_was_asked_for(monkeypatch):
    model = models.create("cnn-tiny", seed=0).eval()
    seen = []
    real = torch.nn.Module.__call__

    def spy(self, *args, **kwargs):
        if type(self).__name__ == "ConvTower":
            seen.append((args[0].dtype, args[0].shape, torch.get_num_threads()))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", spy)
    config = LatencyConfig(
        rounds=2, inferences=3, trim=1, discard=0, threads=2, dtype="bfloat16", batch=2
    )
    lat.measure(model, config, resolutions=[40])
    assert set(seen) == {(torch.bfloat16, (2, 3, 40, 40), 2)}
    assert len(seen) == 6
    assert torch.get_num_threads() == 1


def test_comparison_meets_both_in_turn(monkeypatch):
    monkeypatch.setattr(comparing, "time_once", scripted)
    order = []
    # the machine slows down threefold in the second round: no ratio moves
    speed = {0: 1.0, 1: 3.0, 2: 1.0}

    def side(name, latency):
        def run():
            slow = speed[len(order) // 6]
            order.append(name)
            return latency * slow

        return run

    config = LatencyConfig(rounds=3, inferences=3, discard=0, trim=1)
    found = compare(side("a", 2.0), side("b", 6.0), config)
    assert "".join(order) == "aaabbb" + "bbbaaa" + "aaabbb"
    assert (found.low, found.ratio, found.high) == (3.0, 3.0, 3.0)
    assert (found.a_ms, found.b_ms) == (2.0, 6.0)
    assert found.to_dict()["rounds"] == 3


def test_bad_input_settings():
    with pytest.raises(
        ConfigError, match="20 leave nothing after discarding 1 .* give at least 22"
    ):
        LatencyConfig(inferences=20)
    with pytest.raises(ConfigError, match="threads: expected at least 1"):
        LatencyConfig(threads=0)
    with pytest.raises(ConfigError, match="'int8' is not one of float32, bfloat16"):
        LatencyConfig(dtype="int8")
    with pytest.raises(ConfigError, match="'none' is not one of no, branches, all"):
        LatencyConfig(fold="none")
    with pytest.raises(ConfigError, match="float16 is for CUDA"):
        LatencyConfig(dtype="float16")
    with pytest.raises(ConfigError, match="1 round says nothing"):
        compare(int, int, LatencyConfig(rounds=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_bad_input_no_device():
    with pytest.raises(ConfigError, match="no CUDA device; use cpu"):
        LatencyConfig(device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_timed_by_events():
    model = models.create("mobileclip-nano", seed=0).eval()
    config = LatencyConfig(rounds=2, inferences=5, trim=1, device="cuda", dtype="float16")
    assert all(r.mean_ms > 0 for r in lat.measure(model, config))


def test_bad_input_models():
    model = models.create("mci-nano", seed=0)
    with pytest.raises(ModelError, match="training mode"):
        lat.measure(model, QUICK)
    model.eval()
    with pytest.raises(ConfigError, match="tower: 'text' is not one of image"):
        lat.measure(model, QUICK, towers=["text"])
    with pytest.raises(ConfigError, match="folded 'branches', 'all' is asked for"):
        lat.measure(model.fold("branches"), QUICK)
    with pytest.raises(ConfigError, match=r"resolutions must be positive, got \[0\]"):
        lat.measure(model, QUICK, resolutions=[0])
