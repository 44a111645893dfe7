"""Pipelines: which steps run, in which order, on which sources."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import check_keys
from understudy.core.errors import ConfigError
from understudy.curate.engine.build import COMMIT, Step, build, describe, parse_step
from understudy.curate.engine.stage import Stage
from understudy.curate.engine.units import GlobalStep

if TYPE_CHECKING:
    from understudy.curate.engine.report import CurateReport

FOLDER = Path(__file__).parent.parent / "pipelines"
"""Where the pipelines that come with the package are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Steps for some of the pages.

    Attributes:
        source: pattern of the sources that they are for (`wiki/*`, `*.warc.gz`), or None for all.
        steps: in order.
    """

    source: str | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A step that is ready to run.

    Attributes:
        step: what was asked for.
        stage: what does it; None for a commit.
        source: pattern of the sources that it is for, or None for all.
        described: what decides its result.
    """

    step: Step
    stage: Stage | GlobalStep | None
    source: str | None
    described: dict[str, Any]


def _is_section(item: Any) -> bool:
    return isinstance(item, Mapping) and "steps" in item and not {"name", "func"} & set(item)


class Pipeline:
    """Steps in order.

    Args:
        items: steps, each a name, a mapping `{"name": ..., argument: ...}`, or a function or class
            of your own; or sections, mappings `{"steps": [...], "source": pattern}`.
        where: what messages call it.

    Raises:
        ConfigError: something else is among them.

    Example:
        >>> Pipeline(["newlines", {"name": "page-length", "min_words": 20}]).names
        ['newlines', 'page-length']
    """

    def __init__(self, items: Iterable[Any], where: str = "pipeline") -> None:
        self.where = where
        given = list(items)
        sections = [item for item in given if _is_section(item)]
        if sections and len(sections) < len(given):
            raise ConfigError(f"{where}: expected steps or sections with 'steps', got both.")
        self.sections: list[Section] = []
        number = 0
        for item in given if sections else [{"steps": given}]:
            check_keys(item, ("source", "steps"), where)
            source, steps = item.get("source"), item["steps"]
            if source is not None and not isinstance(source, str):
                raise ConfigError(f"{where}: source: expected a pattern, got {source!r}.")
            if not isinstance(steps, Sequence) or isinstance(steps, str):
                raise ConfigError(f"{where}: steps: expected a list, got {steps!r}.")
            parsed = [parse_step(s, number + i, where) for i, s in enumerate(steps, 1)]
            number += len(parsed)
            self.sections.append(Section(source=source, steps=tuple(parsed)))

    @classmethod
    def load(cls, path: str | Path) -> Pipeline:
        """Read a YAML file: a list of steps, or of sections.

        Raises:
            ConfigError: no such file, not YAML, or not such a list.
        """
        import yaml

        try:
            data = yaml.safe_load(Path(path).read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}).") from None
        except yaml.YAMLError as error:
            detail = str(error).replace("\n", " ")
            raise ConfigError(f"{path}: not valid YAML ({detail}).") from None
        if isinstance(data, Mapping) and "steps" in data:
            data = [data]
        if not isinstance(data, list) or not data:
            raise ConfigError(f"{path}: expected a list of steps, or of mappings with 'steps'.")
        return cls(data, str(path))

    @classmethod
    def named(cls, name: str) -> Pipeline:
        """Return a pipeline that comes with the package.

        Raises:
            ConfigError: there is none of this name.
        """
        known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"there is no pipeline '{name}'.{hint} Known: {', '.join(known)}; --pipeline FILE "
                "takes one of your own."
            )
        return cls.load(FOLDER / f"{name}.yaml")

    @property
    def steps(self) -> list[Step]:
        """All steps in order."""
        return [step for section in self.sections for step in section.steps]

    @property
    def names(self) -> list[str]:
        """Names of the steps."""
        return [step.name for step in self.steps]

    @property
    def patterns(self) -> list[str]:
        """Patterns of sources that sections name."""
        return [s.source for s in self.sections if s.source is not None]

    def to_plain(self) -> list[dict[str, Any]]:
        """Return plain data: sections with steps, as in a YAML file."""
        return [
            {
                **({"source": section.source} if section.source is not None else {}),
                "steps": [{"name": step.name, **step.args} for step in section.steps],
            }
            for section in self.sections
        ]

    def build(self, seed: int = 0) -> list[Built]:
        """Return the steps, ready to run; models that they need are looked for now.

        Args:
            seed: for steps with an argument `seed` that the pipeline does not give.

        Raises:
            ConfigError: a step does not exist, or does not take its arguments.
        """
        found = []
        for section in self.sections:
            for step in section.steps:
                stage = None if step.name == COMMIT else build(step, seed)
                described = {"step": COMMIT} if stage is None else describe(stage, step)
                found.append(
                    Built(step=step, stage=stage, source=section.source, described=described)
                )
        return found

    def run(
        self, inputs: str | Path | Iterable[str | Path], store: str | Path, **options: Any
    ) -> CurateReport:
        """Run the steps over files, folders and stores; write the pages that are left as a store.

        Args:
            inputs: what is curated.
            store: where the pages go.
            **options: of `understudy.curate.engine.run.RunConfig`: `on`, `workers`, `seed`, ...

        Raises:
            ConfigError: a step or an option is wrong.
            DataError: an input, a page or a worker failed; what is complete is kept for the next
                attempt.
        """
        from understudy.curate.engine.run import RunConfig, curate

        given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
        return curate(self, given, store, RunConfig(**options))
