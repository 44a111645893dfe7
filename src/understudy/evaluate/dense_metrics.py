"""Metrics of dense prediction: pixel classes from one confusion matrix, depth from its errors.

    total = sum(confusion(p, t, 150) for p, t in pairs)     # one global matrix
    iou_scores(total)["miou"]

Definitions of arXiv 2405.08911's benchmarks: ADE20K (mIoU, mAcc), NYUv2 (RMSE, AbsRel, deltas).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import ConfigError, DataError

Array: TypeAlias = Tensor | np.ndarray
IGNORE = 255
"""Label of pixels that do not count."""
DELTAS = (1.25, 1.25**2, 1.25**3)


def _whole(values: Array, what: str) -> Tensor:
    out = torch.as_tensor(values)
    if out.is_floating_point():
        raise DataError(f"{what}: expected whole class numbers, got {out.dtype}.")
    return out.to(torch.int64)


def confusion(
    prediction: Array, target: Array, num_classes: int, ignore: int = IGNORE
) -> np.ndarray:
    """Return int64 [C, C]: pixels of class row (truth) that were predicted as column.

    Args:
        prediction: class numbers, any shape.
        target: class numbers of the same shape; pixels of `ignore` do not count.
        num_classes: C.
        ignore: a label; where C is larger than it, it is a class like others in predictions.

    Raises:
        DataError: shapes differ, a value is no class, or values are not whole numbers.
    """
    if num_classes < 1:
        raise ConfigError(f"confusion: num_classes must be at least 1, got {num_classes}.")
    guess, truth = _whole(prediction, "prediction"), _whole(target, "target")
    if guess.shape != truth.shape:
        raise DataError(
            f"prediction {list(guess.shape)} and target {list(truth.shape)} differ in shape."
        )
    keep = truth != ignore
    guess, truth = guess[keep], truth[keep]
    for what, values in (("prediction", guess), ("target", truth)):
        if len(values) and not (0 <= int(values.min()) and int(values.max()) < num_classes):
            raise DataError(
                f"{what}: classes {int(values.min())}..{int(values.max())} for {num_classes} "
                f"classes (ignored: {ignore})."
            )
    cells = torch.bincount(truth * num_classes + guess, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).cpu().numpy()


def iou_scores(matrix: np.ndarray) -> dict[str, float]:
    """Return `miou`, `macc` and `pixel_acc` of a global confusion matrix, in [0, 1].

    mIoU = mean_c TP_c / (TP_c + FP_c + FN_c), mAcc = mean_c TP_c / (TP_c + FN_c), both over the
    classes that are present in the ground truth; predictions of an absent class still count
    against the classes that they were taken from.

    Raises:
        DataError: not [C, C], or no pixel at all.
    """
    table = np.asarray(matrix, np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise DataError(f"confusion matrix: expected [C, C], got {list(table.shape)}.")
    present = table.sum(1) > 0
    if not present.any():
        raise DataError("confusion matrix: no labelled pixel; every pixel is ignored.")
    hit = np.diag(table)[present]
    truth, guessed = table.sum(1)[present], table.sum(0)[present]
    return {
        "miou": float((hit / (truth + guessed - hit)).mean()),
        "macc": float((hit / truth).mean()),
        "pixel_acc": float(hit.sum() / table.sum()),
    }


def class_ious(matrix: np.ndarray) -> np.ndarray:
    """Return the IoU of each class, float64 [C]; NaN where the class is not in the truth."""
    table = np.asarray(matrix, np.float64)
    hit, truth, guessed = np.diag(table), table.sum(1), table.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(truth > 0, hit / (truth + guessed - hit), np.nan)


def depth_sums(prediction: Array, target: Array, valid: Array) -> dict[str, float]:
    """Return sums over the valid pixels of one image, to be joined by `depth_scores`.

    Args:
        prediction: depths, positive where valid.
        target: depths of the same shape, positive where valid; anything elsewhere.
        valid: bool of the same shape.

    Raises:
        DataError: shapes differ, or a valid pixel is not positive and finite.
    """
    guess, truth = (torch.as_tensor(v).double() for v in (prediction, target))
    keep = torch.as_tensor(valid).bool()
    if not guess.shape == truth.shape == keep.shape:
        raise DataError(
            f"depth: prediction {list(guess.shape)}, target {list(truth.shape)} and valid "
            f"{list(keep.shape)} differ in shape."
        )
    guess, truth = guess[keep], truth[keep]
    for what, values in (("prediction", guess), ("target", truth)):
        if not bool((torch.isfinite(values) & (values > 0)).all()):
            raise DataError(
                f"depth: a valid pixel of the {what} is not positive and finite; mark such pixels "
                "as not valid."
            )
    error, ratio = guess - truth, torch.maximum(guess / truth, truth / guess)
    sums = {
        "pixels": float(keep.sum()),
        "square": float((error**2).sum()),
        "absrel": float((error.abs() / truth).sum()),
    }
    for i, limit in enumerate(DELTAS, start=1):
        sums[f"delta{i}"] = float((ratio < limit).sum())
    return sums


def depth_scores(images: Iterable[dict[str, float]]) -> dict[str, float]:
    """Join the sums of images.

    Returns:
        `rmse_pixels` = sqrt(mean over all pixels of (d - d_hat)^2) and `rmse_images` = mean over
        images of each one's RMSE, in the unit of the depths; `absrel` = mean |d - d_hat| / d and
        `delta1`, `delta2`, `delta3` (share with max(d / d_hat, d_hat / d) < 1.25, 1.25^2, 1.25^3),
        over all pixels. Images without a valid pixel do not count.

    Raises:
        DataError: no valid pixel in any image.
    """
    sums = [image for image in images if image["pixels"] > 0]
    if not sums:
        raise DataError("depth: no image has a valid pixel.")
    pixels = sum(image["pixels"] for image in sums)
    out = {
        "rmse_pixels": float(np.sqrt(sum(image["square"] for image in sums) / pixels)),
        "rmse_images": float(np.mean([np.sqrt(i["square"] / i["pixels"]) for i in sums])),
        "absrel": sum(image["absrel"] for image in sums) / pixels,
    }
    for i in range(1, len(DELTAS) + 1):
        out[f"delta{i}"] = sum(image[f"delta{i}"] for image in sums) / pixels
    return out
