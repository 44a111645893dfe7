"""The quality of pages as a column: a classifier's probability, or features of prose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.curate.engine.stage import Stage
from understudy.curate.quality.columns import float_column, texts_of, with_column
from understudy.curate.quality.models import find_quality_model
from understudy.curate.quality.prose import FORMULA, prose_scores
from understudy.models.text.fasttext import FastText

SCORERS = ("fasttext", "prose")


@dataclass(kw_only=True)
class QualityScore(Stage):
    """Add a score to every page, larger for better ones; missing where there is none.

    Attributes:
        scorer: `"fasttext"`, the probability of a label by a classifier; or `"prose"`, a formula of
            features that needs no model (`prose`).
        model: path of the classifier: fastText's `.bin` or `.ftz`, or one of this package; empty
            for `models/quality.safetensors` in the cache folder.
        label: the classifier's label that means good.
        column: the score's; `quality-threshold` reads it. By default `score.quality`.

    References:
        DataComp-LM, arXiv 2406.11794, appendix J: score = P(hq), line breaks are spaces.
    """

    name = "quality-score"
    kind: ClassVar[Any] = "enricher"
    scorer: str = "fasttext"
    model: str = ""
    label: str = "hq"
    column: str = "score.quality"
    _classifier: FastText | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        check_choice(self.scorer, SCORERS, "quality-score: scorer")
        if not self.column:
            raise ConfigError("quality-score: column: expected a name, got an empty one.")
        self.adds = {self.column: pa.float32()}
        if self.scorer == "prose":
            if self.model:
                raise ConfigError(
                    "quality-score: model: the scorer 'prose' has none; leave it out."
                )
            return
        path = find_quality_model(self.model)
        self._classifier = FastText.load(path)
        labels = self._classifier.labels
        self.label = str(self.label).removeprefix("__label__")
        if self.label not in labels:
            shown = ", ".join(labels[:12]) + (" ..." if len(labels) > 12 else "")
            raise ConfigError(
                f"quality-score: {path} has no label '{self.label}'; its labels: {shown}. Say "
                f"which one means good, for example 'label: {labels[0]}'."
            )

    def describe(self) -> dict[str, Any]:
        """Return the settings; of a model its hash."""
        found: dict[str, Any] = {"name": self.name, "scorer": self.scorer, "column": self.column}
        if self._classifier is None:
            return {**found, "formula": FORMULA}
        return {**found, "label": self.label, "model": self._classifier.fingerprint()}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Add the score of every page."""
        texts = texts_of(batch)
        if self._classifier is None:
            scores = prose_scores(texts)
        else:
            scores = self._classifier.score(texts, self.label)
        return with_column(batch, self.column, float_column(scores))
