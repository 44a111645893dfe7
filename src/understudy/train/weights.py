"""The files that a run leaves for others: final, averaged and best weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from understudy.core.errors import ConfigError
from understudy.core.files import atomic_path
from understudy.train.distributed import whole

if TYPE_CHECKING:
    from understudy.train.state import RunState


def save_weights(
    model: nn.Module, path: Path, facts: Mapping[str, Any], *, writes: bool = True
) -> None:
    """Write a model's weights; a model of this package brings its configuration along.

    Args:
        model: any module, sharded or not; gathering a sharded one is collective. A module that
            only surrounds one for training names it as `saved`, and that one is written.
        path: a safetensors file.
        facts: JSON-like, kept in the file of a model of this package.
        writes: False on ranks that do not write.
    """
    from understudy.models.base import Model

    model = getattr(model, "saved", model)
    sharded = any(hasattr(p, "full_tensor") for p in model.parameters())
    if isinstance(model, Model) and not sharded:
        if writes:
            from understudy.models import io

            io.save(model, path, facts)
        return
    tensors = whole(model.state_dict())
    if not writes:
        return
    if isinstance(model, Model):
        from understudy.models import io
        from understudy.models.build import build

        plain = build(model.config, tokenizer=getattr(model, "tokenizer", None))
        plain.load_state_dict(tensors)
        io.save(plain, path, facts)
        return
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def save_final(state: RunState, out: Path, context: Mapping[str, Any]) -> None:
    """Write `model.safetensors`, and `model-ema.safetensors` if weights are averaged."""
    facts = {"steps": state.step, "context": dict(context)}
    writes = state.ranks.writes
    if state.ema is not None:
        with state.ema.swapped():
            save_weights(state.model, out / "model-ema.safetensors", facts, writes=writes)
    # The plain weights come last: their presence means that the run's files are whole.
    save_weights(state.model, out / "model.safetensors", facts, writes=writes)


def save_best(
    state: RunState,
    out: Path,
    metric: str | None,
    found: Mapping[str, float],
    context: Mapping[str, Any],
) -> None:
    """Write `model-best.safetensors` if the watched metric grew (`ema_...` takes the average).

    Raises:
        ConfigError: the evaluation does not return that metric.
    """
    if metric is None:
        return
    if metric not in found:
        raise ConfigError(
            f"TrainConfig.best: the evaluation returned {', '.join(found)}, not '{metric}'."
        )
    if state.best is not None and found[metric] <= state.best:
        return
    state.best = found[metric]
    facts = {"steps": state.step, metric: found[metric], "context": dict(context)}
    averaged = state.ema is not None and metric.startswith("ema_")
    with state.ema.swapped() if averaged and state.ema else nullcontext():
        save_weights(state.model, out / "model-best.safetensors", facts, writes=state.ranks.writes)
