"""`understudy evaluate compare` and `understudy evaluate captions`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from understudy.cli.common import note, parse, show, table
from understudy.core.errors import ConfigError

Positional = tyro.conf.Positional


def compare(argv: Sequence[str], prog: str) -> None:
    """Parse and run `evaluate compare REPORT ...`."""

    def command(
        reports: Positional[tuple[Path, ...]],
        baseline: str = "",
        metric: str = "",
        out: Path | None = None,
        json: bool = False,
    ) -> None:
        """Compare pretrainings by their transfer reports, paired by seed.

        Refuses arms with other towers, heads, samples seen or fine-tuning than the baseline's.

        Args:
            reports: folders or files that 'evaluate dense' wrote, one an arm and seed.
            baseline: the arm that others are compared with; the first report's by default.
            metric: which one; each task's main one by default.
            out: also write the comparison as JSON here.
            json: print JSON.
        """
        from understudy.core.files import write_json
        from understudy.core.transfer_rows import read_transfer
        from understudy.evaluate.compare import HEADER, compare, table_rows, to_plain

        if not reports:
            raise ConfigError(f"{prog}: give at least one report.")
        rows = [row for path in reports for row in read_transfer(path)]
        found = compare(rows, baseline or rows[0].arm, metric)
        if out is not None:
            write_json(out, to_plain(found))
            note(f"written: {out}")
        text = table(table_rows(found), HEADER)
        tried = sorted({(entry.arm, entry.lrs_tried) for entry in found})
        text += "\nlearning rates tried: " + ", ".join(f"{arm} {n}" for arm, n in tried)
        show(to_plain(found), json, lambda _: text)

    parse(command, argv, prog)


def captions(argv: Sequence[str], prog: str) -> None:
    """Parse and run `evaluate captions STORE --scorer RUN --arms ...`."""

    def command(
        store: Positional[Path],
        scorer: Path,
        arms: tuple[str, ...] = ("text",),
        split: str | None = None,
        nouns: Path | None = None,
        facts: str = "",
        block: int = 1000,
        seed: int = 0,
        threads: int = 1,
        out: Path | None = None,
        json: bool = False,
    ) -> None:
        """Score captions before anything is trained on them.

        Args:
            store: pictures with captions.
            scorer: a run or weights file of a CLIP that teaches no arm.
            arms: NAME=EXPRESSION each, such as alt=text, syn=caption.coca,
                mix=0.5*text+0.5*caption.coca.
            split: only rows of this split.
            nouns: file with a noun a line, or WORD=NOUN; adds the share of nouns that the image
                confirms.
            facts: column with the nouns that an image shows; the scorer is asked by default.
            block: captions among which the right one is ranked.
            seed: of the blocks and of captions drawn from a list.
            threads: of the processor.
            out: also write the scores as JSON here.
            json: print JSON.
        """
        import torch

        from understudy.core.files import write_json
        from understudy.data.store import Store
        from understudy.evaluate.captions import Nouns, check_held_out, score_captions
        from understudy.models.runs import load_run
        from understudy.reinforce.held_out import fingerprints
        from understudy.train.caption_arm import parse_arm

        torch.set_num_threads(threads)
        opened, model = Store.open(store), load_run(scorer)
        check_held_out(fingerprints(model), opened)
        parsed = [parse_arm(arm) for arm in arms]
        found = score_captions(
            model,
            opened,
            {arm.name: arm.odds for arm in parsed},
            split=split,
            nouns=Nouns(lexicon=_lexicon(nouns), facts=facts) if nouns else None,
            block=block,
            seed=seed,
        )
        if out is not None:
            write_json(out, found)
            note(f"written: {out}")
        show(found, json, _caption_table)

    parse(command, argv, prog)


def _lexicon(path: Path) -> dict[str, str]:
    from understudy.core.errors import DataError

    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a file with a noun a line.") from None
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {word.strip(): (noun.strip() or word.strip()) for word, _, noun in pairs}


def _caption_table(found: dict[str, Any]) -> str:
    from understudy.evaluate.captions import PER_SAMPLE

    rows = []
    for name, arm in found["arms"].items():
        for metric in PER_SAMPLE:
            if metric in arm:
                s = arm[metric]
                rows.append((name, metric, s["mean"], s["p10"], s["p50"], s["p90"]))
        for metric in ("type_token_ratio", "near_duplicates", "without_nouns"):
            if metric in arm:
                rows.append((name, metric, arm[metric], None, None, None))
    text = table(rows, ("arm", "score", "mean", "10%", "50%", "90%"))
    scorer = found["scorer"]
    return (
        f"{text}\nscorer {scorer['name']} ({scorer['hash'][:12]}), {found['rows']:,} rows, ranked "
        f"in blocks of {found['block']:,}"
    )
