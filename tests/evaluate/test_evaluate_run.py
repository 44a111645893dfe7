"""A model on a store: known scores, the right rows, and sentences for what does not fit."""

import numpy as np
import pytest
import torch
from evaluate_toys import NAMES, colour_classifier, colour_clip, colour_store, png
from torch import nn

from understudy import models
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.data.store import Store
from understudy.evaluate.images import StoreImages, embed_images
from understudy.evaluate.run import evaluate_model
from understudy.models.preprocess import Preprocess


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return colour_store(tmp_path_factory.mktemp("evaluate") / "store")


def test_clip_on_everything(store):
    found = evaluate_model(colour_clip(), store, split="test")
    assert found["rows"] == 3.0
    assert found["retrieval.t2i_r1"] == found["retrieval.i2t_r1"] == 1.0
    assert found["zeroshot.top1"] == found["zeroshot.per_class"] == 1.0
    assert found["retrieval.dropped_texts"] == found["retrieval.truncated_texts"] == 0.0
    assert all(isinstance(v, float) for v in found.values())
    assert all(k == "rows" or k.split(".")[0] in ("retrieval", "zeroshot") for k in found)


def test_classifier(store):
    found = evaluate_model(colour_classifier(), store, batch_size=4)
    assert (found["rows"], found["classify.top1"]) == (6.0, 1.0)
    shuffled = evaluate_model(colour_classifier(), store, label="label", rows=[0, 1, 2])
    assert shuffled["rows"] == 3.0
    assert not [k for k in found if not k.startswith(("rows", "classify."))]


def test_equal_captions_of_other_rows_count_as_wrong(store):
    # rows i and i + 3 have the same caption; the pictures differ slightly
    found = evaluate_model(colour_clip(), store, tasks=["retrieval"])
    assert found["retrieval.i2t_r1"] == 0.5


def test_scores_move_with_the_labels(tmp_path):
    wrong = colour_store(tmp_path / "wrong", label=[1, 2, 0, 1, 2, 0])
    assert evaluate_model(colour_classifier(), wrong)["classify.top1"] == 0.0
    assert evaluate_model(colour_clip(), wrong, tasks="zeroshot")["zeroshot.top1"] == 0.0


def test_labels_by_name_and_lists_of_captions(tmp_path):
    captions = [[f"a {NAMES[i % 3]} thing", f"{NAMES[i % 3]}", "  "] for i in range(6)]
    store = colour_store(
        tmp_path / "names", label=[NAMES[i % 3] for i in range(6)], text=captions, split=None
    )
    found = evaluate_model(colour_clip(), store, rows=np.array([2, 0, 1]))
    assert found["zeroshot.top1"] == found["retrieval.t2i_r1"] == found["retrieval.i2t_r1"] == 1.0
    assert found["retrieval.dropped_texts"] == 3.0


def test_rows_without_a_label_are_skipped_and_counted(store, tmp_path):
    # the labels that are there are all wrong but one, so counting a skipped row would show
    gaps = colour_store(tmp_path / "gaps", label=[0, -1, 1, None, 2, -7])
    found = evaluate_model(colour_clip(), gaps)
    assert found["rows"] == 6.0
    assert found["zeroshot.unlabelled_rows"] == 3.0
    assert found["zeroshot.top1"] == pytest.approx(1 / 3)
    whole = evaluate_model(colour_clip(), store)
    assert whole["zeroshot.unlabelled_rows"] == 0.0
    retrieval = [k for k in whole if k.startswith("retrieval.")]
    assert len(retrieval) > 4
    assert {k: found[k] for k in retrieval} == {k: whole[k] for k in retrieval}
    found = evaluate_model(colour_classifier(), gaps)
    few = evaluate_model(colour_classifier(), gaps, rows=[0, 2, 4])
    assert (found["rows"], found["classify.unlabelled_rows"]) == (6.0, 3.0)
    assert (few["rows"], few["classify.unlabelled_rows"]) == (3.0, 0.0)
    for key in ("classify.top1", "classify.ece", "classify.nll"):
        assert found[key] == pytest.approx(few[key], abs=1e-6)


