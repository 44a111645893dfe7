"""The plan file: one Parquet row an item, in the order of encoding, and what the plan is for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.files import atomic_path
from understudy.core.hashing import hash_bytes, hash_data

KEY = b"understudy.plan"
VERSION = 1
SCHEMA = pa.schema(
    [
        ("rank", pa.int64()),
        ("id", pa.string()),
        ("row", pa.int64()),
        ("u", pa.float32()),
        ("policy", pa.string()),
    ]
)
DECIDES = ("uid", "new_space", "mapped_space", "map", "policy", "seed")
"""The facts whose hash is a plan's fingerprint."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which items to encode, the first one first.

    Attributes:
        rows: int64 [N] row numbers.
        ids: [N] strings.
        u: float32 [N] uncertainties; None for policies that don't use them.
        facts: what the plan is for and how it came about: `uid` of the store, columns and spaces,
            `map`, `policy`, `seed`, `budget`, and counts (`remaining`, `planned`, `unspent`,
            `encoded`, `absent`).
    """

    rows: np.ndarray
    ids: pa.Array
    u: np.ndarray | None
    facts: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Hash of store, spaces, map, policy and seed."""
        return plan_fingerprint(self.facts)

    def __len__(self) -> int:
        return len(self.rows)


def plan_fingerprint(facts: Mapping[str, Any]) -> str:
    """Return the hash of what a plan is for."""
    return hash_data({name: facts[name] for name in DECIDES})[:16]


def _checksum(rows: np.ndarray, u: np.ndarray | None) -> str:
    parts = [np.ascontiguousarray(rows, "<i8").tobytes()]
    if u is not None and len(u):
        parts.append(np.ascontiguousarray(u, "<f4").tobytes())
    return hash_bytes(*parts)


def write_plan(plan: Plan, path: str | Path) -> Path:
    """Write a plan atomically and return its path."""
    import pyarrow.parquet as pq

    count = len(plan)
    u = pa.nulls(count, pa.float32()) if plan.u is None else pa.array(plan.u, pa.float32())
    policy = pa.array([plan.facts["policy"]]).dictionary_encode()
    table = pa.table(
        {
            "rank": pa.array(np.arange(count)),
            "id": plan.ids.cast(pa.string()),
            "row": pa.array(plan.rows),
            "u": u,
            "policy": policy.take(pa.array(np.zeros(count, np.int64))).cast(pa.string()),
        },
        schema=SCHEMA,
    )
    facts = {
        **plan.facts,
        "version": VERSION,
        "fingerprint": plan.fingerprint,
        "checksum": _checksum(plan.rows, plan.u),
    }
    table = table.replace_schema_metadata({KEY: json.dumps(facts).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return Path(path)


def read_plan(path: str | Path) -> Plan:
    """Read a plan and check it in itself.

    Raises:
        DataError: not a plan, of a newer version, an item twice, ranks that are not 0, 1, 2, ...,
            or rows that are not those that were written.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such plan; make one with 'understudy update plan'.") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a plan file ({str(error).splitlines()[0]}).") from None
    text = (table.schema.metadata or {}).get(KEY)
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if text is None or missing:
        raise DataError(
            f"{path}: not a plan ({'no column ' + missing[0] if missing else 'no facts'}); make "
            "one with 'understudy update plan'."
        )
    facts = json.loads(text)
    if facts.pop("version") != VERSION:
        raise DataError(f"{path}: a plan of another version; install a newer understudy.")
    table = table.select(SCHEMA.names).cast(SCHEMA).combine_chunks()
    ids = table.column("id").combine_chunks()
    rows = table.column("row").to_numpy().astype(np.int64)
    _check_unique(path, ids, rows)
    if not np.array_equal(table.column("rank").to_numpy(), np.arange(len(rows))):
        raise DataError(f"{path}: ranks are not 0, 1, 2, ...: the file was changed; plan again.")
    column = table.column("u")
    u = None if column.null_count == len(column) else column.to_numpy().astype(np.float32)
    stored, fingerprint = facts.pop("checksum"), facts.pop("fingerprint")
    plan = Plan(rows, ids if isinstance(ids, pa.Array) else pa.array([], pa.string()), u, facts)
    if plan.fingerprint != fingerprint or _checksum(rows, u) != stored:
        raise DataError(f"{path}: the plan was changed or damaged after it was made; plan again.")
    return plan


def _check_unique(path: str | Path, ids: Any, rows: np.ndarray) -> None:
    counts = ids.value_counts() if len(rows) else None
    if counts is not None and len(counts) < len(ids):
        twice = int(np.argmax(counts.field("counts").to_numpy() > 1))
        name = counts.field("values")[twice].as_py()
        raise DataError(
            f"{path}: item '{name}' is in the plan twice; a budget counts every item once, so "
            "plan again."
        )
    values, seen = np.unique(rows, return_counts=True)
    if len(values) < len(rows):
        row = int(values[np.argmax(seen > 1)])
        raise DataError(f"{path}: row {row} is in the plan twice; plan again.")
