"""Confusion-matrix scores equal loops over classes; depth errors ignore what is not valid."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.dense_metrics import (
    class_ious,
    confusion,
    depth_scores,
    depth_sums,
    iou_scores,
)

quick = settings(max_examples=60, deadline=None)
CLASSES = 5


@st.composite
def mask_pairs(draw):
    """Some pictures; classes may be absent from truth, prediction or both, pixels ignored."""
    pixels = draw(st.integers(1, 12))
    truth = st.lists(st.sampled_from([0, 1, 2, 3, 4, 255]), min_size=pixels, max_size=pixels)
    guess = st.lists(st.integers(0, CLASSES - 1), min_size=pixels, max_size=pixels)
    return draw(st.lists(st.tuples(guess, truth), min_size=1, max_size=4))


@quick
@given(pairs=mask_pairs())
def test_scores_equal_a_loop_over_classes(pairs):
    total = sum(confusion(np.array(g), np.array(t), CLASSES) for g, t in pairs)
    flat = [(a, b) for g, t in pairs for a, b in zip(g, t, strict=True) if b != 255]
    ious, accs = [], []
    for c in range(CLASSES):
        tp = sum(a == b == c for a, b in flat)
        fp = sum(a == c != b for a, b in flat)
        fn = sum(b == c != a for a, b in flat)
        if tp + fn:
            ious.append(tp / (tp + fp + fn))
            accs.append(tp / (tp + fn))
    if not flat:
        with pytest.raises(DataError, match="every pixel is ignored"):
            iou_scores(total)
        return
    found = iou_scores(total)
    assert found["miou"] == pytest.approx(statistics.fmean(ious))
    assert found["macc"] == pytest.approx(statistics.fmean(accs))
    assert found["pixel_acc"] == pytest.approx(statistics.fmean(a == b for a, b in flat))
    own = class_ious(total)
    assert own[~np.isnan(own)].tolist() == pytest.approx(ious)


def test_one_matrix_for_all_pictures_is_not_the_mean_of_pictures():
    a = confusion(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), 2)
    b = confusion(np.array([1]), np.array([1]), 2)
    assert iou_scores(a + b)["miou"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert iou_scores(a + b)["miou"] != pytest.approx(
        (iou_scores(a)["miou"] + iou_scores(b)["miou"]) / 2
    )


def test_a_predicted_class_that_is_absent_does_not_become_a_class():
    matrix = confusion(torch.tensor([0, 2]), torch.tensor([0, 0]), 3)
    assert iou_scores(matrix)["miou"] == pytest.approx(0.5)
    assert np.isnan(class_ious(matrix)[1:]).all()


@quick
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 4),
    hole=st.sampled_from([math.nan, math.inf, 0.0, -3.0]),
)
def test_depth_scores_equal_loops_and_never_see_invalid_pixels(seed, images, hole):
    draw = np.random.default_rng(seed)
    sums, errors, rmses, ratios, relative = [], [], [], [], []
    for _ in range(images):
        truth, guess = draw.uniform(0.1, 9, (2, 3, 4))
        valid = draw.random((3, 4)) < 0.6
        valid[0, 0] = True
        dirty = np.where(valid, truth, hole)
        sums.append(depth_sums(np.where(valid, guess, hole), dirty, valid))
        e = (guess - truth)[valid]
        errors += (e**2).tolist()
        rmses.append(math.sqrt((e**2).mean()))
        relative += (np.abs(e) / truth[valid]).tolist()
        ratios += np.maximum(guess / truth, truth / guess)[valid].tolist()
    found = depth_scores([*sums, depth_sums(np.ones(2), np.ones(2), np.zeros(2, bool))])
    assert found["rmse_pixels"] == pytest.approx(math.sqrt(statistics.fmean(errors)))
    assert found["rmse_images"] == pytest.approx(statistics.fmean(rmses))
    assert found["absrel"] == pytest.approx(statistics.fmean(relative))
    for i, limit in enumerate((1.25, 1.5625, 1.953125), start=1):
        assert found[f"delta{i}"] == pytest.approx(statistics.fmean(r < limit for r in ratios))


def test_bad_input():
    with pytest.raises(DataError, match="differ in shape"):
        confusion(np.zeros((2, 2), int), np.zeros(4, int), 2)
    with pytest.raises(DataError, match="target: classes 0..7 for 3 classes"):
        confusion(np.zeros(2, int), np.array([0, 7]), 3)
    with pytest.raises(DataError, match="whole class numbers"):
        confusion(np.zeros(2), np.zeros(2, int), 3)
    with pytest.raises(ConfigError, match="num_classes must be at least 1"):
        confusion(np.zeros(1, int), np.zeros(1, int), 0)
    with pytest.raises(DataError, match=r"expected \[C, C\]"):
        iou_scores(np.zeros((2, 3)))
    with pytest.raises(DataError, match="not positive and finite"):
        depth_sums(np.array([0.0]), np.array([1.0]), np.array([True]))
    with pytest.raises(DataError, match="differ in shape"):
        depth_sums(np.ones(2), np.ones(3), np.ones(2, bool))
    with pytest.raises(DataError, match="no image has a valid pixel"):
        depth_scores([])
