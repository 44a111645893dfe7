"""The loop: it learns, resumes with equal bytes, stops in order and names what went wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from train_toy import STEPS, Batches, Toy, config, evaluate, objective, run

from understudy import models
from understudy.core.errors import ConfigError, DataError, UnderstudyError
from understudy.core.files import read_json
from understudy.train import checkpoint
from understudy.train.classifier_steps import ClassifierStep
from understudy.train.config import TrainConfig
from understudy.train.logs import read_metrics
from understudy.train.loop import fit

FILES = ("model.safetensors", "model-ema.safetensors", "model-best.safetensors")
SCRIPT = str(Path(__file__).with_name("train_toy.py"))


def content(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("unbroken")
    run(out)
    return out


def test_a_run_learns_and_leaves_its_files(unbroken):
    lines = read_metrics(unbroken)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert [line["step"] for line in lines if "eval/top1" in line] == [8, 16, 24]
    assert {"loss", "grad_norm", "lr"} <= set(lines[0])
    record = read_json(unbroken / "record.json")
    assert record["steps"] == STEPS
    assert set(record["seconds"]) == {"data", "step", "evaluate", "checkpoint"}
    assert record["metrics"]["top1"] > 0.4
    assert "ema_top1" in record["metrics"]
    assert "train/loss" in record["metrics"]
    assert read_json(unbroken / "config.json")["data"] == {"size": 16}
    assert checkpoint.steps(unbroken / "checkpoints") == [20, 24]


def test_two_runs_are_equal_whatever_happened_to_the_global_generator(unbroken, tmp_path):
    torch.manual_seed(12345)
    torch.rand(7)
    run(tmp_path)
    assert content(tmp_path) == content(unbroken)


@pytest.mark.parametrize("stop", [1, 7, 23])
def test_resumed_run_has_equal_bytes_and_an_equal_log(unbroken, tmp_path, stop):
    class Dies(Batches):
        def __call__(self, start, count):
            for i, batch in enumerate(super().__call__(start, count)):
                if start + i == 2 * stop:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Dies(), checkpoint_every=2)
    batches = Batches()
    result = run(tmp_path, batches, checkpoint_every=2)
    resumed = stop // 2 * 2
    assert batches.calls == [(2 * resumed, 2 * (STEPS - resumed))]
    assert content(tmp_path) == content(unbroken)
    assert read_metrics(tmp_path) == read_metrics(unbroken)
    assert result.finished


def test_finished_run_returns_at_once(unbroken, tmp_path):
    run(tmp_path)
    batches = Batches()
    again = run(tmp_path, batches)
    assert batches.calls == []
    assert again.metrics == read_json(tmp_path / "record.json")["metrics"]
    fresh = run(tmp_path, batches, resume=False)
    assert batches.calls == [(0, 2 * STEPS)]
    assert fresh.steps == STEPS
    assert content(tmp_path) == content(unbroken)


def test_time_limit_stops_with_a_checkpoint_and_goes_on(unbroken, tmp_path):
    first = run(tmp_path, Batches(delay_s=0.02), seconds_limit_s=0.1)
    assert not first.finished
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == first.steps < STEPS
    assert run(tmp_path).finished
    assert content(tmp_path) == content(unbroken)


def test_a_run_that_is_stopped_is_done(tmp_path):
    stopped = run(tmp_path, stop=lambda step: step >= 10)
    assert stopped.finished
    assert stopped.steps == 10
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 10
    record = read_json(tmp_path / "record.json")
    assert (record["steps"], record["metrics"]) == (10, stopped.metrics)
    assert (tmp_path / "model-ema.safetensors").is_file()
    lines = read_metrics(tmp_path)  # the 10th step is logged and scored, though no interval ends
    assert [line["step"] for line in lines] == [4, 8, 8, 10, 10]
    assert lines[-1]["eval/top1"] == stopped.metrics["top1"]
    batches = Batches()
    again = run(tmp_path, batches)
    assert batches.calls == []
    assert (again.steps, again.metrics) == (10, stopped.metrics)


def test_a_stopped_run_that_was_killed_before_its_end_is_equal(tmp_path):
    run(tmp_path / "a", stop=lambda step: step >= 10)
    run(tmp_path / "b", stop=lambda step: step >= 10)
    for name in ("record.json", "model.safetensors", "model-ema.safetensors"):
        (tmp_path / "b" / name).unlink()
    run(tmp_path / "b", stop=lambda step: step >= 10)
    assert content(tmp_path / "b") == content(tmp_path / "a")
    assert read_metrics(tmp_path / "b") == read_metrics(tmp_path / "a")


def start(out: Path, delay: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, SCRIPT, str(out), str(delay)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_checkpoint(out: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while not checkpoint.steps(out / "checkpoints"):
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_kill_9_and_resume_give_equal_bytes(unbroken, tmp_path):
    process = start(tmp_path, 0.05)
    wait_for_checkpoint(tmp_path, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "model.safetensors").exists()
    done = start(tmp_path, 0.0)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err[-2000:]
    assert out.strip() == "finished"
    assert content(tmp_path) == content(unbroken)
    assert read_metrics(tmp_path) == read_metrics(unbroken)


def test_sigterm_saves_and_exits_143(unbroken, tmp_path):
    process = start(tmp_path, 0.05)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert run(tmp_path).finished
    assert content(tmp_path) == content(unbroken)


def test_a_loss_that_is_not_finite_names_step_and_rows_and_saves_the_state(tmp_path):
    with pytest.raises(UnderstudyError) as caught:
        run(tmp_path, Batches(poison=13))  # second micro-batch of step 6
    message = str(caught.value)
    assert message.startswith("step 6: the loss is nan. Rows of its batch: 192, 193,")
    assert "lower the learning rate" in message
    folder = tmp_path / "failed-step-00000006"
    tensors, state = checkpoint.read(folder)
    assert state["rows"] == list(range(192, 224))
    assert all(torch.isfinite(t).all() for t in tensors["optimizer"].values())
    assert checkpoint.steps(tmp_path / "checkpoints") == [5]


def test_another_run_in_the_same_folder_is_refused(unbroken, tmp_path):
    run(tmp_path, seconds_limit_s=1e-6)
    with pytest.raises(ConfigError, match=r"resume: config.lr is 0.02 now and was 0.01 in .*step-"):
        run(tmp_path, lr=0.02)
    with pytest.raises(ConfigError, match=r"resume: data.size is 8 now and was 16"):
        run(tmp_path, Batches(size=8))
    run(tmp_path, log_every=3)  # where and how often may change
    with pytest.raises(ConfigError, match=r"resume: config.seed is 1 now and was 0"):
        run(tmp_path, seed=1)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(tmp_path, seconds_limit_s=1e-6)
    other = Toy()
    other.extra = nn.Linear(2, 2)
    with pytest.raises(DataError, match=r"of another model; it differs in 'extra.bias'"):
        run(tmp_path, model=other)


def test_a_loader_that_ends_early_is_named(tmp_path):
    class Short(Batches):
        def __call__(self, start, count):
            return super().__call__(start, 5)

    with pytest.raises(DataError, match="step 2: the loader ended early"):
        run(tmp_path, Short())


def test_accumulation_equals_the_large_batch_where_losses_are_means(tmp_path):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(192, 4)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

        def forward(self, images):
            return {"logits": self.head(images.flatten(1))}

    class Joined(Batches):
        def batch(self, number):
            a, b = (Batches.batch(self, 2 * number + i) for i in range(2))
            return {k: torch.cat([a[k], b[k]]) for k in a}

    many, one = Plain(), Plain()
    options = {"ema_decay": None, "best": None, "steps": 6, "checkpoint_every": 0}
    run(tmp_path / "a", Batches(), many, accumulate=2, **options)
    run(tmp_path / "b", Joined(), one, accumulate=1, **options)
    torch.testing.assert_close(many.head.weight, one.head.weight, rtol=1e-5, atol=1e-6)


def test_frozen_parts_do_not_learn_are_not_stored_and_stay_in_eval_mode(tmp_path):
    model = Toy()
    model.body.requires_grad_(False)
    seen = []

    def watching(net, batch):
        seen.append((net.training, net.body[1].training, net.head.training))
        return objective(net, batch)

    before = {k: v.clone() for k, v in model.body.state_dict().items()}
    fit(model, watching, Batches(), config(steps=6, best=None), tmp_path, evaluate=evaluate)
    assert set(seen) == {(True, False, True)}
    for key, value in model.body.state_dict().items():
        assert torch.equal(value, before[key])
    tensors, state = checkpoint.read(checkpoint.step_folder(tmp_path / "checkpoints", 6))
    assert "body.0.weight" not in tensors["model"]
    assert "body.0.weight" not in tensors["ema"]
    assert {k.split("/")[0] for k in tensors["optimizer"]} == {"head.weight", "head.bias"}
    assert state["run"]["frozen"]
    other = Toy(seed=1)
    other.body.requires_grad_(False)
    (tmp_path / "record.json").unlink()
    with pytest.raises(ConfigError, match="resume: frozen is"):
        fit(other, objective, Batches(), config(steps=6, best=None), tmp_path, evaluate=evaluate)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_and_resumes(tmp_path, precision):
    result = run(tmp_path / "a", precision=precision)
    assert result.metrics["train/loss"] < 1.4
    run(tmp_path / "b", precision=precision, seconds_limit_s=1e-6)
    run(tmp_path / "b", precision=precision)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_sgd_with_every_schedule_runs(tmp_path):
    for schedule in ("constant", "wsd", "constant-cosine", "linear"):
        result = run(
            tmp_path / schedule, steps=5, optimizer="sgd", nesterov=True, schedule=schedule, lr=0.05
        )
        assert result.steps == 5


def test_best_needs_a_metric_that_is_evaluated(tmp_path):
    with pytest.raises(ConfigError, match="evaluation returned top1, ema_top1, not 'top5'"):
        run(tmp_path, best="top5")


def test_models_of_the_package_bring_their_configuration(tmp_path):
    model = models.create("cnn-tiny", num_classes=4, seed=0)
    train = TrainConfig(steps=3, ema_decay=0.5, device="cpu")
    fit(model, ClassifierStep(smoothing=0.1), Batches(), train, tmp_path, context={"arm": "erm"})
    loaded = models.load(tmp_path / "model-ema.safetensors")
    assert loaded.config.num_classes == 4
    facts = models.config_of(tmp_path / "model.safetensors")["extra"]
    assert facts["context"] == {"arm": "erm"}
    assert facts["steps"] == 3


def test_tensorboard_is_asked_for_by_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UnderstudyError, match=r"TensorBoard logging needs .*understudy\[logs\]"):
        run(tmp_path, tensorboard=True)


def test_tensorboard_events_hold_what_the_log_holds(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TENSORBOARD IS NOT TESTED: install understudy[logs]",
    )
    run(tmp_path, tensorboard=True, steps=8)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("loss", "eval/top1"):
        written = {line["step"]: line[name] for line in read_metrics(tmp_path) if name in line}
        assert written
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx(written, rel=1e-6)


def test_log_lines_are_json_without_hidden_state(unbroken):
    for line in (unbroken / "metrics.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line)["step"], int)
