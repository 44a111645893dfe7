"""The new model's frozen classifier: from a file, or prototypes where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes
from understudy.objectives.compatible import cluster_loss

FACTORS = tuple(2.0**-k for k in range(0, 21))
HEAD_NAMES = ("head.weight", "fc.weight", "classifier.weight")


@dataclass(frozen=True, kw_only=True)
class FrozenHead:
    """A linear classifier that takes no gradients.

    Attributes:
        weight: [classes, dim].
        bias: [classes].
        origin: where it comes from, for the manifest.
        classes: int64 [classes], ascending: the label of each of its classes; None if labels are
            0, 1, ...
    """

    weight: Tensor
    bias: Tensor
    origin: str
    classes: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", self.weight.detach())
        object.__setattr__(self, "bias", self.bias.detach())

    @property
    def num_classes(self) -> int:
        """Classes that it tells apart."""
        return len(self.weight)

    @property
    def dim(self) -> int:
        """Width of the vectors that it takes."""
        return int(self.weight.shape[1])

    @property
    def fingerprint(self) -> str:
        """Hash of the numbers."""
        parts = (self.weight, self.bias)
        return hash_bytes(*(p.cpu().contiguous().numpy().tobytes() for p in parts))

    def logits(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of mapped vectors."""
        return F.linear(z, self.weight.to(z), self.bias.to(z))

    def places(self, labels: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Return the number of each label's class."""
        if self.classes is None:
            return labels
        return torch.searchsorted(self.classes.to(labels.device), labels)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        return {
            "origin": self.origin,
            "classes": self.num_classes,
            "dim": self.dim,
            "fingerprint": self.fingerprint,
        }


def load_head(path: str | Path, prefix: str = "") -> FrozenHead:
    """Read a classifier from a safetensors file with tensors `weight` and, if any, `bias`.

    Args:
        path: the file, such as a model's own weights, or the folder of a run.
        prefix: what stands before the two names, such as `head` for `head.weight`; may also follow
            the path after a colon (`model.safetensors:head`). Empty finds a file's only
            `weight`, `...head.weight`, `...fc.weight` or `...classifier.weight`.

    Raises:
        DataError: missing, not a safetensors file, or without such tensors.
    """
    from safetensors import SafetensorError, safe_open

    from understudy.models.runs import weights_path

    name = str(path)
    if not prefix and ":" in name and not Path(name).exists():
        name, _, prefix = name.rpartition(":")
    if not Path(name).exists():
        raise DataError(f"{name}: no such classifier file.")
    file_path = weights_path(name)
    try:
        with safe_open(file_path, framework="pt") as file:
            names = list(file.keys())
            stem = _head_stem(names, prefix, str(file_path))
            weight = file.get_tensor(f"{stem}weight").float()
            bias = file.get_tensor(f"{stem}bias").float() if f"{stem}bias" in names else None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file_path}: not a safetensors file ({error}).") from None
    weight = weight.flatten(1) if weight.ndim == 4 and weight.shape[2:] == (1, 1) else weight
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        shapes = [list(weight.shape), None if bias is None else list(bias.shape)]
        raise DataError(
            f"{file_path}: expected '{stem}weight' [classes, dim] and '{stem}bias' [classes], got "
            f"{shapes[0]} and {shapes[1]}."
        )
    if bias is None:
        bias = torch.zeros(len(weight))
    return FrozenHead(weight=weight, bias=bias, origin=str(path))


def _head_stem(names: list[str], prefix: str, where: str) -> str:
    """Return what stands before `weight` in the name of a file's classifier."""
    dot = f"{prefix}." if prefix else ""
    if f"{dot}weight" in names:
        return dot
    if not prefix:
        found = [n for n in names if n.endswith(HEAD_NAMES)]
        if len(found) == 1:
            return found[0].removesuffix("weight")
    near = [n for n in names if n.endswith("weight")][-3:]
    raise DataError(
        f"{where}: no tensor '{dot}weight'; a classifier file holds 'weight' [classes, dim] and "
        "'bias' [classes]. Others are named as FILE:PREFIX; this file has "
        f"{', '.join(near) or 'no weights'}."
    )