def test_rows_without_any_caption_leave_retrieval_only(tmp_path):
    texts = ["a red thing", "", "a blue thing", None, "a green thing", "a blue thing"]
    store = colour_store(tmp_path / "gaps", text=texts)
    found = evaluate_model(colour_clip(), store, rows=[0, 1, 2])
    assert found["retrieval.dropped_texts"] == 1.0
    assert (found["rows"], found["retrieval.t2i_r1"], found["zeroshot.top1"]) == (3.0, 1.0, 1.0)


def test_truncated_captions_are_counted(tmp_path):
    texts = ["red " * 40, *[f"a {NAMES[i % 3]} thing" for i in range(1, 6)]]
    store = colour_store(tmp_path / "long", text=texts)
    found = evaluate_model(colour_clip(), store, split="test", tasks=["retrieval"])
    assert found["retrieval.truncated_texts"] == 1.0
    assert found["retrieval.t2i_r1"] == 1.0


def test_ensemble(store):
    class Noise(nn.Module):
        def forward(self, images):
            return torch.ones(len(images), 3)

    good, bad = colour_clip(), colour_clip()
    bad.image = Noise()
    bad.image.p = nn.Parameter(torch.zeros(1))
    alone = evaluate_model(bad, store, tasks=["zeroshot"])["zeroshot.top1"]
    joined = evaluate_model([good, bad], store, tasks=["zeroshot"])["zeroshot.top1"]
    assert (alone, joined) == (pytest.approx(1 / 3), 1.0)
    with pytest.raises(ConfigError, match="only CLIP models can be joined"):
        evaluate_model([good, colour_classifier()], store)


def test_batches_threads_and_modes_change_nothing(store):
    model = models.create("clip-conv-nano", seed=1)
    model.train()
    whole = embed_images(model, StoreImages(store), batch_size=6)
    assert model.training
    parts = embed_images(model, StoreImages(store), batch_size=4, threads=2)
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.allclose(whole.norm(dim=1), torch.ones(6), atol=1e-5)
    assert not whole.requires_grad
    # usable in training afterwards
    assert (whole * torch.ones(64, requires_grad=True)).sum().requires_grad


def test_matches_the_model_by_hand(store):
    model = models.create("cnn-tiny", seed=3, num_classes=3).eval()
    data = store.take([0, 1, 2, 3, 4, 5], ["image"]).column(0).to_pylist()
    from understudy.data.decode import decode_many

    with torch.no_grad():
        logits = model(model.preprocess_images(decode_many(data)))["logits"]
    expected = float((logits.argmax(1) == torch.arange(6) % 3).float().mean())
    assert evaluate_model(model, store)["classify.top1"] == pytest.approx(expected)


def test_bad_input_wrong_normalisation(store):
    model = models.create(
        "mci-nano",
        seed=0,
        num_classes=3,
        weights="mci0",
        **{"preprocess.mean": (0.0, 0.0, 0.0), "preprocess.std": (1.0, 1.0, 1.0)},
    ).eval()
    wrong = Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    with pytest.raises(ModelError, match=r"preprocess.mean: mci0 was trained with \[0.0"):
        evaluate_model(model, store, preprocess=wrong)
    evaluate_model(model, store, preprocess=Preprocess(size=48))


def test_bad_input_tasks(store, tmp_path):
    with pytest.raises(ConfigError, match="'retrival' is not one of .*mean 'retrieval'"):
        evaluate_model(colour_clip(), store, tasks=["retrival"])
    with pytest.raises(ConfigError, match="is a CLIP, which cannot do 'classify'; use 'zeroshot'"):
        evaluate_model(colour_clip(), store, tasks=["classify"])
    with pytest.raises(ConfigError, match="is a classifier, which cannot do 'retrieval'"):
        evaluate_model(colour_classifier(), store, tasks=["retrieval"])
    bare = colour_store(tmp_path / "bare", meta=False, text=None, label=None)
    with pytest.raises(ConfigError, match="has nothing to score clip-conv-nano on"):
        evaluate_model(colour_clip(), bare)
    with pytest.raises(ConfigError, match="at least one model"):
        evaluate_model([], store)


