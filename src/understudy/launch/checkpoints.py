"""Make a plain training script go on where it was stopped.

    keeper = Checkpointer()                                     # the folder that the job was given
    state = {"model": model, "optimizer": optimizer, "cursor": {"index": 0}}
    for step in range(keeper.restore(state), steps):
        ...
        keeper.after(step + 1, state)

Values of the state are objects with `state_dict` and `load_state_dict`, or dictionaries of plain
data that are changed in place (epoch, index and seed of the permutation; the best metric). Random
states of Python, NumPy and torch go along. The format is that of `understudy.core.checkpoints`,
which the training loop uses too.

A signal (USR1) asks for a checkpoint at the next step; the script goes on running until TERM. A job
that ends inside its handler has, for some engines, failed and is not queued again.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from understudy.core.checkpoints import newest, problem, prune, saving, step_folder, steps
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json, write_json
from understudy.launch.cost import best_interval_s

PLAIN, RANDOM = "plain.json", "random.json"


class Checkpointer:
    """Saves and restores the state of a job.

    Args:
        root: folder of the checkpoints; `$UNDERSTUDY_CKPT_DIR` by default.
        every_s: pause between checkpoints; by default what the job's spec says, else Young's rule
            with the measured time of the last save, else 600 s.
        between_failures_s: mean time between failures, for Young's rule.
        keep: newest checkpoints that stay; what the spec says by default, else 3.
        keep_every: steps divisible by this stay too.
        writes: whether this process saves; by default rank 0 does. All restore.

    Raises:
        ConfigError: no folder is given, in no way.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        every_s: float | None = None,
        between_failures_s: float | None = None,
        keep: int | None = None,
        keep_every: int = 0,
        writes: bool | None = None,
    ) -> None:
        given = root or os.environ.get("UNDERSTUDY_CKPT_DIR")
        if not given:
            raise ConfigError("Checkpointer: give root, or run as a job, which has one.")
        self.root = Path(given)
        told = os.environ.get("UNDERSTUDY_CKPT_EVERY_S")
        self._every_s = every_s if every_s is not None else (float(told) if told else None)
        self._between_s = between_failures_s
        self._keep = keep or int(os.environ.get("UNDERSTUDY_CKPT_KEEP", "3"))
        self._keep_every = keep_every
        self.writes = os.environ.get("RANK", "0") == "0" if writes is None else writes
        self.save_s = 0.0
        self.seconds = 0.0
        self._asked = False
        self._saved_at = self._counted_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked = True

    @property
    def interval_s(self) -> float:
        """The pause between checkpoints, in seconds."""
        if self._every_s is not None:
            return self._every_s
        return best_interval_s(self.save_s, self._between_s)

    def due(self) -> bool:
        """Say whether it is time to save, or a signal asked for it.

        Young's rule needs the time of a save: where it is to be used, the first step is saved.
        """
        by_rule = self._every_s is None and self._between_s is not None
        if self._asked or (by_rule and self.writes and not self.save_s):
            return True
        return time.monotonic() - self._saved_at >= self.interval_s

    def after(self, step: int, state: Mapping[str, Any]) -> bool:
        """Save after a step if it is time; return whether it was.

        Args:
            step: steps that are done.
            state: see the module.
        """
        if not self.due():
            return False
        self.save(step, state)
        return True

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Save now; whole or not at all.

        Raises:
            ConfigError: a value of the state is neither a stateful object nor plain data.
        """
        folder = step_folder(self.root, step)
        begun = time.monotonic()
        self.seconds += begun - self._counted_at
        if self.writes:
            self.root.mkdir(parents=True, exist_ok=True)
            facts = {"step": step, "seconds": round(self.seconds, 3)}
            with saving(folder, facts) as temporary:
                _write(temporary, state)
            prune(self.root, self._keep, self._keep_every)
        self._asked = False
        self._saved_at = self._counted_at = time.monotonic()
        self.save_s = self._saved_at - begun
        return folder

    def restore(self, state: Mapping[str, Any]) -> int:
        """Put the newest whole checkpoint into `state`; return its step, 0 if there is none.

        Raises:
            DataError: there are checkpoints and none is whole, or it is of another state.
        """
        step = newest(self.root)
        if step is None:
            known = steps(self.root)
            if known:
                wrong = problem(step_folder(self.root, known[-1]))
                raise DataError(f"{self.root}: no checkpoint is whole ({wrong}).")
            return 0
        folder = step_folder(self.root, step)
        self.seconds = float(read_json(folder / "manifest.json")["seconds"])
        _read(folder, state)
        self._saved_at = self._counted_at = time.monotonic()
        return step


def _stateful(value: Any) -> bool:
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def _write(folder: Path, state: Mapping[str, Any]) -> None:
    plain: dict[str, Any] = {}
    for name, value in state.items():
        if _stateful(value):
            import torch

            torch.save(value.state_dict(), folder / f"{name}.pt")
        elif isinstance(value, Mapping):
            plain[name] = dict(value)
        else:
            raise ConfigError(
                f"checkpoint: '{name}' is a {type(value).__name__}; expected an object with "
                "state_dict and load_state_dict, or a dictionary of plain data."
            )
    try:
        write_json(folder / PLAIN, plain)
    except TypeError as error:
        raise ConfigError(
            f"checkpoint: a dictionary holds more than plain data ({error})."
        ) from None
    write_json(folder / RANDOM, random_states())


def _read(folder: Path, state: Mapping[str, Any]) -> None:
    plain = read_json(folder / PLAIN)
    names = {path.stem for path in folder.glob("*.pt")} | set(plain)
    if names != set(state):
        odd = sorted(names ^ set(state))[0]
        raise DataError(f"{folder}: of another state; it differs in '{odd}'.")
    for name, value in state.items():
        if _stateful(value):
            import torch

            value.load_state_dict(
                torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
            )
        elif isinstance(value, MutableMapping):
            value.clear()
            value.update(plain[name])
    set_random_states(read_json(folder / RANDOM))


def random_states() -> dict[str, Any]:
    """Return the random states of Python, and of NumPy and torch where they are loaded."""
    version, numbers, gauss = random.getstate()
    states: dict[str, Any] = {"python": [version, list(numbers), gauss]}
    if "numpy" in sys.modules:
        kind, keys, *rest = sys.modules["numpy"].random.get_state()
        states["numpy"] = [kind, [int(k) for k in keys], *rest]
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        states["torch"] = bytes(torch.get_rng_state().tolist()).hex()
        if torch.cuda.is_available():
            states["cuda"] = [bytes(s.tolist()).hex() for s in torch.cuda.get_rng_state_all()]
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Go back to random states; those of libraries that are not loaded are passed over."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "numpy" in states and "numpy" in sys.modules:
        sys.modules["numpy"].random.set_state(tuple(states["numpy"]))
    if "torch" in states and "torch" in sys.modules:
        torch = sys.modules["torch"]

        def tensor(text: str) -> Any:
            return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)

        torch.set_rng_state(tensor(states["torch"]))
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([tensor(text) for text in states["cuda"]])
