"""Configuration, schedules, optimisers, averages, logs and guards, one by one."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from understudy.core.config import from_dict
from understudy.core.errors import ConfigError, DataError
from understudy.train import checkpoint
from understudy.train.config import SCHEDULES, TrainConfig
from understudy.train.ema import Ema
from understudy.train.guard import FiniteGuard, StopRequest, shown
from understudy.train.logs import RunLog, Window, read_metrics
from understudy.train.optim import (
    clip_gradients,
    decays,
    keep_below,
    load_state_tensors,
    logit_scales,
    make_optimizer,
    state_tensors,
    trainable,
)
from understudy.train.schedule import learning_rate

BAD = [
    ({"steps": 0}, r"steps: expected at least 1, got 0"),
    (
        {"optimizer": "adams"},
        r"optimizer: 'adams' is not one of adamw, adam, sgd. Did you mean 'adam'",
    ),
    ({"schedule": "cosin"}, r"Did you mean 'cosine'"),
    ({"precision": "int8"}, r"precision: 'int8' is not one of fp32, bf16, fp16"),
    ({"lr": 0.0}, r"lr: expected more than 0"),
    ({"min_lr": 1.0}, r"min_lr: 1.0 is above the peak learning rate"),
    ({"warmup_steps": 10}, r"warmup_steps: 10 of 10 steps"),
    ({"decay_start": 12}, r"decay_start: 12 of 10 steps"),
    ({"clip_norm": 0.0}, r"clip_norm: expected more than 0"),
    ({"ema_decay": 1.0}, r"ema_decay: expected a number between 0 and 1"),
    ({"betas": (0.9, 1.0)}, r"betas: expected values in \[0, 1\)"),
    ({"accumulate": 0}, r"accumulate: expected at least 1"),
    ({"nesterov": True, "momentum": 0.0}, r"nesterov: needs a momentum"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**{"steps": 10, **change})


def test_unknown_keys_are_named():
    with pytest.raises(
        ConfigError, match=r"unknown key 'warmup_step'.*Did you mean 'warmup_steps'"
    ):
        from_dict(TrainConfig, {"steps": 1, "warmup_step": 3})


def test_samples_seen_and_identity():
    config = TrainConfig(steps=200_000, batch_size=65_536)
    assert config.samples_seen == 13_107_200_000
    other = TrainConfig(steps=200_000, batch_size=65_536, log_every=7, device="cpu")
    assert config.identity() == other.identity()
    assert TrainConfig(steps=1, lr=0.1).identity() != TrainConfig(steps=1, lr=0.2).identity()


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(2, 60),
    warmup=st.integers(0, 20),
    schedule=st.sampled_from(SCHEDULES),
)
def test_schedules_grow_then_never_rise(steps, warmup, schedule):
    warmup = min(warmup, steps - 1)
    config = TrainConfig(steps=steps, lr=2.0, min_lr=0.5, warmup_steps=warmup, schedule=schedule)
    rates = [learning_rate(s, config) for s in range(steps)]
    assert max(rates) == pytest.approx(2.0)
    if warmup:
        assert rates[warmup - 1] == 2.0
        assert all(b > a for a, b in itertools.pairwise(rates[:warmup]))
    after = rates[warmup:]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(after))
    assert min(after) >= 0.5 - 1e-12
    if schedule != "constant":
        assert learning_rate(steps, config) == pytest.approx(0.5)


def test_schedule_shapes_at_known_points():
    cosine = TrainConfig(steps=110, lr=1.0, warmup_steps=10)
    assert learning_rate(60, cosine) == pytest.approx(0.5)
    assert learning_rate(35, cosine) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    both = TrainConfig(steps=600, lr=1.0, schedule="constant-cosine", decay_start=300)
    assert [learning_rate(s, both) for s in (0, 299, 450)] == pytest.approx([1.0, 1.0, 0.5])
    wsd = TrainConfig(steps=100, lr=1.0, schedule="wsd")
    assert [learning_rate(s, wsd) for s in (79, 90)] == pytest.approx([1.0, 0.5])
    assert learning_rate(99, TrainConfig(steps=100, lr=1.0, schedule="constant")) == 1.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
        self.layer_scale = nn.Parameter(torch.ones(4, 1, 1))
        self.positional_embedding = nn.Parameter(torch.zeros(5, 4))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))


def test_only_matrices_and_kernels_decay():
    decayed = {n for n, p in trainable(Net()).items() if decays(n, p)}
    assert decayed == {"conv.weight", "head.weight"}
    config = TrainConfig(steps=1, weight_decay=0.1)
    groups = make_optimizer(trainable(Net()), config).param_groups
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert [len(g["params"]) for g in groups] == [2, 7]
    one = make_optimizer(trainable(Net()), TrainConfig(steps=1, weight_decay=0.1, decay_all=True))
    assert len(one.param_groups) == 1


def test_frozen_parameters_are_left_out_and_all_frozen_is_refused():
    net = Net()
    net.conv.requires_grad_(False)
    assert "conv.weight" not in trainable(net)
    with pytest.raises(ConfigError, match="every parameter of the model is frozen"):
        trainable(net.requires_grad_(False))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimizer_state_round_trips(name):
    def train(net, optimizer, steps):
        for step in range(steps):
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()

    torch.manual_seed(0)
    config = TrainConfig(steps=1, optimizer=name, lr=0.05, weight_decay=0.1)
    a = nn.Linear(3, 2)
    first = make_optimizer(trainable(a), config)
    train(a, first, 3)
    b = nn.Linear(3, 2)
    b.load_state_dict(a.state_dict())
    second = make_optimizer(trainable(b), config)
    state = {k: v.clone() for k, v in state_tensors(first, trainable(a)).items()}
    load_state_tensors(second, trainable(b), state)
    train(a, first, 2)
    train(b, second, 2)
    assert torch.equal(a.weight, b.weight)
    assert torch.equal(a.bias, b.bias)
    with pytest.raises(DataError, match="no trainable parameter 'other'"):
        load_state_tensors(second, trainable(b), {"other/step": torch.tensor(1.0)})


def test_logit_scales_are_kept_below_their_limit():
    net = Net()
    with torch.no_grad():
        net.logit_scale.fill_(9.0)
    keep_below(logit_scales(net), math.log(100) - 1e-6)
    scale = net.logit_scale.exp()
    assert 99.99 < float(scale.detach()) <= 100.0
    clamped = scale.clamp(max=100.0)
    clamped.backward()
    assert float(net.logit_scale.grad) > 90  # the gradient still passes


def test_clipping_bounds_the_norm():
    p = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2))]
    p[0].grad, p[1].grad = torch.full((3,), 3.0), torch.full((2,), 4.0)
    norm = clip_gradients(p, 1.0)
    assert float(norm) == pytest.approx(math.sqrt(27 + 32))
    after = torch.cat([q.grad for q in p]).norm()
    assert float(after) == pytest.approx(1.0, rel=1e-4)


def test_average_is_the_written_recursion_and_swaps_back():
    net = nn.BatchNorm1d(2)
    ema = Ema(net, 0.9)
    expected = net.weight.detach().clone()
    for step in range(4):
        with torch.no_grad():
            net.weight.add_(1.0)
            net.num_batches_tracked.add_(1)
        ema.update(step)
        expected = 0.9 * expected + 0.1 * net.weight.detach()
    torch.testing.assert_close(ema.tensors["weight"], expected)
    assert int(ema.tensors["num_batches_tracked"]) == 4
    raw = net.weight.detach().clone()
    with ema.swapped():
        torch.testing.assert_close(net.weight.detach(), expected)
    assert torch.equal(net.weight.detach(), raw)
    torch.testing.assert_close(ema.tensors["weight"], expected)
    warm = Ema(net, 0.999, warmup=True)
    with torch.no_grad():
        net.weight.add_(1.0)
    before = warm.tensors["weight"].clone()
    warm.update(0)
    torch.testing.assert_close(warm.tensors["weight"], before + 0.9)


def test_window_means_and_state():
    window = Window()
    window.add({"loss": torch.tensor(1.0), "odd": torch.tensor(5.0)})
    window.add({"loss": torch.tensor(2.0)})
    copy = Window()
    copy.load(json.loads(json.dumps(window.state())), torch.device("cpu"))
    for each in (window, copy):
        each.add({"loss": torch.tensor(6.0)})
        assert each.read() == {"loss": 3.0, "odd": 5.0}
        assert each.read() == {}


def test_log_drops_lines_that_a_resumed_run_writes_again(tmp_path):
    log = RunLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, {"loss": float(step)})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    again = RunLog(tmp_path, 2)
    again.write(3, {"top1": 0.5}, "eval/")
    again.close()
    lines = read_metrics(tmp_path)
    assert lines == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "eval/top1": 0.5},
    ]


def test_guard_remembers_the_first_bad_step_and_its_rows():
    guard = FiniteGuard(torch.device("cpu"))
    guard.immediate = False  # as on an accelerator
    for step, loss in enumerate((1.0, float("nan"), 1.0, float("inf"))):
        assert guard.see(step, torch.tensor(loss), {"rows": torch.tensor([step, 10 + step])})
    assert guard.bad_step() == 1
    assert guard.rows(1) == [1, 11]
    assert shown(list(range(10))) == " Rows of its batch: 0, 1, 2, 3, 4, 5, 6, 7 and 2 more."
    assert shown([]) == ""
    assert FiniteGuard(torch.device("cpu")).bad_step() is None


def test_stop_request_catches_sigterm_and_restores_the_handler():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.wanted
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wanted
    assert signal.getsignal(signal.SIGTERM) == before
    with StopRequest(1e-9) as stop:
        assert stop.wanted
        assert not stop.terminated


def test_checkpoints_are_whole_pruned_and_checked(tmp_path):
    for step in (5, 10, 15):
        folder = checkpoint.step_folder(tmp_path, step)
        checkpoint.write(folder, {"model": {"w": torch.full((3,), float(step))}}, {"step": step})
    (tmp_path / ".step-00000020.1.tmp").mkdir()
    checkpoint.prune(tmp_path, keep=2)
    assert checkpoint.steps(tmp_path) == [10, 15]
    assert not list(tmp_path.glob(".*"))
    tensors, state = checkpoint.read(checkpoint.step_folder(tmp_path, 15))
    assert state["step"] == 15
    assert tensors["model"]["w"].tolist() == [15.0] * 3
    path = checkpoint.step_folder(tmp_path, 15) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"missing or damaged .* delete .*step-00000015"):
        checkpoint.read(path.parent)
    checkpoint.prune(tmp_path, keep=0)
    assert checkpoint.steps(tmp_path) == []


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        checkpoint.write(tmp_path / "step-00000001", {"model": {}}, {"step": object()})
    assert list(tmp_path.iterdir()) == []
