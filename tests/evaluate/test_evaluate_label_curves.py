"""Label efficiency by interpolation, relative gains, comparisons and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.core.transfer_rows import (
    CURVES,
    REPORT,
    TransferRow,
    read_transfer,
    write_transfer,
)
from understudy.evaluate.check_contrast import Contrast, FewerLabels, SameOrder
from understudy.evaluate.compare import HEADER, check_comparable, compare, table_rows, to_plain
from understudy.evaluate.effects import effects
from understudy.evaluate.effects import to_plain as effects_plain
from understudy.evaluate.label_curves import label_efficiency, labels_needed, relative_gain
from understudy.evaluate.stats import spearman

quick = settings(max_examples=60, deadline=None)


def test_the_papers_relative_gains():
    assert relative_gain(53.9, 48.1) == "+12.1%"
    assert relative_gain(0.339, 0.383) == "-11.5%"
    assert relative_gain(2.0, 2.0) == "+0.0%"
    with pytest.raises(DataError, match="expected a positive value"):
        relative_gain(1.0, 0.0)


def test_interpolation_is_linear_in_the_logarithm_of_labels():
    curve = {10: 0.2, 100: 0.4, 1000: 0.5}
    assert labels_needed(curve, 0.3).labels == pytest.approx(10**1.5)
    assert labels_needed(curve, 0.45).labels == pytest.approx(10**2.5)
    assert labels_needed(curve, 0.4).labels == pytest.approx(100)
    exact = labels_needed(curve, 0.2)
    assert (exact.labels, exact.bound) == (10, "")
    assert labels_needed(curve, 0.1).bound == "at most"
    most = labels_needed(curve, 0.6)
    assert (most.labels, most.bound) == (1000, "more than")
    error = {10: 3.0, 100: 1.0}
    assert labels_needed(error, 2.0, lower_is_better=True).labels == pytest.approx(10**1.5)


def test_where_a_curve_falls_the_first_crossing_counts():
    assert labels_needed({1: 0.0, 10: 1.0, 100: 0.5, 1000: 1.0}, 0.75).labels < 10


@quick
@given(
    steps=st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3),
    factor=st.sampled_from([1.0, 2.0, 5.0]),
    share=st.floats(0.05, 0.95),
)
def test_a_curve_shifted_by_a_factor_has_that_efficiency(steps, factor, share):
    scores = np.cumsum(steps)
    slow = {int(n * factor): float(s) for n, s in zip((100, 1000, 10_000), scores, strict=True)}
    fast = {n: float(s) for n, s in zip((100, 1000, 10_000), scores, strict=True)}
    score = float(scores[0] + share * (scores[2] - scores[0]))
    found = label_efficiency(fast, slow, score)
    assert found.ratio == pytest.approx(factor, rel=1e-9)
    assert found.bound == ""
    back = label_efficiency(slow, fast, score)
    assert found.ratio * back.ratio == pytest.approx(1.0)


def test_bounds_where_a_curve_ends():
    good, bad = {20: 0.5, 200: 0.6}, {20: 0.1, 200: 0.4}
    assert str(label_efficiency(good, bad, 0.4)) == "at least 10x"
    assert str(label_efficiency(bad, good, 0.4)) == "at most 0.1x"
    assert str(label_efficiency(good, bad, 0.55)).startswith("at least")
    with pytest.raises(DataError, match="neither with the most"):
        label_efficiency(good, bad, 0.9)
    with pytest.raises(DataError, match="both with the fewest"):
        label_efficiency(good, bad, 0.05)
    for curve in ({}, {0: 1.0}, {5: math.nan}):
        with pytest.raises(DataError, match="label curve"):
            labels_needed(curve, 0.5)


def row(arm, value, *, labels=50, seed=0, **changed):
    base = TransferRow(
        arm=arm, tower="mci-1", task="seg", head="semantic-fpn-16", protocol="p", fraction=0.1,
        labels=labels, seed=seed, metric="miou", value=value, steps=10, samples_seen=100,
        lrs_tried=2,
    )  # fmt: skip
    return replace(base, **changed)


def table():
    values = {"alt": {50: 0.2, 200: 0.4}, "syn": {50: 0.35, 200: 0.5}}
    return [
        row(arm, value + 0.01 * seed, labels=labels, seed=seed)
        for arm, curve in values.items()
        for labels, value in curve.items()
        for seed in range(3)
    ]


def test_a_comparison_pairs_by_seed():
    found = compare(table(), "alt")
    assert [(e.labels, e.arm) for e in found] == [
        (50, "alt"), (50, "syn"), (200, "alt"), (200, "syn"),
    ]  # fmt: skip
    syn = found[1]
    assert syn.difference == pytest.approx(0.15)
    assert syn.ci95 == pytest.approx((0.15, 0.15))
    assert syn.relative == relative_gain(0.36, 0.21)
    assert syn.efficiency == "at least 1x"
    assert found[3].efficiency == "2.52x"
    assert found[0].difference is None
    shown = table_rows(found)
    assert len(shown[0]) == len(HEADER)
    assert to_plain(found)[1]["lrs_tried"] == 2


def test_errors_shrink():
    rows = [
        row(arm, v, metric="rmse_pixels", task="depth", labels=n)
        for arm, curve in {"alt": {10: 2.0, 100: 1.0}, "syn": {10: 1.5, 100: 0.5}}.items()
        for n, v in curve.items()
    ]
    found = compare(rows, "alt")
    assert found[1].relative == "-25.0%"
    assert found[1].ci95 is None  # one seed gives no interval
    assert found[3].efficiency == "3.16x"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tower": "mci-2"}, "have different towers for seg"),
        ({"head": "linear-1"}, "have different heads"),
        ({"protocol": "q"}, "the same labelled rows, crops, steps"),
        ({"samples_seen": 200}, "saw 100 samples in pretraining and 'syn' 200"),
        ({"samples_seen": -1}, "unknown.*--samples-seen"),
    ],
)
def test_bad_input_arms_that_differ_are_not_compared(changed, message):
    rows = [replace(r, **(changed if r.arm == "syn" else {})) for r in table()]
    with pytest.raises(ConfigError, match=message):
        compare(rows, "alt")
    assert compare(rows, "alt", check=False)


def test_an_arm_without_pretraining_may_stand_beside():
    rows = [*table(), *(row("random", 0.1, seed=s, samples_seen=0) for s in range(3))]
    check_comparable(rows)
    assert "random" in {e.arm for e in compare(rows, "alt")}


def test_bad_input_of_comparisons():
    with pytest.raises(DataError, match="no results"):
        compare([], "alt")
    with pytest.raises(ConfigError, match="no arm 'x'; there are alt, syn"):
        compare(table(), "x")
    with pytest.raises(DataError, match="two results with 50 labels and seed 0"):
        compare([*table(), table()[0]], "alt")
    with pytest.raises(DataError, match="they are paired by seed"):
        compare(table()[:-1], "alt")
    with pytest.raises(DataError, match="no result of metric"):
        compare(table(), "alt", "macc")


def test_reports_are_read_back(tmp_path):
    rows = [row("alt", 0.5, missing_classes=["a", "b"]), row("alt", 0.6, labels=100)]
    path = write_transfer(tmp_path, rows, {"note": "x"})
    assert path == tmp_path / REPORT
    assert read_transfer(tmp_path) == read_transfer(path) == rows
    lines = (tmp_path / CURVES).read_text().splitlines()
    assert lines[0].startswith("arm,tower,task")
    assert lines[1].endswith("a b")
    path.write_text('{"rows": []}')
    with pytest.raises(DataError, match="give a report"):
        read_transfer(path)
    path.write_text(
        '{"format": "understudy-transfer", "version": 1, "rows": [{"arm": "a", "lables": 3}]}'
    )
    with pytest.raises(DataError, match="unknown key 'lables'. Did you mean 'labels'"):
        read_transfer(path)


def test_two_causes_are_told_apart():
    captions, teacher, extra = 0.10, 0.05, 0.02
    noise = np.array([0.0, 0.01, -0.01])
    cells = {
        ("alt", False): 0.3 + noise,
        ("syn", False): 0.3 + captions + noise,
        ("alt", True): 0.3 + teacher + noise,
        ("syn", True): 0.3 + captions + teacher + extra + noise,
    }
    found = effects(cells, "alt", "syn")
    assert found["captions, no distillation"].mean == pytest.approx(captions)
    assert found["captions, with distillation"].mean == pytest.approx(captions + extra)
    assert found["captions, mean"].mean == pytest.approx(captions + extra / 2)
    assert found["distillation, mean"].mean == pytest.approx(teacher + extra / 2)
    assert found["interaction"].mean == pytest.approx(extra)
    assert effects_plain(found)["interaction"]["ci95"] == pytest.approx([extra, extra])
    part = effects({k: v for k, v in cells.items() if not k[1]}, "alt", "syn")
    assert list(part) == ["captions, no distillation"]
    with pytest.raises(DataError, match="different numbers of seeds"):
        effects({**cells, ("syn", True): [0.1]}, "alt", "syn")
    with pytest.raises(DataError, match="no pair of arms"):
        effects({("alt", False): [0.1]}, "alt", "syn")


def results(**arms):
    return {
        arm: {metric: np.array(values, float) for metric, values in metrics.items()}
        for arm, metrics in arms.items()
    }


def test_contrast_is_a_difference_of_differences():
    found = results(
        a={"m": [0.5, 0.6]}, b={"m": [0.3, 0.3]}, c={"m": [0.2, 0.2]}, d={"m": [0.1, 0.2]}
    )
    check = Contrast(
        name="x", metric="m", weights=(("a", 1.0), ("b", -1.0), ("c", -1.0), ("d", 1.0))
    )
    judged = check.judge(found)
    assert judged.values["per_seed"] == pytest.approx([0.1, 0.3])
    assert judged.passed
    assert "a - b - c + d" in check.statement
    assert not replace(check, margin=0.25).judge(found).passed
    assert not check.judge(results(**{k: {"m": [0.1, math.nan]} for k in "abcd"})).passed


def test_same_order_needs_four_arms():
    names = ("a", "b", "c", "d")
    scores = dict(zip(names, (9, 7, 5, 3), strict=True))
    mious = dict(zip(names, (0.4, 0.3, 0.2, 0.1), strict=True))
    found = results(**{n: {"s": [scores[n]] * 2, "m": [mious[n]] * 2} for n in names})
    check = SameOrder(name="x", first="s", second="m", arms=names)
    assert check.judge(found).passed
    found["b"]["m"], found["c"]["m"] = found["c"]["m"], found["b"]["m"]
    assert check.judge(found).values["rho"] == pytest.approx(0.8)
    assert check.judge(found).passed
    found["a"]["m"] = np.array([0.0, 0.0])
    assert not check.judge(found).passed
    with pytest.raises(ConfigError, match="name at least 4"):
        SameOrder(name="x", first="s", second="m", arms=names[:3])


def test_fewer_labels():
    curve = (20, 50, 200, 1000)
    worse = {f"m@{n}": [s, s] for n, s in zip(curve, (0.1, 0.2, 0.3, 0.4), strict=True)}
    better = {f"m@{n}": [s, s] for n, s in zip(curve, (0.2, 0.3, 0.4, 0.5), strict=True)}
    check = FewerLabels(
        name="x", metric="m", better="b", worse="w", curve=curve, labels=200, ratio=2.0
    )
    judged = check.judge(results(b=better, w=worse))
    assert judged.values["ratio"] == pytest.approx(4.0)
    assert judged.passed
    same = check.judge(results(b=worse, w=worse))
    assert same.values["ratio"] == pytest.approx(1.0)
    assert not same.passed
    assert not check.judge(results(b={**better, "m@50": [0.1, math.nan]}, w=worse)).passed
    with pytest.raises(ConfigError, match="must be one of at least two counts"):
        FewerLabels(name="x", metric="m", better="b", worse="w", curve=(20,), labels=20)


@quick
@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_spearman_is_pearson_of_mean_ranks(pairs):
    a, b = (np.array(v, float) for v in zip(*pairs, strict=True))

    def ranks(v):
        order = sorted(v.tolist())
        return np.array([np.mean([i for i, w in enumerate(order) if w == x]) for x in v])

    ra, rb = ranks(a), ranks(b)
    if ra.std() == 0 or rb.std() == 0:
        assert math.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(np.corrcoef(ra, rb)[0, 1])


def test_bad_input_of_spearman():
    with pytest.raises(DataError, match="expected two equal lists"):
        spearman([1, 2], [1])
