"""Which language a page is in; optionally only one is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.curate.engine.stage import Stage
from understudy.curate.quality.columns import blank, float_column, texts_of, with_column
from understudy.curate.quality.language_words import predict_languages
from understudy.curate.quality.models import find_language_model
from understudy.models.text.fasttext import FastText

METHODS = ("fasttext", "words")


@dataclass(kw_only=True)
class Language(Stage):
    """Add `language` and `language_prob`; keep pages that are surely in one language.

    Attributes:
        keep: language code to keep; empty keeps all pages and only adds the columns.
        threshold: smallest probability of it.
        method: `"fasttext"`, a trained model over the whole page; or `"words"`, a heuristic by
            scripts and frequent words that needs no model (`language_words`).
        model: path of fastText's `lid.176.bin` or `lid.176.ftz`, or of any classifier whose labels
            are language codes; empty for the one that was fetched.

    References:
        DataComp-LM, arXiv 2406.11794: English from 0.65. Line breaks are spaces to the model.
    """

    name = "language"
    adds: ClassVar[Any] = {"language": pa.string(), "language_prob": pa.float32()}
    keep: str = "en"
    threshold: float = 0.65
    method: str = "fasttext"
    model: str = ""
    _classifier: FastText | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self.kind = "filter" if self.keep else "enricher"
        check_choice(self.method, METHODS, "language: method")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"language: threshold: expected 0 to 1, got {self.threshold}.")
        if self.method == "words":
            if self.model:
                raise ConfigError("language: model: the method 'words' has none; leave it out.")
            return
        self._classifier = FastText.load(find_language_model(self.model))
        if self.keep:
            self._classifier.parts.dictionary.label_id(self.keep)

    def describe(self) -> dict[str, Any]:
        """Return the settings; of a model its hash."""
        return {
            "name": self.name,
            "keep": self.keep,
            "threshold": self.threshold,
            "method": self.method,
            "model": self._classifier.fingerprint() if self._classifier else "",
        }

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Add the columns; drop other languages, doubtful pages and those without any."""
        texts = texts_of(batch)
        if self._classifier is None:
            names, probabilities = predict_languages(texts.to_pylist())
        else:
            names, probabilities = self._classifier.predict(texts)
            # fastText guesses a language from the end of the line alone
            for i in np.flatnonzero(blank(texts)).tolist():
                names[i], probabilities[i] = None, 0
        probabilities = np.minimum(probabilities, 1)  # fastText reports up to 1.00001
        found = with_column(batch, "language", pa.array(names, pa.string()))
        found = with_column(found, "language_prob", float_column(probabilities))
        if not self.keep:
            return found
        same = np.array([name == self.keep for name in names], bool)
        return found.filter(pa.array(same & (probabilities >= np.float32(self.threshold))))
