"""What a run did, step by step: the funnel from records to the pages that are left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from understudy.curate.engine.stage import Count


@dataclass(kw_only=True)
class FunnelRow:
    """One line of the funnel.

    Attributes:
        step: number of the step in the pipeline; 0 for reading the inputs.
        name: of the step.
        count: pages, bytes of text, seconds of work and reasons of drops. Reading counts records
            and bytes on disk as what came in.
    """

    step: int
    name: str
    count: Count = field(default_factory=Count)

    def to_plain(self) -> dict[str, Any]:
        """Return plain data."""
        return {"step": self.step, "name": self.name, **self.count.to_plain()}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> FunnelRow:
        """Return the row of `to_plain`."""
        row = cls(step=data["step"], name=data["name"])
        row.count.add(data)
        return row


@dataclass(kw_only=True)
class CurateReport:
    """What a run did.

    Attributes:
        store: where the pages are.
        rows: pages that are left.
        units: units of input.
        funnel: a row for reading, then one a step.
        skipped: records that could not be read, by reason.
        examples: the first of them, with places.
        ignored: files of other kinds in the input folders, by the end of their names.
        seconds: wall time of this call.
        tasks: pieces of work that the run consists of.
        resumed: those of them that an earlier call had finished.
        complete_before: an earlier call had finished the whole run.
        exclusions: where the dropped pages are, if they were asked for.
    """

    store: str
    rows: int = 0
    units: int = 0
    funnel: list[FunnelRow] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    tasks: int = 0
    resumed: int = 0
    complete_before: bool = False
    exclusions: str | None = None

    def top_reasons(self, number: int = 10) -> list[tuple[str, str, int]]:
        """Return (step, reason, pages) of the reasons that dropped most pages."""
        counts: Counter[tuple[str, str]] = Counter()
        for row in self.funnel:
            for reason, pages in row.count.reasons.items():
                counts[(row.name, reason)] += pages
        order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [(name, reason, pages) for (name, reason), pages in order[:number]]

    def to_plain(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "funnel": [row.to_plain() for row in self.funnel]}
