"""Every metric equals a plain loop; ties, empty input and nonsense are decided."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate import metrics as m
from understudy.evaluate.classify import classification_metrics

quick = settings(max_examples=40, deadline=None)
# few different values, so that ties are common
tables = st.integers(1, 6).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(-2, 2), min_size=width, max_size=width), min_size=1, max_size=8
    )
)


def ranked(row):
    """Return item numbers, best first; the earlier of equals is better."""
    return sorted(range(len(row)), key=lambda i: (-row[i], i))


@quick
@given(table=tables, data=st.data())
def test_label_metrics_equal_loops(table, data):
    labels = [data.draw(st.integers(0, len(row) - 1)) for row in table]
    orders = [ranked(row) for row in table]
    for k in (1, 2, 5):
        expected = statistics.fmean(y in o[:k] for o, y in zip(orders, labels, strict=True))
        assert m.top_k_accuracy(table, labels, k) == pytest.approx(expected)
    by_class = {}
    for order, label in zip(orders, labels, strict=True):
        by_class.setdefault(label, []).append(order[0] == label)
    expected = statistics.fmean(statistics.fmean(hits) for hits in by_class.values())
    assert m.per_class_accuracy(np.array(table), np.array(labels)) == pytest.approx(expected)


@quick
@given(table=tables, data=st.data())
def test_ranking_metrics_equal_loops(table, data):
    width = len(table[0])
    relevant = []
    for _ in table:
        chosen = data.draw(st.sets(st.integers(0, width - 1), min_size=1))
        relevant.append([i in chosen for i in range(width)])
    first, precisions = [], []
    for row, wanted in zip(table, relevant, strict=True):
        order = ranked(row)
        places = [p for p, item in enumerate(order) if wanted[item]]
        first.append(places[0])
        precisions.append(statistics.fmean((i + 1) / (p + 1) for i, p in enumerate(places)))
    found = m.first_ranks(table, torch.tensor(relevant))
    assert found.tolist() == first
    assert m.median_rank(found) == statistics.median(first) + 1
    for k in (1, 3):
        assert m.recall_at(found, k) == pytest.approx(statistics.fmean(f < k for f in first))
    assert m.mean_average_precision(table, np.array(relevant)) == pytest.approx(
        statistics.fmean(precisions)
    )


@quick
@given(
    rows=st.lists(
        st.tuples(st.lists(st.integers(1, 9), min_size=3, max_size=3), st.integers(0, 2)),
        min_size=1,
        max_size=20,
    ),
    bins=st.integers(1, 20),
)
def test_calibration_error_equals_a_loop(rows, bins):
    probabilities = torch.tensor([r for r, _ in rows], dtype=torch.float64)
    probabilities /= probabilities.sum(1, keepdim=True)
    labels = [y for _, y in rows]
    total = 0.0
    for b in range(bins):
        members = []
        for row, label in zip(probabilities.tolist(), labels, strict=True):
            confidence = max(row)
            if math.ceil(confidence * bins) - 1 == b:
                members.append((row.index(confidence) == label, confidence))
        if members:
            gap = statistics.fmean(h for h, _ in members) - statistics.fmean(c for _, c in members)
            total += len(members) / len(rows) * abs(gap)
    assert m.expected_calibration_error(probabilities, labels, bins) == pytest.approx(total)


def test_calibration_error_known_values():
    certain = [[1.0, 0.0]] * 4
    assert m.expected_calibration_error(certain, [0, 0, 0, 0]) == 0.0
    assert m.expected_calibration_error(certain, [0, 0, 1, 1]) == pytest.approx(0.5)
    # half right at 75 % confidence, then three quarters right: calibrated
    rows = [[0.75, 0.25]] * 4
    assert m.expected_calibration_error(rows, [0, 0, 1, 1]) == pytest.approx(0.25)
    assert m.expected_calibration_error(rows, [0, 0, 0, 1]) == pytest.approx(0.0)
    # right at 0.6 and wrong at 1.0: their gaps partly cancel in one bin, not in two
    mixed = [[0.4, 0.6], [1.0, 0.0]]
    assert m.expected_calibration_error(mixed, [1, 1], bins=1) == pytest.approx(0.3)
    assert m.expected_calibration_error(mixed, [1, 1], bins=10) == pytest.approx(0.7)
    assert m.relative_reduction(0.10, 0.09) == pytest.approx(0.1)


def test_constant_scores_are_chance():
    # a collapsed model must not look right because its classes come first
    scores, labels = torch.zeros(10, 10), torch.arange(10)
    assert m.top_k_accuracy(scores, labels) == pytest.approx(0.1)
    assert m.top_k_accuracy(scores, labels, 5) == pytest.approx(0.5)
    assert m.recall_at(m.first_ranks(scores, torch.eye(10).bool()), 1) == pytest.approx(0.1)


def test_likelihood():
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    expected = (math.log(2) + math.log(1 + math.exp(2.0))) / 2
    assert m.negative_log_likelihood(logits, [0, 1]) == pytest.approx(expected)


@quick
@given(
    own=st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=4),
    base=st.floats(0.1, 1),
)
def test_mean_corruption_error(own, base):
    errors = {f"c{i}": row for i, row in enumerate(own)}
    plain = statistics.fmean(statistics.fmean(row) for row in own)
    assert m.mean_corruption_error(errors) == pytest.approx(plain)
    reference = {f"c{i}": {1: base, 2: base} for i in range(len(own))}
    assert m.mean_corruption_error(errors, reference) == pytest.approx(plain / base)
    assert m.mean_corruption_error(reference, reference) == pytest.approx(1.0)


def test_mce_weights_corruptions_by_their_baseline():
    errors = {"noise": [0.2, 0.4], "fog": [0.1, 0.1]}
    baseline = {"noise": [0.4, 0.8], "fog": [0.1, 0.3]}
    # not the ratio of means: each corruption is divided by its own baseline first
    assert m.mean_corruption_error(errors, baseline) == pytest.approx((0.6 / 1.2 + 0.2 / 0.4) / 2)


def test_classification_metrics():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 8, generator=generator), torch.arange(50) % 8
    found = classification_metrics(logits, labels)
    assert list(found) == ["top1", "top5", "per_class", "ece", "nll"]
    assert found["top1"] == m.top_k_accuracy(logits, labels)
    assert found["top5"] == m.top_k_accuracy(logits, labels, 5)
    assert found["ece"] == m.expected_calibration_error(logits.double().softmax(-1), labels)
    assert "top5" not in classification_metrics(logits[:, :5], labels % 5)


def test_bad_input_shapes_and_numbers():
    with pytest.raises(DataError, match=r"scores: expected \[rows, columns\], none empty"):
        m.top_k_accuracy(torch.zeros(0, 3), [])
    with pytest.raises(DataError, match="scores: row 1 holds NaN"):
        m.top_k_accuracy([[0.0, 1.0], [float("nan"), 1.0]], [0, 0])
    with pytest.raises(DataError, match=r"labels: expected \[2\], one a row"):
        m.top_k_accuracy([[0.0, 1.0]] * 2, [0])
    with pytest.raises(DataError, match="labels: row 1 is 2; there are 2 classes"):
        m.top_k_accuracy([[0.0, 1.0]] * 2, [0, 2])
    with pytest.raises(DataError, match="labels: expected whole class numbers"):
        m.top_k_accuracy([[0.0, 1.0]], [0.5])
    with pytest.raises(ConfigError, match="k must be at least 1"):
        m.recall_at([0], 0)
    with pytest.raises(DataError, match="ranks: expected at least one"):
        m.median_rank([])
    with pytest.raises(DataError, match="relevant: query 1 has no relevant item"):
        m.first_ranks(torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]))


def test_bad_input_logits_given_as_probabilities():
    with pytest.raises(DataError, match="row 0 sums to 3; apply softmax"):
        m.expected_calibration_error([[1.0, 2.0]], [0])


def test_bad_input_corruption_tables():
    good = {"noise": [0.1, 0.2]}
    with pytest.raises(DataError, match="at least one corruption"):
        m.mean_corruption_error({})
    with pytest.raises(DataError, match=r"'noise', severity 2: error 20.0 is not in \[0, 1\]"):
        m.mean_corruption_error({"noise": [0.1, 20]})
    with pytest.raises(DataError, match="no corruption 'noise'; it has fog"):
        m.mean_corruption_error(good, {"fog": [0.1, 0.2]})
    with pytest.raises(DataError, match=r"severities \[1\], the errors have \[1, 2\]"):
        m.mean_corruption_error(good, {"noise": [0.1]})
    with pytest.raises(DataError, match="no errors at all"):
        m.mean_corruption_error(good, {"noise": [0, 0]})
    with pytest.raises(DataError, match="'before' must be positive"):
        m.relative_reduction(0.0, 0.1)
