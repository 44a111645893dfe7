"""Speed of a store's reads and writes, and what a reinforced sample costs on disk.

20,000 rows of 2.7 KB of image bytes, a caption and one 1,536-dimensional float16 embedding. Random
takes and scans are compared with bare Lance on the same files (the price of names, cards and
checks) and with the released layout, tar files with `jpg`, `txt` and `npz` a sample, which can only
be scanned. Files are in the page cache.

    .venv/bin/python benchmarks/store.py
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from common import alternate, rates, ratio, write_result
from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, embedding_type, encode_embeddings
from understudy.data.store import Store
from understudy.data.store_lance import lance_module

ROWS, DIM, BATCH, TAKES, ROUNDS = 20_000, 1536, 256, 20, 9
IMAGE_BYTES = 2700
TAR_ROWS = 2000
COLUMNS = ["image", "text", "t.image.main.0"]
GOAL_TAKE, GOAL_FORMULA = 20_000, 1.05
VIEWS, REAL, SYNTHETIC = 10, 1, 5  # the counts of DataCompDR-1B (arXiv 2311.17049)


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return unit vectors float32 [count, DIM]."""
    values = rng.standard_normal((count, DIM), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def build(path: Path, count: int) -> Store:
    """Make the store without knowledge columns."""
    rng = np.random.default_rng(0)

    def batches():
        for start in range(0, count, 500):
            rows = range(start, min(start + 500, count))
            yield {
                "id": [f"sample-{i:08d}" for i in rows],
                "image": pa.array([rng.bytes(IMAGE_BYTES) for _ in rows], pa.binary()),
                "text": [f"a photo of thing {i} beside another thing" for i in rows],
            }

    return Store.create(path, batches())


def fill(store: Store, columns: list[str]) -> float:
    """Fill embedding columns in lockstep and return the seconds of writing and committing."""
    rng = np.random.default_rng(1)
    cards = [Card(column=c, writer="t", config=embedding_config([DIM])) for c in columns]
    spent = 0.0
    with store.job(cards, {c: embedding_type([DIM]) for c in columns}) as job:
        for todo in job.todo():
            found = {c: encode_embeddings(unit(rng, todo.stop - todo.start)) for c in columns}
            start = time.perf_counter()
            job.write(todo, found)
            spent += time.perf_counter() - start
        start = time.perf_counter()
        job.commit()
        return spent + time.perf_counter() - start


def write_tar(path: Path, store: Store) -> None:
    """Write rows in the released layout."""
    with tarfile.open(path, "w") as tar:
        for batch in store.scan(["id", *COLUMNS], rows=range(TAR_ROWS)):
            for row in batch.to_pylist():
                array = io.BytesIO()
                np.savez(array, image_emb=np.array(row[COLUMNS[2]], np.float32))
                parts = {
                    "jpg": row["image"],
                    "txt": row["text"].encode(),
                    "npz": array.getvalue(),
                }
                for kind, data in parts.items():
                    entry = tarfile.TarInfo(f"{row['id']}.{kind}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))


def scan_tar(path: Path) -> int:
    """Read every sample of a tar file; return how many embeddings there were."""
    found = 0
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            data = file.read() if file else b""
            if member.name.endswith("npz"):
                with np.load(io.BytesIO(data)) as arrays:
                    found += len(arrays["image_emb"]) > 0
    return found


def scan_store(store: Store) -> int:
    """Read every row; return how many embeddings there were."""
    return sum(len(b.column(2).flatten().to_numpy()) // DIM for b in store.scan(COLUMNS))


def speed(folder: Path) -> dict[str, object]:
    """Time takes, scans and a column job."""
    store = build(folder / "store", ROWS)
    job_s = fill(store, [COLUMNS[2]])
    write_tar(folder / "released.tar", store)
    bare = lance_module().dataset(store.path)
    stored = [c.replace(".", ":") for c in COLUMNS]
    rng = np.random.default_rng(2)
    picks = [rng.integers(0, ROWS, BATCH) for _ in range(TAKES)]
    arms = {
        "take": lambda: [store.take(p, COLUMNS) for p in picks],
        "take-lance": lambda: [bare.take(p, columns=stored) for p in picks],
        "take-embeddings": lambda: [store.array(COLUMNS[2], p) for p in picks],
        "scan": lambda: scan_store(store),
        "scan-lance": lambda: [
            b.num_rows for b in bare.scanner(columns=stored, batch_size=1024).to_batches()
        ],
        "scan-tar": lambda: scan_tar(folder / "released.tar"),
        "content-hash": store.content_hash,
    }
    items = dict.fromkeys(arms, float(ROWS))
    items |= {name: float(BATCH * TAKES) for name in arms if name.startswith("take")}
    items["scan-tar"] = float(TAR_ROWS)
    seconds = alternate(arms, ROUNDS)
    per_row = {name: [s / items[name] for s in values] for name, values in seconds.items()}
    return {
        "rows": ROWS,
        "batch": BATCH,
        "rows_per_s": {**rates(seconds, items), "column-job": round(ROWS / job_s)},
        "best_rows_per_s": {n: round(items[n] / min(s)) for n, s in seconds.items()},
        "take_over_lance": round(ratio(seconds["take-lance"], seconds["take"]), 3),
        "scan_over_lance": round(ratio(seconds["scan-lance"], seconds["scan"]), 3),
        "scan_over_tar": round(ratio(per_row["scan-tar"], per_row["scan"]), 1),
    }


def storage(folder: Path) -> dict[str, object]:
    """Measure what the embeddings of a reinforced sample take on disk."""
    count = 2000
    store = build(folder / "many", count)
    before = disk(folder / "many")
    columns = [f"t.image.main.{k}" for k in range(VIEWS)]
    columns += ["t.text", *(f"t.caption.c{k}" for k in range(SYNTHETIC))]
    fill(store, columns)
    store.compact()
    formula = (VIEWS + REAL + SYNTHETIC) * DIM * 2
    measured = (disk(folder / "many") - before) / count
    return {
        "views": VIEWS,
        "real_captions": REAL,
        "synthetic_captions": SYNTHETIC,
        "dim": DIM,
        "formula_bytes": formula,
        "disk_bytes": round(measured, 1),
        "disk_over_formula": round(measured / formula, 4),
    }


def disk(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="store-bench-") as name:
        result = {**speed(Path(name)), "storage": storage(Path(name))}
    rows_per_s: dict[str, int] = result["rows_per_s"]  # type: ignore[assignment]
    for arm, value in rows_per_s.items():
        print(f"{arm}: {value:,} rows/s")
    for key in ("take_over_lance", "scan_over_lance", "scan_over_tar"):
        print(f"{key}: {result[key]}")
    kept: dict[str, float] = result["storage"]  # type: ignore[assignment]
    print(
        f"embeddings of a sample: {kept['disk_bytes']:,} B on disk, formula "
        f"(J + n_real + n_syn) D 2 = {kept['formula_bytes']:,} B, "
        f"ratio {kept['disk_over_formula']}"
    )
    goal = f"take >= {GOAL_TAKE:,} rows/s and disk / formula <= {GOAL_FORMULA}"
    met = rows_per_s["take"] >= GOAL_TAKE and kept["disk_over_formula"] <= GOAL_FORMULA
    result["goal"] = goal
    result["goal_met"] = met
    write_result("store", result)
    print(f"goal ({goal}): {'met' if met else 'missed'}")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
