"""Steps of classifiers: forced mixing of stored targets, teachers of other inputs, hard labels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from understudy.core.errors import ConfigError
from understudy.models.preprocess import Preprocess
from understudy.objectives.topk import densify
from understudy.train.classifier_config import ClassifierStudentConfig
from understudy.train.classifier_steps import OnlineKdStep, TopKStep
from understudy.train.classifier_student import classifier_step
from understudy.train.mixing import MixConfig, mix_batch, mix_images

CLASSES = 6


class Seen(nn.Module):
    """Remembers the images that it was given; says fixed logits."""

    def __init__(self, preprocess: Preprocess | None = None) -> None:
        super().__init__()
        self.head = nn.Linear(12, CLASSES)
        if preprocess is not None:
            self.preprocess = preprocess

    def forward(self, images):
        self.images = images
        return {"logits": self.head(images.flatten(1))}


def _batch(plain: bool = False, stored: bool = True):
    generator = torch.Generator().manual_seed(3)
    batch = {
        "images": torch.randn(8, 3, 2, 2, generator=generator),
        "labels": torch.randint(0, CLASSES, (8,), generator=generator),
        "step": 4,
    }
    if stored:
        p = torch.rand(8, 3, generator=generator)
        batch["topk_p"] = p / p.sum(1, keepdim=True) * 0.9
        batch["topk_id"] = torch.rand(8, CLASSES, generator=generator).argsort(1)[:, :3]
    if plain:
        batch["plain"] = torch.arange(8) % 3 == 0
    return batch


def _config(**changes):
    base = {"view_set": "main", "learn": "topk", "p": 1.0, "seed": 5}
    return ClassifierStudentConfig(**{**base, **changes})


# -- forced mixing


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("mixing", [{"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}])
def test_forced_mixing_mixes_images_and_stored_targets_by_one_share(plain, mixing):
    config = _config(force_mix=True, densify="zeros", **mixing)
    step = classifier_step(config, CLASSES)
    batch, model = _batch(plain), Seen()
    found = step(model, batch)
    images, order, lam = mix_images(batch, config.mix)
    assert 0 < lam < 1
    assert torch.equal(model.images, images)
    assert not torch.equal(model.images, batch["images"])
    if "mixup_alpha" in mixing:
        wanted = lam * batch["images"] + (1 - lam) * batch["images"][order]
        assert torch.allclose(model.images, wanted, atol=1e-6)
    q = densify(batch["topk_p"], batch["topk_id"], CLASSES, "zeros")
    if plain:
        hard = F.one_hot(batch["labels"], CLASSES).float()
        q = torch.where(batch["plain"][:, None], hard, q)
    q = lam * q + (1 - lam) * q[order]
    log_p = F.log_softmax(model(images)["logits"], dim=1)
    kl = (torch.special.xlogy(q, q) - q * log_p).sum(1).mean()
    assert found["loss"].item() == pytest.approx(kl.item(), rel=1e-5)
    assert "top1" not in found  # a mixed image has no single label


def test_stored_targets_are_mixed_only_by_force_and_never_as_labels():
    batch = _batch()
    with pytest.raises(ConfigError, match="the batch holds stored targets of unmixed views"):
        mix_batch(batch, MixConfig(mixup_alpha=1.0), CLASSES)
    forced = mix_batch(batch, MixConfig(mixup_alpha=1.0, force=True), CLASSES)
    assert (forced["targets"] > 0).all()  # one-hot labels would leave zeros
    assert torch.allclose(forced["targets"].sum(1), torch.ones(8))
    with pytest.raises(ConfigError, match=r"MixConfig\(force=True\)"):
        TopKStep(num_classes=CLASSES, mix=MixConfig(mixup_alpha=1.0))
    assert classifier_step(_config(), CLASSES).mix is None


# -- teachers asked online


def test_each_teacher_sees_images_as_it_normalises_them():
    own = Preprocess(size=2, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    theirs = Preprocess(size=2, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    same, other = Seen(own), Seen(theirs)
    step = OnlineKdStep(teachers=[same, other], preprocess=own)
    batch = _batch(stored=False)
    step(Seen(), batch)
    assert torch.equal(same.images, batch["images"])
    pixels = batch["images"] * 0.25 + 0.5
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (theirs.mean, theirs.std))
    assert torch.allclose(other.images, (pixels - mean) / std, atol=1e-6)
    with pytest.raises(ConfigError, match="online teacher Seen: .* images of 2 px .* takes 4 px"):
        OnlineKdStep(teachers=[Seen(Preprocess(size=4))], preprocess=own)


def test_hard_imitation_takes_the_most_likely_class():
    config = _config(learn="online", view_set="", hard=True, lambda_kd=0.7, lambda_cls=0.2)
    teacher, model, batch = Seen(), Seen(), _batch(stored=False)
    found = classifier_step(config, CLASSES, [teacher])(model, batch)
    logits = model(batch["images"])["logits"]
    likely = teacher(batch["images"])["logits"].argmax(1)
    wanted = 0.7 * F.cross_entropy(logits, likely) + 0.2 * F.cross_entropy(logits, batch["labels"])
    assert found["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_labels_beside_online_imitation_are_mixed_with_the_images():
    config = _config(learn="online", view_set="", lambda_kd=0.0, lambda_cls=1.0, mixup_alpha=1.0)
    model, batch = Seen(), _batch(stored=False)
    found = classifier_step(config, CLASSES, [Seen()])(model, batch)
    images, order, lam = mix_images(batch, config.mix)
    logits, labels = model(images)["logits"], batch["labels"]
    wanted = lam * F.cross_entropy(logits, labels)
    wanted = wanted + (1 - lam) * F.cross_entropy(logits, labels[order])
    assert found["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_bad_input_hard():
    with pytest.raises(ConfigError, match="hard: it takes the most likely class"):
        _config(hard=True)
    with pytest.raises(ConfigError, match="leave temperature at 1"):
        _config(hard=True, learn="online", view_set="", temperature=2.0)
    with pytest.raises(ConfigError, match="a most likely class has none"):
        OnlineKdStep(teachers=[Seen()], hard=True, temperature=2.0)
    with pytest.raises(ConfigError, match="both are 0"):
        OnlineKdStep(teachers=[Seen()], hard=True, lambda_kd=0.0)
