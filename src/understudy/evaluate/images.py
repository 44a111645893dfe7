"""Run a model over the images of a store or a folder, batch by batch, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from understudy.core import progress
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.data.decode import decode_many
from understudy.models.base import Model
from understudy.models.families import check_family
from understudy.models.preprocess import Preprocess, to_tensor

if TYPE_CHECKING:
    from understudy.data.store import Store

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""File names that count as pictures in a folder."""


class Images(Protocol):
    """Encoded pictures, in a fixed order."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, start: int, stop: int) -> tuple[list[bytes], list[str]]:
        """Return (file bytes, names for messages) of the pictures start..stop-1."""
        ...


class StoreImages:
    """The pictures of a store's rows.

    Args:
        store: where they are.
        rows: row numbers; None takes all, in order.
        column: binary column of encoded pictures.
    """

    def __init__(self, store: Store, rows: np.ndarray | None = None, column: str = "image") -> None:
        self.store, self.column = store, column
        self.rows = np.arange(store.num_rows) if rows is None else np.asarray(rows, np.int64)
        if column not in store.columns:
            raise DataError(
                f"{store.path}: no column '{column}' with pictures; it has "
                f"{', '.join(store.columns)}."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> tuple[list[bytes], list[str]]:
        """Return (file bytes, names for messages) of the pictures start..stop-1."""
        rows = self.rows[start:stop]
        values = self.store.take(rows, [self.column]).column(self.column).to_pylist()
        names = [f"{self.store.path}, row {row}, {self.column}" for row in rows]
        for value, name in zip(values, names, strict=True):
            if not isinstance(value, bytes):
                what = "nothing" if value is None else type(value).__name__
                raise DataError(f"{name}: expected an encoded picture, found {what}.")
        return values, names


class FileImages:
    """The pictures in some files.

    Args:
        paths: the files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, start: int, stop: int) -> tuple[list[bytes], list[str]]:
        """Return (file bytes, names for messages) of the pictures start..stop-1."""
        chosen = self.paths[start:stop]
        return [path.read_bytes() for path in chosen], [str(path) for path in chosen]


def class_folders(root: str | Path) -> dict[str, list[Path]]:
    """Return class name -> its pictures, both sorted, of a folder with a folder per class.

    Raises:
        DataError: no such folder, no class in it, or a class without pictures.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder.")
    found = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != "."):
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"{folder}: no pictures ({', '.join(SUFFIXES)}).")
        found[folder.name] = files
    if not found:
        raise DataError(f"{root}: no folder per class in it.")
    return found


def input_of(model: Model, preprocess: Preprocess | None = None) -> Preprocess:
    """Return what images go through before a model.

    Args:
        model: gives its own by default.
        preprocess: another one.

    Raises:
        ModelError: the model holds released weights that were trained with another mean or
            standard deviation.
    """
    chosen = preprocess or model.preprocess
    check_family(model.config.weights, chosen)
    return chosen


def device_of(model: Model) -> torch.device:
    """Return where a model's weights are."""
    return next(model.parameters()).device


@contextmanager
def evaluating(model: Model) -> Iterator[Model]:
    """Put a model into eval mode without gradients, and back into the mode that it was in."""
    was = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield model
    finally:
        if was:
            model.train()


def run_images(
    model: Model,
    images: Images,
    function: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 64,
    preprocess: Preprocess | None = None,
    threads: int = 1,
    label: str = "images",
) -> Float[Tensor, "rows out"]:
    """Decode, preprocess and run all images; return the outputs in order, float32, on the host.

    Args:
        model: decides the device and, by default, the preprocessing.
        images: what to run.
        function: normalised images [B, 3, size, size] to outputs [B, out].
        batch_size: images at once.
        preprocess: instead of the model's own.
        threads: that decode.
        label: of the progress bar.

    Raises:
        DataError: no images, or one that does not decode (it is named).
        ModelError: an output that is not finite, or a wrong normalisation.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected at least 1, got {batch_size}.")
    if len(images) == 0:
        raise DataError("there are no images to evaluate.")
    config, device = input_of(model, preprocess), device_of(model)
    kind = next(model.parameters()).dtype
    parts = []
    with evaluating(model), progress.bar(label, len(images), "images") as bar:
        for start in range(0, len(images), batch_size):
            data, names = images.read(start, min(start + batch_size, len(images)))
            pixels = to_tensor(decode_many(data, threads, names=names), config)
            out = function(pixels.to(device, kind)).float().cpu()
            bad = ~torch.isfinite(out).all(1)
            if bool(bad.any()):
                raise ModelError(
                    f"{names[int(bad.int().argmax())]}: the model's output is not finite; the "
                    "weights are damaged or training diverged."
                )
            parts.append(out)
            bar.advance(len(data))
    # a copy made outside inference mode may take part in anything later
    return torch.cat(parts).clone()


def embed_images(model: Any, images: Images, **options: Any) -> Float[Tensor, "rows dim"]:
    """Return a CLIP's unit embeddings of images; see `run_images` for the options."""
    _needs(model, "encode_image", "embed images")
    return run_images(model, images, model.encode_image, label="image embeddings", **options)


def image_logits(model: Any, images: Images, **options: Any) -> Float[Tensor, "rows classes"]:
    """Return a classifier's logits of images; see `run_images` for the options.

    Raises:
        ModelError: the model has no classification head.
    """
    return run_images(model, images, logits_of(model), label="logits", **options)


def logits_of(model: Any) -> Callable[[Tensor], Tensor]:
    """Return the function from normalised images to a classifier's logits."""
    if not getattr(model.config, "num_classes", 0):
        raise ModelError(
            f"{model.config.name} has no classification head; evaluate a classifier with one, or a "
            "CLIP with the task zeroshot."
        )
    return lambda pixels: model(pixels)["logits"]


def embed_texts(
    model: Any, texts: Sequence[str], *, batch_size: int = 256
) -> Float[Tensor, "rows dim"]:
    """Return a CLIP's unit embeddings of texts, float32, on the host.

    Args:
        model: with `tokenize` and `encode_text`.
        texts: what to embed; texts that are too long are counted in
            `model.tokenizer.num_truncated`.
        batch_size: texts at once.

    Raises:
        ModelError: the model reads no text, or has no tokenizer.
    """
    _needs(model, "encode_text", "embed texts")
    if not texts:
        raise DataError("there are no texts to embed.")
    device = device_of(model)
    parts = []
    with evaluating(model), progress.bar("text embeddings", len(texts), "texts") as bar:
        for start in range(0, len(texts), batch_size):
            chunk = list(texts[start : start + batch_size])
            parts.append(model.encode_text(model.tokenize(chunk).to(device)).float().cpu())
            bar.advance(len(chunk))
    return torch.cat(parts).clone()


def _needs(model: Any, method: str, purpose: str) -> None:
    if not hasattr(model, method):
        raise ModelError(f"{model.config.name} is a classifier; to {purpose} takes a CLIP model.")
