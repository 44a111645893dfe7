"""Aligning frozen encoders: contrastive losses with several positives, modalities and chunks.

The loss of two modalities is CLIP's (arXiv 2103.00020); with more it is the sum over their pairs,
each over the rows that have both. Captions that occur twice in a batch are positives of each other
if asked (`groups`), because as negatives they would teach that a caption is not itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from understudy.core.errors import DataError
from understudy.objectives.checks import needs
from understudy.objectives.contrastive import affinity, clip_loss, full
from understudy.objectives.gather import LOCAL, GatherGroup


def _mean_logit(logits: Tensor, positives: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of a row's positives, averaged over rows."""
    log_p = F.log_softmax(logits.float(), dim=-1)
    weights = positives.to(log_p.dtype)
    return _negative_log(log_p, weights).mean()


def _negative_log(log_p: Tensor, weights: Tensor) -> Tensor:
    return -((log_p * weights).sum(-1) / weights.sum(-1))


def multi_positive_loss(
    images: Float[Tensor, "local dim"],
    texts: Float[Tensor, "local dim"],
    scale: Tensor | float,
    groups: Int[Tensor, " local"],
    *,
    group: GatherGroup = LOCAL,
) -> Float[Tensor, ""]:
    """Return the symmetric loss whose targets are uniform over the rows of the same group.

    Equals `clip_loss` when all groups differ.

    Args:
        images: unit vectors of one side.
        texts: unit vectors of the other, matching row by row.
        scale: s = exp(theta).
        groups: rows with equal numbers are positives of each other (equal captions, say).
        group: the ranks that share the batch.
    """
    first, second = affinity(images, texts, scale, group=group)
    everyone = groups if group.world == 1 else group.gather_constant(groups)
    same = groups[:, None] == everyone[None, :]
    return 0.5 * (_mean_logit(first, same) + _mean_logit(second, same))


def chunked_loss(
    images: Float[Tensor, "local dim"],
    texts: Float[Tensor, "local dim"],
    scale: Tensor | float,
    chunk: int,
    groups: Int[Tensor, " local"] | None = None,
    *,
    group: GatherGroup = LOCAL,
) -> Float[Tensor, ""]:
    """Return `clip_loss`, or `multi_positive_loss`, without ever holding the whole logit matrix.

    Rows are handled `chunk` at a time and their logits (and, with `groups`, which columns are
    positive) computed again in the backward pass: memory is chunk x batch instead of local x batch,
    at the price of one more product. Values and gradients are those of the whole matrix.

    Args:
        images: unit vectors U of this rank.
        texts: unit vectors V of this rank, matching row by row.
        scale: s.
        chunk: rows at a time.
        groups: see `multi_positive_loss`; None makes only the matching column positive.
        group: the ranks that share the batch.
    """
    local = len(images)
    sides = (full(images), full(texts))
    everyone = [group.gather(side) for side in sides]
    if groups is None:
        own = columns = group.targets(local, images.device)
    else:
        own, columns = groups, group.gather_constant(groups)

    def part(rows: Tensor, others: Tensor, wanted: Tensor) -> Tensor:
        # In full precision whatever autocast says, as in `contrastive.affinity`.
        with torch.autocast(rows.device.type, enabled=False):
            logits = ((rows * scale) @ others.T).float()
        if groups is None:
            return F.cross_entropy(logits, wanted, reduction="sum")
        same = (wanted[:, None] == columns[None, :]).float()
        return _negative_log(F.log_softmax(logits, dim=-1), same).sum()

    total = images.new_zeros((), dtype=torch.float32)
    for start in range(0, local, chunk):
        rows = slice(start, min(start + chunk, local))
        for a, others in ((sides[0], everyone[1]), (sides[1], everyone[0])):
            total = total + checkpoint(part, a[rows], others, own[rows], use_reentrant=False)
    return 0.5 * total / local