def test_bad_input_class_lists(store, tmp_path):
    with pytest.raises(DataError, match="'red' is class 0 and class 2"):
        evaluate_model(colour_clip(), store, classes=["red", "green", "red"])
    with pytest.raises(DataError, match="no class; zero-shot"):
        evaluate_model(colour_clip(), store, classes=[])
    unnamed = colour_store(tmp_path / "unnamed", meta=False)
    assert "zeroshot.top1" not in evaluate_model(colour_clip(), unnamed)
    with pytest.raises(DataError, match="zero-shot classification needs class names"):
        evaluate_model(colour_clip(), unnamed, tasks=["zeroshot"])
    with pytest.raises(DataError, match="row 2: label 2 is none of the 2 classes"):
        evaluate_model(colour_clip(), unnamed, classes=["red", "green"])


def test_bad_input_no_row_with_a_label(store, tmp_path):
    bare = colour_store(tmp_path / "bare", label=[-1] * 6)
    assert "zeroshot.top1" not in evaluate_model(colour_clip(), bare)
    message = "none of the 6 chosen rows has a label in column 'label'; choose other rows"
    with pytest.raises(DataError, match=message):
        evaluate_model(colour_clip(), bare, tasks=["zeroshot"])
    with pytest.raises(DataError, match=message):
        evaluate_model(colour_classifier(), bare)
    names = [NAMES[i % 3] for i in range(5)]
    odd = colour_store(tmp_path / "odd", label=[*names, "violet"])
    with pytest.raises(DataError, match="row 5: label 'violet' is none of the 3 classes"):
        evaluate_model(colour_clip(), odd)


def test_bad_input_classes_in_another_order(store):
    model = colour_classifier(classes=("green", "red", "blue"))
    with pytest.raises(DataError, match="class 0 is 'green' for the model and 'red' for the data"):
        evaluate_model(model, store)


def test_bad_input_number_of_classes(store):
    model = models.create("cnn-tiny", seed=0, num_classes=4).eval()
    with pytest.raises(DataError, match="cnn-tiny has 4 classes, the data 3"):
        evaluate_model(model, store)


def test_bad_input_rows(store):
    with pytest.raises(DataError, match="no row has split 'val'; there are: test, train"):
        evaluate_model(colour_clip(), store, split="val")
    with pytest.raises(ConfigError, match="a split or rows, not both"):
        evaluate_model(colour_clip(), store, split="test", rows=[0])
    with pytest.raises(DataError, match=r"rows 0..6 asked for, but it has 6 rows"):
        evaluate_model(colour_clip(), store, rows=[0, 6])
    with pytest.raises(DataError, match="no rows to evaluate"):
        evaluate_model(colour_clip(), store, rows=[])


def test_bad_input_columns_and_pictures(store, tmp_path):
    with pytest.raises(DataError, match="no column 'caption' for the texts"):
        evaluate_model(colour_clip(), store, tasks=["retrieval"], text="caption")
    with pytest.raises(DataError, match="no column 'photo' with pictures"):
        evaluate_model(colour_clip(), store, image="photo")
    broken = Store.create(
        tmp_path / "broken",
        [{"id": ["a", "b"], "image": [png((0, 0, 0)), b"no picture"], "label": [0, 1]}],
    )
    with pytest.raises(DataError, match="row 1, image: not an image that can be decoded"):
        evaluate_model(colour_classifier(), broken)
    with pytest.raises(DataError, match="row 0, text: expected an encoded picture, found str"):
        evaluate_model(colour_clip(), store, image="text")
    empty = colour_store(tmp_path / "empty", text=[" "] * 6)
    with pytest.raises(DataError, match="all captions of the chosen rows are empty"):
        evaluate_model(colour_clip(), empty, tasks=["retrieval"])


def test_bad_input_model(store):
    model = models.create("cnn-tiny", seed=0, num_classes=3).eval()
    with torch.no_grad():
        model.image.head.weight[:] = float("nan")
    with pytest.raises(ModelError, match="row 0, image: the model's output is not finite"):
        evaluate_model(model, store)
    headless = models.create("cnn-tiny", seed=0, num_classes=0).eval()
    with pytest.raises(ModelError, match="no classification head"):
        evaluate_model(headless, store)
    untold = models.create("clip-conv-nano", seed=0).eval()
    with pytest.raises(ModelError, match="has no tokenizer"):
        evaluate_model(untold, store, tasks=["retrieval"])
    with pytest.raises(ConfigError, match="batch_size: expected at least 1"):
        evaluate_model(colour_classifier(), store, batch_size=0)
