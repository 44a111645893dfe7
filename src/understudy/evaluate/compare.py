"""Compare pretrainings by their dense transfer, and refuse where a comparison would mislead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.transfer_rows import LOWER_IS_BETTER, METRICS, TransferRow
from understudy.evaluate.label_curves import label_efficiency, relative_gain
from understudy.evaluate.stats import mean_and_spread, paired_bootstrap


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One arm at one label count.

    Attributes:
        task: seg, depth or det.
        metric: what is compared.
        labels: labelled rows.
        arm: the pretraining.
        values: one a seed, in the order of `seeds`.
        seeds: the seeds.
        difference: mean of the paired differences to the baseline; None for the baseline itself.
        ci95: bootstrap interval of it, with at least two seeds.
        relative: the mean's change relative to the baseline's, such as `+12.1%`.
        efficiency: labels that the baseline needs for its own score here / labels that the arm
            needs for it, on the mean curves; empty where the curves say nothing.
        lrs_tried: learning rates that the arm could choose from.
    """

    task: str
    metric: str
    labels: int
    arm: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    difference: float | None = None
    ci95: tuple[float, float] | None = None
    relative: str = ""
    efficiency: str = ""
    lrs_tried: int = 1


def check_comparable(rows: Sequence[TransferRow]) -> None:
    """Refuse arms that differ in more than their pretraining.

    Raises:
        ConfigError: different towers, samples seen, heads or protocols; the message names two arms
            and what differs. An arm that was not pretrained (0 samples) may stand beside others.
    """
    checks = {
        "tower": ("towers", "the same architecture"),
        "head": ("heads", "the same head"),
        "protocol": ("protocols", "the same labelled rows, crops, steps, batch and learning rates"),
    }
    for task in {row.task for row in rows}:
        own = [row for row in rows if row.task == task]
        for name, (what, wanted) in checks.items():
            for row in own[1:]:
                a, b = getattr(own[0], name), getattr(row, name)
                if a != b:
                    raise ConfigError(
                        f"arms '{own[0].arm}' and '{row.arm}' have different {what} for {task} "
                        f"({a}, {b}); a comparison needs {wanted}."
                    )
    seen = {row.arm: row.samples_seen for row in rows if row.samples_seen != 0}
    unknown = [arm for arm, samples in seen.items() if samples < 0]
    if unknown and len(seen) > 1:
        raise ConfigError(
            f"arm '{unknown[0]}': how many samples its pretraining saw is unknown, so it cannot be "
            "compared; evaluate it again with --samples-seen."
        )
    pairs = sorted(seen.items(), key=lambda item: item[1])
    if pairs and pairs[0][1] != pairs[-1][1]:
        raise ConfigError(
            f"arm '{pairs[0][0]}' saw {pairs[0][1]:,} samples in pretraining and '{pairs[-1][0]}' "
            f"{pairs[-1][1]:,}; a comparison needs equal numbers."
        )


def compare(
    rows: Sequence[TransferRow], baseline: str, metric: str = "", *, check: bool = True
) -> list[Compared]:
    """Compare all arms with a baseline, paired by seed.

    Args:
        rows: of all arms, tasks, label counts and seeds.
        baseline: name of the arm that the others are compared with.
        metric: which one; empty takes each task's main one.
        check: refuse what `check_comparable` refuses.

    Returns:
        by task, labels and arm, the baseline first.

    Raises:
        ConfigError: arms that cannot be compared, or no such baseline.
        DataError: no row, an arm that lacks a seed, or two rows of the same run.
    """
    if not rows:
        raise DataError("compare: there are no results.")
    arms = list(dict.fromkeys(row.arm for row in rows))
    if baseline not in arms:
        raise ConfigError(f"compare: no arm '{baseline}'; there are {', '.join(arms)}.")
    if check:
        check_comparable(rows)
    arms = [baseline, *(arm for arm in arms if arm != baseline)]
    out: list[Compared] = []
    for task in dict.fromkeys(row.task for row in rows):
        main = metric or METRICS[task][0]
        table = _table([r for r in rows if r.task == task and r.metric == main])
        for labels in sorted({key[1] for key in table}):
            if (baseline, labels) not in table:
                continue
            out += _at(table, arms, baseline, labels, task, main)
    if not out:
        raise DataError(f"compare: no result of metric '{metric}' that '{baseline}' has too.")
    return out


Table = dict[tuple[str, int], dict[int, TransferRow]]


def _table(rows: Sequence[TransferRow]) -> Table:
    table: Table = {}
    for row in rows:
        seeds = table.setdefault((row.arm, row.labels), {})
        if row.seed in seeds:
            raise DataError(
                f"compare: arm '{row.arm}' has two results with {row.labels} labels and seed "
                f"{row.seed}."
            )
        seeds[row.seed] = row
    return table


def _at(
    table: Table, arms: Sequence[str], baseline: str, labels: int, task: str, metric: str
) -> list[Compared]:
    base, found = table[baseline, labels], []
    lower = metric in LOWER_IS_BETTER
    for arm in arms:
        own = table.get((arm, labels))
        if own is None:
            continue
        if own.keys() != base.keys():
            raise DataError(
                f"compare: with {labels} labels '{arm}' has the seeds {sorted(own)} and "
                f"'{baseline}' {sorted(base)}; they are paired by seed."
            )
        seeds = tuple(sorted(own))
        values = tuple(own[seed].value for seed in seeds)
        entry = Compared(
            task=task,
            metric=metric,
            labels=labels,
            arm=arm,
            values=values,
            seeds=seeds,
            lrs_tried=own[seeds[0]].lrs_tried,
        )
        if arm != baseline:
            entry = _against(entry, table, baseline, [base[s].value for s in seeds], lower)
        found.append(entry)
    return found


def _against(
    entry: Compared, table: Table, baseline: str, before: list[float], lower: bool
) -> Compared:
    delta = paired_bootstrap(entry.values, before)
    mean = float(np.mean(before))
    ratio = ""
    try:
        found = label_efficiency(
            mean_curve(table, entry.arm), mean_curve(table, baseline), mean, lower_is_better=lower
        )
        ratio = str(found)
    except DataError:
        pass
    return replace(
        entry,
        difference=delta.mean,
        ci95=(delta.low, delta.high) if len(before) > 1 else None,
        relative=relative_gain(float(np.mean(entry.values)), mean) if mean > 0 else "",
        efficiency=ratio,
    )


def mean_curve(table: Table, arm: str) -> dict[int, float]:
    """Return labels -> mean score over seeds of one arm."""
    return {
        labels: float(np.mean([row.value for row in seeds.values()]))
        for (name, labels), seeds in table.items()
        if name == arm
    }


HEADER = ("task", "metric", "labels", "arm", "mean", "difference", "95%", "relative", "labels x")


def table_rows(found: Sequence[Compared]) -> list[tuple[Any, ...]]:
    """Return printable rows under `HEADER`."""
    return [
        (
            entry.task,
            entry.metric,
            entry.labels,
            entry.arm,
            mean_and_spread(entry.values),
            "" if entry.difference is None else f"{entry.difference:+.4f}",
            "" if entry.ci95 is None else f"[{entry.ci95[0]:+.4f}, {entry.ci95[1]:+.4f}]",
            entry.relative,
            entry.efficiency,
        )
        for entry in found
    ]


def to_plain(found: Sequence[Compared]) -> list[dict[str, Any]]:
    """Return the comparison as JSON-like data."""
    return [asdict(entry) for entry in found]
