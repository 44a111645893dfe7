"""Plans: what a full-size run counts up to, from configurations, without running anything.

A plan is a list of rows that say how each number came about. The arithmetic below is shared by the
recipes: samples seen, operations, bytes, device hours, money.

    >>> plan = Plan(recipe="example", scale="paper")
    >>> plan.add("samples seen", 30_000 * 8_192, "samples", formula="steps x batch")
    >>> print(plan.text())
    example, scale paper
    samples seen  245,760,000 samples  steps x batch
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from understudy.core.errors import ConfigError

SCALED = {
    "B": ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")),
    "FLOP": ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")),
    "MAC": ((1e18, "EMAC"), (1e15, "PMAC"), (1e12, "TMAC"), (1e9, "GMAC"), (1e6, "MMAC")),
    "FLOP/s": ((1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s")),
}
TIMES = ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min"))
EXACT_UP_TO = 1e15


def scaled(value: float, unit: str) -> str:
    """Return a quantity in a readable unit: `scaled(4.2e12, "B")` is `"4.2 TB"`.

    Bytes, FLOP, MAC and FLOP/s take decimal prefixes; seconds become minutes, hours or days; money
    gets separators; anything else is printed with separators.
    """
    size = abs(value)
    if unit == "s":
        for factor, name in TIMES:
            if size >= factor:
                return f"{value / factor:,.4g} {name}"
        return f"{value:.4g} s"
    for factor, name in SCALED.get(unit, ()):
        if size >= factor:
            return f"{value / factor:,.4g} {name}"
    return f"{exact(value)} {unit}".rstrip()


def exact(value: float) -> str:
    """Return a number with separators; whole numbers in full, others and huge ones rounded."""
    if float(value).is_integer() and abs(value) < EXACT_UP_TO:
        return f"{int(value):,}"
    if abs(value) >= EXACT_UP_TO:
        return f"{value:.4g}"
    return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.5g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRow:
    """One number of a plan.

    Attributes:
        label: what it is.
        value: the number, in `unit`; a text for what is not a number.
        unit: such as `"parameters"`, `"B"`, `"FLOP"`, `"s"`, `"device hours"`.
        formula: how it came about, in words.
        source: the paper's section or table that gives it or its factors.
        published: the paper's own value, where it prints one.
    """

    label: str
    value: float | str
    unit: str = ""
    formula: str = ""
    source: str = ""
    published: float | None = None

    def shown(self) -> str:
        """Return value and unit for people: exact, and in a readable unit where that differs."""
        if isinstance(self.value, str):
            return f"{self.value} {self.unit}".rstrip()
        plain = f"{exact(self.value)} {self.unit}".rstrip()
        readable = scaled(self.value, self.unit)
        return plain if readable == plain else f"{plain} ({readable})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data without empty fields."""
        names = ("label", "value", "unit", "formula", "source", "published")
        pairs = {name: getattr(self, name) for name in names}
        return {k: v for k, v in pairs.items() if v not in ("", None) or k in ("label", "value")}


