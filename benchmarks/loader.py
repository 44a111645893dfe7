"""Rows a second of the loader against `webdataset` reading the released layout of the same samples.

Made samples: distinct JPEG files, a caption, 5 synthetic captions, 10 stored views, two teachers of
768 numbers each (float16 here; `npz` with float32 in the tars, as the exporter of the released
layout writes them). Every arm delivers batches of 64 with one view and one synthetic caption a row
and the three embeddings that belong to them; with decoding, both arms decode and replay with the
same code, so that only reading differs. One process, one thread; threads of the loader are arms of
their own. Rounds alternate, and CPU seconds are compared, since wall time on a shared machine says
little; what spawned processes use is not in them, so that arm has wall time only, with the
seconds that they need to start.
Bytes read are those that the process asked the system for (`/proc/self/io`).

    .venv/bin/python benchmarks/loader.py [--quick]
"""

from __future__ import annotations

import io
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.data import knowledge
from understudy.data.card import Card
from understudy.data.exporters import export
from understudy.data.loader import Captions, Images, Loader, Raw, TeacherEmbeddings
from understudy.data.loader_images import normalise
from understudy.data.loader_plan import Plan, Want
from understudy.data.loader_read import Cells
from understudy.data.samplers import ShuffledSampler
from understudy.data.store import Store
from understudy.data.view_config import ViewConfig
from understudy.data.view_reference import from_reference_list
from understudy.data.views import ViewPipeline

TEACHERS, DIM, VIEWS, CAPTIONS, BATCH = ("ta", "tb"), 768, 10, 5, 64
GOAL, BYTES_GOAL = 8.0, 1.1


def picture(side: int, seed: int) -> bytes:
    """Return a JPEG file of smooth waves with some noise."""
    from PIL import Image

    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(9 * x * draw.random() + i) + np.cos(9 * y * draw.random()) for i in range(3)]
    array = np.clip(128 + 50 * np.stack(waves, -1) + draw.normal(0, 6, (side, side, 3)), 0, 255)
    out = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(out, "jpeg", quality=85)
    return out.getvalue()


def config_of(side: int) -> ViewConfig:
    crop = {"interpolation": "bicubic"}
    return ViewConfig(size=side, transforms={"random_resized_crop": crop, "rand_augment": {}})


def make(path: Path, rows: int, side: int) -> Store:
    """Write a reinforced store, with the columns that `understudy reinforce` writes."""
    payload = {
        "id": [f"{i:08d}" for i in range(rows)],
        "image": [picture(side, i) for i in range(rows)],
        "text": [f"a caption of some ten words about picture number {i}" for i in range(rows)],
    }
    store = Store.create(path, [payload])
    config, draw = config_of(side), np.random.default_rng(0)
    pipeline = ViewPipeline(config)
    values: dict[str, pa.Array] = {}
    cards: list[Card] = []

    def add(column: str, array: pa.Array, about: dict, backend: dict | None = None) -> None:
        values[column] = array
        cards.append(Card(column=column, writer="made", config=about, backend=backend or {}))

    def vectors() -> pa.Array:
        made = draw.normal(size=(rows, DIM)).astype(np.float32)
        return knowledge.encode_embeddings(made / np.linalg.norm(made, axis=-1, keepdims=True))

    one = knowledge.embedding_config([DIM])
    for k in range(VIEWS):
        params = pipeline.sample([(side, side)] * rows, np.arange(rows) + k * rows)
        about = {**config.to_dict(), "set": "main", "k": k}
        records = knowledge.fixed_list(pipeline.pack(params))
        add(knowledge.view_column("main", k), records, about, pipeline.backend)
    for teacher in TEACHERS:
        for k in range(VIEWS):
            about = {**one, "set": "main", "k": k}
            add(knowledge.image_column(teacher, "main", k), vectors(), about)
        add(knowledge.text_column(teacher), vectors(), one)
        for s in range(CAPTIONS):
            about = {**one, "captioner": "coca", "place": s}
            add(knowledge.caption_column(teacher, "coca", s), vectors(), about)
    texts = [
        [f"synthetic caption {s} of picture {i}" for s in range(CAPTIONS)] for i in range(rows)
    ]
    add(knowledge.captions_column("coca"), pa.array(texts), {})
    with store.job(cards, {c: v.type for c, v in values.items()}) as job:
        for unit in job.todo():
            job.write(unit, {c: v[unit.start : unit.stop] for c, v in values.items()})
    return store


