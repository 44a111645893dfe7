"""The jobs of `chaos.py`: small inputs from built-in data, specs, and what their results are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from chaos_processes import VICTIMS
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Checkpoint, Elastic, Input, Output, Resources, Retry, Role

HERE = Path(__file__).parent
ROWS, FILES, PAGES = 96, 8, 40
PATIENT = Retry(max_failures=10_000, on=("failure", "preemption", "node_loss"), backoff_s=0.0)
NOTE = 'set -e; echo "$UNDERSTUDY_ATTEMPT $UNDERSTUDY_REPLICA" >> "$UNDERSTUDY_OUT_DIR/runs"; '
"""Every start of a command leaves a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of job.

    Attributes:
        name: its name.
        spec: without a key.
        progress: of a job's folder: files, one for each piece of work that is done.
        result: of a job's folder: what must be the same however often it was killed.
        victims: whom it has.
    """

    name: str
    spec: JobSpec
    progress: Callable[[Path], set[Path]]
    result: Callable[[Path], str]
    victims: tuple[str, ...] = VICTIMS

    def with_key(self, key: str) -> JobSpec:
        """Return the spec of one job of this kind."""
        return replace(self.spec, key=key)


def _spec(name: str, text: str, **more: Any) -> JobSpec:
    fields = {
        "name": name,
        "command": ("sh", "-c", text),
        "workdir": str(HERE),
        "include": ("chaos_steps.py", "chaos_train.py"),
        "env": {"OMP_NUM_THREADS": "1"},
        "retry": PATIENT,
        "roles": (Role(resources=Resources(cpu=1)),),
    }
    return JobSpec(**{**fields, **more})


# -- reinforce


def _reinforce(folder: Path) -> Kind:
    from understudy.data.scenes import to_store
    from understudy.reinforce.teachers.shipped import shipped

    fresh, config = folder / "scenes", folder / "reinforce.yaml"
    made = {"train": ROWS, "teacher": 0, "test": 0, "num_captions": 2, "masks": False}
    to_store("pairs", fresh, seed=0, **made)
    asks = {
        "num_views": 4,
        "views": {"size": 48, "transforms": {"random_resized_crop": {}, "rand_augment": {}}},
        "teachers": [{"name": "nano", "path": str(shipped("clip-teacher-a"))}],
        "unit_rows": 4,
        "batch_size": 16,
    }
    config.write_text(yaml.safe_dump(asks))
    text = (
        's={outputs.store}; [ -d "$s" ] || { rm -rf "$s.part"; cp -r {inputs.fresh} "$s.part"; '
        'mv "$s.part" "$s"; }; '
        'exec python -m understudy reinforce "$s" --config {inputs.config}'
    )
    spec = _spec(
        "reinforce",
        NOTE + text,
        inputs=(Input(name="fresh", uri=str(fresh)), Input(name="config", uri=str(config))),
        outputs=(Output(name="store", path="store"),),
    )
    alone = ("wrapper", "command")
    return Kind(name="reinforce", spec=spec, progress=_units, result=_content, victims=alone)


def _units(job: Path) -> set[Path]:
    return set(job.glob("out/store/_understudy/staging/*/*.unit"))


def _content(job: Path) -> str:
    from understudy.data.store import Store

    store = Store.open(job / "out" / "store")
    problems = store.verify()
    return f"{len(problems)} problems" if problems else store.content_hash()


# -- curate


def _curate(folder: Path) -> Kind:
    pages, pipeline = folder / "pages", folder / "pipeline.yaml"
    pages.mkdir(parents=True, exist_ok=True)
    words = "the river and a small town of old stone lie under hills where wind turns".split()
    for k in range(FILES):
        with open(pages / f"part-{k}.jsonl", "w", encoding="utf-8") as file:
            for i in range(PAGES):
                n = 1000 * k + i if i % 7 else i  # every seventh page is in all files
                length = 5 if i % 11 == 3 else 40 + n % 50
                chosen = (words[(n * n + 7 * j * j + j) % len(words)] for j in range(length))
                text = f"page {n}: " + " ".join(chosen)
                file.write(json.dumps({"text": text, "url": f"http://a.example/{k}/{i}"}) + "\n")
    steps = [
        {"name": "page-length", "min_words": 20, "max_words": 1000},
        {"name": "chaos_steps:slow", "seconds": 0.004},
        "commit",
        {"name": "bloom-dedup", "max_ngram": 13, "min_ngram": 13, "threshold": 0.8, "eps": 0.01},
        "chaos_steps:shout",
        {"name": "chaos_steps:slow", "seconds": 0.004},
    ]
    pipeline.write_text(yaml.safe_dump(steps))
    text = (
        "exec python -m understudy curate {inputs.pages} {outputs.store} --pipeline "
        "{inputs.pipeline} --workers 2 --exclusions {out}/dropped"
    )
    spec = _spec(
        "curate",
        NOTE + text,
        inputs=(Input(name="pages", uri=str(pages)), Input(name="pipeline", uri=str(pipeline))),
        outputs=(Output(name="store", path="store"),),
    )
    return Kind(name="curate", spec=spec, progress=_tasks, result=_curated)


def _tasks(job: Path) -> set[Path]:
    # walked, as folders are renamed meanwhile
    work = job / "out" / "store.curate"
    return {Path(base, "_done.json") for base, _, names in os.walk(work) if "_done.json" in names}


def _curated(job: Path) -> str:
    if (job / "out" / "store.curate").exists():
        return "the work folder is left"
    dropped = hashlib.sha256()
    # what a killed write leaves has a hidden name and another ending
    for path in sorted((job / "out" / "dropped").rglob("*.gz")):
        dropped.update(path.relative_to(job / "out").as_posix().encode() + path.read_bytes())
    return f"{_content(job)} {dropped.hexdigest()}"


# -- train


def _train(folder: Path) -> Kind:
    spec = _spec(
        "train",
        "exec python chaos_train.py {outputs.weights}",
        launcher="torchrun",
        roles=(Role(name="trainer", replicas=2, resources=Resources(cpu=1)),),
        elastic=Elastic(min=2, max=2, max_restarts=10_000),
        checkpoint=Checkpoint(dir="checkpoints"),
        outputs=(Output(name="weights", path="weights.bin", kind="model"),),
    )
    return Kind(name="train", spec=spec, progress=_steps, result=_weights)


def _steps(job: Path) -> set[Path]:
    return {p for p in job.glob("checkpoints/step-*") if p.suffix == ""}


def _weights(job: Path) -> str:
    return hashlib.sha256((job / "out" / "weights.bin").read_bytes()).hexdigest()


KINDS: dict[str, Callable[[Path], Kind]] = {
    "reinforce": _reinforce,
    "curate": _curate,
    "train": _train,
}
