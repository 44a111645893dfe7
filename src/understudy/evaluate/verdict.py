"""The outcome of a claim: numbers, judgements, where and with what it ran."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.core.errors import DataError
from understudy.core.files import read_json, write_json
from understudy.evaluate.check_base import CheckResult
from understudy.evaluate.stats import mean_and_spread

FIELDS = (
    "recipe",
    "scale",
    "statement",
    "verdict",
    "seeds",
    "arms",
    "difference",
    "margin",
    "checks",
    "seconds",
    "machine",
    "versions",
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a claim came to.

    Attributes:
        recipe: name of the recipe.
        scale: at which scale it was tested.
        statement: the claim, in words.
        passed: whether every required check passed.
        seeds: the seeds that paired the arms.
        arms: arm -> metric -> value per seed.
        difference: `mean` and `ci95` of the headline difference; None where there is none.
        margin: what the headline difference had to reach.
        checks: what each check found, in the claim's order.
        seconds: wall seconds of all arms and preparations together.
        machine: where it ran.
        versions: with what it ran.
        metric: the main metric, for tables.
        descriptions: what each arm is, for people; not in the file.
        budget: what each arm may spend, for people; not in the file.
        failure: what counts as failure, for people; not in the file.
    """

    recipe: str
    scale: str
    statement: str
    passed: bool
    seeds: tuple[int, ...]
    arms: dict[str, dict[str, list[float | None]]]
    difference: dict[str, Any]
    margin: float | None
    checks: tuple[CheckResult, ...]
    seconds: float
    machine: dict[str, Any]
    versions: dict[str, str]
    metric: str = ""
    descriptions: dict[str, str] = field(default_factory=dict)
    budget: str = ""
    failure: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return exactly what the verdict file holds; numbers that are not finite become null."""
        data = {name: getattr(self, name, None) for name in FIELDS}
        data["verdict"] = "pass" if self.passed else "fail"
        data["checks"] = [vars(check) for check in self.checks]
        data["seconds"] = round(self.seconds, 1)
        return _plain(data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "verdict") -> Verdict:
        """Build a verdict from a verdict file's content.

        Raises:
            DataError: a field is missing.
        """
        missing = [name for name in FIELDS if name not in data]
        if missing:
            raise DataError(f"{where}: not a verdict file; it has no '{missing[0]}'.")
        rest = {k: data[k] for k in FIELDS if k not in ("verdict", "checks", "seeds")}
        return cls(
            passed=data["verdict"] == "pass",
            checks=tuple(CheckResult(**check) for check in data["checks"]),
            seeds=tuple(data["seeds"]),
            **rest,
        )

    @classmethod
    def read(cls, path: str | Path) -> Verdict:
        """Read a verdict file.

        Raises:
            DataError: missing, not JSON or not a verdict.
        """
        return cls.from_dict(read_json(path), str(path))

    def write(self, out: str | Path) -> Path:
        """Write `<out>/<scale>/<recipe>.json` atomically and return its path."""
        return write_json(Path(out) / self.scale / f"{self.recipe}.json", self.to_dict())

    def text(self) -> str:
        """Return the verdict as text: a table of the arms, then the checks."""
        metrics = self._shown_metrics()
        rows = [["arm", *metrics]]
        for arm, values in self.arms.items():
            rows.append([arm, *[_cell(values.get(metric)) for metric in metrics]])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [f"{self.recipe} ({self.scale}, {len(self.seeds)} seeds): {self.statement}", ""]
        for i, row in enumerate(rows):
            cells = [row[0].ljust(widths[0])]
            cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
            if i == 0:
                lines.append("  ".join("-" * w for w in widths))
        lines.append("")
        for check in self.checks:
            mark = "pass" if check.passed else "FAIL"
            extra = "" if check.required else " (reported only)"
            lines.append(f"[{mark}] {check.name}{extra}: {check.statement}")
            lines.append(f"       {check.detail}")
        word = "PASS" if self.passed else "FAIL"
        lines += ["", f"verdict: {word} after {self.seconds:,.0f} s of computing"]
        return "\n".join(lines)

    def _shown_metrics(self) -> list[str]:
        names = [self.metric] if self.metric else []
        for values in self.arms.values():
            names += [name for name in values if name not in names]
        return names


def _cell(values: list[float | None] | None) -> str:
    if values is None:
        return "-"
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if len(finite) < len(values):
        return "not finite"
    return mean_and_spread(finite)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