def pair_loss(
    a: Float[Tensor, "batch dim"],
    b: Float[Tensor, "batch dim"],
    scale: Tensor | float,
    *,
    groups: Tensor | None = None,
    chunk: int = 0,
    group: GatherGroup = LOCAL,
) -> Float[Tensor, ""]:
    """Return the loss of one pair of modalities.

    Args:
        a: unit vectors of one side.
        b: unit vectors of the other.
        scale: s.
        groups: see `multi_positive_loss`; None makes only the diagonal positive.
        chunk: rows of logits at a time; 0 takes all.
        group: the ranks that share the batch.
    """
    if chunk and len(a) > chunk:
        return chunked_loss(a, b, scale, chunk, groups, group=group)
    if groups is not None:
        return multi_positive_loss(a, b, scale, groups, group=group)
    return clip_loss(a, b, scale, group=group)


def alignment(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, object],
    *,
    modalities: Sequence[str] = ("image", "text"),
    multi_positive: bool = False,
    chunk: int = 0,
    group: GatherGroup = LOCAL,
) -> dict[str, Tensor]:
    """Minimise the sum over pairs of modalities of their contrastive losses.

    Args:
        outputs: `<modality>_features` and `logit_scale`, as an aligner returns them.
        batch: `groups` [B] for `multi_positive`; `present` (bool [B] by modality) where samples
            lack modalities: a pair's loss leaves out the rows without both sides.
        modalities: which take part.
        multi_positive: rows of one group are positives of each other.
        chunk: rows of logits at a time; 0 takes all.
        group: the ranks that share the batch; with missing modalities only this process.

    Returns:
        `loss`, and `<a>-<b>` of each pair if there are several.

    Raises:
        DataError: outputs or groups are missing, or no pair has two rows with both sides.
    """
    names = [f"{m}_features" for m in modalities]
    needs(outputs, (*names, "logit_scale"), "alignment")
    if multi_positive:
        needs(batch, ("groups",), "alignment")
    groups = batch["groups"] if multi_positive else None
    present = batch.get("present") or {}
    scale, found = outputs["logit_scale"], {}
    for first, second in combinations(modalities, 2):
        a, b = outputs[f"{first}_features"], outputs[f"{second}_features"]
        both, shared = _both(present, first, second), group  # type: ignore[arg-type]
        of_pair = groups
        if both is not None and not bool(both.all()):
            if int(both.sum()) < 2:
                continue
            # Ranks would bring different numbers of rows, which a gather cannot take.
            a, b, shared = a[both], b[both], LOCAL
            of_pair = None if groups is None else groups[both]  # type: ignore[index]
        found[f"{first}-{second}"] = pair_loss(
            a,
            b,
            scale,
            groups=of_pair,  # type: ignore[arg-type]
            chunk=chunk,
            group=shared,
        )
    if not found:
        raise DataError(
            "alignment: no pair of modalities has two rows with both sides in this batch; use "
            "larger batches or leave out samples with one modality."
        )
    loss = torch.stack(list(found.values())).sum()
    parts = {k: v.detach() for k, v in found.items()} if len(found) > 1 else {}
    return {"loss": loss, **parts}


def _both(present: Mapping[str, Tensor], first: str, second: str) -> Tensor | None:
    given = [present[m] for m in (first, second) if m in present]
    return None if not given else torch.stack(given).all(0)


def regression(
    predictions: Float[Tensor, "batch dim"],
    targets: Float[Tensor, "batch dim"],
    weights: Sequence[Tensor] = (),
    l2: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the ridge objective sum ||f(x) - y||^2 / B + l2 sum ||W||^2.

    The linear arm with this loss must meet the closed form, which checks both.

    Args:
        predictions: f(x), not normalised.
        targets: y.
        weights: matrices that are kept small.
        l2: how much.
    """
    loss = (predictions - targets).pow(2).sum(-1).mean()
    return loss + l2 * sum((w.pow(2).sum() for w in weights), start=loss.new_zeros(()))


def recall_at(
    a: Float[Tensor, "batch dim"],
    b: Float[Tensor, "batch dim"],
    k: int = 1,
    groups: Tensor | None = None,
) -> Tensor:
    """Return the share of rows of `a` whose partner in `b` is among the k nearest (0 to 1).

    Args:
        a: unit vectors of the queries.
        b: unit vectors of the gallery, matching row by row.
        k: how many are looked at.
        groups: rows of one group are all right answers.
    """
    logits = a @ b.T
    labels = torch.arange(len(a), device=a.device) if groups is None else groups
    right = labels[:, None] == labels[None, :]
    top = logits.topk(min(k, len(b)), dim=1).indices
    return right.gather(1, top).any(1).float().mean()
