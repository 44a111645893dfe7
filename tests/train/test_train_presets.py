"""Published settings: a loader can be made of each on records of 224 px views."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from understudy import models
from understudy.core.errors import ConfigError
from understudy.data.store import Store
from understudy.data.view_config import ViewConfig
from understudy.models.preprocess import Preprocess, fit
from understudy.models.text.train_tokenizer import train_words
from understudy.reinforce.config import ReinforceConfig, TeacherSpec
from understudy.reinforce.generate import reinforce
from understudy.reinforce.teachers.function import FunctionTeacher
from understudy.train.classifier_student import classifier_loader
from understudy.train.presets import PRESETS, preset
from understudy.train.student import clip_loader
from understudy.train.student_config import StudentConfig

ROWS, CLASSES = 4, 12


def _unit(count, dim=4):
    values = np.random.default_rng(count).standard_normal((count, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return four photographs with views of 224 px, captions, embeddings and probabilities."""
    draw, files = np.random.default_rng(0), []
    for i in range(ROWS):
        buffer = io.BytesIO()
        pixels = draw.integers(0, 255, (240 + i, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    table = pa.table(
        {
            "id": [str(i) for i in range(ROWS)],
            "image": files,
            "text": [f"photo {i}" for i in range(ROWS)],
            "label": list(range(ROWS)),
        }
    )
    path = tmp_path_factory.mktemp("presets") / "store"
    made = Store.create(path, [table])
    made.set_meta(classes=[f"c{i}" for i in range(CLASSES)])
    writer = FunctionTeacher(
        "writer", {"caption": lambda images, num, seeds: [["a photo"] * num] * len(images)}
    )
    reinforce(made, ReinforceConfig(captions=2, num_views=0), teachers={"writer": writer})
    teachers = {
        "clip": FunctionTeacher(
            "clip",
            {"embed_images": lambda x: _unit(len(x)), "embed_texts": lambda x: _unit(len(x))},
            logit_scale=50.0,
        ),
        "net": FunctionTeacher(
            "net", {"classify": lambda x: np.full((len(x), CLASSES), 1 / CLASSES, np.float32)}
        ),
    }
    config = ReinforceConfig(
        num_views=2,
        views=ViewConfig(size=224),
        teachers=(
            TeacherSpec(name="clip", outputs=("image", "text")),
            TeacherSpec(name="net", outputs=("topk",)),
        ),
        topk=3,
    )
    reinforce(made, config, teachers=teachers)
    return Store.open(path)


def _stub(config):
    """Return what a loader asks of a model, without its millions of weights."""
    shape = models.config(config.model, **config.changes)
    return SimpleNamespace(
        config=shape,
        preprocess=shape.preprocess,
        tokenizer=train_words(["photo a"], 64, context_length=77),
    )


@pytest.mark.parametrize("model", [None, "small"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_batches_of_released_records(store, name, model):
    config = preset(name)
    clip = isinstance(config, StudentConfig)
    if model is not None:  # of another input size than the published student's
        config = preset(name, "mobileclip-s2" if clip else "cnn-small")
    budget = replace(config.train, batch_size=2, device="cpu")
    config = replace(config, train=budget, workers=0)
    student = _stub(config)
    if clip:
        loader = clip_loader(store, student, config)
    else:
        student.config = SimpleNamespace(num_classes=CLASSES, name=config.model)
        loader = classifier_loader(store, student, config)
    batch = loader.load(0)
    side = student.preprocess.size
    assert tuple(batch["images"].shape) == (2, 3, side, side)
    assert torch.isfinite(batch["images"]).all()
    if config.view_set:
        assert config.view_order == "random"
        assert config.rescale == (side != 224)
    if clip:
        assert config.pick == "random"
    else:
        assert "topk_p" in batch or config.learn != "topk"


def test_published_numbers_of_the_longer_and_the_online_runs():
    longer = preset("mobileclip-longer")
    assert (longer.model, longer.lam) == ("mobileclip-b", 0.75)
    assert (longer.train.steps, longer.train.decay_start) == (600_000, 300_000)
    assert longer.train.schedule == "constant-cosine"
    assert longer.train.samples_seen == pytest.approx(39e9, rel=0.01)
    online = preset("imagenet-online")
    assert (online.learn, online.train.weight_decay, online.mixup_alpha) == ("online", 1e-5, 1.0)
    assert (online.lambda_kd, online.lambda_cls, online.cutmix_alpha) == (1.0, 0.0, 0.0)
    flowers, cifar = preset("flowers102-plain"), preset("cifar100-plain")
    assert flowers.train.steps == 10_000 * (1_020 // 256)
    assert flowers.train == preset("flowers102-reinforced").train
    assert (cifar.smoothing, cifar.mixup_alpha, cifar.cutmix_alpha) == (0.1, 0.2, 1.0)
    assert cifar.augment["random_crop"] == {"padding": 16}
    assert models.config("mci0", **cifar.changes).preprocess.mean == (0.50708, 0.48655, 0.44092)
    with pytest.raises(ConfigError, match="Did you mean 'imagenet-plain'"):
        preset("imagenet-plane")


def test_weights_to_start_from_keep_their_configuration(tmp_path):
    path = models.save(models.create("cnn-tiny", seed=0), tmp_path / "w.safetensors")
    config = preset("food101-reinforced", str(path))
    assert (config.changes, config.rescale) == ({}, True)


def test_the_evaluation_of_imagenet_resizes_further_than_it_crops():
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    config = Preprocess(size=224, crop=0.875, interpolation="bicubic")
    found = fit(image, config)
    large = Image.fromarray(image).resize((int(256 * 400 / 300), 256), Image.Resampling.BICUBIC)
    left = round((large.width - 224) / 2)
    assert np.array_equal(found, np.asarray(large)[16:240, left : left + 224])
    ready = image[:224, :224]
    assert np.array_equal(fit(ready, Preprocess(size=224)), ready)
    assert not np.array_equal(fit(ready, config), ready)
    mci = models.config("mci0", **preset("imagenet-plain").changes).preprocess
    assert mci.crop == 0.875
    with pytest.raises(ConfigError, match=r"crop: expected a share above 0"):
        Preprocess(size=224, crop=1.2)
