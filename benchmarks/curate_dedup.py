"""Deduplication beside datatrove's, on the same corpus: MB/s of text and peak memory.

The corpus is real: docstrings of the standard library, man pages and package documentation of this
machine, with perturbed copies of a fifth of them. Each arm is a process of its own that reads one
JSONL file, deduplicates with one worker and writes what stays; it times itself from after its
imports, in wall and processor seconds, and reports its peak memory. Arms of a round run one after
the other, and every second round in reverse.

datatrove needs an environment of its own:

    python -m venv /tmp/peer
    /tmp/peer/bin/pip install "datatrove[processing]==0.10.1" spacy orjson
    .venv/bin/python benchmarks/curate_dedup.py --peer /tmp/peer/bin/python

Its Bloom filter compares whole documents and masks hashes with its size in bytes, which is a power
of two less one here so that every bit of the mask counts; ours compares paragraphs and documents.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS, MEGABYTES, GOAL = 3, 12, 3.0
STEPS = ("exact", "minhash-14x8", "bloom")
EXTRA = ("minhash-93x15", "substring")


def docstrings(folder: Path, limit: int) -> list[str]:
    """Return the docstrings of the standard library's modules, up to so many characters."""
    found, held = [], 0
    for path in sorted(folder.rglob("*.py")):
        if held > limit or "site-packages" in path.parts or "test" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, kinds)]
        long = [text for text in texts if text and len(text) > 200]
        found += long
        held += sum(map(len, long))
    return found


def man_pages(folder: Path, limit: int) -> list[str]:
    """Return man pages without their markup, up to so many characters."""
    found, held = [], 0
    for path in sorted(folder.glob("man[1-8]/*.gz")):
        try:
            raw = gzip.open(path, "rt", encoding="utf-8", errors="replace").read()
        except OSError:
            continue
        lines = [re.sub(r"\\f.|\\", "", ln) for ln in raw.splitlines() if ln[:1] not in ".'"]
        text = "\n".join(lines)
        if len(text) > 200:
            found.append(text)
            held += len(text)
        if held > limit:
            break
    return found


