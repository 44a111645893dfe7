"""Queries during a backfill: latency against an idle server, and every answer checked.

A store of pictures has vectors of an old model mapped to a new one. A server (`understudy update
serve`) answers vector queries at a fixed rate, in turn alone and while `understudy update backfill`
encodes the next part of the pictures in another process, at idle priority. Phases alternate, so
that a slow moment of the machine meets both. Latency counts from when a request was due. Each
answer is then compared with an exact search of the very version that it names.

    .venv/bin/python benchmarks/serve_backfill.py [--quick] [--rows 20000] [--rate 40]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

from common import write_result

NEW, MAPPED, DIM, SIDE = "embed.new", "embed.new.from.old", 256, 32
GOAL = 2.0
COMMAND = [sys.executable, "-m", "understudy.cli"]


@cache
def _network() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    layers = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()]
    layers += [nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2048, DIM)]
    return nn.Sequential(*layers).eval()


def embed(images: Any) -> Any:
    """Return features float32 [B, DIM] of pictures: the new model."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.stack([np.asarray(i) for i in images])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return _network()(pixels.float() / 255 - 0.5).numpy()


def picture(row: int) -> bytes:
    """Return a JPEG of smooth random colours."""
    import numpy as np
    from PIL import Image

    from understudy.core.seeds import rng

    coarse = rng("picture", row).integers(0, 256, (4, 4, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def make_store(path: Path, rows: int) -> None:
    """Write pictures, a first part of the new model's vectors, and mapped vectors of all."""
    import numpy as np
    import pyarrow as pa

    from understudy.core.seeds import rng
    from understudy.data.decode import decode
    from understudy.data.knowledge import embedding_config, fixed_list
    from understudy.data.spaces import Space
    from understudy.data.store import Card, Store
    from understudy.update.embedders import open_embedder
    from understudy.update.encode import encode_column

    def batches() -> Any:
        for start in range(0, rows, 2000):
            some = range(start, min(start + 2000, rows))
            yield {"id": [f"picture-{i}" for i in some], "image": [picture(i) for i in some]}

    store = Store.create(path, batches(), rows_per_fragment=8192)
    embedder = open_embedder("serve_backfill:embed", "image")
    encode_column(store, embedder, "new", rows=np.arange(64), batch_size=64)
    old = Space(model="old", fingerprint="old-weights", dim=DIM)
    space = old.mapped("map-weights", embedder.space)
    config = {**embedding_config([DIM], "float32"), "space": space.to_dict()}
    card = Card(column=MAPPED, writer="map", fingerprint="map-weights", config=config)
    with store.job([card], {MAPPED: pa.list_(pa.float32(), DIM)}, unit_rows=2048) as job:
        for unit in job.todo():
            numbers = job.rows(unit)
            images = store.take(numbers, ["image"])["image"].to_pylist()
            own = embed([decode(image) for image in images])
            noise = rng("noise", int(numbers[0])).standard_normal(own.shape).astype(np.float32)
            job.write(unit, {MAPPED: fixed_list(own + 0.1 * own.std() * noise)})


def start_server(store: Path, environment: dict[str, str], search: str) -> tuple[Any, dict]:
    """Start the server on a free port; return the process and what it says of itself."""
    command = [*COMMAND, "update", "serve", str(store), "--new", NEW, "--port", "0", "--json"]
    command += ["--poll", "0.25", "--quiet", "--search", search]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("the server did not start")
    return process, json.loads(line)


def plan(store: Path, environment: dict[str, str]) -> Path:
    """Plan to backfill everything, in random order: the hardest for who follows."""
    path = store.parent / "plan.parquet"
    command = [*COMMAND, "update", "plan", str(store), "--new", NEW, "--policy", "random"]
    command += ["--out", str(path)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return path


def backfill(store: Path, environment: dict[str, str], options: argparse.Namespace) -> None:
    """Backfill the next part of the plan in another process."""
    # it may take its time: the processors are for the queries
    polite = ["chrt", "--idle", "0"] if shutil.which("chrt") else ["nice", "-n", "19"]
    command = [*polite, *COMMAND, "update", "backfill", str(store)]
    command += ["--plan", str(store.parent / "plan.parquet"), "--input", "image"]
    command += ["--model", "serve_backfill:embed"]
    command += ["--limit", str(-(-options.rows // options.rounds))]
    command += ["--commit-rows", str(max(1, options.rows // options.commits))]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one run."""
    import numpy as np

    from understudy.core.seeds import rng
    from understudy.data.decode import decode
    from understudy.update.serve_load import LoadConfig, check_answers, latency_summary, run_load

    store = folder / "pictures.lance"
    make_store(store, options.rows)
    token = "benchmark-token-0123456789"
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "UNDERSTUDY_PROGRESS": "off"}
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "UNDERSTUDY_SERVE_TOKEN": token}
    queries = embed([decode(picture(options.rows + i)) for i in range(64)])
    queries += 1e-3 * rng("queries").standard_normal(queries.shape).astype(np.float32)
    server, state = start_server(store, environment, options.search)
    try:
        ask = partial(run_load, state["url"], token, queries, state["space"])
        ask(LoadConfig(rate=options.rate, seconds=2))
        capacity = latency_summary(ask(LoadConfig(rate=2000, seconds=0.5)))["requests_per_s"]
        plan(store, environment)
        idle, busy, ratios = [], [], []
        speeds: dict[str, list[float]] = {"idle": [], "backfill": []}
        for _ in range(options.rounds):
            alone = ask(LoadConfig(rate=options.rate, seconds=options.seconds))
            over = threading.Event()
            writer = threading.Thread(target=write, args=(store, environment, options, over))
            writer.start()
            during = ask(LoadConfig(rate=options.rate, seconds=600), over)
            writer.join()
            pair = {"idle": latency_summary(alone), "backfill": latency_summary(during)}
            ratios.append(pair["backfill"]["p99_ms"] / pair["idle"]["p99_ms"])
            for name, summary in pair.items():
                speeds[name].append(summary["requests_per_s"])
            idle, busy = [*idle, *alone], [*busy, *during]
    finally:
        server.terminate()
        server.wait(15)
    answers = [*idle, *busy]
    wrong = check_answers(str(store), NEW, queries, answers)
    facts = {"idle": latency_summary(idle), "backfill": latency_summary(busy)}
    for name, summary in facts.items():  # phases begin at 0 each: not to be added up
        summary["requests_per_s"] = round(statistics.mean(speeds[name]), 2)
    server_ratio = facts["backfill"]["server_p99_ms"] / facts["idle"]["server_p99_ms"]
    return {
        "rows": options.rows,
        "dim": DIM,
        "search": state["search"],
        "rate": options.rate,
        "capacity_per_s": capacity,
        **facts,
        "p99_ratio": round(facts["backfill"]["p99_ms"] / facts["idle"]["p99_ms"], 3),
        "server_p99_ratio": round(server_ratio, 3),
        "p99_ratio_by_round": [round(ratio, 2) for ratio in ratios],
        "versions_seen": len({a.version for a in busy if a.status == 200}),
        "answers_checked": len(answers),
        "wrong": wrong[:20],
    }


def write(store: Path, environment: dict[str, str], options: Any, over: threading.Event) -> None:
    """Backfill one part, give the server time to take it over, and say so."""
    try:
        backfill(store, environment, options)
        time.sleep(1.0)
    finally:
        over.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--commits", type=int, default=20)
    parser.add_argument("--search", default="memory")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.seconds, options.rounds, options.commits = 4_000, 4.0, 2, 8
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options)
    for phase in ("idle", "backfill"):
        facts = found[phase]
        print(
            f"{phase:>9}: {facts['requests']:,} requests ({facts['errors']} errors) at "
            f"{facts['requests_per_s']:.1f}/s, p50 {facts['p50_ms']:.1f} ms, p95 "
            f"{facts['p95_ms']:.1f} ms, p99 {facts['p99_ms']:.1f} ms, max {facts['max_ms']:.1f} ms "
            f"(p99 within the server {facts['server_p99_ms']:.1f} ms)"
        )
    print(f"as fast as they are answered: {found['capacity_per_s']:.0f} requests a second")
    print(
        f"p99 during backfill / idle: {found['p99_ratio']:.2f} (goal <= {GOAL}), by "
        f"round {found['p99_ratio_by_round']}, within the server {found['server_p99_ratio']:.2f}; "
        f"{found['versions_seen']} versions seen, "
        f"{found['answers_checked']:,} answers checked, {len(found['wrong'])} wrong"
    )
    for sentence in found["wrong"]:
        print(f"  {sentence}")
    good = found["p99_ratio"] <= GOAL and not found["wrong"]
    write_result("serve_backfill", {**found, "goal": GOAL, "met": good})
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
