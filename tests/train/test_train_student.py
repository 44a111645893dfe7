"""Students of both kinds: what they learn from, what is refused, what a run leaves."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from student_world import SCALES, digit_store, few_steps, pair_store, teacher_clip

from understudy import models
from understudy.core.errors import CardError, ConfigError, DataError
from understudy.evaluate.run import evaluate_model
from understudy.train.classifier_config import ClassifierStudentConfig
from understudy.train.classifier_student import (
    classifier_loader,
    classifier_step,
    make_classifier,
    train_classifier,
)
from understudy.train.comparison import write_comparison
from understudy.train.online import OnlineTeachers
from understudy.train.presets import (
    imagenet_mci,
    imagenet_plain,
    imagenet_reinforced,
    mobileclip_ablation,
    mobileclip_large,
    small_set_reinforced,
)
from understudy.train.step_timing import interleave, make_step, ratio
from understudy.train.student import (
    StudentConfig,
    clip_loader,
    clip_step,
    make_student,
    train_clip,
)
from understudy.train.student_batches import train_rows
from understudy.train.student_lookup import make_tokenizer


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


def _digits(**changes) -> ClassifierStudentConfig:
    base = {
        "model": "cnn-tiny",
        "view_set": "main",
        "rows": "split = 'student'",
        "train": few_steps(optimizer="sgd", lr=0.05),
        "seed": 1,
        "workers": 0,
    }
    return ClassifierStudentConfig(**{**base, **changes})


# -- CLIP students


def test_a_run_reports_final_averaged_and_best_weights(pairs, tmp_path):
    config = _config(
        train=few_steps(6, ema_decay=0.5, eval_every=2, best="retrieval.mean_r1"),
        range_augment=True,
    )
    result = train_clip(
        pairs,
        None,
        config,
        tmp_path,
        lambda model: evaluate_model(model, pairs, split="test", tasks=("retrieval",)),
    )
    assert set(result.weights) == {"final", "ema", "best"}
    for scores in result.weights.values():
        assert 0 <= scores["retrieval.mean_r1"] <= 1
    best = result.weights["best"]["retrieval.mean_r1"]
    assert best >= result.weights["final"]["retrieval.mean_r1"]
    assert {"distill_real", "distill_syn", "psnr", "noise_high"} <= set(result.train)
    written = json.loads((tmp_path / "student.json").read_text())
    assert written["facts"]["samples_seen"] == 48
    assert written["facts"]["passes"] == pytest.approx(48 / 40)
    student = models.load(tmp_path / "model.safetensors")
    assert student.tokenizer is not None
    again = train_clip(pairs, None, config, tmp_path, lambda model: {"never": 1.0})
    assert again.steps == 6


def test_a_student_learns_what_its_teachers_say(pairs, tmp_path):
    config = _config(train=few_steps(30, lr=5e-3, batch_size=16))
    train_clip(pairs, None, config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05


@pytest.mark.parametrize(
    ("change", "terms"),
    [
        ({"captions": "real"}, {"distill_real"}),
        ({"captions": "syn"}, {"distill_syn"}),
        ({"captions": "mix"}, {"distill_real"}),
        ({"lam": 0.5}, {"clip_real", "distill_real", "clip_syn", "distill_syn"}),
        ({"lam": 0.0, "captions": "real"}, {"clip_real"}),
        ({"lam": 0.0, "view_set": "", "captions": "both"}, {"clip_real", "clip_syn"}),
    ],
)
def test_arms_differ_in_their_terms(pairs, tmp_path, change, terms):
    result = train_clip(pairs, None, _config(**change), tmp_path)
    assert {k for k in result.train if k.startswith(("clip_", "distill_"))} == terms


def test_a_stopped_run_goes_on_to_the_same_bytes(pairs, tmp_path):
    config = _config(train=few_steps(4, checkpoint_every=1))
    train_clip(pairs, None, config, tmp_path / "whole")
    limited = replace(config, train=replace(config.train, seconds_limit_s=1e-6))
    first = train_clip(pairs, None, limited, tmp_path / "parts")
    assert not first.finished
    assert first.steps < 4
    assert train_clip(pairs, None, config, tmp_path / "parts").finished
    name = "model.safetensors"
    assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    other = replace(config, scales=(5.0, 5.0))
    with pytest.raises(ConfigError):
        train_clip(pairs, None, replace(other, seed=1), tmp_path / "parts")


def test_scales_teachers_and_captioner_are_found_in_the_store(pairs):
    step = clip_step(pairs, _config())
    assert tuple(step.scales) == tuple(SCALES.values())
    assert tuple(clip_step(pairs, _config(teachers=("tb",))).scales) == (30.0,)
    assert tuple(clip_step(pairs, _config(scales=(7.0, 9.0))).scales) == (7.0, 9.0)
    student = make_student(pairs, _config())
    batch = clip_loader(pairs, student, _config()).load(0)
    assert [tuple(t.shape) for t in batch["teacher_syn_texts"]] == [(8, 16), (8, 16)]


def test_teachers_asked_online_say_what_is_stored(pairs):
    config = _config(pick="epoch")
    student = make_student(pairs, config)
    stored = clip_loader(pairs, student, config)
    plain = clip_loader(pairs, student, replace(config, lam=0.0))
    teachers = [teacher_clip(seed).eval() for seed in range(2)]
    asked = OnlineTeachers(
        pairs, plain, teachers, student.preprocess, captioner="template", pick="epoch"
    )
    for wanted, found in zip(stored(0, 3), asked(0, 3), strict=True):
        assert torch.equal(wanted["rows"], found["rows"])
        for key in ("teacher_images", "teacher_texts", "teacher_syn_texts"):
            for a, b in zip(wanted[key], found[key], strict=True):
                assert torch.allclose(a, b, atol=1e-5), key


def test_bad_input_online_teacher_of_another_size(pairs):
    student = make_student(pairs, _config())
    loader = clip_loader(pairs, student, _config(lam=0.0))
    small = models.create(
        "clip-teacher-a", seed=0, tokenizer=teacher_clip(0).tokenizer,
        **{"image.image_size": 32, "text.context_length": 16},
    )  # fmt: skip
    with pytest.raises(ConfigError, match="images of 48 px like the student, and takes 32 px"):
        OnlineTeachers(pairs, loader, [small], student.preprocess)
    mute = teacher_clip(0)
    mute.tokenizer = None
    with pytest.raises(ConfigError, match="it has no tokenizer"):
        OnlineTeachers(pairs, loader, [mute], student.preprocess)


def test_controls_change_what_they_should(pairs):
    student = make_student(pairs, _config())
    stored = clip_loader(pairs, student, _config()).load(0)
    fresh = clip_loader(pairs, student, _config(replay="fresh")).load(0)
    shuffled = clip_loader(pairs, student, _config(shuffle_targets=True)).load(0)
    same = torch.equal
    assert same(stored["teacher_images"][0], fresh["teacher_images"][0])
    assert not same(stored["images"], fresh["images"])
    assert same(stored["images"], shuffled["images"])
    assert not same(stored["teacher_images"][0], shuffled["teacher_images"][0])


def test_the_tokenizer_is_trained_on_the_captions_that_are_used(pairs):
    rows = train_rows(pairs)
    assert len(rows) == 40
    first = make_tokenizer(pairs, _config(), rows)
    again = make_tokenizer(pairs, _config(), rows)
    assert first.fingerprint() == again.fingerprint()
    real = make_tokenizer(pairs, _config(captions="real"), rows)
    assert real.fingerprint() != first.fingerprint()
    student = make_student(pairs, _config())
    assert student.config.text.vocab_size == student.tokenizer.vocab_size


def test_cut_captions_are_counted(pairs, tmp_path):
    config = _config(changes={"text.context_length": 6}, train=few_steps(2))
    result = train_clip(pairs, None, config, tmp_path)
    assert result.facts["truncated_texts"]["syn_texts"] > 0


def test_a_student_can_start_from_weights(pairs, tmp_path):
    first = train_clip(pairs, None, _config(train=few_steps(1)), tmp_path / "a")
    second = _config(model=str(first.path), train=few_steps(1, lr=1e-6))
    result = train_clip(pairs, None, second, tmp_path / "b")
    a, b = (models.load(r.path / "model.safetensors") for r in (first, result))
    assert torch.allclose(a.logit_scale, b.logit_scale, atol=1e-4)
    with pytest.raises(ConfigError, match="holds weights, whose configuration cannot change"):
        make_student(pairs, replace(second, changes={"embed_dim": 8}))


BAD = [
    ({"view_set": ""}, ConfigError, "lam: 1.0 imitates teachers' embeddings of stored views"),
    ({"lam": 1.5}, ConfigError, r"lam: expected a number in \[0, 1\]"),
    ({"view_set": "other"}, CardError, "no embeddings of view set 'other'"),
    ({"view_set": "x", "lam": 0.0}, CardError, r"no view set 'x' \(it has main\)"),
    ({"teachers": ("tc",)}, CardError, r"by teacher 'tc' \(teachers: ta, tb\)"),
    ({"captioner": "blip"}, ConfigError, r"'caption.blip' \(captioners: template\)"),
    ({"scales": (1.0,)}, ConfigError, "1 logit scales for 2 teachers"),
    ({"scales": (1.0, -1.0), "teachers": ("ta", "tb")}, ConfigError, r"scales\[1\]"),
    ({"mean": (0.5, 0.5, 0.5)}, ConfigError, "mean: clip-conv-nano takes images normalised with"),
    ({"std": (1.0, 1.0, 1.0)}, ConfigError, "std: clip-conv-nano takes images normalised with"),
    ({"model": "cnn-tiny"}, ConfigError, "'cnn-tiny' is a classifier"),
    ({"model": "mobileclip-s0"}, ConfigError, "reads CLIP's vocabulary; give the path"),
    ({"model": "mobileclip-nanno"}, ConfigError, "Did you mean mobileclip-nano"),
    ({"rows": "split = 'none'"}, DataError, "no row to train on"),
    ({"train": few_steps(batch_size=9, accumulate=2)}, ConfigError, "give a multiple of 2"),
    ({"changes": {"preprocess.size": 32}}, ConfigError, "set rescale=True"),
    ({"rows": "split = 'test'"}, DataError, "not filled"),
]


@pytest.mark.parametrize(("change", "kind", "message"), BAD)
def test_bad_input_student(pairs, tmp_path, change, kind, message):
    with pytest.raises(kind, match=message):
        train_clip(pairs, None, _config(**change), tmp_path)


def test_stored_views_of_another_size_are_rescaled_when_allowed(pairs):
    config = _config(changes={"preprocess.size": 32}, rescale=True)
    student = make_student(pairs, config)
    assert clip_loader(pairs, student, config).load(0)["images"].shape[-1] == 32


# -- classifiers


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"p": 1.0, "densify": "zeros"},
        {"densify": "reference-zeros", "compat": True},
        {"learn": "labels", "view_set": "", "smoothing": 0.1, "mixup_alpha": 0.2},
        {"mixup_alpha": 0.2, "force_mix": True, "p": 1.0},
        {"shuffle_targets": True},
        {"replay": "fresh"},
    ],
)
def test_a_classifier_learns_from(digits, tmp_path, change):
    rows = {"rows": _reinforced_rows(digits)}
    result = train_classifier(
        digits,
        None,
        _digits(**rows, **change),
        tmp_path,
        lambda model: evaluate_model(model, digits, split="test"),
    )
    assert np.isfinite(result.train["loss"])
    assert 0 <= result.weights["final"]["classify.top1"] <= 1


def _reinforced_rows(store) -> str:
    filled = np.flatnonzero(store.filled("view.main.0"))
    ids = store.take(filled, ["id"]).column(0).to_pylist()
    return "id in (" + ", ".join(f"'{i}'" for i in ids) + ")"


def test_a_classifier_imitates_teachers_that_are_asked_online(digits, tmp_path):
    config = _digits(learn="online", view_set="", augment={"random_resized_crop": {}})
    teacher = models.create("cnn-tiny", seed=9)
    result = train_classifier(digits, None, config, tmp_path, teachers=[teacher])
    assert np.isfinite(result.train["loss"])
    assert not any(p.requires_grad for p in teacher.parameters())


BAD_DIGITS = [
    ({"view_set": ""}, ConfigError, "stored probabilities belong to stored views"),
    ({"mixup_alpha": 0.2}, ConfigError, "stored targets are of unmixed views; mix inside"),
    ({"cutmix_alpha": 1.0}, ConfigError, "or set force_mix=True"),
    ({"teacher": "u"}, CardError, r"no probabilities of teacher 'u' .* \(teachers: t\)"),
    ({"p": 2.0}, ConfigError, r"p: expected a number in \[0, 1\]"),
    ({"num_classes": 7, "changes": {"num_classes": 10}}, ConfigError, "the data set has 7"),
    ({"mean": (0.0, 0.0, 0.0)}, ConfigError, "mean: cnn-tiny takes images normalised with mean"),
    ({"learn": "online"}, ConfigError, "'online' needs some, the others none"),
    ({"model": "clip-conv-nano"}, ConfigError, "is no classifier; use train_clip"),
    ({}, DataError, "not filled"),
]


@pytest.mark.parametrize(("change", "kind", "message"), BAD_DIGITS)
def test_bad_input_classifier(digits, tmp_path, change, kind, message):
    with pytest.raises(kind, match=message):
        train_classifier(digits, None, _digits(**change), tmp_path)


def test_p_decides_how_many_rows_keep_their_label(digits):
    config = _digits(p=0.5, rows=_reinforced_rows(digits), train=few_steps(batch_size=40))
    batch = classifier_loader(digits, make_classifier(digits, config), config).load(0)
    share = float(batch["plain"].float().mean())
    assert 0.2 < share < 0.8
    hard = batch["topk_p"][batch["plain"]]
    assert torch.equal(hard[:, 0], torch.ones(len(hard)))
    assert torch.equal(batch["topk_id"][batch["plain"], 0], batch["labels"][batch["plain"]])


# -- prices, comparisons, presets


def test_interleaved_timing_sees_the_dearer_step():
    calls = []

    def work(name, size):
        def step():
            calls.append(name)
            torch.mm(torch.ones(size, size), torch.ones(size, size))

        return step

    seconds = interleave({"small": work("s", 8), "large": work("l", 400)}, rounds=5, warmup=1)
    assert ratio(seconds, "large", "small") > 2
    assert ratio(seconds, "small", "small") == 1
    assert calls[:4] == ["l", "s", "s", "l"] or calls[:4] == ["s", "l", "l", "s"]
    with pytest.raises(ConfigError, match="at least one round"):
        interleave({"a": lambda: None}, rounds=0)


def test_a_timed_step_is_a_training_step(digits):
    config = _digits(learn="labels", view_set="")
    model = make_classifier(digits, config)
    before = [p.detach().clone() for p in model.parameters()]
    batches = classifier_loader(digits, model, config)(0, 2)
    step = make_step(model, classifier_step(config, 10), batches, config.train)
    step()
    step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_comparison_folds_students_and_says_what_was_gained(digits, tmp_path):
    config = _digits(learn="labels", view_set="", train=few_steps(2))

    def score(model):
        return evaluate_model(model, digits, split="test")

    students = {
        name: train_classifier(digits, None, replace(config, seed=seed), tmp_path / name, score)
        for seed, name in enumerate(("plain", "other"))
    }
    path = write_comparison(tmp_path, students, baseline="plain", facts={"note": 1})
    data = json.loads(path.read_text())
    top1 = {n: s["weights"]["final"]["classify.top1"] for n, s in data["students"].items()}
    assert data["gain"]["other"]["classify.top1"] == pytest.approx(top1["other"] - top1["plain"])
    assert data["note"] == 1
    folded = models.load(data["students"]["plain"]["folded"])
    assert folded.is_folded
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())


def test_published_settings():
    ablation, large = mobileclip_ablation(), mobileclip_large()
    assert ablation.train.samples_seen == 30_000 * 8_192
    assert large.train.samples_seen == 13_107_200_000
    assert (large.lam, mobileclip_large("mobileclip-b").lam) == (1.0, 0.75)
    assert large.train.ema_decay == 0.9995
    assert ablation.train.betas == (0.9, 0.95)
    mci = imagenet_mci()
    assert mci.train.steps == 300 * (1_281_167 // 1_024)
    assert (mci.train.lr, mci.train.weight_decay) == (1e-3, 0.05)
    assert mci.train.warmup_steps == 5 * (1_281_167 // 1_024)
    reinforced, plain = imagenet_reinforced(), imagenet_plain()
    assert reinforced.train == plain.train
    assert (reinforced.train.optimizer, reinforced.train.lr) == ("sgd", 0.4)
    assert (plain.smoothing, plain.learn, reinforced.p) == (0.1, "labels", 0.99)
    assert small_set_reinforced(fine_tune=True).train.lr == 0.002
