"""Options of students: captioners by expression, sigmoid losses, online teachers, image size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from student_world import few_steps, pair_store, teacher_clip

from understudy import models
from understudy.core.errors import ConfigError, DataError
from understudy.data.knowledge import decode_embeddings
from understudy.data.store import Store
from understudy.data.view_config import ViewConfig
from understudy.models.runs import load_run
from understudy.reinforce.config import ReinforceConfig, TeacherSpec
from understudy.reinforce.generate import reinforce
from understudy.reinforce.teachers.function import FunctionTeacher
from understudy.reinforce.teachers.own import OwnTeacher
from understudy.train.online import OnlineTeachers
from understudy.train.student import (
    StudentConfig,
    clip_loader,
    clip_step,
    make_student,
    train_clip,
)
from understudy.train.student_batches import rows_of
from understudy.train.student_lookup import find_captioners


def _say(kind: str, count: int):
    """Return a captioner whose captions name it and their place."""

    def say(images, num, seeds):
        return [[f"{kind} {j} of {seed % 97}" for j in range(num)] for seed in seeds]

    return FunctionTeacher(f"cap-{kind}", {"caption": say}, version=str(count))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Return the store of pairs with captions of three more captioners, embedded by a teacher."""
    store = pair_store(tmp_path_factory.mktemp("pairs") / "store")
    rows = "split = 'train'"
    for kind, count in (("plain", 2), ("fine", 3), ("odd", 1)):
        config = ReinforceConfig(captions=count, num_views=0, rows=rows)
        reinforce(store, config, teachers={f"cap-{kind}": _say(kind, count)})
    teachers = {"ta": OwnTeacher("ta", teacher_clip(0), logit_scale=20.0)}
    spec = TeacherSpec(name="ta", outputs=("text",))
    config = ReinforceConfig(teachers=(spec,), num_views=0, dtype="float32", rows=rows)
    reinforce(store, config, teachers=teachers)
    return Store.open(store.path)


def _config(**changes) -> StudentConfig:
    base = {
        "model": "clip-conv-nano",
        "view_set": "main",
        "teachers": ("ta",),
        "captioner": "template",
        "vocab_size": 560,
        "train": few_steps(),
        "seed": 1,
        "workers": 0,
    }
    return StudentConfig(**{**base, **changes})


# -- captioners by expression


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("cap-plain", ("cap-plain",)),
        ("cap-.*", ("cap-plain", "cap-fine", "cap-odd")),
        ("cap-(plain|odd)", ("cap-plain", "cap-odd")),
        (".*n.*", ("cap-plain", "cap-fine")),
        ("(?!cap).*", ("template",)),
    ],
)
def test_an_expression_picks_exactly_what_it_matches(pairs, expression, expected):
    assert find_captioners(pairs, _config(captioner=expression)) == expected


def test_several_captioners_are_one_pool_and_targets_follow(pairs):
    config = _config(captioner="cap-(plain|fine)", pick="random")
    student = make_student(pairs, config)
    stored = {
        (name, s): decode_embeddings(
            pairs.array(f"ta.caption.{name}.{s}", range(40)),
            pairs.card(f"ta.caption.{name}.{s}").config,
        )
        for name, count in (("cap-plain", 2), ("cap-fine", 3))
        for s in range(count)
    }
    seen = set()
    for batch in clip_loader(pairs, student, config)(0, 5):
        texts = [student.tokenizer.decode(ids.tolist()) for ids in batch["syn_texts"]]
        rows = batch["rows"].tolist()
        for row, text, target in zip(rows, texts, batch["teacher_syn_texts"][0], strict=True):
            kind, place = text.split()[:2]
            seen.add((kind, int(place)))
            expected = stored[f"cap-{kind}", int(place)][row]
            assert np.abs(target.numpy() - expected).max() < 1e-6
    assert seen == {("plain", 0), ("plain", 1), ("fine", 0), ("fine", 1), ("fine", 2)}


