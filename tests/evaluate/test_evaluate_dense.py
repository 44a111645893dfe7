"""Scoring dense models on stores: sizes, windows, order of classes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from understudy import models
from understudy.core.errors import ConfigError, DataError
from understudy.data.dense import DepthSpec, MaskSpec
from understudy.data.scenes.pack import png
from understudy.evaluate.dense import Window, dense_scorer, evaluate_dense, predict
from understudy.evaluate.dense_metrics import confusion, depth_scores, depth_sums, iou_scores
from understudy.models.dense.config import HeadConfig
from understudy.models.dense.model import dense_model

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from dense_world import CLASSES, classes, dense_store, depth_m, picture

SPEC = MaskSpec(classes=CLASSES)
SEG = HeadConfig(classes=CLASSES, width=8, hidden=8)
DEPTH = HeadConfig(task="depth", kind="decoder", width=8, hidden=8)


def model(head=SEG):
    return dense_model(models.create("mci-nano", seed=0), head).eval()


def pixels(own, rows):
    images = np.stack([picture(i) for i in rows])
    return own.preprocess, torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def test_segmentation_equals_one_matrix_made_by_hand(tmp_path):
    store, own = dense_store(tmp_path / "s"), model()
    from understudy.models.preprocess import normalise

    config, raw = pixels(own, range(12))
    with torch.no_grad():
        guess = own(normalise(raw, config))["logits"].argmax(1)
    total = sum(confusion(g, classes(i), 3) for i, g in enumerate(guess))
    for batch_size in (1, 5, 12):
        found = evaluate_dense(own, store, masks=SPEC, batch_size=batch_size)
        assert found == pytest.approx(iou_scores(total), abs=1e-6)
    half = evaluate_dense(own, store, masks=SPEC, split="test")
    assert half == evaluate_dense(own, store, masks=SPEC, rows=[0, 4, 8])
    scorer = dense_scorer(store, np.array([0, 4, 8]), masks=SPEC)
    assert scorer(None)(own) == half
    assert scorer(np.array([1]))(own) == evaluate_dense(own, store, masks=SPEC, rows=[1])


def test_pictures_of_many_sizes(tmp_path):
    shapes = [(12, 16), (12, 16), (9, 20), (33, 8)] * 3
    store = dense_store(
        tmp_path / "s",
        image=[png(picture(i, *s)) for i, s in enumerate(shapes)],
        mask=[png(classes(i, *s)) for i, s in enumerate(shapes)],
    )
    own = model()
    found = evaluate_dense(own, store, masks=SPEC, batch_size=8)
    one = evaluate_dense(own, store, masks=SPEC, batch_size=1)
    assert found == pytest.approx(one, abs=1e-6)


def test_depth_is_scored_in_metres_where_it_is_known(tmp_path):
    store, own = dense_store(tmp_path / "s"), model(DEPTH)
    from understudy.models.preprocess import normalise

    config, raw = pixels(own, range(12))
    with torch.no_grad():
        guess = own(normalise(raw, config))["depth"].numpy()
    sums = []
    for i, own_guess in enumerate(guess):
        truth = np.floor(depth_m(i) * 1000) / 1000
        valid = truth > 0
        sums.append(depth_sums(own_guess, np.where(valid, truth, 1), valid))
    found = evaluate_dense(own, store, depth=DepthSpec())
    assert found == pytest.approx(depth_scores(sums), rel=1e-4)


def test_windows_cover_everything_and_one_window_is_the_whole():
    assert Window(side=8).starts(8) == [0]
    assert Window(side=8, step=5).starts(19) == [0, 5, 10, 11]
    assert Window(side=9).starts(20) == [0, 6, 11]
    assert Window().starts(1000) == [0]
    own, x = model(), torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        whole = predict(own, x)
        assert torch.equal(predict(own, x, Window(side=64)), whole)
        cut = predict(own, x, Window(side=32, step=16))
    assert cut.shape == whole.shape
    assert bool(torch.isfinite(cut).all())
    with torch.no_grad():  # a corner that one window alone sees
        corner = own(x[..., :32, :32])["logits"][..., :16, :8]
    torch.testing.assert_close(cut[..., :8, :8], corner[..., :8, :8])
    with pytest.raises(ConfigError, match="sliding window"):
        Window(side=4, step=5)


def test_the_model_is_left_in_its_mode(tmp_path):
    store, own = dense_store(tmp_path / "s"), model().train()
    evaluate_dense(own, store, masks=SPEC)
    assert own.training
    assert own.neck.norms[0].training


def test_bad_input(tmp_path):
    store, own = dense_store(tmp_path / "s"), model()
    turned = MaskSpec(classes=CLASSES[::-1])
    with pytest.raises(DataError, match="class 0 is 'ground' for the head and 'ball' for the data"):
        evaluate_dense(own, store, masks=turned)
    with pytest.raises(ConfigError, match="evaluate seg: say where the masks are"):
        evaluate_dense(own, store)
    with pytest.raises(ConfigError, match="evaluate depth: say where the depth maps are"):
        evaluate_dense(model(DEPTH), store, masks=SPEC)
    with pytest.raises(DataError, match="there are: test, train"):
        evaluate_dense(own, store, masks=SPEC, split="val")
    with pytest.raises(DataError, match="no column 'masks'"):
        evaluate_dense(own, store, masks=replace(SPEC, column="masks"))
    wrong = dense_store(tmp_path / "w", mask=[png(classes(0, 12, 15))] * 12)
    with pytest.raises(DataError, match="the image is 12x16 and its mask 12x15"):
        evaluate_dense(own, wrong, masks=SPEC)
    colours = dense_store(tmp_path / "c", mask=[png(picture(0))] * 12)
    with pytest.raises(DataError, match="row 0, mask: the mask is a picture of colours"):
        evaluate_dense(own, colours, masks=SPEC)