def corpus(path: Path, size: int) -> dict[str, int]:
    """Write the corpus, one JSON object a line, and return what it holds."""
    generator = random.Random(0)
    texts = docstrings(Path(ast.__file__).parent, size // 3)
    texts += man_pages(Path("/usr/share/man"), size)
    generator.shuffle(texts)
    held, originals = 0, []
    for text in texts:
        if held > size / 1.2:
            break
        originals.append(text)
        held += len(text)
    copies = []
    for text in generator.sample(originals, len(originals) // 5):
        words = text.split(" ")
        for _ in range(generator.choice([0, 1, 3, len(words) // 40, len(words) // 8])):
            words[generator.randrange(len(words))] = generator.choice(words)
        copies.append(" ".join(words))
    both = originals + copies
    generator.shuffle(both)
    with open(path, "w", encoding="utf-8") as file:
        for number, text in enumerate(both):
            file.write(json.dumps({"id": f"page-{number:06d}", "text": text}) + "\n")
    return {"documents": len(both), "bytes": sum(len(t.encode()) for t in both)}


def ours(step: str, source: Path, out: Path) -> int:
    """Run our step; return how many pages stay."""
    from understudy.curate.dedup.bloom_step import BloomDedup
    from understudy.curate.dedup.exact import ExactDedup
    from understudy.curate.dedup.minhash_step import MinHashDedup
    from understudy.curate.dedup.substring_step import SubstringDedup
    from understudy.curate.engine.tasks import Task, run_tasks
    from understudy.curate.engine.units import Unit, read_pages

    steps = {
        "exact": ExactDedup(matches=False),
        "minhash-14x8": MinHashDedup(preset="14x8", matches=False),
        "minhash-93x15": MinHashDedup(preset="93x15", matches=False),
        "bloom": BloomDedup(matches=False),
        "substring": SubstringDedup(matches=False),
    }
    yield_start()
    args = {"source": str(source)}
    read = Task(key="read", call=f"{Path(__file__).stem}:read_lines", args=args, out=out / "in")
    unit = Unit.of(read, run_tasks([read], workers=1)[0], "corpus")
    found = steps[step].run(
        [unit], out / "work", lambda tasks, label: run_tasks(tasks, workers=1, label=label)
    )
    kept = 0
    with open(out / "kept.jsonl", "w", encoding="utf-8") as file:
        for batch in read_pages(found[0].folder):
            for row in batch.select(["id", "text"]).to_pylist():
                file.write(json.dumps(row) + "\n")
            kept += batch.num_rows
    return kept


def read_lines(out: Path, source: str) -> dict[str, int]:
    """Turn the JSONL file into a unit (a task)."""
    from understudy.curate.engine.pages import Page, batch_of, page_schema
    from understudy.curate.engine.units import write_pages

    def batches():
        with open(source, encoding="utf-8") as file:
            pages: list[Page] = []
            for line in file:
                data = json.loads(line)
                pages.append(Page(id=data["id"], text=data["text"]))
                if len(pages) == 1024:
                    yield batch_of(pages, {})
                    pages = []
            yield batch_of(pages, {})

    return {"rows": write_pages(out, batches(), page_schema())}


def peer(step: str, source: Path, out: Path) -> int:
    """Run datatrove's step; return how many pages stay."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.bloom_filter import BloomFilterConfig, SingleBloomFilter
    from datatrove.pipeline.dedup.exact_dedup import (
        ExactDedupConfig,
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    folder = str(source.parent)
    reader = lambda: JsonlReader(folder, glob_pattern=source.name, compression=None)  # noqa: E731
    writer = JsonlWriter(str(out / "kept"), output_filename="kept.jsonl", compression=None)
    one, two, three = str(out / "1"), str(out / "2"), str(out / "3")
    if step == "exact":
        config = ExactDedupConfig(content_getter=lambda document: document.text)
        stages = [
            [reader(), ExactDedupSignature(one, config)],
            [ExactFindDedups(one, two, config)],
            [reader(), ExactDedupFilter(two, config), writer],
        ]
    elif step == "minhash-14x8":
        config = MinhashConfig(num_buckets=14, hashes_per_bucket=8)
        stages = [
            [reader(), MinhashDedupSignature(one, config)],
            [MinhashDedupBuckets(one, two, config=config)],
            [MinhashDedupCluster(two, three, config)],
            [reader(), MinhashDedupFilter(three), writer],
        ]
    else:
        config = BloomFilterConfig(m_bytes=(1 << 25) - 1, k=7)
        stages = [[reader(), SingleBloomFilter(one, config), writer]]
    yield_start()
    for number, stage in enumerate(stages):
        tasks = 14 if step.startswith("minhash") and number == 1 else 1
        logs = str(out / f"logs-{number}")
        LocalPipelineExecutor(stage, tasks=tasks, workers=1, logging_dir=logs).run()
    with open(out / "kept/kept.jsonl", encoding="utf-8") as file:
        return sum(1 for _ in file)


STARTED: list[float] = []


def yield_start() -> None:
    """Note the time from which an arm is measured."""
    STARTED[:] = [time.perf_counter(), time.process_time()]


def child(who: str, step: str, source: Path) -> None:
    """Run one arm and print its facts."""
    run = ours if who == "ours" else peer
    with tempfile.TemporaryDirectory(prefix="dedup-bench-") as name:
        few = Path(name) / "few" / "few.jsonl"
        few.parent.mkdir()
        with open(source, encoding="utf-8") as file:
            few.write_text("".join(line for line, _ in zip(file, range(20), strict=False)))
        # what is imported late and made once is not what is timed
        run(step, few, Path(name) / "few")
        (Path(name) / "run").mkdir()
        kept = run(step, source, Path(name) / "run")
        wall, cpu = time.perf_counter() - STARTED[0], time.process_time() - STARTED[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak, "kept": kept}))


def measure(python: str, who: str, step: str, source: Path) -> dict[str, Any]:
    """Run one arm in a process and return its facts."""
    command = [python, __file__, "--child", who, step, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{who} {step}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(runs: list[dict[str, Any]], size: int) -> dict[str, Any]:
    """Return rates and memory of an arm's rounds."""
    return {
        "mb_per_cpu_s": round(size / 1e6 / statistics.median(r["cpu"] for r in runs), 2),
        "mb_per_wall_s": round(size / 1e6 / statistics.median(r["wall"] for r in runs), 2),
        "peak_mb": round(statistics.median(r["peak"] for r in runs) / 1e6),
        "kept": runs[0]["kept"],
    }


def compare(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the medians over rounds of datatrove's seconds and memory over ours."""

    def over(key: str) -> float:
        pairs = zip(mine, theirs, strict=True)
        return round(statistics.median(b[key] / a[key] for a, b in pairs), 2)

    ratios = {"cpu": over("cpu"), "wall": over("wall")}
    return {**ratios, "peak_memory_ours_over_peer": round(1 / over("peak"), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="", help="Python of an environment with datatrove")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--megabytes", type=float, default=MEGABYTES)
    parser.add_argument("--child", nargs=3, metavar=("WHO", "STEP", "SOURCE"))
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.child[1], Path(options.child[2]))
        return
    from common import write_result

    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    pythons = {"ours": sys.executable} | ({"datatrove": options.peer} if options.peer else {})
    arms = [(who, step) for step in STEPS for who in pythons] + [("ours", s) for s in EXTRA]
    with tempfile.TemporaryDirectory(prefix="dedup-corpus-") as name:
        source = Path(name) / "corpus.jsonl"
        facts = corpus(source, int(options.megabytes * 1e6))
        for number in range(options.rounds):
            for who, step in arms if number % 2 == 0 else reversed(arms):
                found = measure(pythons[who], who, step, source)
                runs.setdefault((who, step), []).append(found)
                print(who, step, {k: round(v, 2) for k, v in found.items()}, flush=True)
    result: dict[str, Any] = {"corpus": facts, "rounds": options.rounds, "goal": GOAL}
    result["peer"] = "datatrove 0.10.1" if options.peer else None
    result["arms"] = {f"{w} {s}": summary(r, facts["bytes"]) for (w, s), r in runs.items()}
    if options.peer:
        result["ratios"] = {s: compare(runs["ours", s], runs["datatrove", s]) for s in STEPS}
        sums = [
            [
                {k: sum(runs[who, s][n][k] for s in STEPS) for k in ("cpu", "wall")}
                | {"peak": max(runs[who, s][n]["peak"] for s in STEPS)}
                for n in range(options.rounds)
            ]
            for who in ("ours", "datatrove")
        ]
        result["ratios"]["all three"] = compare(*sums)
        for step, found in result["ratios"].items():
            print(f"{step}: {found} (goal {GOAL})")
    print(write_result("curate_dedup", result))


if __name__ == "__main__":
    main()
