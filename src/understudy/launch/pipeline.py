"""Jobs that feed each other: a graph of specs, in which what has been done is not done again.

    schema: 1
    name: digits
    nodes:
      - name: split
        command: [python, split.py, "{outputs.train}"]
        outputs: [{name: train, path: train.npz}]
      - name: fit
        command: [python, fit.py, "{inputs.train}"]
        inputs: [{name: train, uri: "artefact:train"}]

A node is a spec. An input whose URI is `artefact:NAME` is another node's output of that name. A
node is left out when a job of the same spec, code and contents of inputs has succeeded and its
outputs are still there as it left them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_data
from understudy.launch import spec_text, spec_yaml
from understudy.launch.code import scan
from understudy.launch.content import content
from understudy.launch.engines.base import Engine
from understudy.launch.replica_plan import local_path
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import check_name, check_unique
from understudy.launch.state_rows import Artefact
from understudy.launch.states import State

ARTEFACT = "artefact:"
POLL_S = 0.05
KEYS = ("schema", "name", "nodes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """A graph of specs.

    Attributes:
        name: for people.
        nodes: the specs, each after those that it needs.
    """

    name: str
    nodes: tuple[JobSpec, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeResult:
    """What became of a node.

    Attributes:
        name: of the node.
        job: the job that did it, now or earlier; empty if it was not begun.
        state: of that job; None if it was not begun.
        skipped: whether it had been done.
    """

    name: str
    job: str
    state: State | None
    skipped: bool


def is_pipeline(data: Any) -> bool:
    """Say whether the plain data of a file are a pipeline rather than one spec."""
    return isinstance(data, Mapping) and "nodes" in data


def load(path: str | Path) -> Pipeline:
    """Read a pipeline from a `.yaml`, `.yml` or `.json` file.

    Raises:
        ConfigError: a mistake in it or in one of its specs, with line and column; an artefact that
            no node leaves, or two do; a circle.
    """
    data, keys = spec_yaml.read_file(path)
    locate = spec_yaml.locator(keys, str(path))
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: expected a mapping of keys to values.")
    for key in data:
        if key not in KEYS:
            raise ConfigError(
                f"{locate((key,))}: unknown key '{key}'. Valid keys: {', '.join(KEYS)}."
            )
    if data.get("schema", 1) != 1:
        raise ConfigError(f"{locate(('schema',))}: schema: expected 1, got {data['schema']!r}.")
    nodes = data.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        raise ConfigError(f"{locate(('nodes',))}: nodes: expected a list of specs.")
    name = data.get("name", Path(path).stem)
    check_name(name, "name")

    def inside(i: int) -> spec_yaml.Locate:
        return lambda inner: locate(("nodes", i, *inner))

    folder = Path(path).absolute().parent
    specs = [spec_text.parse(node, inside(i), folder) for i, node in enumerate(nodes)]
    return Pipeline(name=name, nodes=ordered(specs))


def ordered(specs: list[JobSpec]) -> tuple[JobSpec, ...]:
    """Return the specs, each after those that it needs.

    Raises:
        ConfigError: two nodes or outputs have one name, an artefact is nobody's, or a circle.
    """
    check_unique([spec.name for spec in specs], "nodes")
    check_unique([o.name for spec in specs for o in spec.outputs], "outputs of all nodes")
    makers = {o.name: spec.name for spec in specs for o in spec.outputs}
    needs: dict[str, set[str]] = {}
    for spec in specs:
        needs[spec.name] = set()
        for wanted in _artefacts(spec).values():
            if wanted not in makers:
                have = ", ".join(sorted(makers)) or "none"
                raise ConfigError(
                    f"node '{spec.name}': no node leaves the artefact '{wanted}' (there are "
                    f"{have})."
                )
            needs[spec.name].add(makers[wanted])
    done: list[JobSpec] = []
    left = list(specs)
    while left:
        ready = [s for s in left if needs[s.name] <= {d.name for d in done}]
        if not ready:
            raise ConfigError(f"nodes wait for each other: {', '.join(s.name for s in left)}.")
        done += ready
        left = [s for s in left if s not in ready]
    return tuple(done)


def _artefacts(spec: JobSpec) -> dict[str, str]:
    """Return input -> artefact that it is."""
    return {i.name: i.uri.removeprefix(ARTEFACT) for i in spec.inputs if i.uri.startswith(ARTEFACT)}


class Runner:
    """Runs a pipeline: every node as soon as what it needs is there.

    Args:
        engine: where.
        pipeline: what.
        say: is told what happens, a line each time.
    """

    def __init__(
        self, engine: Engine, pipeline: Pipeline, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.engine, self.pipeline, self.say = engine, pipeline, say
        self.made: dict[str, Artefact] = {}
        self.results: dict[str, NodeResult] = {}

    def run(self) -> list[NodeResult]:
        """Run to the end; nodes that need a failed one are not begun."""
        waiting = list(self.pipeline.nodes)
        running: dict[str, str] = {}
        while waiting or running:
            progress = False
            for spec in list(waiting):
                if all(name in self.made for name in _artefacts(spec).values()):
                    waiting.remove(spec)
                    progress = True
                    job = self._begin(spec)
                    if job:
                        running[spec.name] = job
            for name, job in list(running.items()):
                if self._ended(name, job):
                    del running[name]
                    progress = True
            if not running and not progress:
                break
            if not progress:
                time.sleep(POLL_S)
        for spec in waiting:
            self.results[spec.name] = NodeResult(name=spec.name, job="", state=None, skipped=False)
        return [self.results[spec.name] for spec in self.pipeline.nodes]

    def _begin(self, spec: JobSpec) -> str:
        """Submit a node, or find that it has been done; return the job to wait for."""
        resolved, work = self._resolve(spec)
        found = reusable(self.engine, work)
        if found:
            self._keep(found)
            self.results[spec.name] = NodeResult(
                name=spec.name, job=found, state=State.SUCCEEDED, skipped=True
            )
            self.say(f"{spec.name}: done before, by {found}")
            return ""
        before = self.engine.store.jobs(work_hash=work)
        active = [job for job in before if not job.final]
        if active:
            self.say(f"{spec.name}: {active[0].id} is at it")
            return active[0].id
        key = f"{spec.key or 'work'}:{work}:{len(before)}"
        job = self.engine.submit(replace(resolved, key=key), work_hash=work)
        self.say(f"{spec.name}: {job}")
        return job

    def _resolve(self, spec: JobSpec) -> tuple[JobSpec, str]:
        """Return a node's spec with its inputs resolved, and what identifies its work."""
        wanted = _artefacts(spec)
        inputs, hashes = [], {}
        for source in spec.inputs:
            if source.name in wanted:
                made = self.made[wanted[source.name]]
                source = replace(source, uri=made.uri, sha256=made.sha256)
            elif not source.sha256 and os.path.exists(local_path(source.uri)):
                source = replace(source, sha256=content(Path(local_path(source.uri)))[0])
            inputs.append(source)
            hashes[source.name] = source.sha256 or source.uri
        code = scan(spec.workdir, spec.include, spec.exclude).digest if spec.workdir else ""
        neutral = {
            k: v
            for k, v in to_dict(spec).items()
            if k not in ("key", "workdir", "include", "exclude", "inputs", "labels", "project",
                         "priority", "queue", "engine_options", "budget", "retry", "timeout_s")
        }  # fmt: skip
        return replace(spec, inputs=tuple(inputs)), hash_data([neutral, code, hashes])

    def _ended(self, name: str, job: str) -> bool:
        record = self.engine.store.job(job)
        if not record.final:
            self.engine.dispatch(record)
            return False
        self.results[name] = NodeResult(name=name, job=job, state=record.state, skipped=False)
        self.say(f"{name}: {record.state}{f' ({record.reason})' if record.reason else ''}")
        if record.state is State.SUCCEEDED:
            self._keep(job)
        return True

    def _keep(self, job: str) -> None:
        self.made |= {a.name: a for a in self.engine.store.artefacts(job)}


def reusable(engine: Engine, work_hash: str) -> str:
    """Return a job that has done this work and whose outputs are as it left them, or nothing."""
    for job in engine.store.jobs(work_hash=work_hash, states=[State.SUCCEEDED]):
        artefacts = engine.store.artefacts(job.id)
        if len(artefacts) == len(job.spec.outputs) and all(map(_intact, artefacts)):
            return job.id
    return ""


def _intact(artefact: Artefact) -> bool:
    path = Path(artefact.uri)
    return path.exists() and content(path) == (artefact.sha256, artefact.bytes)
