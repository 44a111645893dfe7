"""`understudy curate classifier`: good texts against random ones, to a quality classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from understudy.cli.common import note, parse, show, table


def classifier(argv: Sequence[str], prog: str) -> int:
    """Parse and run `curate classifier`."""

    def command(
        good: tuple[str, ...],
        pool: tuple[str, ...],
        out: Path | None = None,
        per_class: int = 200_000,
        held_out: float = 0.05,
        lr: float = 0.1,
        epochs: int = 5,
        word_ngrams: int = 2,
        seed: int = 0,
        json: bool = False,
    ) -> int:
        """Train a classifier in fastText's form on files, folders or stores of texts.

        Args:
            good: texts as good as wanted.
            pool: random pages of the kind that will be filtered.
            out: .safetensors, or .bin for fastText's format; by default where the step
                quality-score looks for it.
            per_class: texts of each kind at most.
            held_out: share of texts to measure accuracy and AUC on.
            lr: learning rate. fastText's 0.1 and 5 epochs are for hundreds of thousands of texts; a
                few thousand need about 0.5 and 10.
            epochs: passes over the texts.
            word_ngrams: longest run of words that has a row of its own.
            seed: of the vectors, the sample and the order.
            json: print JSON.
        """
        from understudy.curate.quality.models import quality_place
        from understudy.curate.quality.train import train_classifier
        from understudy.models.text.fasttext_fit import FastTextConfig

        place = out or quality_place()
        place.parent.mkdir(parents=True, exist_ok=True)
        config = FastTextConfig(lr=lr, epochs=epochs, word_ngrams=word_ngrams, seed=seed)
        found = train_classifier(
            good, pool, place, per_class=per_class, held_out=held_out, config=config
        )
        show(asdict(found), json, lambda data: table(list(data.items()), ("classifier", "")))
        note(f"wrote {place}")
        return 0

    return parse(command, argv, prog)
