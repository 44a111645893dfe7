"""Write a pool to a folder with a card that says what it is, from what, and what is in it.

OUT/pages/pages-00000.jsonl.gz ...    what `curate` reads (or .warc.gz)
OUT/truth.jsonl.gz                    kind, tier and copies by url, for evaluation
OUT/reference.jsonl.gz                clean documents to train a classifier on
OUT/held_out/clean.jsonl.gz           clean documents of other packages
OUT/held_out/code.jsonl.gz            sources of held-out modules of the standard library
OUT/pool.json                         the card; written last
"""

from __future__ import annotations

import platform
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

from understudy.core.config import check_choice, to_dict
from understudy.core.errors import DataError
from understudy.core.files import read_json, write_json
from understudy.core.hashing import hash_data
from understudy.data.corpora import installed
from understudy.data.corpora.checks import survey
from understudy.data.corpora.pool import Pool, PoolPage, pool
from understudy.data.corpora.pool_config import KINDS, PoolConfig
from understudy.data.corpora.shards import (
    COMPRESSIONS,
    FORMATS,
    json_record,
    record_id,
    write_jsonl,
    write_shards,
)

CARD = "pool.json"


def environment(config: PoolConfig) -> dict[str, Any]:
    """Return what the pool depends on besides its configuration: Python and package versions.

    The system's manual pages and files aren't listed; the fingerprint of the pool covers them.
    """
    names = installed.distributions(config.packages)
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": {name: installed.version(name) for name in names},
    }


def funnel(pages: list[PoolPage]) -> dict[str, Any]:
    """Return, by kind, originals, copies, megabytes and the share that simple heuristics keep."""
    originals: dict[str, list[str]] = defaultdict(list)
    copies: dict[str, list[str]] = defaultdict(list)
    for page in pages:
        (copies if page.copy else originals)[page.kind].append(page.document.text)
    out = {}
    for kind in KINDS:
        if kind not in originals:
            continue
        found = survey(originals[kind])
        out[kind] = {
            "tier": KINDS[kind].tier,
            "clean": KINDS[kind].clean,
            "about": KINDS[kind].about,
            "originals": found["documents"],
            "copies": len(copies[kind]),
            "megabytes": found["megabytes"],
            "copies_megabytes": round(sum(len(t.encode()) for t in copies[kind]) / 1e6, 3),
            "kept_by_heuristics": found["kept"],
            "reasons": found["reasons"],
        }
    return out


def card_of(made: Pool, form: str, shards: int) -> dict[str, Any]:
    """Return the card of a pool."""
    around = environment(made.config)
    counts = funnel(made.pages)
    total = sum(k["megabytes"] + k["copies_megabytes"] for k in counts.values())
    clean = [k for k in counts.values() if k["clean"]]
    return {
        "kind": "pool",
        "config": to_dict(made.config),
        "format": form,
        "shards": shards,
        "documents": len(made.pages),
        "megabytes": round(total, 3),
        "clean_documents": sum(k["originals"] for k in clean),
        "clean_megabytes": round(sum(k["megabytes"] for k in clean), 3),
        "kinds": counts,
        "reference": survey(page.document.text for page in made.reference),
        "held_out": survey(page.document.text for page in made.held_out),
        "code": survey(page.document.text for page in made.code),
        "notes": made.notes,
        "fingerprint": made.fingerprint(),
        "environment": around,
        "environment_hash": hash_data(around),
    }


def _kept(out: Path, config: PoolConfig, form: str, overwrite: bool) -> dict[str, Any] | None:
    """Return the card of the pool that is there already, None if it is to be made.

    Raises:
        DataError: there is something else.
    """
    if overwrite or not out.exists() or not any(out.iterdir()):
        return None
    if not (out / CARD).exists():
        if (out / "pages").is_dir():
            return None  # an interrupted run
        raise DataError(f"{out}: not empty and not a pool; choose another folder.")
    card = read_json(out / CARD)
    if card.get("config") != to_dict(config) or card.get("format") != form:
        raise DataError(
            f"{out}: holds a pool of another configuration; choose another folder, or say "
            "--overwrite to replace it."
        )
    if card.get("environment_hash") != hash_data(environment(config)):
        raise DataError(
            f"{out}: holds a pool made with other package versions (fingerprint "
            f"{card.get('fingerprint')}); keep using it, or say --overwrite to make it anew."
        )
    return card


def write_pool(
    out: str | Path,
    config: PoolConfig | None = None,
    *,
    form: str = "jsonl",
    compression: str = "gz",
    per_shard: int = 2500,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw a pool, write it and return its card; a finished one is left as it is.

    Args:
        out: the folder.
        config: how to draw it.
        form: `jsonl` ({text, url, metadata} a line) or `warc` (HTML pages).
        compression: `gz` or `zst`, of the JSON lines.
        per_shard: pages a file.
        overwrite: replace what is there.

    Raises:
        DataError: another pool is there; see also `pool`.
        ConfigError: an unknown format or compression.
    """
    check_choice(form, FORMATS, "pool, format")
    check_choice(compression, COMPRESSIONS, "pool, compression")
    out, config = Path(out), config or PoolConfig()
    there = _kept(out, config, form, overwrite)
    if there is not None:
        return there
    made = pool(config)
    if (out / CARD).exists():
        (out / CARD).unlink()
    for name in ("pages", "held_out"):
        shutil.rmtree(out / name, ignore_errors=True)
    shards = sum(1 for _ in write_shards(out / "pages", made.pages, form, compression, per_shard))
    for path, part in (
        (out / "reference.jsonl.gz", made.reference),
        (out / "held_out" / "clean.jsonl.gz", made.held_out),
        (out / "held_out" / "code.jsonl.gz", made.code),
    ):
        write_jsonl(path, [json_record(page, i) for i, page in enumerate(part)])
    write_jsonl(
        out / "truth.jsonl.gz",
        [
            {"url": p.document.url, "record": record_id(p), "id": p.document.id, **p.truth}
            for p in made.pages
        ],
    )
    card = card_of(made, form, shards)
    write_json(out / CARD, card)
    return card
