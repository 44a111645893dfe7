"""What is wrong with a spec, said before it is queued."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from understudy.core.errors import ConfigError
from understudy.launch import python_env
from understudy.launch.code import Code
from understudy.launch.content import content
from understudy.launch.cost import worst_case
from understudy.launch.replica_plan import command, local_path
from understudy.launch.secrets import check_secret
from understudy.launch.spec import JobSpec
from understudy.launch.state_slots import Capacity, Room

INTERPRETERS = ("python", "python3", "bash", "sh", "torchrun", "accelerate")
_WITH_VALUE = ("-W", "-X")


def script(words: list[str]) -> str | None:
    """Return the file of the job's own code that a command runs; None if it runs none."""
    name = os.path.basename(words[0])
    if os.sep in words[0] and not os.path.isabs(words[0]):
        return words[0]
    if name not in INTERPRETERS and not name.startswith("python3."):
        return None
    rest = iter(words[1:])
    for word in rest:
        if word in _WITH_VALUE:
            next(rest, None)
        elif word in ("-m", "-c") or (name in ("bash", "sh") and "c" in word[1:2]):
            return None
        elif not word.startswith("-"):
            return None if os.path.isabs(word) or "{" in word else word
    return None


def check_commands(spec: JobSpec, code: Code | None, path: str) -> None:
    """Raise `ConfigError` if a program or a script that a command names is not there.

    Args:
        spec: the spec.
        code: what is packed; None: nothing.
        path: the job's PATH.
    """
    files = code.files if code else ()
    for rank in {role.name: i for i, role in enumerate(spec.ranks())}.values():
        words = command(spec, rank)
        file = script(words)
        if file is not None:
            name = os.path.normpath(file).replace(os.sep, "/")
            if name not in files:
                raise ConfigError(_missing(name, spec.workdir, files))
        program = words[0]
        if os.sep in program and not os.path.isabs(program):
            continue
        if spec.python is None and shutil.which(program, path=path) is None:
            raise ConfigError(f"command '{program}' is not a program on the job's PATH ({path}).")


def _missing(name: str, workdir: str, files: tuple[str, ...]) -> str:
    if not workdir:
        return (
            f"command file '{name}': the spec has no workdir, so the job has no code of its own; "
            "set workdir to the folder of the file."
        )
    if (Path(workdir) / name).is_file():
        return f"command file '{name}' is in workdir '{workdir}', and include/exclude leave it out."
    base = {os.path.basename(f): f for f in files}
    near = difflib.get_close_matches(name, files, n=3)
    near += [base[b] for b in difflib.get_close_matches(os.path.basename(name), base, n=3)]
    shown = list(dict.fromkeys(near))[:3]
    similar = f"{len(shown)} similar: {', '.join(shown)}" if shown else "none similar"
    return f"command file '{name}' not found in workdir '{workdir}' ({similar})."


def check_room(spec: JobSpec, engine: str, capacity: Capacity) -> None:
    """Raise `ConfigError` if the job could not start even on an empty engine.

    Args:
        spec: the spec.
        engine: its name, for messages.
        capacity: all that the engine has.
    """
    have = capacity.amounts
    for role in spec.roles:
        for name, amount in role.resources.vector().items():
            if amount > have.get(name, 0.0) + 1e-9:
                raise ConfigError(
                    f"role '{role.name}' asks {name}={amount:g}; engine '{engine}' has "
                    f"{name}={have.get(name, 0.0):g} in total."
                )
        kind = role.resources.gpu_type
        if kind and capacity.gpu_types.count(kind) < role.resources.gpu:
            known = ", ".join(sorted(set(capacity.gpu_types))) or "none"
            raise ConfigError(
                f"role '{role.name}' asks {role.resources.gpu} gpu of type '{kind}'; engine "
                f"'{engine}' has {capacity.gpu_types.count(kind)} ({known})."
            )
    if not spec.is_gang:
        return
    room = Room.of(capacity)
    ranks = spec.ranks()[: spec.min_replicas]
    if all(room.take(r.resources.vector(), r.resources.gpu_type) is not None for r in ranks):
        return
    need: dict[str, float] = {}
    for role in ranks:
        for name, amount in role.resources.vector().items():
            need[name] = need.get(name, 0.0) + amount
    short = {n: a for n, a in need.items() if a > have.get(n, 0.0) + 1e-9} or need
    detail = ", ".join(f"{n} needs {a:g}, has {have.get(n, 0.0):g}" for n, a in short.items())
    raise ConfigError(
        f"a gang of {len(ranks)} replicas does not fit engine '{engine}' at once: {detail}; ask "
        "for less, for fewer replicas, or set gang: false."
    )


