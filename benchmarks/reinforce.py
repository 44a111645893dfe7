"""Speed of reinforcement against its teacher alone, and what an embedding costs on disk.

Speed: the same views of the same photographs go through MCi0 (1) in `reinforce`, which reads,
decodes, draws, augments, checks, stores and commits, and (2) in a bare loop over ready-made views.
The goal is a ratio of at least 0.9: the rest of the work hides behind the teacher. Rounds are
interleaved, so that a slow minute of the machine meets both. One torch thread, one thread ahead.
`cpu_ratio` compares processor seconds, as if nothing ran beside the teacher: what it costs on a
machine without a spare core.

Storage: two teachers of width 768, 10 views, 5 captions (the released 49,152 bytes a sample) on
disk, against the formula of `reinforce.plan`.

    .venv/bin/python benchmarks/reinforce.py
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROUNDS, ROWS, VIEWS, BATCH = 3, 24, 2, 16
STORED_ROWS = 1500
GOAL = 0.9


def photo(seed: int, height: int = 384, width: int = 512) -> bytes:
    """Return a JPEG with structure at several scales, about as costly to decode as a photograph."""
    draw = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64):
        coarse = Image.fromarray(draw.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / 3
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def speed(folder: Path) -> dict[str, object]:
    """Return samples/s of reinforcement and of the bare teacher, and their ratio."""
    from understudy import models
    from understudy.data.store import Store
    from understudy.data.views import ViewConfig, ViewPipeline
    from understudy.reinforce.config import ReinforceConfig
    from understudy.reinforce.generate import reinforce
    from understudy.reinforce.teachers.own import OwnTeacher

    images = [photo(i) for i in range(ROWS)]
    store = Store.create(
        folder / "photos", [{"id": [str(i) for i in range(ROWS)], "image": images}]
    )
    model = models.create("mci0", num_classes=512, seed=0, **{"preprocess.size": 224}).eval()
    teacher = OwnTeacher("mci0", model)
    teacher.fingerprint, teacher.image_dim  # noqa: B018  (made once, like the weights)
    config = ReinforceConfig(
        num_views=VIEWS, views=ViewConfig(size=224), batch_size=BATCH, unit_rows=ROWS
    )
    pipeline = ViewPipeline(config.views)
    sizes = [(384, 512)] * (ROWS * VIEWS)
    params = pipeline.sample(sizes, range(ROWS * VIEWS))
    ready = pipeline.apply([i for i in images for _ in range(VIEWS)], params)
    bare, ours, parts = [], [], []
    cpu: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(ROUNDS):
        began, used = time.perf_counter(), time.process_time()
        for start in range(0, len(ready), BATCH):
            teacher.embed_images(ready[start : start + BATCH])
        bare.append(time.perf_counter() - began)
        cpu["bare"].append(time.process_time() - used)
        began, used = time.perf_counter(), time.process_time()
        report = reinforce(
            store, replace(config, view_set=f"round{number}"), teachers={"mci0": teacher}
        )
        ours.append(time.perf_counter() - began)
        cpu["ours"].append(time.process_time() - used)
        parts.append(report.seconds)
    views = ROWS * VIEWS
    return {
        "teacher": "mci0, 224 px",
        "images": "JPEG 512x384",
        "views": views,
        "rounds": ROUNDS,
        "bare_views_per_s": round(views / statistics.median(bare), 2),
        "reinforce_views_per_s": round(views / statistics.median(ours), 2),
        "ratio": round(statistics.median(b / o for b, o in zip(bare, ours, strict=True)), 4),
        "best_ratio": round(min(bare) / min(ours), 4),
        "cpu_ratio": round(statistics.median(cpu["bare"]) / statistics.median(cpu["ours"]), 4),
        "parts_s": {k: round(statistics.median(p[k] for p in parts), 3) for k in parts[0]},
    }


def storage(folder: Path) -> dict[str, object]:
    """Return bytes a sample on disk against the formula."""
    from understudy.data.store import Store
    from understudy.data.views import ViewConfig
    from understudy.reinforce.config import ReinforceConfig
    from understudy.reinforce.generate import reinforce
    from understudy.reinforce.plan import plan
    from understudy.reinforce.teachers.function import FunctionTeacher

    small = photo(0, 40, 40)
    count = STORED_ROWS
    texts = [f"photo {i}" for i in range(count)]
    data = {"id": [str(i) for i in range(count)], "image": [small] * count, "text": texts}
    store = Store.create(folder / "many", [data])

    def noise(items) -> np.ndarray:
        seeds = [zlib.crc32(i.encode() if isinstance(i, str) else i.tobytes()) for i in items]
        return np.stack([np.random.default_rng(s).normal(size=768) for s in seeds])

    def say(items, num, seeds) -> list[list[str]]:
        return [[f"a photograph of thing {s % 997} number {j}" for j in range(num)] for s in seeds]

    teachers = {
        n: FunctionTeacher(n, {"embed_images": noise, "embed_texts": noise}, version=n)
        for n in ("one", "two")
    }
    teachers["cap"] = FunctionTeacher("cap", {"caption": say})
    config = ReinforceConfig(num_views=10, views=ViewConfig(size=32), batch_size=320)
    expected = plan(store, config, teachers=teachers)
    before = _size(folder / "many")
    report = reinforce(store, config, teachers=teachers)
    store.compact()
    grown = _size(folder / "many") - before
    embeddings = (10 + 1 + 5) * 2 * 768 * 2
    return {
        "rows": count,
        "formula_bytes": expected["bytes_per_row"],
        "formula_embedding_bytes": embeddings,
        "caption_bytes_planned": expected["caption_bytes_per_row"],
        "arrow_bytes": round(report.bytes / count, 1),
        "disk_bytes": round(grown / count, 1),
        "disk_over_formula": round(grown / expected["bytes"], 4),
    }


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        result = {"threads": 1, **speed(Path(name)), "storage": storage(Path(name))}
    print(
        f"bare teacher {result['bare_views_per_s']} views/s, reinforce "
        f"{result['reinforce_views_per_s']} views/s, ratio {result['ratio']} (goal {GOAL})"
    )
    kept = result["storage"]
    print(
        f"on disk {kept['disk_bytes']} B a sample, formula {kept['formula_bytes']} B + captions, "  # type: ignore[index]
        f"ratio {kept['disk_over_formula']}"
    )  # type: ignore[index]
    result["goal"] = f"ratio >= {GOAL}"
    from common import write_result

    write_result("reinforce", result)
    sys.exit(0 if float(str(result["ratio"])) >= GOAL else 1)


if __name__ == "__main__":
    main()
