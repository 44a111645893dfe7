"""The command of `python -m understudy.data.corpora.pool`."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from understudy.core import progress
from understudy.core.errors import UnderstudyError
from understudy.data.corpora.pool_config import PoolConfig
from understudy.data.corpora.pool_write import write_pool

Positional = tyro.conf.Positional


def text_of(card: dict[str, Any], out: Path) -> str:
    """Return the funnel of a pool's card as a table."""
    head = ("kind", "tier", "originals", "MB", "copies", "MB", "kept by simple heuristics")
    rows = [
        (
            kind,
            str(k["tier"]),
            f"{k['originals']:,}",
            f"{k['megabytes']:.2f}",
            f"{k['copies']:,}",
            f"{k['copies_megabytes']:.2f}",
            f"{100 * (k['kept_by_heuristics'] or 0):.1f} %",
        )
        for kind, k in card["kinds"].items()
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
    for name in ("reference", "held_out", "code"):
        part = card[name]
        lines.append(f"{name}: {part['documents']:,} documents, {part['megabytes']:.2f} MB")
    lines += card["notes"]
    lines.append(
        f"{out}: {card['documents']:,} documents, {card['megabytes']:.1f} MB, of which "
        f"{card['clean_documents']:,} clean originals ({card['clean_megabytes']:.2f} MB); "
        f"fingerprint {card['fingerprint']}"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments, write the pool, print its funnel; 2 after a mistake."""

    def command(
        out: Positional[Path],
        documents: int = 20_000,
        seed: int = 0,
        preset: str = "dclm",
        format: str = "jsonl",
        compression: str = "gz",
        fetched: tuple[str, ...] = (),
        overwrite: bool = False,
        json: bool = False,
    ) -> None:
        """Write a pool of real documents for trying out curation.

        Args:
            out: folder to write it to.
            documents: how many.
            seed: another seed is another draw.
            preset: dclm (10 % clean, a fifth copies) or graded (three tiers).
            format: jsonl or warc (HTML pages).
            compression: gz or zst, of the JSON lines.
            fetched: fetched texts whose documents join the clean ones in equal parts.
            overwrite: replace what is there.
            json: print the card as JSON.
        """
        config = PoolConfig(documents=documents, seed=seed, preset=preset)
        if fetched:
            mix = dict(config.shares)
            mix["docs"] = mix["docstrings"] / 2
            mix["docstrings"] /= 2
            config = PoolConfig(
                documents=documents, seed=seed, preset=preset, mix=mix, fetched=tuple(fetched)
            )
        card = write_pool(out, config, form=format, compression=compression, overwrite=overwrite)
        print(json_module.dumps(card, indent=2) if json else text_of(card, out))

    progress.enable("auto")
    try:
        tyro.cli(command, args=argv, prog="python -m understudy.data.corpora.pool")
    except UnderstudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