def prototypes(
    read: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]],
    classes: np.ndarray,
    smoothing: float = 0.1,
) -> FrozenHead:
    """Return the classifier of class means of new vectors: nearest mean as a linear layer.

    Logits are -t |z - m_c|^2 / 2v without what all classes share; v is the variance within classes
    and t <= 1 the factor at which the classifier explains the new vectors best. Without it the
    dimensions would count as independent, which makes every doubt a certainty.

    Args:
        read: yields pairs (new vectors [B, dim], labels int [B]) of the rows to learn from; called
            twice.
        classes: the labels that there are, ascending.
        smoothing: of the labels, by which t is chosen.

    Raises:
        DataError: no class has two vectors, or all vectors of a class are one.
    """
    sums: np.ndarray | None = None
    squares = np.zeros(len(classes))
    counts = np.zeros(len(classes), np.int64)
    for vectors, labels in read():
        new, place = np.asarray(vectors, np.float64), np.searchsorted(classes, labels)
        if sums is None:
            sums = np.zeros((len(classes), new.shape[1]))
        np.add.at(sums, place, new)
        np.add.at(squares, place, (new**2).sum(1))
        counts += np.bincount(place, minlength=len(classes))
    if sums is None or not (counts > 1).any():
        raise DataError(
            "prototypes: no class has two labelled pairs; give labels, or a classifier file, or "
            "use the loss 'l2' or 'l2+unc'."
        )
    means = sums / np.maximum(counts, 1)[:, None]
    within = squares - counts * (means**2).sum(1)
    freedom = int((counts - 1).clip(min=0).sum()) * means.shape[1]
    variance = float(within.sum() / freedom)
    if not variance > 0:
        raise DataError(
            "prototypes: the new vectors of a class are all equal; give a classifier file."
        )
    weight = torch.from_numpy(means / variance)
    bias = torch.from_numpy(-(means**2).sum(1) / (2 * variance))
    factor = _best_factor(read, classes, weight, bias, smoothing)
    return FrozenHead(
        weight=(factor * weight).float(),
        bias=(factor * bias).float(),
        origin="class means of the new vectors (no classifier was given)",
        classes=torch.from_numpy(np.asarray(classes, np.int64)),
    )


def _best_factor(
    read: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]],
    classes: np.ndarray,
    weight: Tensor,
    bias: Tensor,
    smoothing: float,
) -> float:
    """Return the factor of the logits with the least smoothed cross-entropy."""
    losses = np.zeros(len(FACTORS))
    for vectors, labels in read():
        logits = F.linear(torch.from_numpy(np.asarray(vectors, np.float64)), weight, bias)
        target = torch.from_numpy(np.searchsorted(classes, labels))
        for i, factor in enumerate(FACTORS):
            losses[i] += float(cluster_loss(factor * logits, target, smoothing).sum())
    return FACTORS[int(np.argmin(losses))]


def check_head(head: FrozenHead, dim: int, num_classes: int | None) -> None:
    """Refuse a classifier of another width or of other classes.

    Args:
        head: the classifier.
        dim: width of the new vectors.
        num_classes: classes of the data, where they are known.

    Raises:
        DataError: it does not fit.
    """
    if head.dim != dim:
        raise DataError(
            f"classifier {head.origin}: takes vectors of {head.dim} numbers, the new vectors have "
            f"{dim}; give the new model's own classification layer."
        )
    if num_classes is not None and head.num_classes != num_classes:
        raise DataError(
            f"classifier {head.origin}: tells {head.num_classes} classes apart, the data have "
            f"{num_classes}; give the new model's own classification layer."
        )


def check_labels(labels: np.ndarray, num_classes: int, name: Any) -> None:
    """Refuse labels that the classifier does not know.

    Args:
        labels: int [N].
        num_classes: they must be in [0, num_classes).
        name: `name(i)` names pair i for the message.

    Raises:
        DataError: the first such label is named.
    """
    bad = (labels < 0) | (labels >= num_classes)
    if bad.any():
        i = int(np.argmax(bad))
        raise DataError(
            f"label {int(labels[i])} of item '{name(i)}' is outside of 0 to {num_classes - 1}, "
            f"the classes of the classifier; {int(bad.sum()):,} labels are. Leave these items out, "
            "or give the classifier that was trained on them."
        )