def test_a_cycle_of_epochs_goes_through_the_whole_pool(pairs):
    config = _config(captioner="cap-(plain|fine)", pick="epoch")
    student = make_student(pairs, config)
    loader = clip_loader(pairs, student, config)
    per_epoch = loader.sampler.steps_per_epoch
    seen = []
    for epoch in range(5):
        texts = {
            " ".join(student.tokenizer.decode(ids.tolist()).split()[:2])
            for ids in loader.load(epoch * per_epoch)["syn_texts"]
        }
        assert len(texts) == 1
        seen += texts
    assert sorted(seen) == ["fine 0", "fine 1", "fine 2", "plain 0", "plain 1"]


def test_a_student_learns_from_a_pool(pairs, tmp_path):
    result = train_clip(pairs, None, _config(captioner="cap-.*"), tmp_path)
    assert result.finished
    assert {"distill_real", "distill_syn"} <= set(result.train)


def test_bad_input_captioner_expressions(pairs):
    with pytest.raises(ConfigError, match="as an expression it matches none; it is matched"):
        find_captioners(pairs, _config(captioner="ca"))
    with pytest.raises(ConfigError, match="neither a captioner nor a regular expression"):
        find_captioners(pairs, _config(captioner="("))
    with pytest.raises(ConfigError, match="name one"):
        find_captioners(pairs, _config(captioner=""))
    student = make_student(pairs, _config())
    with pytest.raises(DataError, match="tb.caption.cap-odd.0"):
        clip_loader(pairs, student, _config(captioner="cap-odd", teachers=("tb",)))


# -- sigmoid losses


def test_a_sigmoid_student_learns_a_bias(pairs, tmp_path):
    config = _config(loss="sigmoid", biases=(-10.0,), scales=(10.0,))
    student = make_student(pairs, config)
    assert float(student.logit_bias.detach()) == -10.0
    assert float(student.scale().detach()) == pytest.approx(10.0)
    step = clip_step(pairs, config)
    assert (step.sigmoid, step.biases, step.scales) == (True, (-10.0,), (10.0,))
    result = train_clip(pairs, None, config, tmp_path / "a")
    trained = load_run(result.path)
    assert float(trained.logit_bias.detach()) != -10.0
    assert "logit_bias" in trained(texts=trained.tokenize(["a"]))
    published = train_clip(pairs, None, replace(config, compat=True), tmp_path / "b")
    assert published.train["distill_real"] != pytest.approx(result.train["distill_real"], rel=1e-3)


def test_biases_come_from_the_cards_of_sigmoid_teachers(pairs, tmp_path):
    tokenizer = teacher_clip(0).tokenizer
    changes = {"sigmoid": True, "embed_dim": 16, "text.context_length": 16, "text.depth": 1}
    model = models.create("clip-teacher-a", seed=3, tokenizer=tokenizer, **changes)
    path = models.save(model, tmp_path / "t.safetensors")
    from understudy.data import scenes

    store = scenes.to_store(
        "pairs", tmp_path / "s", train=8, teacher=0, test=0, num_captions=1, masks=False
    )
    spec = TeacherSpec(name="sig", path=str(path))
    reinforce(store, ReinforceConfig(num_views=1, views=ViewConfig(size=48), teachers=(spec,)))
    assert store.card("sig.image.main.0").facts["logit_bias"] == -10.0
    config = _config(loss="sigmoid", teachers=("sig",))
    assert clip_step(Store.open(store.path), config).biases == (-10.0,)


def test_bad_input_sigmoid(pairs, tmp_path):
    with pytest.raises(ConfigError, match="biases: the softmax loss has none; set loss=sigmoid"):
        _config(biases=(-10.0,))
    with pytest.raises(ConfigError, match="compat: it is a form of the sigmoid loss"):
        _config(compat=True)
    with pytest.raises(ConfigError, match="biases: 2 logit biases for 1 teachers"):
        _config(loss="sigmoid", biases=(-10.0, -9.0))
    with pytest.raises(ConfigError, match="card of teacher 'ta' names no logit bias"):
        clip_step(pairs, _config(loss="sigmoid"))
    student = make_student(pairs, _config())
    with pytest.raises(ConfigError, match="has no logit bias, which sigmoid losses train"):
        train_clip(pairs, student, _config(loss="sigmoid", biases=(-1.0,)), tmp_path)


