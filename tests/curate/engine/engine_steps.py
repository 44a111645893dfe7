"""Steps and tasks that tests name as `engine_steps:...`, and small inputs."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from pathlib import Path

import pyarrow as pa

from understudy.curate.engine.pages import pages_of
from understudy.curate.engine.stage import Count, FilterStage, PageStage, Stage
from understudy.curate.engine.tasks import Task
from understudy.curate.engine.units import GlobalStep, Unit, read_pages, write_pages


def write_input(folder, files=3, pages=40, packed=False):
    """Write files of JSON lines; every seventh text is a copy, some are tiny."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(files):
        name = folder / f"part-{k}.jsonl{'.gz' if packed else ''}"
        with (gzip.open if packed else open)(name, "wt") as file:
            for i in range(pages):
                text = f"words of page {k}-{i} " * (1 + i % 5) if i % 7 else f"copy {k % 2} of many"
                text = "tiny" if i % 11 == 3 else text
                record = {"text": text, "url": f"http://a.example/{k}/{i}", "metadata": {"n": i}}
                file.write(json.dumps(record) + "\n")
    return folder


def upper(page):
    page.text = page.text.upper()
    return [page]


def halves(page):
    middle = len(page.text) // 2
    return page.split([page.text[:middle], page.text[middle:]])


def slow(page, seconds=0.002):
    time.sleep(seconds)
    return [page]


def measure(page, column="length"):
    page.data[column] = len(page.text)
    return [page]


measure.adds = {"length": "int32"}


def unannounced(page):
    page.data["surprise"] = 1
    return [page]


def wrong(page):
    return page


def breaks(page):
    raise RuntimeError("no such luck")


class AtLeast(FilterStage):
    name = "at-least"

    def __init__(self, *, chars=10, seed=0):
        if chars < 0:
            from understudy.core.errors import ConfigError

            raise ConfigError(f"chars: expected 0 or more, got {chars}.")
        self.chars, self.seed = chars, seed

    def keep(self, page):
        return len(page.text) >= self.chars or "too short"

    def describe(self):
        return {"name": self.name, "chars": self.chars, "seed": self.seed}


class EvenRows(Stage):
    """A stage over batches."""

    name = "even-rows"
    kind = "filter"

    def __call__(self, batch):
        return batch.take(pa.array(range(0, batch.num_rows, 2)))


class WordCount(PageStage):
    name, kind, adds = "word-count", "enricher", {"words": pa.int32()}

    def pages(self, page):
        page.data["words"] = page.cached("words", lambda text: len(text.split()))
        return [page]


class FirstOnly(GlobalStep):
    """Keep the first page of each text: map, one reduce, apply."""

    name = "first-only"

    def __init__(self, tell=True):
        self.tell = tell

    def run(self, units, work, run):
        here = "engine_steps"
        maps = [
            Task(
                key=f"hash {u.key}",
                call=f"{here}:hash_unit",
                args={"folder": str(u.folder), "hash": u.hash},
                out=work / "map" / u.folder.name,
            )
            for u in units
        ]
        hashed = run(maps, "hash")
        args = {"folders": [str(t.out) for t in maps], "hashes": [r["hash"] for r in hashed]}
        reduce = Task(key="first", call=f"{here}:find_first", args=args, out=work / "first")
        (found,) = run([reduce], "first")
        tasks = [
            Task(
                key=u.key,
                call=f"{here}:keep_first",
                args={
                    "folder": str(u.folder),
                    "hash": u.hash,
                    "first": str(reduce.out),
                    "first_hash": found["hash"],
                    "number": i,
                    "tell": self.tell,
                },
                out=work / "apply" / u.folder.name,
            )
            for i, u in enumerate(units)
        ]
        return [Unit.of(t, r) for t, r in zip(tasks, run(tasks, "apply"), strict=True)]


class Shuffler(GlobalStep):
    name = "shuffler"

    def run(self, units, work, run):
        return list(reversed(units))


def hash_unit(*, out, folder, hash):
    texts = [p.text for batch in read_pages(folder) for p in pages_of(batch)]
    (Path(out) / "texts.json").write_text(json.dumps(texts))
    return {"texts": len(texts)}


def find_first(*, out, folders, hashes):
    seen, keep = set(), []
    for folder in folders:
        mine = []
        for i, text in enumerate(json.loads((Path(folder) / "texts.json").read_text())):
            if text not in seen:
                seen.add(text)
                mine.append(i)
        keep.append(mine)
    (Path(out) / "keep.json").write_text(json.dumps(keep))
    return {}


def keep_first(*, out, folder, hash, first, first_hash, number, tell):
    keep = set(json.loads((Path(first) / "keep.json").read_text())[number])
    table = pa.Table.from_batches(list(read_pages(folder)))
    kept = table.take(pa.array(sorted(keep), pa.int64()))
    rows = write_pages(out, kept.to_batches(), table.schema)
    size = [sum(len(t.encode()) for t in x.column("text").to_pylist()) for x in (table, kept)]
    count = Count(pages_in=len(table), pages_out=rows, bytes_in=size[0], bytes_out=size[1])
    count.reasons["copy"] = len(table) - rows
    return {"rows": rows, **({"count": count.to_plain()} if tell else {})}


# tasks


def write_number(*, out, number, wait=0.0):
    time.sleep(wait)
    (out / "number.txt").write_text(str(number))
    (out / "_when.txt").write_text(str(time.time()))
    with open(out.parent / f"calls-{number}", "a") as file:
        file.write("x")
    return {"number": number}


def fail(*, out, message):
    (out / "half.txt").write_text("half")
    raise RuntimeError(message)


def die(*, out):
    (out / "half.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk(*, out):
    (out / "half.txt").write_text("half")
    raise OSError(28, "No space left on device")
