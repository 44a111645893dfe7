"""The captions of `ape`: the store's own, or made of labels where there are none."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError, DataError
from understudy.core.provenance import versions
from understudy.curate.alignment import label_captions
from understudy.curate.keys import caption_key
from understudy.data.card import Card

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.recipes.ape import Config


class Texts:
    """Captions by row.

    With `captions_from_labels` a labelled row without a caption of its own gets a template caption
    (APE's third kind of alignment set); they become the column `text.<selection>`, with a card.

    Args:
        config: names columns, templates and seed.
        store: open for writing.
    """

    def __init__(self, config: Config, store: Store) -> None:
        self.config, self.store = config, store

    @property
    def column(self) -> str:
        """The column that captions are read from."""
        made = self.config.captions_from_labels
        return f"text.{self.config.selection}" if made else self.config.text_column

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the labels: the store's classes, else the target classes.

        Raises:
            ConfigError: neither says.
        """
        found = tuple(self.store.meta.get("classes", ())) or self.config.classes
        if not found:
            raise ConfigError(
                "captions_from_labels: the store names no classes; set them with "
                "store.set_meta(classes=[...]), or give classes."
            )
        return found

    @cached_property
    def _made(self) -> dict[int, tuple[int, str]]:
        """Label and caption of every row that gets one, by row number."""
        config, store = self.config, self.store
        if not store.has(config.labels):
            raise DataError(
                f"captions_from_labels: {store.path} has no column '{config.labels}' of labels "
                "(labels)."
            )
        everything = np.arange(store.num_rows)
        own = self._own(everything)
        labels = store.take(everything, [config.labels])[config.labels].to_pylist()
        rows = [
            row
            for row, (text, label) in enumerate(zip(own, labels, strict=True))
            if not caption_key(text) and label is not None and label >= 0
        ]
        chosen = [int(labels[row]) for row in rows]
        captions = label_captions(chosen, self.names, config.templates, config.seed)
        return dict(zip(rows, zip(chosen, captions, strict=True), strict=True))

    def _own(self, rows: np.ndarray) -> list[str | None]:
        column = self.config.text_column
        if self.config.captions_from_labels and not self.store.has(column):
            return [None] * len(rows)
        return self.store.take(rows, [column])[column].to_pylist() if len(rows) else []

    def of(self, rows: np.ndarray) -> list[str | None]:
        """Return the captions of rows; None or empty where there is none."""
        own = self._own(rows)
        if not self.config.captions_from_labels:
            return own
        return [
            self._made[row][1] if row in self._made else text
            for row, text in zip(rows.tolist(), own, strict=True)
        ]

    def from_labels(self, rows: np.ndarray) -> np.ndarray:
        """Return bool [N], true for rows whose caption is made of their label."""
        if not self.config.captions_from_labels:
            return np.zeros(len(rows), bool)
        return np.array([row in self._made for row in rows.tolist()], dtype=bool)

    def label_names(self, rows: np.ndarray) -> set[str]:
        """Return the names, as `caption_key`, in captions that are made of labels."""
        if not self.config.captions_from_labels:
            return set()
        used = {self._made[row][0] for row in rows.tolist() if row in self._made}
        return {caption_key(self.names[label]) for label in used}

    def write(self) -> str:
        """Write captions that are made of labels beside the rows; return the column of captions.

        Raises:
            CardError: the column holds captions that were made otherwise, and `overwrite` is off.
        """
        config = self.config
        if not config.captions_from_labels:
            return config.text_column
        card = Card(
            column=self.column,
            writer="label-captions",
            config={
                "labels": config.labels,
                "text": config.text_column,
                "classes": list(self.names),
                "templates": list(config.templates),
            },
            versions=versions(),
            seed=config.seed,
            created_by="understudy run ape",
        )
        kind = pa.string()
        with self.store.job([card], {self.column: kind}, overwrite=config.overwrite) as job:
            for unit in job.todo():
                texts = [text or "" for text in self.of(job.rows(unit))]
                job.write(unit, {self.column: pa.array(texts, kind)})
        self.store.refresh()
        return self.column
