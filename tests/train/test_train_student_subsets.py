"""Students that use less than is stored: views, captions, probabilities; rows read in blocks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from student_world import digit_store, few_steps, pair_store, teacher_clip

from understudy import models
from understudy.core.config import to_dict
from understudy.core.errors import CardError, ConfigError
from understudy.objectives.topk import densify
from understudy.train.classifier_config import ClassifierStudentConfig
from understudy.train.classifier_student import classifier_loader, make_classifier
from understudy.train.online import OnlineTeachers
from understudy.train.student import StudentConfig, clip_loader, make_student
from understudy.train.student_batches import block_of


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return pair_store(tmp_path_factory.mktemp("pairs") / "store")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return digit_store(tmp_path_factory.mktemp("digits") / "store")


def _config(**changes) -> StudentConfig:
    base = {
        "model": "clip-conv-nano",
        "view_set": "main",
        "vocab_size": 560,
        "train": few_steps(),
        "seed": 1,
        "workers": 0,
    }
    return StudentConfig(**{**base, **changes})


def _digits(store, **changes) -> ClassifierStudentConfig:
    filled = np.flatnonzero(store.filled("view.main.0"))
    ids = store.take(filled, ["id"]).column(0).to_pylist()
    base = {
        "model": "cnn-tiny",
        "view_set": "main",
        "rows": "id in (" + ", ".join(f"'{i}'" for i in ids) + ")",
        "train": few_steps(optimizer="sgd", lr=0.05),
        "p": 1.0,
        "seed": 1,
        "workers": 0,
    }
    return ClassifierStudentConfig(**{**base, **changes})


def test_fewer_views_read_their_columns_only(pairs):
    config = _config(num_views=1, view_order="random")
    loader = clip_loader(pairs, make_student(pairs, config), config)
    assert loader.sampler.num_views == 1
    columns = loader.describe()["columns"]
    assert {c for c in columns if ".image." in c} == {"ta.image.main.0", "tb.image.main.0"}
    both = clip_loader(pairs, make_student(pairs, config), _config())
    assert both.sampler.num_views == 2
    for wrong in (3, -1):
        with pytest.raises(ConfigError, match="view set 'main' has 2 stored views"):
            clip_loader(pairs, make_student(pairs, config), _config(num_views=wrong))
    with pytest.raises(ConfigError, match="of which views"):
        clip_loader(pairs, make_student(pairs, config), _config(num_views=1, view_set="", lam=0.0))


@pytest.mark.parametrize("pick", ["epoch", "random"])
def test_fewer_captions_are_the_first_ones_and_targets_follow(pairs, pick):
    config = _config(num_captions=1, pick=pick)
    student = make_student(pairs, config)
    loader = clip_loader(pairs, student, config)
    assert not [c for c in loader.describe()["columns"] if c.endswith(".caption.template.1")]
    plain = clip_loader(pairs, student, _config(num_captions=1, pick=pick, lam=0.0))
    teachers = [teacher_clip(seed).eval() for seed in range(2)]
    asked = OnlineTeachers(pairs, plain, teachers, student.preprocess, captioner="template")
    for stored, online in zip(loader(0, 12), asked(0, 12), strict=True):
        first = [row[0] for row in pairs.take(stored["rows"].tolist(), ["caption.template"])
                 .column(0).to_pylist()]  # fmt: skip
        assert torch.equal(stored["syn_texts"], student.tokenizer(first))
        for a, b in zip(stored["teacher_syn_texts"], online["teacher_syn_texts"], strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    with pytest.raises(CardError, match="embeddings of 2 captions of 'template', asked for 3"):
        clip_loader(pairs, student, _config(num_captions=3))


def test_fewer_probabilities_are_the_largest_ones(digits):
    config = _digits(digits, k=2)
    model = make_classifier(digits, config)
    few = classifier_loader(digits, model, config).load(0)
    every = classifier_loader(digits, model, _digits(digits)).load(0)
    assert few["topk_p"].shape == (8, 2)
    largest, at = every["topk_p"].topk(2, dim=1)
    assert torch.equal(few["topk_p"], largest)
    assert torch.equal(few["topk_id"], every["topk_id"].gather(1, at))
    smooth = densify(few["topk_p"], few["topk_id"], 10, "smooth")
    assert torch.allclose(smooth.gather(1, few["topk_id"]), few["topk_p"])
    zeros = densify(few["topk_p"], few["topk_id"], 10, "zeros")
    assert torch.allclose(zeros.gather(1, few["topk_id"]).sum(1), torch.ones(8))
    with pytest.raises(CardError, match="holds the 3 largest probabilities, asked to keep 4"):
        classifier_loader(digits, model, _digits(digits, k=4))
    with pytest.raises(ConfigError, match="belongs to learn topk"):
        _digits(digits, k=2, learn="labels")


def test_blocks_are_rows_beside_each_other(digits):
    config = _digits(digits, block=4, train=few_steps(batch_size=4))
    model = make_classifier(digits, config)
    loader = classifier_loader(digits, model, config)
    assert (loader.sampler.block, loader.sampler.describe()["block"]) == (4, 4)
    assert classifier_loader(digits, model, _digits(digits)).sampler.block is None
    assert block_of(digits, _digits(digits)) == 0
    remote = SimpleNamespace(path="s3://bucket/store")
    assert block_of(remote, _digits(digits)) == 64
    assert block_of(remote, _digits(digits, block=0)) == 0
    with pytest.raises(ConfigError, match="block: expected at least 0"):
        block_of(digits, _digits(digits, block=-1))


def test_options_left_alone_leave_the_identity_of_a_run_as_it_was():
    known = to_dict(ClassifierStudentConfig(view_set="main"))
    assert not {"num_views", "block", "k", "hard"} & set(known)
    assert to_dict(ClassifierStudentConfig(view_set="main", k=2))["k"] == 2
    assert "num_captions" not in to_dict(_config())


def test_bad_input_changes_of_weights(digits, tmp_path):
    path = models.save(models.create("cnn-tiny", seed=0), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="holds weights, whose configuration cannot change"):
        make_classifier(digits, _digits(digits, model=str(path), changes={"width": 8}))
