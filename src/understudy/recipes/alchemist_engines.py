"""Claim C: the same spec files on every engine, and what came of them as hashes.

An engine whose programs are missing is not run, and the claim says so: it is then not shown.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from understudy.core.errors import UnderstudyError
from understudy.core.files import write_json, write_text
from understudy.core.hashing import hash_data
from understudy.launch import spec_text
from understudy.launch.engines import open_engine
from understudy.launch.engines.base import Engine
from understudy.recipes.alchemist_jobs import named

WAIT_S = 300.0
SPECS: dict[str, str] = {
    "leaves": """
        name: leaves
        command: [sh, -c, "seq {seed} | sha256sum > {{outputs.sum}}"]
        outputs: [{{name: sum, path: deep/sum.txt}}]
        retry: {{max_failures: 0}}
        """,
    "fails": """
        name: fails
        command: [sh, -c, "echo why >&2; exit 3"]
        retry: {{max_failures: 0}}
        """,
    "again": """
        name: again
        command: [sh, -c, "[ $UNDERSTUDY_ATTEMPT = 2 ] || exit 7; echo {seed} > {{outputs.said}}"]
        outputs: [{{name: said, path: said.txt}}]
        retry: {{max_failures: 1, backoff_s: 0.05}}
        """,
    "slow": """
        name: slow
        command: [sleep, "600"]
        timeout_s: 3
        retry: {{max_failures: 0}}
        """,
    "gang": """
        name: gang
        command: [sh, -c, "echo {seed} $UNDERSTUDY_REPLICA > {{out}}/$UNDERSTUDY_REPLICA"]
        roles: [{{name: pair, replicas: 2}}]
        outputs: [{{name: first, path: "0"}}, {{name: second, path: "1"}}]
        retry: {{max_failures: 0}}
        """,
}
"""Spec files by name; the seed is what they compute with."""


def write_specs(folder: Path, seed: int) -> dict[str, Path]:
    """Write the files: the same bytes whatever engine they are for."""
    found = {}
    for name, text in SPECS.items():
        body = "\n".join(line.strip() for line in text.format(seed=seed).strip().splitlines())
        found[name] = write_text(folder / f"{name}.yaml", body + "\n")
    return found


def run_engine(name: str, seed: int, folder: Path) -> dict[str, float]:
    """Run all files on an engine.

    Returns:
        `ran` (0: it could not be, see `why.txt`), hashes of states, artefacts and exit codes.
    """
    specs = write_specs(folder / "specs", seed)
    start = time.perf_counter()
    try:
        engine = open_engine(name, folder / "jobs")
    except UnderstudyError as error:
        return _not_run(folder, str(error))
    try:
        engine.capacity()
    except UnderstudyError as error:
        engine.close()
        return _not_run(folder, str(error))
    try:
        ends = {key: outcome(engine, path) for key, path in specs.items()}
    finally:
        engine.close()
    write_json(folder / "ends.json", ends)
    parts: dict[str, Any] = {
        part: hash_data({key: end[part] for key, end in ends.items()})
        for part in ("states", "artefacts", "exits")
    }
    hashes = [named(part, text).items() for part, text in parts.items()]
    return {
        "wall_s": time.perf_counter() - start,
        "ran": 1.0,
        **{key: value for pairs in hashes for key, value in pairs},
    }


def outcome(engine: Engine, path: Path) -> dict[str, Any]:
    """Run a spec file and return its states, artefacts and exit."""
    job = engine.submit(spec_text.load(path))
    status = engine.wait(job, WAIT_S)
    moves = [e.facts["to"] for e in engine.store.events(job) if e.kind == "move"]
    return {
        "states": ["CREATED", *map(str, moves)],
        "artefacts": {a.name: [a.sha256, a.bytes] for a in engine.store.artefacts(job)},
        "exits": [str(status.state), status.exit_code],
    }


def _not_run(folder: Path, why: str) -> dict[str, float]:
    write_text(folder / "why.txt", why + "\n")
    parts = ("states", "artefacts", "exits")
    nothing = {key: -1.0 for part in parts for key in named(part, "0" * 36)}
    return {"wall_s": 0.0, "ran": 0.0, **nothing}
