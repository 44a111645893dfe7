"""Losses against forgetting: a model stays close to what it was before the new data.

Learning without forgetting for CLIP: with the similarities S = s I T^t of a batch, the softmax of
every row and of every column keeps near that of the frozen last checkpoint. arXiv 2310.16226 uses
the method of arXiv 1606.09282; the form for image-text pairs is this package's:

    L = 1/2 [KL(softmax(S_old / tau) || softmax(S / tau)) by rows + the same by columns],

mean over rows; the rows are images against all texts, the columns texts against all images.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import ConfigError, DataError
from understudy.objectives.contrastive import affinity
from understudy.objectives.distill import mean_kl, teacher_affinities
from understudy.objectives.gather import LOCAL, GatherGroup


def lwf_loss(
    images: Float[Tensor, "local dim"],
    texts: Float[Tensor, "local dim"],
    scale: Tensor | float,
    old_images: Float[Tensor, "local dim"],
    old_texts: Float[Tensor, "local dim"],
    old_scale: float,
    *,
    tau: float = 1.0,
    group: GatherGroup = LOCAL,
) -> Float[Tensor, ""]:
    """Return the divergence of a batch's similarities from those of the last checkpoint.

    It and its gradient are 0 where both models agree, and no order of the batch matters. No
    gradient reaches the old model.

    Args:
        images: unit-norm image embeddings of this rank.
        texts: unit-norm text embeddings of this rank, matching row by row.
        scale: the model's logit scale.
        old_images: what the last checkpoint makes of the same images; another width is fine.
        old_texts: of the same texts.
        old_scale: its logit scale.
        tau: temperature of both softmaxes.
        group: the ranks that share the batch.

    Raises:
        ConfigError: tau is not positive.
        DataError: the two models saw batches of different sizes.
    """
    if not tau > 0:
        raise ConfigError(f"lwf: tau must be above 0, got {tau}.")
    if len(images) != len(old_images):
        raise DataError(f"lwf: {len(images)} pairs, but {len(old_images)} of the last checkpoint.")
    old = teacher_affinities([old_images], [old_texts], [old_scale / tau], group=group)
    new = affinity(images, texts, scale / tau, group=group).log_softmax()
    return mean_kl(old, new)
