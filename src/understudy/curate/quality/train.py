"""Train a quality classifier on texts of one's own: good ones against any."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError
from understudy.core.files import write_json
from understudy.curate.text.sample import sample_texts
from understudy.models.text.fasttext import FastText
from understudy.models.text.fasttext_fit import FastTextConfig, fit

POSITIVE, NEGATIVE = "hq", "cc"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What came of a training.

    Attributes:
        path: the classifier.
        positives: good texts that it was trained on.
        negatives: others.
        held_out: texts of both kinds that it was not trained on.
        accuracy: share of those whose likelier label is right.
        auc: chance that a good held-out text scores above another one.
    """

    path: str
    positives: int
    negatives: int
    held_out: int
    accuracy: float
    auc: float


def train_classifier(
    positives: str | Path | Iterable[str | Path],
    negatives: str | Path | Iterable[str | Path],
    path: str | Path,
    *,
    per_class: int = 200_000,
    held_out: float = 0.05,
    config: FastTextConfig | None = None,
) -> Trained:
    """Train on files, folders or stores of pages and write the classifier beside its record.

    DataComp-LM took 200,000 texts each: instructions and explanations against random pages, with
    fastText's defaults and word pairs (arXiv 2406.11794, appendix J). Which texts are sampled and
    which are held out depends on their hashes alone.

    Args:
        positives: what is good.
        negatives: random pages of the kind that will be filtered.
        path: `.safetensors`, or `.bin` for fastText's own format.
        per_class: texts of each kind at most.
        held_out: share of texts that the measures are taken on.
        config: of the classifier.

    Raises:
        ConfigError: a share outside [0, 0.5], or no texts per class.
        DataError: no texts, or a file that cannot be read.
    """
    if not 0 <= held_out <= 0.5:
        raise ConfigError(f"train_classifier: held_out: expected 0 to 0.5, got {held_out}.")
    if per_class < 1:
        raise ConfigError(f"train_classifier: per_class: expected 1 or more, got {per_class}.")
    config = config or FastTextConfig()
    texts, labels, test, answers = [], [], [], []
    for given, label in ((positives, POSITIVE), (negatives, NEGATIVE)):
        inputs = [given] if isinstance(given, str | Path) else list(given)
        sample = sample_texts(inputs, per_class, config.seed)
        aside = round(held_out * len(sample))
        texts += sample[aside:]
        labels += [label] * (len(sample) - aside)
        test += sample[:aside]
        answers += [label] * aside
    model = fit(texts, labels, config)
    path = Path(path)
    model.save_bin(path) if path.suffix == ".bin" else model.save(path)
    accuracy, auc = measure(model, test, answers)
    good = labels.count(POSITIVE)
    found = Trained(
        path=str(path),
        positives=good,
        negatives=len(labels) - good,
        held_out=len(test),
        accuracy=accuracy,
        auc=auc,
    )
    record: dict[str, Any] = {**asdict(found), "config": asdict(config)}
    write_json(path.with_suffix(".json"), record)
    return found


def measure(model: FastText, texts: list[str], answers: list[str]) -> tuple[float, float]:
    """Return (accuracy, area under the ROC curve) of P(hq); NaN without texts of both kinds."""
    good = np.array([answer == POSITIVE for answer in answers], bool)
    if good.all() or not good.any():
        return float("nan"), float("nan")
    scores = np.nan_to_num(model.score(texts, POSITIVE))
    names = model.predict(texts)[0]
    accuracy = float(np.mean([a == b for a, b in zip(names, answers, strict=True)]))
    ordered = np.sort(scores[~good])
    below = np.searchsorted(ordered, scores[good], "left")
    equal = np.searchsorted(ordered, scores[good], "right") - below
    return accuracy, float((below + 0.5 * equal).mean() / len(ordered))