@dataclass(kw_only=True)
class Plan:
    """A list of numbers that a run of some size comes to.

    Attributes:
        recipe: name of the recipe.
        scale: the size that is planned.
        rows: the numbers.
        notes: assumptions, one sentence each.
    """

    recipe: str
    scale: str
    rows: list[PlanRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        label: str,
        value: float | str,
        unit: str = "",
        *,
        formula: str = "",
        source: str = "",
        published: float | None = None,
    ) -> None:
        """Append a row.

        Raises:
            ConfigError: there is a row of that label.
        """
        if any(row.label == label for row in self.rows):
            raise ConfigError(f"plan of {self.recipe}: '{label}' is there twice.")
        row = PlanRow(
            label=label,
            value=value,
            unit=unit,
            formula=formula,
            source=source,
            published=published,
        )
        self.rows.append(row)

    def extend(self, rows: Iterable[PlanRow]) -> None:
        """Append rows."""
        self.rows.extend(rows)

    def value(self, label: str) -> float:
        """Return the number of a row.

        Raises:
            ConfigError: no such row, or its value is a text.
        """
        for row in self.rows:
            if row.label == label and not isinstance(row.value, str):
                return row.value
        raise ConfigError(f"plan of {self.recipe}: no number '{label}'.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "recipe": self.recipe,
            "scale": self.scale,
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Return a table: label, value, how it came about, the paper's own value, source."""
        lines = [f"{self.recipe}, scale {self.scale}"]
        if self.rows:
            wide = max(len(row.label) for row in self.rows)
            shown = [row.shown() for row in self.rows]
            right = max(len(text) for text in shown)
            for row, text in zip(self.rows, shown, strict=True):
                line = f"{row.label.ljust(wide)}  {text.rjust(right)}"
                if row.formula:
                    line += f"  {row.formula}"
                if row.published is not None:
                    line += f"  [paper: {exact(row.published)}]"
                if row.source:
                    line += f"  ({row.source})"
                lines.append(line.rstrip())
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def device_hours(seconds: float, devices: int) -> float:
    """Return wall seconds on some devices as device hours."""
    if seconds < 0 or devices < 1:
        raise ConfigError(
            f"device_hours: expected seconds >= 0 and at least one device, got {seconds} and "
            f"{devices}."
        )
    return seconds * devices / 3600


def hours_for(flop: float, *, peak_flop_per_s: float, utilisation: float) -> float:
    """Return the device hours that `flop` operations take at a share of a device's peak.

    Args:
        flop: floating point operations (a multiply-accumulate is two).
        peak_flop_per_s: of one device, at the precision used.
        utilisation: share of the peak that is reached, in (0, 1].
    """
    if not 0 < utilisation <= 1:
        raise ConfigError(f"hours_for: utilisation must lie in (0, 1], got {utilisation}.")
    if peak_flop_per_s <= 0 or flop < 0:
        raise ConfigError(
            f"hours_for: expected flop >= 0 and a positive peak, got {flop} and {peak_flop_per_s}."
        )
    return flop / (peak_flop_per_s * utilisation) / 3600


def training_flop(macs_per_sample: float, samples: float) -> float:
    """Return the operations of training: forward 2 per multiply-accumulate, backward twice that."""
    return 6.0 * macs_per_sample * samples


def inference_flop(macs_per_sample: float, samples: float) -> float:
    """Return the operations of forward passes: 2 per multiply-accumulate."""
    return 2.0 * macs_per_sample * samples


def transformer_macs(layers: int, width: int, tokens: int, *, cross_tokens: int = 0) -> float:
    """Return the multiply-accumulates of a transformer's layers on one sequence.

    Per layer 12 width^2 per token (projections, and a feed-forward four times as wide) and
    2 tokens^2 width for attention; with cross-attention another 2 width^2 per token on each side
    and 2 tokens cross_tokens width.

    Args:
        layers: how many.
        width: channels.
        tokens: length of the sequence.
        cross_tokens: length of what is attended to besides; 0 for none.
    """
    own = 12.0 * width**2 * tokens + 2.0 * tokens**2 * width
    crossed = 2.0 * width**2 * (tokens + cross_tokens) + 2.0 * tokens * cross_tokens * width
    return layers * (own + (crossed if cross_tokens else 0.0))


def amortised(generation: float, per_student: float, students: int) -> float:
    """Return the cost of one student when generation is shared: (T_gen + n T_train) / n.

    arXiv 2303.08983 reports generation apart and spreads it over the students.
    """
    if students < 1:
        raise ConfigError(f"amortised: expected at least one student, got {students}.")
    return (generation + students * per_student) / students


def embedding_bytes(
    *, views: int, captions: int, dim: int, itemsize: int = 2, real_caption: bool = True
) -> int:
    """Return the bytes of a reinforced pair's embeddings, before compression.

    (views + captions + 1) vectors of `dim` numbers: 110,592 B for 30 views, 5 captions and 1,536
    numbers of two bytes (arXiv 2311.17049).
    """
    return (views + captions + int(real_caption)) * dim * itemsize


def add_cost(plan: Plan, hours: Mapping[str, float], price_per_hour: float) -> None:
    """Append device hours by part, their sum, and the money that they cost.

    Args:
        plan: where to.
        hours: device hours by part.
        price_per_hour: of one device, in the user's currency.
    """
    if price_per_hour < 0:
        raise ConfigError(f"price per hour must not be negative, got {price_per_hour}.")
    for part, value in hours.items():
        plan.add(f"device hours: {part}", value, "device hours")
    total = sum(hours.values())
    plan.add("device hours: total", total, "device hours", formula=" + ".join(hours))
    plan.add(
        "money", total * price_per_hour, "", formula=f"{total:,.5g} h x {price_per_hour:g} per hour"
    )