@dataclass(frozen=True)
class Records:
    """A field of raw view records: what replay would read."""

    keys = ("records",)
    columns = ()

    def bind(self, binding: Any) -> Records:
        """Return itself: nothing to check."""
        return self

    def wants(self, plan: Plan) -> list[Want]:
        """Ask for the records of the views in use."""
        return [Want(knowledge.view_column("main", k), at) for k, at in plan.by_view()]

    def make(self, plan: Plan, got: list[Cells]) -> dict[str, Any]:
        """Return them as they are."""
        return {"records": got[0].numpy()}

    def describe(self) -> dict[str, Any]:
        """Return nothing."""
        return {}


class Lengths:
    """Stands for a tokenizer, whose price both arms would pay."""

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Return a row of one number a text."""
        return np.array([[len(text)] for text in texts])


def ours(
    store: Store,
    side: int,
    decode: bool,
    block: int | None,
    workers: int,
    *,
    mode: str = "threads",
    pick: str = "epoch",
) -> Loader:
    sampler = ShuffledSampler(store.num_rows, BATCH, 1, num_views=VIEWS, block=block)
    images = [Images(size=side, view_set="main")] if decode else [Raw(column="image"), Records()]
    fields = [
        *images,
        Raw(column="text"),
        Captions(captioner="coca", tokenize=Lengths(), pick=pick),  # type: ignore[arg-type]
        TeacherEmbeddings(teachers=TEACHERS, view_set="main", captions="coca"),
    ]
    return Loader(store, sampler, fields, workers=workers, mode=mode)


def theirs(folder: Path, side: int, decode: bool) -> Iterable[Any]:
    import webdataset

    pipeline = ViewPipeline(config_of(side))

    def pick(sample: dict[str, Any]) -> tuple[Any, ...]:
        k, s = random.randrange(VIEWS), random.randrange(CAPTIONS)
        params = json.loads(sample["paug.json"])["param_aug"]
        params = json.loads(params) if isinstance(params, str) else params
        syn = json.loads(sample["syn.json"])["syn_text"][s]
        with np.load(io.BytesIO(sample["npz"])) as arrays:
            image, texts = arrays["image_emb"][k], arrays["text_emb"]
        view: Any = sample["jpg"]
        if decode:
            record = from_reference_list(params[k], pipeline.config)
            pixels = pipeline.apply([view], record)[0].transpose(2, 0, 1).astype(np.float32)
            view = normalise(pixels, (0, 0, 0), (1, 1, 1))
        return view, params[k], sample["txt"].decode(), syn, image, texts[0], texts[1 + s]

    tars = sorted(str(path) for path in folder.glob("*.tar"))
    dataset = webdataset.WebDataset(tars, shardshuffle=len(tars))
    return dataset.shuffle(500).map(pick).batched(BATCH, partial=False)


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def timed(batches: Iterable[Any]) -> dict[str, float]:
    """Read everything and return rows a CPU second and a second, and bytes a row."""
    # The clocks start before the first read, which serves many batches.
    rows, read = 0, bytes_read()
    cpu, wall = time.process_time(), time.perf_counter()
    for batch in batches:
        rows += len(batch["rows"]) if isinstance(batch, dict) else len(batch[0])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "rows_per_cpu_s": rows / cpu,
        "rows_per_s": rows / wall,
        "bytes_read_per_row": (bytes_read() - read) / rows,
    }


def used(store: Store, side: int) -> float:
    """Return the bytes of one row that a batch holds: image, record, texts, three embeddings."""
    some = store.take(range(min(256, store.num_rows)), ["image", "text", "caption.coca"])
    image, text = (
        float(np.mean([len(v) for v in some.column(c).to_pylist()])) for c in ("image", "text")
    )
    captions = some.column("caption.coca").to_pylist()
    caption = float(np.mean([len(c) for row in captions for c in row]))
    vectors = 3 * len(TEACHERS) * DIM * 2
    return image + text + caption + ViewPipeline(config_of(side)).stride + vectors


def measure(folder: Path, rows: int, side: int, rounds: int) -> dict[str, Any]:
    """Compare all arms on one set of samples."""
    store = make(folder / "store", rows, side)
    export(store, folder / "tars", "webdataset", embeddings="npz", rows_per_shard=rows // 4)
    # Whole epochs: the peer fills a shuffle buffer first, which must not count for a few batches.
    steps = rows // BATCH
    arms: dict[str, Callable[[int], Iterable[Any]]] = {}
    for decode in (False, True):
        name = "decoded" if decode else "bytes"
        arms[f"{name}/webdataset"] = lambda i, d=decode: theirs(folder / "tars", side, d)
        for label, block, workers, order in (
            ("random", None, 0, "epoch"),
            ("blocks", BATCH, 0, "epoch"),
            ("blocks-any-caption", BATCH, 0, "random"),
            ("blocks-2-threads", BATCH, 2, "epoch"),
        ):
            loader = ours(store, side, decode, block, workers, pick=order)
            arms[f"{name}/{label}"] = lambda i, one=loader: one(i * steps, steps)
    spawned = ours(store, side, True, BATCH, 2, mode="processes")
    arms["decoded/blocks-2-processes"] = lambda i: spawned(i * steps, steps)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for i in range(rounds + 1):
        for name, arm in arms.items():
            result = timed(arm(i))
            if i:  # the first round warms the file cache
                found[name].append(result)
    return summary(found, used(store, side), rows)


def summary(
    found: dict[str, list[dict[str, float]]], row_bytes: float, rows: int
) -> dict[str, Any]:
    out: dict[str, Any] = {"rows": rows, "bytes_used_per_row": round(row_bytes), "arms": {}}
    for name, results in found.items():
        peer = found[f"{name.split('/')[0]}/webdataset"]
        ratios = [
            a["rows_per_cpu_s"] / b["rows_per_cpu_s"] for a, b in zip(results, peer, strict=True)
        ]
        walls = [a["rows_per_s"] / b["rows_per_s"] for a, b in zip(results, peer, strict=True)]
        medians = {k: statistics.median(r[k] for r in results) for k in results[0]}
        out["arms"][name] = {
            **{k: round(v) for k, v in medians.items()},
            "bytes_read_over_used": round(medians["bytes_read_per_row"] / row_bytes, 3),
            "over_webdataset_cpu": round(statistics.median(ratios), 2),
            "over_webdataset_wall": round(statistics.median(walls), 2),
        }
        if name.endswith("processes"):
            for key in ("rows_per_cpu_s", "bytes_read_per_row"):
                del out["arms"][name][key]
            for key in ("bytes_read_over_used", "over_webdataset_cpu"):
                del out["arms"][name][key]
    return out


def goals(arms: dict[str, dict[str, float]]) -> dict[str, dict[str, bool]]:
    """Say for each arm without decoding whether it is fast enough and reads little enough."""
    return {
        name: {
            f"over_webdataset_cpu >= {GOAL}": arm["over_webdataset_cpu"] >= GOAL,
            f"bytes_read_over_used <= {BYTES_GOAL}": arm["bytes_read_over_used"] <= BYTES_GOAL,
        }
        for name, arm in arms.items()
        if name.startswith("bytes/") and not name.endswith("webdataset")
    }


def main() -> None:
    import torch

    from common import write_result

    torch.set_num_threads(1)
    quick = "--quick" in sys.argv[1:]
    result: dict[str, Any] = {"batch": BATCH, "views": VIEWS, "captions": CAPTIONS}
    sizes = ((64, 1024, 2),) if quick else ((64, 4096, 3), (256, 1024, 2))
    for side, rows, rounds in sizes:
        folder = Path(tempfile.mkdtemp(prefix="loader-bench-"))
        try:
            result[f"{side}px"] = measure(folder, rows, side, rounds)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for name, arm in result[f"{side}px"]["arms"].items():
            print(f"{side} px {name}: {', '.join(f'{k} {v:,}' for k, v in arm.items())}")
    result["goals"] = goals(result["64px"]["arms"])
    write_result("loader", result)
    for name, found in result["goals"].items():
        print(f"goals, 64 px {name}: {found}")
    sys.exit(0 if all(result["goals"]["bytes/blocks"].values()) else 1)


if __name__ == "__main__":
    main()
