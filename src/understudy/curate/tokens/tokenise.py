"""Documents to a token store, one row a document, the end of text appended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.core.config import to_dict
from understudy.core.errors import DataError
from understudy.core.hashing import hash_data
from understudy.curate.engine.inputs import find_inputs
from understudy.curate.engine.tasks import Task, run_tasks
from understudy.curate.engine.workplace import Workplace, unit_folder
from understudy.curate.tokens.encoders import TIKTOKEN, Encoder, load_encoder
from understudy.curate.tokens.jobs import MADE, TokenRun, done_before, tidy
from understudy.curate.tokens.parts import read_part
from understudy.curate.tokens.tokenise_unit import TokeniseConfig, fact_types
from understudy.data.tokens import TokenInfo, TokenStore, token_schema

__all__ = ["TokeniseConfig", "tokenise"]


def tokenise(
    inputs: Sequence[str | Path] | str | Path,
    store: str | Path,
    config: TokeniseConfig,
    run: TokenRun | None = None,
) -> TokenStore:
    """Tokenise files and stores of documents; called again after a kill, it goes on.

    Args:
        inputs: files (`.jsonl`, `.gz`, `.zst`, ...), folders, or stores with a column `text`.
        store: where the token store goes.
        config: what decides the tokens.
        run: where it runs.

    Returns:
        A store of kind `documents`; its `meta` tells what was skipped and why.

    Raises:
        DataError: nothing to read, a document cannot be used (strict), or there is another store.
        ConfigError: the tokenizer does not fit.
    """
    run = run or TokenRun()
    encoder = load_encoder(config.tokenizer, config.eot, config.dtype)
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    units = find_inputs(given, unit_bytes=config.unit_bytes).units
    run.check_units(len(units), "units of input (files, or ranges of them)")
    options = to_dict(config)
    if not config.tokenizer.startswith(TIKTOKEN):  # workers may run in another folder
        options["tokenizer"] = str(Path(config.tokenizer).resolve())
    identity = hash_data(
        [{**options, "tokenizer": encoder.fingerprint}, [u.to_plain() for u in units]]
    )
    there = done_before(store, identity, run.overwrite)
    work = run.folder(store)
    if there is not None:
        tidy(work, run)
        return there
    with Workplace(work) as place:
        tasks = [
            Task(
                key=unit.key,
                call="understudy.curate.tokens.tokenise_unit:tokenise_unit",
                args={
                    "unit": unit.to_plain(),
                    "config": options,
                    "fingerprint": encoder.fingerprint,
                },
                out=work / "documents" / unit_folder(unit.key),
            )
            for unit in units
        ]
        records = run_tasks(tasks, on=run.on, workers=run.workers, label="tokenise")
        made = _write(store, tasks, records, encoder, config, identity, run)
        place.note("done")
    tidy(work, run)
    return made


def _write(
    store: str | Path,
    tasks: Sequence[Task],
    records: Sequence[Mapping[str, Any]],
    encoder: Encoder,
    config: TokeniseConfig,
    identity: str,
    run: TokenRun,
) -> TokenStore:
    total = _totals(records)
    if not total["documents"]:
        reasons = ", ".join(f"{n:,} {r}" for r, n in total["skipped"].items()) or "none was there"
        raise DataError(f"tokenise: no document could be used ({reasons}).")
    info = TokenInfo(
        kind="documents",
        tokenizer=encoder.name,
        tokenizer_hash=encoder.fingerprint,
        vocab_size=encoder.vocab_size,
        eot_id=encoder.eot_id,
        dtype=encoder.dtype.name,
        source=f"{len(tasks)} units of input",
    )
    facts = fact_types(config.facts)
    schema = token_schema(info.dtype, facts)
    return TokenStore.create(
        store,
        (batch.cast(schema) for task in tasks for batch in read_part(task.out)),
        info,
        facts=facts,
        meta={MADE: {"identity": identity, "options": to_dict(config), "stats": total}},
        overwrite=run.overwrite,
    )


def _totals(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    skipped: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    examples: list[str] = []
    for record in records:
        skipped.update(record["stats"]["skipped"])
        lengths.update({int(k): v for k, v in record["stats"]["lengths"].items()})
        examples += record["stats"]["examples"]
    return {
        **{k: sum(r["stats"][k] for r in records) for k in ("documents", "tokens", "characters")},
        "skipped": dict(sorted(skipped.items())),
        "examples": examples[:20],
        "lengths": {str(k): lengths[k] for k in sorted(lengths)},
    }
