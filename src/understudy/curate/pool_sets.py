"""A small pool, curated step by step, and every step's documents as tokens: what claims train on.

raw -> heuristics -> deduplicated, with a quality score of each document left. The classifier learns
from clean documents of packages that are neither in the pool nor held out, against random
documents of the pool, as DataComp-LM does (arXiv 2406.11794, appendix J).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.files import write_text
from understudy.curate.engine.build import COMMIT
from understudy.curate.engine.pipeline import Pipeline
from understudy.curate.quality.train import train_classifier
from understudy.curate.text.sample import sample_texts
from understudy.curate.tokens.jobs import TokenRun
from understudy.curate.tokens.tokenise import TokeniseConfig, tokenise
from understudy.data.corpora.pool_config import PoolConfig
from understudy.data.tokens import TokenStore
from understudy.models.text.fasttext_fit import FastTextConfig

SCORE = "score.quality"
SETS = ("raw", "heuristics", "dedup")
"""From the pool as it is to what the classifier chooses from."""

WORDS_THRESHOLD = 0.4
"""English prose of manuals reaches 0.45 to 0.65 where the language is told by words, other text at
most 0.3; the published 0.65 is for the published model."""


def heuristics(language: str = "words") -> list[dict[str, Any]]:
    """Return the steps of the pipeline `dclm` between extraction and deduplication.

    Args:
        language: how the language is told: `fasttext`, or `words`, which needs no model.
    """
    found = []
    for step in Pipeline.named("dclm").steps:
        if step.name == COMMIT:
            return found
        plain = {"name": step.name, **step.args}
        if step.name == "language":
            plain["method"] = language
            if language == "words":
                plain["threshold"] = WORDS_THRESHOLD
        if step.name != "extract":
            found.append(plain)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class SetsConfig:
    """Describe the pool and its tokens.

    Attributes:
        pool: the pool.
        vocab_size: of the byte-level BPE, which is trained on documents of the raw pool.
        tokenizer_documents: how many of them.
        negatives: random documents of the pool that the classifier sees, and clean ones, at most.
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


def make_sets(folder: str | Path, config: SetsConfig) -> tuple[Sets, dict[str, Any]]:
    """Make a pool and curate it; what is there already stays.

    Args:
        folder: where to.
        config: what.

    Returns:
        The places, and facts: documents and tokens of every set, the funnel.
    """
    from understudy.data.corpora.pool_write import write_pool

    folder = Path(folder)
    card = write_pool(folder / "pool", config.pool)
    sets, facts = curate_pages(
        folder / "pool" / "pages",
        folder / "pool" / "reference.jsonl.gz",
        folder,
        vocab_size=config.vocab_size,
        tokenizer_documents=config.tokenizer_documents,
        negatives=config.negatives,
        classifier=config.classifier,
        workers=config.workers,
        seed=config.pool.seed,
    )
    return sets, {"pool": card["fingerprint"], **facts}


def curate_pages(
    pages: str | Path,
    reference: str | Path,
    folder: str | Path,
    *,
    vocab_size: int = 4_096,
    tokenizer: str = "",
    tokenizer_documents: int = 2_000,
    negatives: int = 200_000,
    classifier: FastTextConfig | None = None,
    language: str = "words",
    workers: int = 0,
    seed: int = 0,
) -> tuple[Sets, dict[str, Any]]:
    """Curate pages step by step and tokenise every step's documents.

    Args:
        pages: what `understudy curate` reads.
        reference: JSON lines of documents as good as wanted.
        folder: where to.
        vocab_size: of the byte-level BPE.
        tokenizer: `tokenizer.json` or a folder with one, instead of the BPE.
        tokenizer_documents: random documents of the raw pool that the BPE is trained on.
        negatives: random documents of the pool for the classifier, and reference ones, at most.
        classifier: how it learns.
        language: `words` or `fasttext`, see the step `language`.
        workers: processes, 0 for one a core.
        seed: of all draws.

    Returns:
        The places, and facts: documents and tokens of every set, the funnel.
    """
    sets, options = Sets(folder=Path(folder)), {"workers": workers, "seed": seed}
    stores = sets.folder / "stores"
    read = Pipeline(["extract"], "raw").run(pages, stores / "all", **options)
    _tokenizer(sets, stores / "all", tokenizer, vocab_size, tokenizer_documents, seed)
    learn = replace(classifier or FastTextConfig(word_ngrams=2), seed=seed)
    if not sets.classifier.is_file():
        train_classifier(
            reference, stores / "all", sets.classifier, per_class=negatives, config=learn
        )
    score = {"name": "quality-score", "model": str(sets.classifier)}
    Pipeline([score], "raw").run(stores / "all", stores / "raw", **options)
    filtered = Pipeline(heuristics(language), "heuristics").run(
        stores / "all", stores / "heuristics", **options
    )
    dedup = Pipeline(["bloom-dedup", score], "dedup").run(
        stores / "heuristics", stores / "dedup", **options
    )
    counted = {name: _tokens(sets, name, stores / name, workers) for name in SETS}
    funnel = [row.to_plain() for report in (read, filtered, dedup) for row in report.funnel]
    return sets, {"sets": counted, "funnel": funnel}


def _tokenizer(
    sets: Sets, store: Path, given: str, vocab_size: int, documents: int, seed: int
) -> None:
    from understudy.curate.tokens.encoders import load_coder
    from understudy.models.text.train_tokenizer import train_byte_bpe

    if sets.tokenizer.is_file():
        return
    coder = (
        load_coder(given)
        if given
        else train_byte_bpe(sample_texts([store], documents, seed), vocab_size)
    )
    write_text(sets.tokenizer, coder.to_json())


def _tokens(sets: Sets, name: str, place: Path, workers: int) -> dict[str, int]:
    facts: tuple[str, ...] = () if name == "heuristics" else (f"{SCORE}:float32",)
    made: TokenStore = tokenise(
        place,
        sets.tokens(name),
        TokeniseConfig(tokenizer=str(sets.tokenizer), facts=facts, strict=False),
        TokenRun(workers=int(workers == 1)),  # more than there are units is an error
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
