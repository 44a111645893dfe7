"""Backward-compatible training: the old model stays as it was, widths must fit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from understudy import models
from understudy.core.errors import ConfigError
from understudy.data import scenes
from understudy.train.backward import BackwardConfig, BackwardStep, Compatible, train_backward
from understudy.train.config import TrainConfig


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return scenes.to_store("scans", tmp_path_factory.mktemp("scans") / "s", train=100)


def config(**changes) -> BackwardConfig:
    train = TrainConfig(steps=6, batch_size=20, lr=3e-3, optimizer="adam", device="cpu")
    base = {"model": "digits-mlp-32", "changes": {"image.embed_dim": 8}, "train": train}
    return BackwardConfig(**{**base, "workers": 0, "rows": "split = 'train'", **changes})


def test_the_old_model_is_frozen_and_only_the_new_one_is_saved(store, tmp_path):
    old = models.create("digits-mlp-8", seed=1, num_classes=5)
    before = {k: v.clone() for k, v in old.state_dict().items()}
    train_backward(store, old, config(refresh=0.5), tmp_path / "run")
    assert all(torch.equal(v, before[k]) for k, v in old.state_dict().items())
    new = models.load(tmp_path / "run" / "model.safetensors")
    assert new.config.image.embed_dim == 8
    assert new.config.num_classes == 10
    assert set(new.state_dict()) == set(models.create("digits-mlp-32").state_dict())


def test_outputs_are_both_heads_on_the_new_embedding():
    old = models.create("digits-mlp-8", seed=1, num_classes=5)
    new = models.create("digits-mlp-32", seed=2, image={"embed_dim": 8})
    pictures = torch.rand(6, 3, 8, 8)
    out = Compatible(new, old, refresh=True)(pictures)
    torch.testing.assert_close(out["logits"], new(pictures)["logits"])
    torch.testing.assert_close(
        out["old_logits"], F.linear(new.features(pictures), old.image.head.weight)
    )
    torch.testing.assert_close(out["old_features"], old.features(pictures))
    assert not out["old_features"].requires_grad
    found = BackwardStep(refresh=1.0)(
        Compatible(new, old, refresh=True), {"images": pictures, "labels": torch.arange(6)}
    )
    found["loss"].backward()
    assert all(p.grad is None for p in old.parameters())
    assert all(p.grad is not None for p in new.parameters())


def test_it_makes_the_old_head_right_on_new_embeddings(store, tmp_path):
    from understudy.update.trained import EmbedderConfig, Rows, train_compatible, train_labelled

    train = TrainConfig(steps=1, batch_size=20, lr=1e-2, optimizer="adam", device="cpu")
    rows = Rows(store=store, where="split = 'train'", num_classes=10)
    small = EmbedderConfig(model="digits-mlp-8", epochs=20, train=train)
    old = train_labelled(small, rows.first(5), tmp_path / "old", 0)
    large = EmbedderConfig(model="digits-mlp-32", epochs=20, train=train)

    def right(weight: float) -> float:
        new = train_compatible(large, rows, old, tmp_path / f"new{weight}", 0, weight=weight)
        known = store.take(store.where("split = 'test' and label < 5"), ["image", "label"])
        from understudy.data.decode import decode

        pixels = new.preprocess_images([decode(x, name="x") for x in known["image"].to_pylist()])
        with torch.no_grad():
            said = F.linear(new.features(pixels), old.image.head.weight).argmax(1)
        return float((said == torch.tensor(known["label"].to_pylist())).float().mean())

    assert right(1.0) > 0.8 > right(0.0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"learn": "topk", "view_set": "v"}, "learns from unmixed labels"),
        ({"mixup_alpha": 0.2}, "learns from unmixed labels"),
        ({"weight": -1.0}, "at least 0"),
    ],
)
def test_bad_options(changes, text):
    with pytest.raises(ConfigError, match=text):
        config(**changes)


def test_models_that_do_not_fit(store, tmp_path):
    old = models.create("digits-mlp-8", seed=1, num_classes=5)
    with pytest.raises(ConfigError, match="8 numbers, the new one's 32.*or train a map"):
        train_backward(store, old, config(changes={}), tmp_path / "a")
    side = models.create("digits-mlp-16", seed=1)
    with pytest.raises(ConfigError, match="no linear classifier"):
        train_backward(store, side, config(), tmp_path / "b")
    more = models.create("digits-mlp-8", seed=1, num_classes=12)
    with pytest.raises(ConfigError, match="12 classes apart, the new one only 10"):
        train_backward(store, more, config(), tmp_path / "c")
    other = models.create("digits-mlp-8", seed=1, preprocess={"std": (0.5, 0.5, 0.5)})
    with pytest.raises(ConfigError, match="normalise pictures differently"):
        train_backward(store, other, config(refresh=1.0), tmp_path / "d")