# -- teachers asked at every step


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    return tuple(
        str(models.save(teacher_clip(seed), folder / f"{seed}.safetensors")) for seed in range(2)
    )


def test_online_teachers_minimise_the_same_loss(pairs, teachers, tmp_path):
    stored = _config(teachers=("ta", "tb"), scales=(20.0, 30.0))
    online = replace(stored, teachers=(), online=teachers)
    student = make_student(pairs, stored)
    loader = clip_loader(pairs, student, online)
    assert isinstance(loader, OnlineTeachers)
    first = clip_step(pairs, stored)(student, clip_loader(pairs, student, stored).load(0))
    second = clip_step(pairs, online)(student, loader.load(0))
    assert first["loss"].item() == pytest.approx(second["loss"].item(), rel=1e-5)
    result = train_clip(pairs, None, online, tmp_path)
    assert result.facts["rows"] == 40
    assert set(result.train) >= {"distill_real", "distill_syn"}


def test_online_teachers_need_no_stored_views(pairs, teachers):
    config = _config(teachers=(), online=teachers, view_set="", augment={"random_resized_crop": {}})
    student = make_student(pairs, config)
    batch = clip_loader(pairs, student, config).load(0)
    assert [tuple(t.shape) for t in batch["teacher_images"]] == [(8, 16)] * 2
    assert clip_step(pairs, config).scales == pytest.approx((1 / 0.07,) * 2)


def test_bad_input_online(pairs, teachers, tmp_path):
    with pytest.raises(ConfigError, match="online: teachers that are asked at every step take"):
        _config(online=teachers)
    with pytest.raises(ConfigError, match="3 logit scales for 2 teachers"):
        _config(teachers=(), online=teachers, scales=(1.0, 2.0, 3.0))
    other = models.save(models.create("cnn-tiny", seed=0), tmp_path / "c.safetensors")
    with pytest.raises(ConfigError, match="holds a Classifier, not a CLIP"):
        clip_step(pairs, _config(teachers=(), online=(str(other),)))


# -- small images


def _sized(path, **columns) -> Store:
    from io import BytesIO

    from PIL import Image

    images = []
    for side in (20, 48, 64, 90):
        out = BytesIO()
        Image.new("RGB", (side, 2 * side)).save(out, "PNG" if side < 60 else "JPEG")
        images.append(out.getvalue())
    rows = {"id": list("abcd"), "image": images, "text": ["x"] * 4, **columns}
    return Store.create(path, [rows])


def test_small_images_are_left_out(tmp_path):
    store = _sized(tmp_path / "s")
    config = _config(view_set="", lam=0.0, teachers=(), captions="real")
    assert rows_of(store, config).tolist() == [0, 1, 2, 3]
    assert rows_of(store, replace(config, min_image_size=64)).tolist() == [2, 3]
    # columns that say so are trusted, and no image is read
    said = _sized(tmp_path / "t", width=[100, 10, 100, 100], height=[100, 100, 100, 90])
    assert rows_of(said, replace(config, min_image_size=95)).tolist() == [0, 2]


def test_bad_input_image_size(tmp_path):
    store = _sized(tmp_path / "s")
    config = _config(view_set="", lam=0.0, teachers=(), captions="real", min_image_size=91)
    with pytest.raises(DataError, match="91 pixels remove all 4 rows .* has 90 on its shorter"):
        rows_of(store, config)
    with pytest.raises(ConfigError, match="min_image_size: expected at least 0 pixels"):
        rows_of(store, replace(config, min_image_size=-1))
    broken = Store.create(tmp_path / "b", [{"id": ["a"], "image": [b"no"], "text": ["x"]}])
    with pytest.raises(DataError, match=r"row 0 \(id 'a'\): image: not an image"):
        rows_of(broken, config)
