"""What an update is tried out on: a store's items, embedded by an old and by a new model.

Embedders are named by a line each:

| line | what happens |
| --- | --- |
| `embed.NAME` | the index column that is there is read |
| `train:MODEL` | the model is trained: an old one on the first classes, a new one on all |
| `simclr:MODEL`, `reconstruct:MODEL`, `supervised:MODEL` | side information is trained |
| anything else | as for `understudy update encode`; written to a column |

Instead of a store, a file of pairs (`.npz`, `.parquet`) may be given, with `test` as another one.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.data.splits import training_filter
from understudy.update.sample import Sample, class_numbers, column_values, sample_of_file
from understudy.update.source_config import LINE, TRAIN, SourceConfig, chosen_rows
from understudy.update.trained import SIDES, EmbedderConfig, Rows

if TYPE_CHECKING:
    from understudy.data.spaces import Space
    from understudy.data.store import Store
    from understudy.models.image.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class Source:
    """Items, embedded.

    Attributes:
        train: to learn maps from.
        test: queries and gallery.
        models: embedders that were trained, by part.
        rows: the new model's training rows, where models are trained.
        extra: other columns of the test items, by name.
        rates: items embedded in a second, by part; without those that were there.
        classes: names by number.
    """

    train: Sample
    test: Sample
    models: dict[str, Classifier] = field(default_factory=dict)
    rows: Rows | None = None
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)


def open_source(config: SourceConfig, out: Path, *, extra: tuple[str, ...] = ()) -> Source:
    """Embed the items, or read what is there.

    Args:
        config: which items, and who embeds them.
        out: folder for models that are trained.
        extra: other columns of the test items to return.

    Raises:
        ConfigError: embedders that do not fit the store.
        DataError: no rows, no labels, or vectors that cannot be used.
    """
    if config.is_file:
        train, test = sample_of_file(config.store), sample_of_file(config.test)
        classes = max(train.num_classes, test.num_classes)
        train, test = (replace(part, num_classes=classes) for part in (train, test))
        if {k: v.id for k, v in train.spaces.items()} != {k: v.id for k, v in test.spaces.items()}:
            test = _same_spaces(train, test)
        return Source(train=train, test=test)
    from understudy.data.store import Store

    store = Store.open(config.store)
    splits = chosen_rows(store, config)
    rows = np.concatenate(splits)
    numbers, names = class_numbers(column_values(store, config.labels, rows))
    made = _Embedding(config, store, out, splits, names)
    vectors = {part: made.vectors(part, line, rows) for part, line in config.lines().items()}
    ids = column_values(store, "id", rows).astype(object)
    cut = len(splits[0])

    def sample(part: slice, name: str) -> Sample:
        return Sample(
            ids=ids[part],
            vectors={k: v[part] for k, v in vectors.items()},
            spaces=made.spaces,
            labels=numbers[part],
            num_classes=len(names),
            name=f"{store.path}, {name}",
        )

    return Source(
        train=sample(slice(None, cut), "train"),
        test=sample(slice(cut, None), "test"),
        models=made.models,
        rows=made.rows if made.models else None,
        extra={name: column_values(store, name, splits[1]) for name in extra},
        rates=made.rates,
        classes=names,
    )


def _same_spaces(train: Sample, test: Sample) -> Sample:
    """Return the test sample in the training sample's spaces, where neither file names any.

    Raises:
        DataError: other parts or widths, or spaces that are named and differ.
    """
    from understudy.update.pair_files import is_undeclared

    widths = [{k: v.shape[1] for k, v in s.vectors.items()} for s in (train, test)]
    named = [s for x in (train, test) for s in x.spaces.values() if not is_undeclared(s)]
    if widths[0] != widths[1] or named:
        raise DataError(
            f"{test.name}: its vectors ({widths[1]}) are not those that {train.name} was made of "
            f"({widths[0]}): embed both files with the same models."
        )
    return replace(test, spaces=train.spaces)


class _Embedding:
    """Makes the vectors of each part, once."""

    def __init__(
        self,
        config: SourceConfig,
        store: Store,
        out: Path,
        splits: tuple[np.ndarray, np.ndarray],
        names: list[str],
    ) -> None:
        self.config, self.store, self.out, self.splits = config, store, out, splits
        self.models: dict[str, Classifier] = {}
        self.spaces: dict[str, Space] = {}
        self.rates: dict[str, float] = {}
        self.names = names
        self.rows = Rows(
            store=store,
            where=config.train_rows or training_filter(store),
            labels=config.labels,
            num_classes=len(names),
            column=config.column or "image",
        )

    def vectors(self, part: str, line: str, rows: np.ndarray) -> np.ndarray:
        """Return float32 [N, d] of rows."""
        from understudy.update.trained import embed, space_of_model

        match = LINE.fullmatch(line)
        if match is None:
            return self._column(part, line, rows)
        model = self._train(part, match[1], match[2])
        self.models[part], self.spaces[part] = model, space_of_model(model)
        begun = time.perf_counter()
        found = embed(model, self.store, rows, self.rows.column)
        self.rates[part] = len(rows) / max(time.perf_counter() - begun, 1e-9)
        return found

    def _train(self, part: str, kind: str, model: str) -> Classifier:
        from understudy.update.trained import train_labelled, train_side

        config = self.config
        self._check_numbers()
        half = config.old_classes or max(self.rows.num_classes // 2, 1)
        rows = self.rows if part == "new" else self.rows.first(half)
        chosen = EmbedderConfig(
            model=model,
            train=config.train,
            smoothing=config.smoothing,
            augment=config.augment if kind in SIDES else {},
            temperature=config.temperature,
            shift=config.shift,
            noise=config.noise,
        )
        if kind == TRAIN:
            return train_labelled(chosen, rows, self.out / part, config.seed)
        return train_side(kind, chosen, rows, self.out / part, config.seed)

    def _check_numbers(self) -> None:
        if [str(i) for i in range(len(self.names))] != sorted(
            self.names, key=lambda n: (len(n), n)
        ):
            raise ConfigError(
                f"labels: embedders are trained on class numbers 0, 1, ...; column "
                f"'{self.config.labels}' has {', '.join(self.names[:5])}, ... Name a column of "
                "numbers, or embedders that are trained."
            )

    def _column(self, part: str, line: str, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of a column, which is written first if the line is no column's."""
        from understudy.data.knowledge import decode_embeddings
        from understudy.data.spaces import space_of

        column = line if line.startswith("embed.") and self.store.has(line) else ""
        column = column or self._encode(part, line, rows)
        self.spaces[part] = space_of(self.store, column)
        filled = self.store.filled(column)[rows]
        if not filled.all():
            missing = int(rows[np.argmin(filled)])
            raise DataError(
                f"{part}: column '{column}' of {self.store.path} is empty in row {missing} and "
                f"{int((~filled).sum()) - 1} others that were chosen; encode them ('understudy "
                "update encode'), or leave them out by a filter."
            )
        stored = self.store.array(column, rows)
        return decode_embeddings(stored, self.store.card(column).config)

    def _encode(self, part: str, line: str, rows: np.ndarray) -> str:
        from understudy.update.embedders import open_embedder, sample_inputs
        from understudy.update.encode import encode_column

        config = self.config
        if line.startswith("embed."):
            there = ", ".join(c for c in sorted(self.store.columns) if c.startswith("embed."))
            raise DataError(
                f"{part}: {self.store.path} has no column '{line}' (it has {there or 'none'})."
            )
        column = config.column or config.modality
        fitted = np.sort(self.splits[0])
        inputs = sample_inputs(self.store, column, config.modality, fitted)
        embedder = open_embedder(line, config.modality, inputs=inputs)
        name = re.sub(r"[^\w+-]", "-", embedder.space.model)
        report = encode_column(self.store, embedder, name, column=column, rows=rows)
        self.store.refresh()
        if report.written:
            self.rates[part] = report.items_per_second
        return report.column
