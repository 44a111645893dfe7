"""Streams: what each method begins with, learns from and leaves; killed and resumed alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from continual_world import config_of, make_store, score, states_equal, stream_of

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.files import read_json
from understudy.data.periods_stream import Stream
from understudy.models import io
from understudy.models.runs import load_run
from understudy.train import checkpoint
from understudy.train.steps import ClipStep
from understudy.update.continual import run_stream
from understudy.update.continual_lwf import LwfStep
from understudy.update.continual_methods import METHODS, total_compute
from understudy.update.continual_start import check_architecture, fresh_model, trained_model


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("world") / "s")


@pytest.fixture(scope="module")
def results(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    stream = stream_of(store)
    return {
        name: run_stream(store, stream, config_of(name, memory=1.0), out / name, score)
        for name in METHODS
    }


def test_every_method_goes_through_the_stream(store, results):
    stream = stream_of(store)
    first = {r.steps[0].weights for r in results.values()}
    assert len(first) == 1  # all begin alike: one start, one tokenizer, one order
    for name, result in results.items():
        assert [s.name for s in result.steps] == list(stream.names)
        assert result.compute == pytest.approx(total_compute(name, 3))
        matrix = result.matrix("toy")
        assert matrix.values.shape == (3, 3)
        assert not matrix.missing()
        for step in result.steps:
            assert io.weights_hash(load_run(step.run, "final")) == step.weights
    by_name = {name: [s.iterations for s in r.steps] for name, r in results.items()}
    assert by_name["oracle"] == [3, 6, 9]
    assert by_name["cumulative-all-star"] == [3, 6, 9]
    assert by_name["lwf"] == [3, 3, 3]


def test_what_is_replayed(store, results):
    sizes = dict(zip(stream_of(store).names, stream_of(store).sizes, strict=True))
    for name in ("oracle", "cumulative-all"):
        assert results[name].steps[2].replayed == {k: sizes[k] for k in ("0", "1")}
    for name in ("restart", "sequential", "patching", "lwf"):
        assert results[name].steps[2].replayed == {"0": 0, "1": 0}
    mean = round(sum(sizes.values()) / 3)
    for name in ("cumulative-exp", "cumulative-equal"):
        assert sum(results[name].steps[2].replayed.values()) == mean
    exp = results["cumulative-exp"].steps[2].replayed
    assert exp["1"] > exp["0"]


def test_fresh_starts_and_warm_starts(results):
    def start(method, number):
        return read_json(Path(results[method].steps[number].run) / "start.json")["weights"]

    assert start("restart", 1) == start("oracle", 2) == start("sequential", 0)
    assert start("sequential", 1) == results["sequential"].steps[0].weights
    assert start("cumulative-all", 2) == results["cumulative-all"].steps[1].weights


def test_patching_leaves_patched_weights(results):
    step = results["patching"].steps[1]
    assert step.alpha in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert step.alphas[f"{step.alpha:g}"] == max(step.alphas.values())
    begun = read_json(Path(results["patching"].steps[2].run) / "trained" / "start.json")
    assert begun["weights"] == step.weights  # the next step begins from the patched weights


def test_done_steps_are_not_done_again(store, tmp_path):
    config, stream = config_of(), stream_of(store)
    first = run_stream(store, stream, config, tmp_path, score)

    def fails(model, sets):
        raise AssertionError("scored again")

    again = run_stream(store, stream, config, tmp_path, fails)
    assert again == first
    other = config_of(train={"lr": 1e-2})
    with pytest.raises(ConfigError, match=r"resume: train\.lr is 0\.01 now and was 0\.003 in"):
        run_stream(store, stream, other, tmp_path, score)


def optimiser_steps(run):
    known = checkpoint.steps(run / "checkpoints")
    tensors, _ = checkpoint.read(checkpoint.step_folder(run / "checkpoints", known[-1]))
    return {int(v) for k, v in tensors["optimizer"].items() if k.endswith("/step")}


def test_a_new_run_resets_the_optimiser_and_not_the_logit_scale(store, tmp_path):
    stream = Stream(steps=stream_of(store).steps[:2])
    found = {}
    for new_run in (True, False):
        out = tmp_path / str(new_run)
        config = config_of(new_run=new_run, iterations=4, train={"lr": 1e-2})
        steps = run_stream(store, stream, config, out, score).steps
        assert optimiser_steps(Path(steps[0].run)) == {4}
        found[new_run] = optimiser_steps(Path(steps[1].run))
        begun = trained_model(steps[0].run)
        assert float(begun.logit_scale.detach()) != pytest.approx(np.log(1 / 0.07), abs=1e-6)
        held = read_json(Path(steps[1].run) / "start.json")
        assert held == {"new_run": new_run, "weights": io.weights_hash(begun)}
    assert found == {True: {4}, False: {8}}


def test_changing_new_run_midway_says_what_would_be_reset(store, tmp_path):
    stream = Stream(steps=stream_of(store).steps[:2])
    steps = run_stream(store, stream, config_of(), tmp_path, score).steps
    for step in steps:  # as if the steps had been stopped before their end
        (Path(step.run) / "step.json").unlink()
    with pytest.raises(ConfigError) as caught:
        run_stream(store, stream, config_of(new_run=False), tmp_path, score)
    message = str(caught.value)
    assert "began with new_run=True; with new_run=False" in message
    assert "the optimiser's moments, the gradient scaler and the step counter" in message


def test_an_optimiser_that_was_not_kept(store, tmp_path):
    stream = Stream(steps=stream_of(store).steps[:2])
    config = config_of(new_run=False, train={"checkpoint_every": 0})
    with pytest.raises(ConfigError) as caught:
        run_stream(store, stream, config, tmp_path, score)
    assert "kept no optimiser state" in str(caught.value)
    assert "are reset" in str(caught.value)


def test_rewarming_is_off_unless_asked_for():
    config = config_of(train={"warmup_steps": 2}, iterations=5)
    assert config.train(5, trained=False).warmup_steps == 2
    assert config.train(5, trained=True).warmup_steps == 0
    assert replace(config, rewarm_steps=1).train(5, trained=True).warmup_steps == 1
    assert config.train(5, trained=True).lr == config.train(5, trained=False).lr


def test_a_checkpoint_of_another_architecture(store, tmp_path):
    stream = stream_of(store)
    steps = run_stream(store, Stream(steps=stream.steps[:1]), config_of(), tmp_path, score).steps
    other = config_of(changes={"image.channels": [4, 16]})
    with pytest.raises(ModelError) as caught:
        run_stream(store, stream, other, tmp_path / "x", score, start=steps[0].run)
    message = str(caught.value)
    assert "the first mismatch is 'image.layers.1.conv.conv.weight'" in message
    assert "[8, 4, 3, 3] in the checkpoint, [16, 4, 3, 3] in the model" in message
    deep = config_of(changes={"text.depth": 2})
    model = fresh_model(store, deep.student, stream[0].rows)
    with pytest.raises(ModelError, match=r"'text\.blocks\.1\..*': none in the checkpoint"):
        check_architecture(model, trained_model(steps[0].run).state_dict(), "run")


def test_a_stream_begins_from_a_run(store, tmp_path):
    stream = stream_of(store)
    first = run_stream(store, Stream(steps=stream.steps[:1]), config_of(), tmp_path / "a", score)
    rest = Stream(steps=stream.steps[1:])
    found = run_stream(store, rest, config_of(), tmp_path / "b", score, start=first.steps[0].run)
    begun = read_json(Path(found.steps[0].run) / "start.json")
    assert begun["weights"] == first.steps[0].weights
    whole = run_stream(store, stream, config_of(), tmp_path / "c", score)
    assert whole.steps[2].weights == found.steps[1].weights


def test_learning_without_forgetting_adds_a_divergence(store):
    config, stream = config_of("lwf"), stream_of(store)
    model = fresh_model(store, config.student, stream[0].rows).eval()
    teacher = fresh_model(store, replace(config.student, seed=5), stream[0].rows).eval()
    draw = torch.Generator().manual_seed(0)
    batch = {
        "images": torch.randn(4, 3, 8, 8, generator=draw),
        "texts": model.tokenize(["a scan of one", "two", "a fax: three", "four"]),
        "step": 0,
    }
    base = ClipStep(lam=0.0, captions="real")
    plain = base(model, batch)["loss"]
    own = LwfStep(base=base, teacher=model, weight=3.0)(model, batch)
    assert float(own["lwf"]) == pytest.approx(0.0, abs=1e-7)
    assert float(own["loss"].detach()) == pytest.approx(float(plain.detach()), abs=1e-6)
    other = LwfStep(base=base, teacher=teacher, weight=3.0)(model, batch)
    gap = float((other["loss"] - plain).detach())
    assert gap == pytest.approx(3.0 * float(other["lwf"]), rel=1e-4)
    assert gap > 0


def test_what_is_refused(store, tmp_path):
    stream = stream_of(store)
    with pytest.raises(DataError, match="time step 1, '0': .* rows are fewer than a batch of 64"):
        run_stream(store, stream, config_of(train={"batch_size": 64}), tmp_path, score)
    without = stream_of(store, held_share=0.0)
    with pytest.raises(ConfigError, match="patching: every step needs held rows"):
        run_stream(store, without, config_of("patching"), tmp_path, score)
    with pytest.raises(ConfigError, match="a capacity of 1 samples for 2 old steps is less"):
        run_stream(store, stream, config_of("cumulative-exp", capacity=1), tmp_path, score)
    for wrong, message in (
        ({"tau": 0}, "tau: expected more than 0"),
        ({"alphas": (2.0,)}, r"alphas: expected numbers in \[0, 1\]"),
        ({"rewarm_steps": -1}, "rewarm_steps: expected at least 0"),
        ({"train": {"accumulate": 2}}, "accumulate: continual training takes 1 only"),
    ):
        with pytest.raises(ConfigError, match=message):
            config_of(**wrong)


@pytest.mark.parametrize("method", ["cumulative-exp"])
def test_killed_in_the_middle_of_a_step(store, tmp_path, method):
    script = str(Path(__file__).parent / "kill_continual.py")
    out = tmp_path / "killed"
    argv = [sys.executable, script, store.path, str(out), method]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(argv, env=environment, start_new_session=True)
    try:
        wanted = out / "step-02-1" / "checkpoints" / "step-00000004"
        end = time.monotonic() + 120
        while not wanted.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wanted.exists()
    stream, config = stream_of(store), config_of(method, iterations=12)
    resumed = run_stream(store, stream, config, out, score)
    whole = run_stream(store, stream, config, tmp_path / "whole", score)
    for a, b in zip(resumed.steps, whole.steps, strict=True):
        assert a.weights == b.weights
        assert a.replayed == b.replayed
        assert states_equal(load_run(a.run), load_run(b.run))
