"""Patching: weights between the last step's and the newly trained ones.

theta = (1 - a) theta_last + a theta_trained, in float32; statistics of batch normalisation are not
averaged but measured again; a is chosen on held rows of the steps seen so far, and the next step
begins from the patched weights (arXiv 2208.05592, as used by arXiv 2310.16226).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.models.multimodal.clip import CLIP
from understudy.update.continual_start import check_architecture


def interpolate(
    last: Mapping[str, Tensor], trained: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Return (1 - alpha) * last + alpha * trained, computed in float32.

    The ends are exact; whole-number buffers are those of `trained`.

    Args:
        last: weights before the step.
        trained: weights after it, of the same names and shapes.
        alpha: in [0, 1].

    Raises:
        ConfigError: alpha is outside [0, 1].
    """
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"patching: alpha must lie in [0, 1], got {alpha}.")
    if alpha in (0.0, 1.0):
        return {name: t.clone() for name, t in (trained if alpha else last).items()}
    out = {}
    for name, after in trained.items():
        before = last[name]
        if after.is_floating_point():
            mixed = (1.0 - alpha) * before.float() + alpha * after.float()
            out[name] = mixed.to(after.dtype)
        else:
            out[name] = after.clone()
    return out


def batch_norms(model: nn.Module) -> list[Any]:
    """Return the modules that keep running statistics."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    found = (m for m in model.modules() if isinstance(m, kinds))
    return [m for m in found if m.track_running_stats]


@torch.no_grad()
def measure_norms(model: CLIP, batches: Iterable[Mapping[str, Any]]) -> int:
    """Measure the statistics of batch normalisation again, as plain means over batches.

    Nothing else is in training mode meanwhile.

    Args:
        model: changed in place, and left in eval mode.
        batches: with `images`.

    Returns:
        how many batches were used; 0 for a model without such statistics.
    """
    norms = batch_norms(model)
    if not norms:
        return 0
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
        norm.train()
    device, used = next(model.parameters()).device, 0
    for batch in batches:
        model.encode_image(batch["images"].to(device))
        used += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
    return used


def patched(
    last: CLIP,
    trained: CLIP,
    alpha: float,
    batches: Callable[[], Iterable[Mapping[str, Any]]],
) -> CLIP:
    """Return a model between two, in eval mode; the ends are exact copies.

    Args:
        last: before the step.
        trained: after it.
        alpha: weight of `trained`.
        batches: what the step learned from, for the statistics of batch normalisation.

    Raises:
        ModelError: they are of two architectures; the first tensor that differs is named.
    """
    check_architecture(trained, last.state_dict(), "patching")
    model = copy.deepcopy(trained)
    model.load_state_dict(interpolate(last.state_dict(), trained.state_dict(), alpha))
    if 0.0 < alpha < 1.0:
        measure_norms(model, batches())
    return model.eval()


def choose_alpha(
    make: Callable[[float], CLIP], score: Callable[[CLIP], float], alphas: Sequence[float]
) -> tuple[float, dict[str, float]]:
    """Return the weight with the best score, the larger one of equals, and all scores.

    Args:
        make: weight -> model.
        score: model -> what is to be large, on held rows.
        alphas: to try.
    """
    scores = {alpha: score(make(alpha)) for alpha in sorted(set(alphas))}
    best = max(scores, key=lambda alpha: (scores[alpha], alpha))
    return best, {f"{alpha:g}": value for alpha, value in scores.items()}
