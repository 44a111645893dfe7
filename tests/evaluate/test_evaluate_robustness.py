"""Shifted sets and corruptions in folders: known accuracies, means, and what is refused."""

import json

import pytest
import torch
from evaluate_toys import NAMES, colour_classifier, colour_clip, pictures

from understudy import models
from understudy.core.errors import DataError
from understudy.evaluate.robustness import evaluate_corruptions, evaluate_shifts


@pytest.fixture(scope="module")
def shifts(tmp_path_factory):
    root = tmp_path_factory.mktemp("shifts")
    pictures(root / "plain", {"red": 2, "green": 1, "blue": 1})
    pictures(root / "few", {"green": 1, "blue": 3})
    # half of the folders say red where the pictures are blue
    wrong = pictures(root / "wrong", {"blue": 2})
    (wrong / "blue").rename(wrong / "red")
    pictures(wrong, {"blue": 2})
    return root


@pytest.mark.parametrize("make", [colour_classifier, colour_clip])
def test_shifts(shifts, make):
    found = evaluate_shifts(make(), shifts, NAMES, batch_size=3)
    assert found["shift.plain.top1"] == found["shift.few.top1"] == 1.0
    assert (found["shift.few.images"], found["shift.sets"]) == (4.0, 3.0)
    assert found["shift.wrong.top1"] == 0.5
    assert found["shift.mean_top1"] == pytest.approx(2.5 / 3)
    two = evaluate_shifts(make(), shifts, NAMES, sets=["plain", "few"])
    assert (two["shift.mean_top1"], two["shift.sets"]) == (1.0, 2.0)
    assert not [k for k in two if "wrong" in k]


def test_predictions_are_restricted_to_the_classes_of_a_set(shifts):
    model = colour_classifier()
    real = model.image.forward
    # red always wins, but the set "few" has no red
    model.image.forward = lambda x: real(x) + torch.tensor([100.0, 0.0, 0.0])
    found = evaluate_shifts(model, shifts, NAMES, sets=["few", "plain"])
    assert found["shift.few.top1"] == 1.0
    assert found["shift.plain.top1"] == 0.5


@pytest.fixture(scope="module")
def corrupted(tmp_path_factory):
    root = tmp_path_factory.mktemp("corrupted")
    for severity in (1, 2):
        pictures(root / "noise" / str(severity), {"red": 1, "blue": 1})
        pictures(root / "fog" / str(severity), {"red": 1, "blue": 1, "green": 1})
    # at severity 2 the noise turns red into blue
    red = root / "noise" / "2" / "red" / "0.png"
    red.write_bytes((root / "noise" / "2" / "blue" / "0.png").read_bytes())
    return root


def test_corruptions(corrupted, tmp_path):
    found = evaluate_corruptions(colour_classifier(), corrupted, NAMES)
    assert found["corruption.noise.1.error"] == 0.0
    assert found["corruption.noise.2.error"] == 0.5
    assert found["corruption.noise.error"] == 0.25
    assert found["corruption.fog.error"] == 0.0
    assert found["corruption.mean_error"] == 0.125
    assert found["corruption.mean_accuracy"] == 0.875
    assert "corruption.mce" not in found
    table = {"noise": [0.5, 0.5], "fog": {"1": 0.25, "2": 0.25}}
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(table))
    for baseline in (path, {"noise": [0.5, 0.5], "fog": {1: 0.25, 2: 0.25}}):
        again = evaluate_corruptions(colour_classifier(), corrupted, NAMES, baseline=baseline)
        assert again["corruption.mce"] == pytest.approx(0.25)


def test_bad_input_folders(shifts, tmp_path):
    model = colour_classifier()
    with pytest.raises(DataError, match="no such folder"):
        evaluate_shifts(model, tmp_path / "none", NAMES)
    with pytest.raises(DataError, match="no folder in it; expected one per set"):
        evaluate_shifts(model, tmp_path, NAMES)
    with pytest.raises(DataError, match="no set 'v2'; there are few, plain, wrong"):
        evaluate_shifts(model, shifts, NAMES, sets=["v2"])
    with pytest.raises(DataError, match="name at least one set"):
        evaluate_shifts(model, shifts, NAMES, sets=[])
    pictures(tmp_path / "sets" / "a", {"red": 1})
    (tmp_path / "sets" / "a" / "red").rename(tmp_path / "sets" / "a" / "rouge")
    with pytest.raises(DataError, match="'rouge' is none of the 3 classes"):
        evaluate_shifts(model, tmp_path / "sets", NAMES)
    (tmp_path / "sets" / "a" / "rouge" / "0.png").unlink()
    with pytest.raises(DataError, match="rouge: no pictures"):
        evaluate_shifts(model, tmp_path / "sets", NAMES)


def test_bad_input_classes(shifts):
    with pytest.raises(DataError, match="'red' is class 0 and class 1"):
        evaluate_shifts(colour_classifier(), shifts, ["red", "red", "blue"])
    with pytest.raises(DataError, match="no class"):
        evaluate_shifts(colour_classifier(), shifts, [])
    model = models.create("cnn-tiny", seed=0, num_classes=4).eval()
    with pytest.raises(DataError, match="cnn-tiny has 4 classes, 3 names given"):
        evaluate_shifts(model, shifts, NAMES)


def test_bad_input_corruptions(corrupted, tmp_path):
    model = colour_classifier()
    pictures(tmp_path / "x" / "noise" / "1", {"red": 1})
    pictures(tmp_path / "x" / "fog" / "2", {"red": 1})
    with pytest.raises(DataError, match=r"'noise' has severities \[1\], 'fog' has \[2\]"):
        evaluate_corruptions(model, tmp_path / "x", NAMES)
    pictures(tmp_path / "y" / "noise" / "hard", {"red": 1})
    with pytest.raises(DataError, match="expected a severity such as 1, got 'hard'"):
        evaluate_corruptions(model, tmp_path / "y", NAMES)
    path = tmp_path / "baseline.json"
    path.write_text('{"noise": "much"}')
    with pytest.raises(DataError, match="expected a mapping of corruptions"):
        evaluate_corruptions(model, corrupted, NAMES, baseline=path)
