"""Side information without labels: views, what is saved, resuming, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from understudy import models
from understudy.core.errors import ConfigError
from understudy.data import scenes
from understudy.models.preprocess import Preprocess
from understudy.train.config import TrainConfig
from understudy.train.simclr import SelfSupervisedConfig, train_selfsupervised
from understudy.train.view_noise import ViewNoise


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return scenes.to_store("scans", tmp_path_factory.mktemp("scans") / "s", train=120)


def config(**changes) -> SelfSupervisedConfig:
    train = TrainConfig(
        steps=12, batch_size=32, lr=3e-3, optimizer="adam", device="cpu", log_every=6
    )
    base = {"model": "digits-mlp-16", "temperature": 0.2, "shift": 1, "noise": 0.1}
    return SelfSupervisedConfig(**{**base, "train": train, "workers": 0, **changes})


# -- views


def test_shifts_are_whole_pixels_with_black_coming_in():
    pixels = Preprocess(size=4, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    images = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    black = (-torch.tensor(pixels.mean) / torch.tensor(pixels.std)).reshape(3, 1, 1)
    torch.manual_seed(1)
    found = ViewNoise(pixels, shift=1)(images)
    seen = set()
    for image, view in zip(images, found, strict=True):
        matches = []
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                wanted = black.expand(3, 4, 4).clone()
                for y in range(4):
                    for x in range(4):
                        if 0 <= y + dy < 4 and 0 <= x + dx < 4:
                            wanted[:, y, x] = image[:, y + dy, x + dx]
                if torch.allclose(view, wanted, atol=1e-6):
                    matches.append((dy, dx))
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 5  # drawn for each picture


def test_noise_is_of_the_size_that_is_asked_for_on_the_scale_of_pixels():
    pixels = Preprocess(size=8, std=(0.5, 0.25, 1.0))
    torch.manual_seed(0)
    found = ViewNoise(pixels, noise=0.15)(torch.zeros(400, 3, 8, 8)).std((0, 2, 3))
    torch.testing.assert_close(found, torch.tensor([0.075, 0.0375, 0.15]), rtol=0.03, atol=0)
    with pytest.raises(ConfigError, match="at least 0"):
        ViewNoise(pixels, shift=-1)


# -- training


def test_training_aligns_views_and_saves_the_embedder_alone(store, tmp_path):
    result = train_selfsupervised(store, None, config(projection=24), tmp_path / "run")
    model = models.load(tmp_path / "run" / "model.safetensors")
    assert model.config.num_classes == 0
    assert not [name for name in model.state_dict() if "after" in name]
    assert result.facts["parameters"] == sum(p.numel() for p in model.parameters())
    fresh = models.create("digits-mlp-16", seed=0).eval()
    assert any(
        not torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True)
    )
    longer = config(train=replace(config().train, steps=120, log_every=20))
    after = train_selfsupervised(store, None, longer, tmp_path / "longer").train
    short = config(train=replace(config().train, steps=1, log_every=1))
    before = train_selfsupervised(store, None, short, tmp_path / "short").train
    assert after["loss"] < before["loss"] - 0.3


def test_the_same_seed_gives_the_same_weights_and_a_resumed_run_too(store, tmp_path):
    def weights(folder):
        return models.load(folder / "model.safetensors").state_dict()

    settings = config(augment={"random_crop": {"padding": 1}}, shift=0, noise=0.0)
    train_selfsupervised(store, None, settings, tmp_path / "a")
    half = replace(settings, train=replace(settings.train, checkpoint_every=5))

    class Stopped(Exception):
        pass

    from understudy.train import loop

    original = loop._Run._after

    def stop(self, log):
        found = original(self, log)
        if self.state.step == 7:
            raise Stopped
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_after", stop)
        with pytest.raises(Stopped):
            train_selfsupervised(store, None, half, tmp_path / "b")
    train_selfsupervised(store, None, half, tmp_path / "b")
    for name, value in weights(tmp_path / "a").items():
        assert torch.equal(value, weights(tmp_path / "b")[name]), name


def test_drawn_views_differ_from_each_other(store):
    from understudy.data.loader import Loader
    from understudy.train.simclr import PairedViews, make_embedder
    from understudy.train.student_batches import make_loader

    settings = config(augment={"random_crop": {"padding": 2}})
    first = make_loader(store, make_embedder(settings), settings, [])
    second = Loader(store, first.sampler, first.fields, seed=1, workers=0)
    batch = next(iter(PairedViews(first, second)(0, 1)))
    assert batch["images"].shape == batch["other_images"].shape
    same = (batch["images"] == batch["other_images"]).flatten(1).all(1)
    assert same.float().mean() < 0.5


def test_an_auto_encoder_explains_more_and_more(store, tmp_path):
    settings = config(learn="reconstruct", shift=0, noise=0.0)
    longer = replace(settings, train=replace(settings.train, steps=150, log_every=10))
    after = train_selfsupervised(store, None, longer, tmp_path / "long").train
    assert after["unexplained"] < 0.7
    assert models.load(tmp_path / "long" / "model.safetensors").config.num_classes == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shift": 0, "noise": 0.0}, "both views of a picture are equal"),
        ({"temperature": 0.0}, "temperature: expected more than 0"),
        ({"noise": -0.1}, "noise: expected at least 0"),
        ({"view_set": "main"}, "views are drawn anew"),
        ({"learn": "guess"}, "learn"),
    ],
)
def test_bad_options(changes, text):
    with pytest.raises(ConfigError, match=text):
        config(**changes)


def test_a_model_with_a_head_is_refused(store, tmp_path):
    model = models.create("digits-mlp-8", seed=0)
    with pytest.raises(ConfigError, match="classifier's head.*num_classes=0"):
        train_selfsupervised(store, model, config(), tmp_path / "x")
    with pytest.raises(ConfigError, match="no image tower"):
        train_selfsupervised(store, "openlm-nano", config(), tmp_path / "y")


def test_pictures_are_the_scans(store):
    from understudy.data.decode import decode
    from understudy.data.scenes import scans

    table = store.take(range(store.num_rows), ["id", "image", "label", "split"])
    assert table["split"].to_pylist().count("train") == 120
    every = scans.load()
    for row in table.to_pylist()[::300]:
        number = int(row["id"].partition("/")[2])
        picture = decode(row["image"], name=row["id"])
        assert np.array_equal(
            picture[..., 0], np.round(every.images[number] * 255).astype(np.uint8)
        )
        assert row["label"] == every.labels[number]
