"""Teachers that are asked about a student's batch: the same images, normalised as each wants."""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.models.preprocess import Preprocess


def check_size(own: Preprocess, theirs: Preprocess, name: str) -> None:
    """Refuse a teacher that takes images of another size than the student's batches have.

    Raises:
        ConfigError: the sizes differ; the message names the teacher.
    """
    if theirs.size != own.size:
        raise ConfigError(
            f"online teacher {name}: it needs images of {own.size} px like the student, and takes "
            f"{theirs.size} px; reinforce the store with it instead."
        )


def renormalise(images: Tensor, own: Preprocess, theirs: Preprocess) -> Tensor:
    """Return a student's images as a teacher takes them.

    Args:
        images: float [B, 3, S, S], normalised with the student's mean and std.
        own: the student's preprocessing.
        theirs: the teacher's; of the same size, see `check_size`.
    """
    if (own.mean, own.std) == (theirs.mean, theirs.std):
        return images
    mean, std, mean2, std2 = (
        torch.tensor(v, device=images.device, dtype=images.dtype).reshape(1, 3, 1, 1)
        for v in (own.mean, own.std, theirs.mean, theirs.std)
    )
    return (images * std + mean - mean2) / std2