def check_inputs(spec: JobSpec) -> None:
    """Raise `ConfigError` if an input on this machine is missing or is not what its hash says."""
    for source in spec.inputs:
        if source.uri.startswith("artefact:"):
            raise ConfigError(
                f"input '{source.name}' is '{source.uri}', which only a pipeline can resolve."
            )
        path = local_path(source.uri)
        if "://" in path:
            continue
        if not os.path.isabs(path):
            raise ConfigError(
                f"input '{source.name}': '{path}' is relative, and the job runs elsewhere; give an "
                "absolute path or a URL."
            )
        if not os.path.exists(path):
            raise ConfigError(f"input '{source.name}': no such file or folder '{path}'.")
        if source.sha256:
            found, _ = content(Path(path))
            if found != source.sha256:
                raise ConfigError(
                    f"input '{source.name}': '{path}' has sha256 {found}, and the spec says "
                    f"{source.sha256}."
                )


def check_budget(spec: JobSpec) -> float | None:
    """Return the most that a job with a budget costs, preemptions aside; None without a budget.

    Raises:
        ConfigError: it is more than the budget.
    """
    if spec.budget is None:
        return None
    most = worst_case(spec)
    if most > spec.budget.max_cost:
        attempts = 1 + (spec.retry.max_failures if spec.retry.on else 0)
        raise ConfigError(
            f"the job may cost {most:.2f} ({attempts} attempts of {spec.timeout_s:g} s), more than "
            f"budget.max_cost, {spec.budget.max_cost:.2f}; shorten timeout_s, ask for less, or "
            "raise the budget."
        )
    return most


def check(
    spec: JobSpec,
    *,
    engine: str,
    capacity: Capacity,
    capabilities: frozenset[str],
    code: Code | None,
    environment: Mapping[str, str],
    secrets: Path,
) -> list[str]:
    """Check everything that can be known before queueing; return warnings.

    Args:
        spec: the spec.
        engine: name of the engine.
        capacity: all that it has.
        capabilities: what it can do.
        code: what is packed.
        environment: variables that the job takes over.
        secrets: folder of secrets.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    launchers = sorted(c.removeprefix("launcher:") for c in capabilities if c[:9] == "launcher:")
    if spec.launcher != "none" and spec.launcher not in launchers:
        raise ConfigError(
            f"launcher '{spec.launcher}' is not one of engine '{engine}' (it has none, "
            f"{', '.join(launchers)})."
        )
    if spec.image and "image" not in capabilities:
        raise ConfigError(
            f"image is '{spec.image}', and engine '{engine}' starts no containers; leave image out."
        )
    check_commands(spec, code, {**environment, **spec.env}.get("PATH", os.defpath))
    check_room(spec, engine, capacity)
    check_inputs(spec)
    for name in spec.secrets:
        check_secret(secrets, name)
    if spec.python is not None:
        python_env.digest(spec.python.lock, spec.python.wheelhouse)
    check_budget(spec)
    warnings = spec.warnings()
    if spec.queue and "queue" not in capabilities:
        warnings.append(f"queue '{spec.queue}' means nothing to engine '{engine}'.")
    for other in spec.engine_options:
        if other == engine and "options" not in capabilities:
            warnings.append(f"engine_options.{other}: engine '{engine}' has no options.")
    return warnings
