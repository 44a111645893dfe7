"""Scores on a held-out split: which rows, which prompts, what is left out."""

from __future__ import annotations

import pytest
from evaluate_toys import colour_classifier, colour_clip, colour_store

from understudy.core.errors import DataError
from understudy.evaluate.held_out import held_out_rows, needed_scorer, scorer
from understudy.evaluate.run import evaluate_model


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Six rows; of the three of split `test` the second has no label."""
    path = tmp_path_factory.mktemp("held_out") / "store"
    return colour_store(path, label=[0, -1, 2, 0, 1, 2])


def test_a_scorer_is_an_evaluation_of_the_splits_rows(store):
    assert held_out_rows(store).tolist() == [0, 1, 2]
    for model, task in ((colour_clip(), "zeroshot"), (colour_classifier(), "classify")):
        found = scorer(store)(model)
        assert found == evaluate_model(model, store, split="test")
        assert (found["rows"], found[f"{task}.unlabelled_rows"]) == (3.0, 1.0)
        assert found[f"{task}.top1"] == 1.0
    few = scorer(store, tasks=("retrieval",))(colour_clip())
    assert set(few) < set(scorer(store)(colour_clip()))


def test_labels_alone_are_enough_for_a_clip(tmp_path):
    bare = colour_store(tmp_path / "bare", text=None, label=[0, -1, 2, 0, 1, 2])
    found = scorer(bare)(colour_clip())
    assert (found["zeroshot.top1"], found["zeroshot.unlabelled_rows"]) == (1.0, 1.0)
    assert not [key for key in found if key.startswith("retrieval.")]


def test_prompts_of_the_store_are_used(store, tmp_path):
    turned = colour_store(tmp_path / "turned")
    # each class is described by the colour of the next one
    turned.set_meta(prompts=[["a green thing"], ["a blue thing"], ["a red thing"]])
    assert scorer(turned)(colour_clip())["zeroshot.top1"] == 0.0
    assert scorer(turned, prompts=("a {} thing",))(colour_clip())["zeroshot.top1"] == 1.0


def test_bad_input_no_held_out_rows(store, tmp_path):
    assert scorer(store, "val") is None
    with pytest.raises(DataError, match="no rows of split 'val' to score students on; import some"):
        needed_scorer(store, "val")
    bare = colour_store(tmp_path / "none", split=None)
    assert scorer(bare) is None
