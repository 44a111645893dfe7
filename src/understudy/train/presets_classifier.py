"""Published settings of classifiers (ImageNet-1k, small sets); see `understudy.train.presets`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from understudy.train.classifier_config import ClassifierStudentConfig
from understudy.train.config import TrainConfig

IMAGENET_IMAGES = 1_281_167
VIEW_SIZE = 224
"""Side of the released views, in pixels."""
CROP = 0.875
"""Share of ImageNet's evaluation crop: 224 of 256 pixels."""
CIFAR_MEAN, CIFAR_STD = (0.50708, 0.48655, 0.44092), (0.26733, 0.25644, 0.27615)
"""Channel statistics of CIFAR-100 (arXiv 2303.08983)."""
RA_RE: dict[str, Any] = {
    "random_resized_crop": {},
    "random_horizontal_flip": {},
    "rand_augment": {},
    "random_erase": {"p": 0.25},
}
"""The images of ImageNet runs that replay no stored views."""


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Return the optimiser steps of some epochs; the last, smaller batch is left out."""
    return int(epochs * (images // batch_size))


def rescaled(model: str) -> bool:
    """Say whether a model's input is of another size than the released views."""
    from understudy import models
    from understudy.models.runs import names_weights, weights_path

    if names_weights(model):
        return models.config_of(weights_path(model))["config"]["preprocess"]["size"] != VIEW_SIZE
    return models.config(model).preprocess.size != VIEW_SIZE


def _changes(model: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes of a fresh model; weights stay as they are."""
    from understudy.models.runs import names_weights

    return {} if names_weights(model) else dict(changes)


def imagenet_mci(model: str = "mci0", images: int = IMAGENET_IMAGES) -> ClassifierStudentConfig:
    """Return the supervised training of MCi on ImageNet-1k (arXiv 2311.17049).

    300 epochs of AdamW, learning rate 1e-3, weight decay 0.05, batch 1,024, 5 epochs of warm-up,
    cosine, with the probabilities of a RegNetY-16GF beside the labels: give it to
    `train_classifier` as `teachers`, or set `learn="labels"` to train without.
    """
    batch = 1_024
    return ClassifierStudentConfig(
        model=model,
        learn="online",
        lambda_kd=0.5,
        lambda_cls=0.5,
        smoothing=0.1,
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        changes=_changes(model, {"preprocess.crop": CROP}),
        augment={**RA_RE, "random_resized_crop": {"interpolation": "bicubic"}},
        train=TrainConfig(
            steps=steps_of(300, images, batch),
            batch_size=batch,
            lr=1e-3,
            warmup_steps=steps_of(5, images, batch),
            weight_decay=0.05,
            betas=(0.9, 0.999),
            ema_decay=0.9995,
            precision="bf16",
            checkpoint_every=images // batch,
        ),
    )


def _reinforced(
    model: str, epochs: int, images: int, batch: int, changes: Mapping[str, Any], **train: Any
) -> ClassifierStudentConfig:
    return ClassifierStudentConfig(
        model=model,
        changes=_changes(model, changes),
        learn="topk",
        view_set="main",
        view_order="random",
        rescale=rescaled(model),
        p=0.99,
        train=TrainConfig(
            steps=steps_of(epochs, images, batch),
            batch_size=batch,
            optimizer="sgd",
            momentum=0.9,
            decay_all=True,
            **train,
        ),
    )


def imagenet_reinforced(
    model: str = "mci0", epochs: int = 300, images: int = IMAGENET_IMAGES
) -> ClassifierStudentConfig:
    """Return the reinforced ImageNet run: SGD 0.4, decay 1e-4, batch 1,024 (arXiv 2303.08983)."""
    batch = 1_024
    return _reinforced(
        model,
        epochs,
        images,
        batch,
        {"preprocess.crop": CROP},
        lr=0.4,
        weight_decay=1e-4,
        warmup_steps=steps_of(5, images, batch),
        ema_decay=0.9995,
        precision="bf16",
        checkpoint_every=images // batch,
    )


def _on_labels(config: ClassifierStudentConfig, **changes: Any) -> ClassifierStudentConfig:
    """Return the same budget without stored views."""
    return replace(config, view_set="", view_order="epoch", rescale=False, **changes)


def imagenet_plain(
    model: str = "mci0", epochs: int = 300, images: int = IMAGENET_IMAGES
) -> ClassifierStudentConfig:
    """Return the same run on labels: smoothing 0.1, RandAugment, erasing, MixUp or CutMix."""
    return _on_labels(
        imagenet_reinforced(model, epochs, images),
        learn="labels",
        smoothing=0.1,
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        augment=dict(RA_RE),
    )


def imagenet_online(
    model: str = "mci0", epochs: int = 300, images: int = IMAGENET_IMAGES
) -> ClassifierStudentConfig:
    """Return the same run with teachers asked at every step (arXiv 2303.08983).

    lambda_kd 1, no labels, temperature 1, MixUp alpha 1.0, weight decay 1e-5: give the teachers to
    `train_classifier`.
    """
    base = imagenet_reinforced(model, epochs, images)
    return _on_labels(
        base,
        learn="online",
        lambda_kd=1.0,
        lambda_cls=0.0,
        temperature=1.0,
        mixup_alpha=1.0,
        augment=dict(RA_RE),
        train=replace(base.train, weight_decay=1e-5),
    )


def small_set_reinforced(
    model: str = "mci0",
    images: int = 50_000,
    epochs: int = 1_000,
    *,
    fine_tune: bool = False,
    cifar: bool = False,
) -> ClassifierStudentConfig:
    """Return a reinforced CIFAR-100, Food-101 or Flowers-102 run (arXiv 2303.08983).

    Args:
        model: which student, or weights to start from, which keep their own preprocessing.
        images: of the set: 50,000, 75,750 or 1,020.
        epochs: 1,000; 10,000 for the 1,020 images of Flowers-102.
        fine_tune: start from trained weights: learning rate 0.002 instead of 0.2.
        cifar: the student takes images normalised with CIFAR-100's statistics, and is evaluated
            without a crop; other sets are evaluated as ImageNet is.
    """
    if cifar:
        changes = {"preprocess.mean": CIFAR_MEAN, "preprocess.std": CIFAR_STD}
    else:
        changes = {"preprocess.crop": CROP}
    lr = 0.002 if fine_tune else 0.2
    return _reinforced(model, epochs, images, 256, changes, lr=lr, weight_decay=5e-4)


def small_set_plain(
    model: str = "mci0",
    images: int = 50_000,
    epochs: int = 1_000,
    *,
    fine_tune: bool = False,
    cifar: bool = False,
) -> ClassifierStudentConfig:
    """Return the same run on labels: smoothing 0.1, RandAugment, MixUp 0.2 or CutMix 1.0.

    Args:
        model: see `small_set_reinforced`.
        images: see there.
        epochs: see there.
        fine_tune: see there.
        cifar: see there; also crop the padded image instead of a random part of it.
    """
    crop = {"random_crop": {"padding": 16}} if cifar else {"random_resized_crop": {}}
    return _on_labels(
        small_set_reinforced(model, images, epochs, fine_tune=fine_tune, cifar=cifar),
        learn="labels",
        smoothing=0.1,
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        augment={**crop, "random_horizontal_flip": {}, "rand_augment": {}},
    )
