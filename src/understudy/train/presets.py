"""Published training settings, as configurations to start from.

>>> from understudy.train.presets import mobileclip_ablation
>>> mobileclip_ablation().train.steps
30000
"""

from __future__ import annotations

from understudy.train.classifier_student import ClassifierStudentConfig
from understudy.train.config import TrainConfig
from understudy.train.student_config import StudentConfig

IMAGENET_IMAGES = 1_281_167
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Return the optimiser steps of some epochs; the last, smaller batch is left out."""
    return int(epochs * (images // batch_size))


def mobileclip_ablation(model: str = "mobileclip-b", lam: float = 1.0) -> StudentConfig:
    """Return the run on 12.8 M pairs: 30k steps of 8,192 (arXiv 2311.17049)."""
    return StudentConfig(
        model=model,
        lam=lam,
        pick="random",
        view_set="main",
        range_augment=True,
        train=TrainConfig(
            steps=30_000,
            batch_size=8_192,
            lr=1e-3,
            min_lr=1e-6,
            warmup_steps=1_000,
            weight_decay=0.2,
            betas=(0.9, 0.95),
            clip_norm=1.0,
            precision="bf16",
            checkpoint_every=1_000,
        ),
    )


def mobileclip_large(model: str = "mobileclip-s0", lam: float | None = None) -> StudentConfig:
    """Return the run on 1.28 B pairs: 200k steps of 65,536 (arXiv 2311.17049).

    Args:
        model: which student.
        lam: weight of distillation; None takes the published 0.75 for B, 1.0 for the S models. The
            warm-up is the paper's 2,000 steps; its scripts have 1,000.
    """
    published = 0.75 if model.endswith("-b") else 1.0
    return StudentConfig(
        model=model,
        lam=published if lam is None else lam,
        pick="random",
        view_set="main",
        range_augment=True,
        train=TrainConfig(
            steps=200_000,
            batch_size=65_536,
            lr=1e-3,
            min_lr=1e-6,
            warmup_steps=2_000,
            weight_decay=0.2,
            betas=(0.9, 0.95),
            clip_norm=1.0,
            ema_decay=0.9995,
            precision="bf16",
            checkpoint_every=1_000,
        ),
    )


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
        augment={
            "random_resized_crop": {"interpolation": "bicubic"},
            "random_horizontal_flip": {},
            "rand_augment": {},
            "random_erase": {"p": 0.25},
        },
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


def imagenet_reinforced(
    model: str = "mci0", epochs: int = 300, images: int = IMAGENET_IMAGES
) -> ClassifierStudentConfig:
    """Return the reinforced ImageNet run: SGD 0.4, decay 1e-4, batch 1,024 (arXiv 2303.08983)."""
    batch = 1_024
    return ClassifierStudentConfig(
        model=model,
        learn="topk",
        view_set="main",
        p=0.99,
        train=TrainConfig(
            steps=steps_of(epochs, images, batch),
            batch_size=batch,
            optimizer="sgd",
            lr=0.4,
            momentum=0.9,
            weight_decay=1e-4,
            decay_all=True,
            warmup_steps=steps_of(5, images, batch),
            ema_decay=0.9995,
            precision="bf16",
            checkpoint_every=images // batch,
        ),
    )


def imagenet_plain(
    model: str = "mci0", epochs: int = 300, images: int = IMAGENET_IMAGES
) -> ClassifierStudentConfig:
    """Return the same run on labels: smoothing 0.1, RandAugment, erasing, MixUp or CutMix."""
    from dataclasses import replace

    return replace(
        imagenet_reinforced(model, epochs, images),
        learn="labels",
        view_set="",
        smoothing=0.1,
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        augment={
            "random_resized_crop": {},
            "random_horizontal_flip": {},
            "rand_augment": {},
            "random_erase": {"p": 0.25},
        },
    )


def small_set_reinforced(
    model: str = "mci0", images: int = 50_000, epochs: int = 1_000, *, fine_tune: bool = False
) -> ClassifierStudentConfig:
    """Return a reinforced CIFAR-100, Food-101 or Flowers-102 run (arXiv 2303.08983).

    Args:
        model: which student.
        images: of the set.
        epochs: 1,000; 10,000 for the 1,020 images of Flowers-102.
        fine_tune: start from trained weights: learning rate 0.002 instead of 0.2.
    """
    batch = 256
    return ClassifierStudentConfig(
        model=model,
        learn="topk",
        view_set="main",
        train=TrainConfig(
            steps=steps_of(epochs, images, batch),
            batch_size=batch,
            optimizer="sgd",
            lr=0.002 if fine_tune else 0.2,
            momentum=0.9,
            weight_decay=5e-4,
            decay_all=True,
        ),
    )
