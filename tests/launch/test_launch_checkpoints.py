"""Saved state: whole or absent, damaged folders passed over, and scripts that go on bit for bit."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from contract import until

from understudy.core import checkpoints as saved
from understudy.core.errors import ConfigError, DataError
from understudy.launch.checkpoints import Checkpointer
from understudy.train import checkpoint as train_checkpoint

SCRIPT = """
import random, sys, time
import torch
from torch import nn
from understudy.launch.checkpoints import Checkpointer

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters())
steps, pause = int(sys.argv[1]), float(sys.argv[2])
keeper = Checkpointer(sys.argv[3], every_s=0.01)
state = {"model": model, "optimizer": optimizer, "seen": {"draws": []}}
for step in range(keeper.restore(state), steps):
    state["seen"]["draws"].append(random.randrange(1000))
    loss = model(torch.randn(16, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(pause)
    keeper.after(step + 1, state)
keeper.save(steps, state)
"""


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def save(root: Path, step: int, text: str = "x") -> Path:
    folder = saved.step_folder(root, step)
    with saved.saving(folder, {"step": step}) as temporary:
        (temporary / "a").write_text(text * 100)
        (temporary / "deep").mkdir()
        (temporary / "deep" / "b").write_text(text)
    return folder


def test_the_newest_whole_folder_is_taken(tmp_path):
    assert saved.newest(tmp_path) is None
    for step in (1, 2, 3):
        save(tmp_path, step, str(step))
    assert (tmp_path / "LATEST").read_text() == "step-00000003\n"
    assert saved.newest(tmp_path) == 3
    flip(saved.step_folder(tmp_path, 3) / "deep" / "b")
    assert "its content is not what was written" in saved.problem(saved.step_folder(tmp_path, 3))
    assert saved.newest(tmp_path) == 2
    (saved.step_folder(tmp_path, 2) / "a").unlink()
    assert saved.newest(tmp_path) == 1
    (saved.step_folder(tmp_path, 1) / "manifest.json").write_text("{")
    assert saved.newest(tmp_path) is None


def test_every_flipped_byte_is_found(tmp_path):
    folder = save(tmp_path, 1)
    draw = random.Random(0)
    for name in ("a", "deep/b", "manifest.json"):
        original = (folder / name).read_bytes()
        for _ in range(20):
            data = bytearray(original)
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            (folder / name).write_bytes(data)
            # a byte of the manifest's own facts (its step, say) is no file's content
            assert saved.problem(folder) or name == "manifest.json"
        (folder / name).write_bytes(original)
    assert saved.problem(folder) == ""


def test_what_was_not_finished_is_not_there(tmp_path):
    def fail():
        with saved.saving(tmp_path / "step-00000001") as temporary:
            (temporary / "a").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".step-00000009.77.tmp").mkdir()
    for step in range(1, 8):
        save(tmp_path, step)
    saved.prune(tmp_path, keep=2, keep_every=3)
    assert saved.steps(tmp_path) == [3, 6, 7]
    assert not list(tmp_path.glob(".*"))


def weights(root: Path) -> str:
    folder = saved.step_folder(root, saved.newest(root))
    state = torch.load(folder / "model.pt", weights_only=True)
    h = hashlib.sha256()
    for name in sorted(state):
        h.update(state[name].numpy().tobytes())
    return h.hexdigest() + (folder / "plain.json").read_text()


def start(path: Path, steps: int, pause: float, root: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, path, str(steps), str(pause), str(root)])


def test_a_script_that_was_killed_ends_with_the_same_bytes(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    assert start(script, 30, 0, tmp_path / "whole").wait(60) == 0
    broken = tmp_path / "broken"
    process = start(script, 30, 0.1, broken)
    until(lambda: len(saved.steps(broken)) >= 2, "two checkpoints")
    process.kill()
    process.wait()
    assert saved.newest(broken) < 30
    newest = saved.newest(broken)
    flip(saved.step_folder(broken, newest) / "model.pt")  # and one byte of the last one is wrong
    assert start(script, 30, 0, broken).wait(60) == 0
    assert weights(broken) == weights(tmp_path / "whole")


def test_a_signal_asks_for_a_checkpoint_and_the_script_goes_on(tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGUSR2)]
    try:
        keeper = Checkpointer(tmp_path, every_s=1e6)
        state = {"cursor": {"index": 1}}
        assert not keeper.after(1, state)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert keeper.after(2, state)
        assert not keeper.after(3, state)
        assert saved.steps(tmp_path) == [2]
    finally:
        for number, handler in zip((signal.SIGUSR1, signal.SIGUSR2), before, strict=True):
            signal.signal(number, handler)


def test_the_pause_follows_youngs_rule(tmp_path, monkeypatch):
    keeper = Checkpointer(tmp_path, between_failures_s=5000.0)
    assert keeper.interval_s == 600
    keeper.save_s = 4.0
    assert keeper.interval_s == 200  # sqrt(2 x 4 x 5000)
    monkeypatch.setenv("UNDERSTUDY_CKPT_EVERY_S", "33")
    assert Checkpointer(tmp_path).interval_s == 33
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 40)
    keeper._every_s = 33
    assert keeper.due()


def test_random_states_come_back(tmp_path):
    import numpy as np

    def draw():
        return random.random(), np.random.standard_normal(), torch.rand(1).item()  # noqa: NPY002

    keeper = Checkpointer(tmp_path)
    draw()
    keeper.save(1, {"x": {}})
    first = draw()
    assert draw() != first
    keeper.restore({"x": {}})
    assert draw() == first


def test_what_cannot_be_kept_or_is_of_another_state(tmp_path, monkeypatch):
    monkeypatch.delenv("UNDERSTUDY_CKPT_DIR", raising=False)
    with pytest.raises(ConfigError, match="give root, or run as a job"):
        Checkpointer()
    keeper = Checkpointer(tmp_path)
    with pytest.raises(ConfigError, match="'n' is a int; expected an object with state_dict"):
        keeper.save(1, {"n": 3})
    with pytest.raises(ConfigError, match="holds more than plain data"):
        keeper.save(1, {"n": {"a": object()}})
    assert saved.steps(tmp_path) == []
    keeper.save(1, {"n": {"a": 1}})
    with pytest.raises(DataError, match="of another state; it differs in 'm'"):
        keeper.restore({"n": {}, "m": {}})
    other = Checkpointer(tmp_path / "other", writes=False)
    other.save(1, {"n": {}})
    assert other.restore({"n": {}}) == 0
    flip(tmp_path / "step-00000001" / "plain.json")
    with pytest.raises(DataError, match="no checkpoint is whole"):
        keeper.restore({"n": {}})


def test_the_loops_checkpoints_keep_the_contract(tmp_path):
    for step in (1, 2):
        folder = saved.step_folder(tmp_path, step)
        tensors = {"model": {"w": torch.full((64,), float(step))}}
        train_checkpoint.write(folder, tensors, {"step": step})
    assert (tmp_path / "LATEST").read_text() == "step-00000002\n"
    assert train_checkpoint.newest(tmp_path) == 2
    flip(tmp_path / "step-00000002" / "model.safetensors")
    assert train_checkpoint.newest(tmp_path) == 1
    # runs of versions before manifests go on
    (tmp_path / "step-00000001" / "manifest.json").unlink()
    assert train_checkpoint.newest(tmp_path) == 1
    (tmp_path / "step-00000001" / "state.json").unlink()
    with pytest.raises(DataError, match="no checkpoint is whole .* delete them to start over"):
        train_checkpoint.newest(tmp_path)
