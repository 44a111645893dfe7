"""Run the arms of a claim: side by side, each in its own folder, each kept when it is done."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core import progress
from understudy.core.errors import ConfigError, DataError, UnderstudyError
from understudy.core.files import read_json, write_json
from understudy.core.hashing import hash_bytes, hash_data, hash_file
from understudy.core.provenance import versions

if TYPE_CHECKING:
    from understudy.evaluate.claims import Claim, Context

Found = dict[tuple[str, int], dict[str, float]]
DECIDING = (
    "core",
    "data",
    "curate",
    "reinforce",
    "models",
    "objectives",
    "train",
    "update",
    "solve",
)
"""Rooms whose code can change a result; recipes count by the claim's module and its parts."""
MACHINERY = ("claim", "check", "verdict", "plan", "stats")
"""Prefixes of files of this room that judge results but never make them."""


@cache
def code_hash(module: str) -> str:
    """Return a hash of all code that can change an arm's result.

    Args:
        module: name of the module that defines the arms.
    """
    root = Path(__file__).parents[1]
    files = [f for room in DECIDING for f in sorted((root / room).rglob("*.py"))]
    files += [
        f for f in sorted((root / "evaluate").rglob("*.py")) if not f.name.startswith(MACHINERY)
    ]
    own = getattr(sys.modules.get(module), "__file__", None)
    if own is not None:
        # What the claim needs beside it stands in `<recipe>_<part>.py`.
        stem = Path(own).stem.removesuffix("_claim")
        files += sorted({Path(own), *Path(own).parent.glob(f"{stem}_*.py")})
    return hash_bytes(*(hash_file(f).encode() for f in files))


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """One call: `setup`, `prepare` of a seed, or an arm of a seed."""

    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    label: str
    result: Path
    context: Context
    prepared: Path | None
    shared: Path | None
    threads: int


def limit_threads(threads: int) -> None:
    """Let torch and OpenMP use this many threads in this process."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _run(unit: _Unit) -> None:
    """Run one unit and keep its result; a result that is kept already is left alone."""
    from dataclasses import replace

    limit_threads(unit.threads)
    context = unit.context
    if unit.shared is not None:
        context = replace(context, shared=read_json(unit.shared)["values"])
    if unit.prepared is not None:
        context = replace(context, prepared=read_json(unit.prepared)["values"])
    context.arm_dir.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    try:
        values = unit.call(*unit.arguments, context)
    except UnderstudyError as error:
        raise type(error)(f"{unit.label}: {error}") from error
    seconds = time.perf_counter() - start
    write_json(unit.result, {"values": dict(values or {}), "seconds": seconds})


def _metrics(path: Path, label: str) -> dict[str, float]:
    values = read_json(path)["values"]
    if not values:
        raise DataError(f"{label}: run_arm returned no metrics.")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"{label}: metric '{name}' is {value!r}, expected a number.")
    return {name: float(value) for name, value in values.items()}


def _key(claim: Claim, scale: str, settings: Mapping[str, Any]) -> str:
    try:
        plain = hash_data(dict(settings))
    except TypeError as error:
        raise ConfigError(
            f"claim of {claim.recipe}: settings of scale '{scale}' must be plain data ({error})."
        ) from None
    torch = versions().get("torch", "")
    return hash_data([claim.recipe, scale, plain, code_hash(claim.run_arm.__module__), torch])[:12]


def _units(
    claim: Claim,
    scale: str,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    home: Path,
    threads: int,
) -> list[list[_Unit]]:
    """Return stages of units: within a stage any order will do."""
    from understudy.evaluate.claims import Context

    def unit(
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        label: str,
        own: Path,
        seed_dir: Path,
        prepared: Path | None = None,
        shared: Path | None = None,
    ) -> _Unit:
        context = Context(
            recipe=claim.recipe,
            scale=scale,
            settings=settings,
            shared_dir=home / "shared",
            seed_dir=seed_dir,
            arm_dir=own,
        )
        return _Unit(
            call=call,
            arguments=arguments,
            label=label,
            result=own.with_name(own.name + ".json"),
            context=context,
            prepared=prepared,
            shared=shared,
            threads=threads,
        )

    stages: list[list[_Unit]] = [[], [], []]
    shared = None
    if claim.setup is not None:
        first = unit(
            claim.setup,
            (),
            label=f"{claim.recipe}: setup",
            own=home / "shared",
            seed_dir=home / "shared",
        )
        stages[0].append(first)
        shared = first.result
    for seed in seeds:
        seed_dir, prepared = home / f"seed-{seed}" / "prepared", None
        where = f"{claim.recipe}, seed {seed}"
        if claim.prepare is not None:
            one = unit(
                claim.prepare,
                (seed,),
                label=f"{where}: prepare",
                own=seed_dir,
                seed_dir=seed_dir,
                shared=shared,
            )
            stages[1].append(one)
            prepared = one.result
        for arm in claim.arms:
            stages[2].append(
                unit(
                    claim.run_arm,
                    (arm.name, seed),
                    label=f"{where}, arm {arm.name}",
                    own=home / f"seed-{seed}" / f"arm-{arm.name}",
                    seed_dir=seed_dir,
                    prepared=prepared,
                    shared=shared,
                )
            )
    return stages


def run_units(
    claim: Claim,
    scale: str,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    workdir: Path,
    *,
    resume: bool,
    jobs: int,
    threads: int,
) -> tuple[Found, float]:
    """Run every arm with every seed; return the metrics and the seconds of all units.

    Args:
        claim: what to run.
        scale: name of the scale.
        settings: its settings.
        seeds: the seeds.
        workdir: finished units are kept in `<workdir>/<scale>/<recipe>-<key>/`.
        resume: use what is kept; otherwise remove it first.
        jobs: processes side by side; 1 runs in this process.
        threads: threads of each process.
    """
    home = workdir / scale / f"{claim.recipe}-{_key(claim, scale, settings)}"
    if not resume and home.exists():
        shutil.rmtree(home)
    stages = _units(claim, scale, settings, seeds, home, threads)
    every = [unit for stage in stages for unit in stage]
    done = sum(unit.result.exists() for unit in every)
    with progress.bar(f"verify {claim.recipe}", len(every), "arms", done=done) as bar:
        for stage in stages:
            todo = [unit for unit in stage if not unit.result.exists()]
            if jobs == 1 or len(todo) < 2:
                for unit in todo:
                    _run(unit)
                    bar.advance()
            else:
                _run_in_processes(todo, jobs, bar)
    found: Found = {}
    for unit in stages[2]:
        arm, seed = unit.arguments
        found[arm, seed] = _metrics(unit.result, unit.label)
    return found, sum(read_json(unit.result)["seconds"] for unit in every)


def _run_in_processes(units: Sequence[_Unit], jobs: int, bar: progress.Bar) -> None:
    for unit in units[:1]:
        try:
            pickle.dumps(unit)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"{unit.label}: cannot be sent to another process ({error}); define run_arm and "
                "prepare at the top of a module, or use one job."
            ) from None
    # Spawned, never forked: the store's library and OpenMP do not survive a fork.
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(units[0].threads) for name in names})
    try:
        with ProcessPoolExecutor(min(jobs, len(units)), mp_context=get_context("spawn")) as pool:
            futures: set[Future[None]] = {pool.submit(_run, unit) for unit in units}
            try:
                while futures:
                    finished, futures = wait(futures, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        bar.advance()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        raise UnderstudyError(
            f"{units[0].context.recipe}: a process that ran an arm died (out of memory?); finished "
            "arms are kept: run the same command again, with fewer jobs."
        ) from None
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
