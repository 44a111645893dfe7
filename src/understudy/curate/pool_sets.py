"""A small pool, curated step by step, and every step's documents as tokens: what claims train on.

raw -> heuristics -> deduplicated, with a quality score of each document left. The classifier learns
from clean documents of packages that are neither in the pool nor held out, against random
documents of the pool, as DataComp-LM does (arXiv 2406.11794, appendix J).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.core.files import write_text
from understudy.core.seeds import rng
from understudy.curate.engine.pipeline import Pipeline
from understudy.curate.tokens.jobs import TokenRun
from understudy.curate.tokens.tokenise import TokeniseConfig, tokenise
from understudy.data.corpora.pool_config import PoolConfig
from understudy.data.tokens import TokenStore
from understudy.models.text.fasttext_fit import FastTextConfig, fit

SCORE = "score.quality"
SETS = ("raw", "heuristics", "dedup")
"""From the pool as it is to what the classifier chooses from."""

HEURISTICS: tuple[Any, ...] = (
    "url-removal",
    "newlines",
    {"name": "language", "method": "words", "threshold": 0.4},
    "page-length",
    "word-length",
    "symbol-ratio",
    "bullet-lines",
    "ellipsis-lines",
    "alphabetic-words",
    "stop-words",
    "repetition",
    "line-edits",
)
"""The steps of DCLM-Baseline between extraction and deduplication. The language is told by words,
since the published model cannot be had everywhere; English prose of manuals reaches 0.45 to 0.65
there, other text at most 0.3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetsConfig:
    """Describe the pool and its tokens.

    Attributes:
        pool: the pool.
        vocab_size: of the byte-level BPE, which is trained on documents of the raw pool.
        tokenizer_documents: how many of them.
        negatives: random documents of the pool that the classifier learns from; as many clean
            ones at most.
        classifier: how it learns. fastText's own rate and epochs are for hundreds of thousands of
            texts; a few thousand leave it near 0.5 for every page.
        workers: processes; 1 runs here.
    """

    pool: PoolConfig = field(default_factory=PoolConfig)
    vocab_size: int = 2_048
    tokenizer_documents: int = 2_000
    negatives: int = 2_000
    classifier: FastTextConfig = field(
        default_factory=lambda: FastTextConfig(word_ngrams=2, lr=0.5, epochs=10)
    )
    workers: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Sets:
    """Where everything is.

    Attributes:
        folder: of all of it.
    """

    folder: Path

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.folder / "tokenizer.json"

    @property
    def classifier(self) -> Path:
        """The quality classifier's file."""
        return self.folder / "quality.safetensors"

    def tokens(self, name: str) -> Path:
        """Return a set's token store, one row a document."""
        return self.folder / "tokens" / name

    def held_out(self, name: str) -> Path:
        """Return held-out documents: `clean`, of other packages, or `code`."""
        return self.folder / "pool" / "held_out" / f"{name}.jsonl.gz"

    def coder(self) -> Any:
        """Return the tokenizer."""
        from understudy.models.language.coder import read_coder

        return read_coder(self.tokenizer.read_text(encoding="utf-8"))


def texts_of(path: str | Path) -> Iterator[str]:
    """Yield the texts of a file of JSON lines, or of all in a folder, in order.

    Raises:
        DataError: a line without a text.
    """
    path = Path(path)
    for file in sorted(path.glob("*.jsonl.gz")) if path.is_dir() else [path]:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                text = json.loads(line).get("text")
                if not isinstance(text, str):
                    raise DataError(f"{file}, line {number}: no text.")
                yield text


def make_sets(folder: str | Path, config: SetsConfig) -> tuple[Sets, dict[str, Any]]:
    """Make the pool, curate it, score it, tokenise every set; what is there already stays.

    Args:
        folder: where to.
        config: what.

    Returns:
        The places, and facts: documents and tokens of every set, the funnel.
    """
    from understudy.data.corpora.pool_write import write_pool

    sets = Sets(folder=Path(folder))
    card = write_pool(sets.folder / "pool", config.pool)
    pages = sets.folder / "pool" / "pages"
    _tokenizer(sets, config, pages)
    _classifier(sets, config, pages)
    stores = sets.folder / "stores"
    first = Pipeline(HEURISTICS, "heuristics").run(
        pages, stores / "heuristics", workers=config.workers, seed=config.pool.seed
    )
    second = Pipeline(
        ["bloom-dedup", {"name": "quality-score", "model": str(sets.classifier)}], "dedup"
    ).run(stores / "heuristics", stores / "dedup", workers=config.workers, seed=config.pool.seed)
    scored = stores / "raw"
    Pipeline([{"name": "quality-score", "model": str(sets.classifier)}], "raw").run(
        pages, scored, workers=config.workers, seed=config.pool.seed
    )
    places = {"raw": scored, "heuristics": stores / "heuristics", "dedup": stores / "dedup"}
    counted = {name: _tokens(sets, name, place, config) for name, place in places.items()}
    funnel = [row.to_plain() for report in (first, second) for row in report.funnel]
    return sets, {"pool": card["fingerprint"], "sets": counted, "funnel": funnel}


def _tokenizer(sets: Sets, config: SetsConfig, pages: Path) -> None:
    from understudy.models.text.train_tokenizer import train_byte_bpe

    if sets.tokenizer.is_file():
        return
    texts = _some(list(texts_of(pages)), config.tokenizer_documents, config.pool.seed, "bpe")
    write_text(sets.tokenizer, train_byte_bpe(texts, config.vocab_size).to_json())


def _some(texts: list[str], number: int, seed: int, what: str) -> list[str]:
    order = rng(what, seed).permutation(len(texts))[:number]
    return [texts[i] for i in sorted(order.tolist())]


def _classifier(sets: Sets, config: SetsConfig, pages: Path) -> None:
    if sets.classifier.is_file():
        return
    good = list(texts_of(sets.folder / "pool" / "reference.jsonl.gz"))[: config.negatives]
    bad = _some(list(texts_of(pages)), len(good), config.pool.seed, "negatives")
    labels = ["hq"] * len(good) + ["cc"] * len(bad)
    options = replace(config.classifier, seed=config.pool.seed)
    fit([*good, *bad], labels, options).save(sets.classifier)


def _tokens(sets: Sets, name: str, place: Path, config: SetsConfig) -> dict[str, int]:
    facts: tuple[str, ...] = () if name == "heuristics" else (f"{SCORE}:float32",)
    made: TokenStore = tokenise(
        place,
        sets.tokens(name),
        TokeniseConfig(tokenizer=str(sets.tokenizer), facts=facts, strict=False),
        TokenRun(workers=config.workers),
    )
    return {"documents": made.num_rows, "tokens": int(made.lengths.sum()) + made.num_rows}


def best(scores: np.ndarray, keep: float) -> np.ndarray:
    """Return the rows of the best share by score, at least one; ties with the last one stay too.

    Args:
        scores: float [N].
        keep: share in (0, 1].
    """
    number = max(1, int(np.ceil(keep * len(scores) - 1e-9)))
    threshold = np.sort(scores)[::-1][number - 1]
    return np.flatnonzero(scores >= threshold)
