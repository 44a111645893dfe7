"""CIFAR-10 and grocery photos as stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json
from understudy.core.progress import bar
from understudy.data.scenes.pack import png

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_BATCH = 1000


def with_article(words: str) -> str:
    """Return "a ship", "an airplane"."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def cifar10_arrays(folder: str | Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [N, 32, 32, 3] and labels int64 [N] of the train or test split.

    Raises:
        DataError: a file is missing or has another size than CIFAR-10 has.
    """
    folder = Path(folder)
    names = [f"data_batch_{i}.png" for i in range(1, 6)] if split == "train" else ["test_batch.png"]
    parts = []
    for name in names:
        try:
            with Image.open(folder / name) as image:
                pixels = np.asarray(image)[..., :3]
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{folder / name}: not a picture that can be read ({error}).") from None
        if pixels.shape != (10_000, 1024, 3):
            raise DataError(
                f"{folder / name}: expected 10,000 rows of 1,024 pixels, got {pixels.shape}."
            )
        parts.append(pixels.reshape(-1, 32, 32, 3))
    images = np.concatenate(parts)
    labels = np.asarray(read_json(folder / f"{split}_labels.json"), np.int64)
    if labels.shape != (len(images),) or labels.min() < 0 or labels.max() > 9:
        raise DataError(
            f"{folder}/{split}_labels.json: expected {len(images):,} numbers 0 to 9, got "
            f"{list(labels.shape)}."
        )
    return images, labels


def _cifar10_rows(
    split: str, rows: range, images: np.ndarray, labels: np.ndarray
) -> pa.RecordBatch:
    names = [CIFAR10_CLASSES[labels[i]] for i in rows]
    return pa.RecordBatch.from_pydict(
        {
            "id": [f"cifar10/{split}/{i:05d}" for i in rows],
            "image": pa.array([png(images[i]) for i in rows], pa.binary()),
            "text": [f"a photo of {with_article(name)}" for name in names],
            "label": pa.array(labels[rows.start : rows.stop], pa.int64()),
            "split": [split] * len(rows),
            "source": ["cifar10"] * len(rows),
        }
    )


def cifar10(
    folders: Mapping[str, Path], *, train: int = 50_000, test: int = 10_000
) -> tuple[Iterator[pa.RecordBatch], dict[str, Any]]:
    """Return the rows and the facts of a CIFAR-10 store.

    Args:
        folders: the unpacked asset by name.
        train: how many of the training images, from the first.
        test: how many of the test images, from the first.
    """
    (folder,) = folders.values()

    if not (0 <= train <= 50_000 and 0 <= test <= 10_000) or train + test == 0:
        raise ConfigError(
            f"cifar10: 'train' must lie in 0 to 50,000 and 'test' in 0 to 10,000, got {train} and "
            f"{test}."
        )

    def batches() -> Iterator[pa.RecordBatch]:
        with bar("cifar10", total=train + test, unit="images") as shown:
            for split, count in (("train", train), ("test", test)):
                if not count:
                    continue
                images, labels = cifar10_arrays(folder, split)
                for start in range(0, count, _BATCH):
                    rows = range(start, min(start + _BATCH, count))
                    yield _cifar10_rows(split, rows, images, labels)
                    shown.advance(len(rows))

    return batches(), {"classes": list(CIFAR10_CLASSES)}


def groceries(
    folders: Mapping[str, Path],
) -> tuple[Iterator[pa.RecordBatch], dict[str, Any]]:
    """Return the rows and the facts of a store of grocery photos (JPEG bytes as they are).

    Args:
        folders: the unpacked asset by name.
    """
    import pyarrow.parquet as pq

    (folder,) = folders.values()
    path = folder / "groceries.parquet"
    columns = ["dataset", "coarse_cat", "finegrained_cat", "image_data"]
    try:
        table = pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise DataError(f"{path}: not the expected Parquet file ({error}).") from None
    fine = [word.replace("-", " ").lower() for word in table["finegrained_cat"].to_pylist()]
    coarse = [word.replace("-", " ").lower() for word in table["coarse_cat"].to_pylist()]
    classes, groups = sorted(set(fine)), sorted(set(coarse))
    whole = pa.table(
        {
            "id": [f"groceries/{i:04d}" for i in range(len(fine))],
            "image": table["image_data"].cast(pa.binary()),
            "text": [f"a photo of {with_article(word)}" for word in fine],
            "label": pa.array([classes.index(word) for word in fine], pa.int64()),
            "coarse_label": pa.array([groups.index(word) for word in coarse], pa.int64()),
            "split": table["dataset"].cast(pa.string()),
            "source": ["groceries"] * len(fine),
        }
    )
    return iter(whole.to_batches(max_chunksize=_BATCH)), {
        "classes": classes,
        "coarse_classes": groups,
    }
