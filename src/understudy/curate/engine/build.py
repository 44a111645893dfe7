"""Steps by name to stages, with every wrong name and argument named before anything runs."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from understudy.core.config import check_keys
from understudy.core.errors import ConfigError, UnderstudyError
from understudy.curate.engine.function_stage import ADDS, FunctionStage
from understudy.curate.engine.stage import Stage
from understudy.curate.engine.steps import STEPS
from understudy.curate.engine.units import GlobalStep

COMMIT = "commit"
"""Name of the step that only has the pages so far written to disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of a pipeline.

    Attributes:
        name: one of `STEPS`, `commit`, or `module:function` or `module:Class` of your own.
        args: its arguments, plain data.
        number: its place in the pipeline, from 1.
    """

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"pipeline step {self.number} ({self.name})"

    def to_plain(self) -> dict[str, Any]:
        """Return plain data."""
        return {"name": self.name, "args": dict(self.args), "number": self.number}


def build(step: Step, seed: int = 0) -> Stage | GlobalStep:
    """Return the stage of a step.

    Args:
        step: not a commit.
        seed: given to stages with an argument `seed`, unless the step has one.

    Raises:
        ConfigError: no such step, or an argument that it does not take, lacks or refuses; nearest
            names and accepted arguments are in the message.
    """
    target = _find(step)
    if not isinstance(target, type):
        return _function(step, target)
    accepted = _accepted(target)
    _check(step, accepted)
    args = dict(step.args)
    if "seed" in accepted and "seed" not in args:
        args["seed"] = seed
    try:
        stage = target(**args)
    except UnderstudyError as error:
        raise type(error)(f"{step.where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{step.where}: {error}. It accepts {_listed(accepted)}.") from error
    if not isinstance(stage, Stage | GlobalStep):
        raise ConfigError(f"{step.where}: the class is neither a Stage nor a GlobalStep.")
    if not stage.name:
        stage.name = step.name
    return stage


def describe(stage: Stage | GlobalStep, step: Step) -> dict[str, Any]:
    """Return what decides the result of a step, as plain data.

    A class that does not say so itself is described by its arguments.

    Raises:
        ConfigError: its `describe` gives something else.
    """
    told = type(stage).describe not in (Stage.describe, GlobalStep.describe)
    found = {"step": step.name, **({} if told else {"args": dict(step.args)}), **stage.describe()}
    try:
        return json.loads(json.dumps(found, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{step.where}: its description is not plain data ({error}).") from None


@functools.lru_cache(maxsize=4)
def stages_of(text: str) -> list[Stage]:
    """Return the stages of steps that are given as JSON; a process makes them once."""
    data = json.loads(text)
    found = []
    for plain in data["steps"]:
        stage = build(Step(**plain), data["seed"])
        assert isinstance(stage, Stage)
        found.append(stage)
    return found


def _find(step: Step) -> Any:
    if ":" not in step.name:
        if step.name not in STEPS:
            names = [*STEPS, COMMIT]
            near = difflib.get_close_matches(step.name, names, n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
            raise ConfigError(
                f"pipeline step {step.number}: there is no step '{step.name}'. {hint} A step of "
                "your own is 'module:function'."
            )
        return STEPS.load(step.name)
    module, _, attribute = step.name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{step.where}: cannot be imported ({error}).") from None
    if not callable(found):
        raise ConfigError(f"{step.where}: is neither a function nor a class.")
    return found


def _accepted(target: Callable[..., Any], skip: int = 0) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(target).parameters.items())[skip:])


def _check(step: Step, accepted: Mapping[str, inspect.Parameter]) -> None:
    if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        for name in step.args:
            if name in accepted:
                continue
            near = difflib.get_close_matches(name, accepted, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"{step.where}: unknown argument '{name}'.{hint} It accepts {_listed(accepted)}."
            )
    for name, parameter in accepted.items():
        required = parameter.default is parameter.empty
        if required and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            if name not in step.args:
                raise ConfigError(
                    f"{step.where}: missing argument '{name}'. It accepts {_listed(accepted)}."
                )


def _listed(accepted: Mapping[str, inspect.Parameter]) -> str:
    shown = [
        name if p.default is p.empty else f"{name}={p.default!r}"
        for name, p in accepted.items()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    return ", ".join(shown) or "no arguments"


def _function(step: Step, function: Callable[..., Any]) -> FunctionStage:
    args = dict(step.args)
    adds = args.pop(ADDS, None)
    if adds is not None and not isinstance(adds, Mapping):
        raise ConfigError(f"{step.where}: {ADDS}: expected {{column: type}}, got {adds!r}.")
    accepted = _accepted(function, 1)
    plain = Step(name=step.name, args=args, number=step.number)
    _check(plain, accepted)
    try:
        return FunctionStage(step.name, function, args, adds)
    except ConfigError as error:
        raise ConfigError(f"{step.where}: {error}") from error


def parse_step(item: Any, number: int, where: str) -> Step:
    """Return the step of a name, a mapping with `name` (or `func`), or a function or class.

    Raises:
        ConfigError: none of these.
    """
    at = f"{where}, step {number}"
    if isinstance(item, str):
        return Step(name=item, number=number)
    if isinstance(item, Mapping):
        named = [key for key in ("name", "func") if key in item]
        if len(named) != 1:
            raise ConfigError(
                f"{at}: expected one of the keys 'name' and 'func', got {', '.join(map(str, item))}"
                "."
            )
        name, args = item[named[0]], {k: v for k, v in item.items() if k != named[0]}
        if not isinstance(name, str):
            raise ConfigError(f"{at}: {named[0]}: expected a name, got {name!r}.")
        if name == COMMIT:
            check_keys(args, (), at)
        try:
            json.dumps(args)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{at} ({name}): arguments must be plain data ({error}).") from None
        return Step(name=name, args=args, number=number)
    if callable(item) and hasattr(item, "__qualname__"):
        if "<" in item.__qualname__:
            raise ConfigError(
                f"{at}: {item.__qualname__} cannot be imported by workers; define it at the top of "
                "a module."
            )
        return Step(name=f"{item.__module__}:{item.__qualname__}", number=number)
    raise ConfigError(f"{at}: expected a name or a mapping with 'name', got {item!r}.")
