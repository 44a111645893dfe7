"""The store as a whole: versions and tags, facts, checks, and space given back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np

from understudy.core.errors import CardError, DataError
from understudy.core.progress import bar
from understudy.data import store_rows
from understudy.data.card import Card
from understudy.data.store_commit import card_of, filled_rows, payload_columns
from understudy.data.store_ids import Ids, stored_ids
from understudy.data.store_lance import CARD_KEY, META_KEY, UID_KEY, Handle, one_line
from understudy.data.store_names import logical
from understudy.data.store_read import stream
from understudy.data.store_search import indexes
from understudy.data.store_staging import STAGING, Files, Staging


def tags(handle: Handle) -> dict[str, int]:
    """Return the version number of each tag."""
    return {name: int(entry["version"]) for name, entry in handle.dataset.tags.list().items()}


def versions(handle: Handle) -> list[dict[str, Any]]:
    """Return the versions that can be opened."""
    names: dict[int, list[str]] = {}
    for name, number in sorted(tags(handle).items()):
        names.setdefault(number, []).append(name)
    return [
        {
            "version": int(v["version"]),
            "time": cast(datetime, v["timestamp"]).isoformat(timespec="seconds"),
            "tags": names.get(int(v["version"]), []),
        }
        for v in handle.dataset.versions()
    ]


def tag(handle: Handle, name: str) -> None:
    """Give the open version a name; the same name again moves it."""
    number = handle.dataset.version
    try:
        if name in tags(handle):
            handle.dataset.tags.update(name, number)
        else:
            handle.dataset.tags.create(name, number)
    except (ValueError, OSError, RuntimeError) as error:
        raise DataError(f"{handle.path}: '{name}' cannot be a tag ({one_line(error)}).") from None


@dataclasses.dataclass
class StagedJob:
    """Staged units of one job, as found in a store."""

    staging: Staging
    facts: dict[str, Any]
    num_rows: int

    @property
    def label(self) -> str:
        """The columns it fills, for messages."""
        return ", ".join(self.facts.get("columns", {})) or self.staging.key

    def resumable(self, handle: Handle) -> bool:
        """Say whether the same command would still use these units."""
        return self.facts.get("uid") == handle.metadata.get(UID_KEY) and self.num_rows > 0


def staged_jobs(files: Files) -> Iterator[StagedJob]:
    """Yield the jobs that have staged units."""
    for key in files.folders(STAGING):
        staging = Staging(files, key)
        try:
            facts = json.loads(files.read(f"{staging.folder}/job.json"))
        except (OSError, ValueError):
            facts = {}
        yield StagedJob(staging, facts, sum(u.stop - u.start for u in staging.units()))


def info(handle: Handle, files: Files) -> dict[str, Any]:
    """Return facts about a store as plain data; see `Store.info`."""
    indexed = indexes(handle)
    columns = []
    for field in handle.schema:
        name = logical(field.name)
        column: dict[str, Any] = {"name": name, "type": str(field.type)}
        card = card_of(handle, name)
        if card is not None:
            column["filled"] = int(filled_rows(handle, name).sum())
            column["card"] = card.to_dict()
        if name in indexed:
            column["index"] = indexed[name]["kind"]
        columns.append(column)
    size = sum(
        file.file_size_bytes or 0
        for fragment in handle.dataset.get_fragments()
        for file in fragment.metadata.files
    )
    return {
        "path": str(handle.path),
        "num_rows": handle.num_rows,
        "version": handle.dataset.version,
        "bytes": size,
        "fragments": len(handle.fragments),
        "columns": columns,
        "meta": json.loads(handle.metadata.get(META_KEY, "{}")),
        "tags": tags(handle),
        "staging": [
            f"{job.label}: {job.num_rows:,} rows staged; run the same command again to finish"
            for job in staged_jobs(files)
            if job.resumable(handle)
        ],
    }


def verify(handle: Handle, files: Files) -> list[str]:
    """Return one sentence a problem; see `Store.verify`."""
    problems = list(_file_problems(handle, files))
    if not problems:  # what follows reads the files
        problems += _id_problems(handle)
        for column in handle.columns:
            problems += _column_problems(handle, column)
    problems += _metadata_problems(handle)
    problems += _staging_problems(handle, files)
    return problems


def _file_problems(handle: Handle, files: Files) -> Iterator[str]:
    from lance.file import LanceFileReader

    fields = {f.id(): logical(f.name()) for f in handle.dataset.lance_schema.fields()}
    payload = payload_columns(handle)
    for fragment, place in zip(handle.dataset.get_fragments(), handle.fragments, strict=True):
        for file in fragment.metadata.files:
            columns = [fields[i] for i in file.fields if i in fields]
            name = f"data/{file.path}"
            rows = f"rows {place.start_row}-{place.start_row + place.num_rows - 1}"
            size = files.size(name)
            if size is None:
                fault = "is missing"
            elif file.file_size_bytes and size != file.file_size_bytes:
                fault = f"has {size} bytes instead of {file.file_size_bytes}"
            else:
                try:
                    reader = LanceFileReader(
                        f"{handle.path}/{name}", storage_options=handle.storage_options
                    )
                    count = reader.metadata().num_rows
                except (OSError, ValueError, RuntimeError) as error:
                    fault = f"cannot be opened ({one_line(error)})"
                else:
                    if count == place.num_rows:
                        continue
                    fault = f"has {count} rows instead of {place.num_rows}"
            yield f"{name} {fault}: {', '.join(columns)}, {rows}; {_mend(columns, payload)}."


def _mend(columns: list[str], payload: list[str]) -> str:
    if any(c in payload for c in columns):
        return "restore the file from a copy, or import the store again"
    return "restore the file from a copy, or drop the column and run its job again"


def _id_problems(handle: Handle) -> Iterator[str]:
    ids = Ids()
    try:
        for chunk in stored_ids(handle):
            ids.add(chunk)
        ids.check_unique(stored_ids(handle))
    except (DataError, OSError, ValueError, RuntimeError) as error:
        yield f"id: {one_line(error)}"


def _column_problems(handle: Handle, column: str) -> Iterator[str]:
    """Read a column to its end; compare what is filled with what its card says."""
    try:
        card = card_of(handle, column)
        expected = None if card is None else filled_rows(handle, column)
    except (CardError, DataError):
        return  # _metadata_problems says so
    found = np.zeros(handle.num_rows, bool)
    at = 0
    try:
        with bar(f"verify {column}", handle.num_rows, "rows") as progress:
            for values in stream(handle, column):
                valid = values.is_valid().to_numpy(zero_copy_only=False)
                found[at : at + len(valid)] = valid
                at += len(valid)
                progress.advance(len(valid))
    except DataError as error:
        mend = _mend([column], payload_columns(handle))
        yield f"column '{column}' cannot be read from row {at} on ({error}); {mend}."
        return
    if at != handle.num_rows:
        yield f"column '{column}' has {at} rows instead of {handle.num_rows}."
    if card is None or expected is None:
        return
    if card.rows_done != int(expected.sum()):
        yield (
            f"column '{column}': its card says {card.rows_done} rows, its set of finished rows "
            f"{int(expected.sum())}; drop the column and run its job again."
        )
    differing = np.flatnonzero(expected != found)
    if len(differing):
        row = int(differing[0])
        state = "empty" if expected[row] else "filled"
        yield (
            f"column '{column}': {len(differing)} rows differ from what its card says (row {row} "
            f"is {state}); drop the column and run its job again."
        )


def _metadata_problems(handle: Handle) -> Iterator[str]:
    for key, text in handle.metadata.items():
        if not key.startswith(CARD_KEY):
            continue
        column = key[len(CARD_KEY) :]
        try:
            card = Card.from_json(text)
            if column not in handle.columns:
                yield f"there is a card for column '{column}', but no such column."
            elif card.column != column:
                yield f"column '{column}' carries the card of column '{card.column}'."
            else:
                filled_rows(handle, column)
        except (CardError, DataError) as error:
            yield f"column '{column}': {error}"


def _staging_problems(handle: Handle, files: Files) -> Iterator[str]:
    for job in staged_jobs(files):
        if job.facts.get("uid") != handle.metadata.get(UID_KEY):
            continue  # of a store that was here before; `compact` removes it
        for unit in job.staging.units():
            try:
                header, _ = job.staging.load(unit, keep=True)
                store_rows.decode(header["rows"], unit.stop - unit.start)
            except (DataError, KeyError) as error:
                yield f"unfinished {job.label}: {error}"


def _committed(handle: Handle, job: StagedJob) -> bool:
    """Say whether every staged row is in the store already."""
    masks = []
    for column, identity in job.facts.get("identities", {}).items():
        card = card_of(handle, column)
        if card is None or card.identity() != identity:
            return False
        masks.append(filled_rows(handle, column))
    if not masks:
        return True
    filled = np.logical_and.reduce(masks)
    for unit, header in job.staging.sound_units():
        part = store_rows.decode(header["rows"], unit.stop - unit.start)
        if unit.stop > len(filled) or not filled[unit.start : unit.stop][part].all():
            return False
    return True


def compact(handle: Handle, files: Files) -> str:
    """Remove old versions and useless staging; see `Store.compact`."""
    handle.check_writable()
    handle.refresh()
    dropped = kept = 0
    for job in staged_jobs(files):
        if job.resumable(handle) and not _committed(handle, job):
            kept += 1
        else:
            job.staging.clear()
            dropped += 1
    try:
        stats = handle.dataset.cleanup_old_versions(
            older_than=timedelta(0), error_if_tagged_old_versions=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{handle.path}: could not be compacted ({one_line(error)}).") from None
    text = (
        f"{handle.path}: {stats.old_versions} old versions removed, "
        f"{stats.bytes_removed / 1e6:,.1f} MB freed"
    )
    if dropped:
        text += f", {dropped} finished or stale jobs' staging removed"
    if kept:
        text += f", {kept} unfinished jobs kept (run the same command again to finish them)"
    return text + "."
