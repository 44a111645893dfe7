"""Write a store, or a column job, slowly enough to be killed on the way; run as a script."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, embedding_type, encode_embeddings
from understudy.data.store import Job, Store
from understudy.data.store_lance import lance_module

ROWS, SIZE = 240, 8
COLUMNS = ("t.image.main.0", "t.image.main.1")


def batches(pause: float = 0.0) -> Iterator[dict[str, list]]:
    """Yield the rows of the store."""
    for start in range(0, ROWS, 40):
        time.sleep(pause)
        rows = range(start, start + 40)
        yield {"id": [f"s{i}" for i in rows], "text": [f"row {i}" for i in rows]}


def values(column: str, start: int, stop: int) -> pa.Array:
    """Return what the column holds in rows [start, stop)."""
    seeds = [[COLUMNS.index(column), row] for row in range(start, stop)]
    rows = [np.random.default_rng(seed).standard_normal(SIZE) for seed in seeds]
    return encode_embeddings(np.stack(rows))


def cards(columns: tuple[str, ...] = COLUMNS) -> list[Card]:
    """Return the cards of the columns."""
    return [Card(column=c, writer="t", config=embedding_config([SIZE])) for c in columns]


def job(store: Store, columns: tuple[str, ...] = COLUMNS, **options: object) -> Job:
    """Open the job that fills the columns."""
    types = {c: embedding_type([SIZE]) for c in columns}
    return store.job(cards(columns), types, **options)  # type: ignore[arg-type]


def fill(store: Store, columns: tuple[str, ...] = COLUMNS, pause: float = 0.0, **options) -> None:
    """Fill the columns, committing every third unit."""
    with job(store, columns, **options) as work:
        for number, unit in enumerate(work.todo(), 1):
            time.sleep(pause)
            found = {c: values(c, unit.start, unit.stop) for c in columns}
            work.write(unit, found, seconds=pause)
            if number % 3 == 0:
                work.commit()


def main() -> None:
    """Create the store if it is not there and fill its columns."""
    what, path, *columns = sys.argv[1:]
    lance_module()  # the second that its import takes is not worth killing in
    print("ready", flush=True)
    if what == "create":
        Store.create(path, batches(pause=0.05), rows_per_fragment=100)
    else:
        fill(Store.open(path), tuple(columns) or COLUMNS, pause=0.02, unit_rows=16)
    print("done", flush=True)


if __name__ == "__main__":
    main()
