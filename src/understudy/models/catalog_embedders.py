"""Named embedders: ResNets that end in their embedding, and small towers for 8-pixel scans.

To add one, write a function here and its line in `understudy.models.MODELS`.
"""

from __future__ import annotations

from understudy.models.catalog import IMAGENET_MEAN, IMAGENET_STD
from understudy.models.image.classifier import ClassifierConfig
from understudy.models.image.mlp import MlpConfig
from understudy.models.image.resnet import ResNetConfig
from understudy.models.preprocess import Preprocess


def _resnet(depth: int) -> ClassifierConfig:
    pixels = Preprocess(size=224, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop=0.875)
    return ClassifierConfig(
        name=f"resnet{depth}-128",
        num_classes=1000,
        image=ResNetConfig(depth=depth, embed_dim=128),
        preprocess=pixels,
    )


def resnet18_128() -> ClassifierConfig:
    """ResNet-18 that ends in 128 channels: 7,259,456 parameters and 128 a class (2112.02805)."""
    return _resnet(18)


def resnet50_128() -> ClassifierConfig:
    """ResNet-50 that ends in 128 channels: 22,783,552 parameters and 128 a class (2112.02805)."""
    return _resnet(50)


def resnet101_128() -> ClassifierConfig:
    """ResNet-101 that ends in 128 channels: 41,775,680 parameters and 128 a class (2112.02805)."""
    return _resnet(101)


def _digits(hidden: int, embed_dim: int, num_classes: int) -> ClassifierConfig:
    return ClassifierConfig(
        name=f"digits-mlp-{embed_dim}",
        num_classes=num_classes,
        image=MlpConfig(image_size=8, hidden=(hidden,), embed_dim=embed_dim),
        preprocess=Preprocess(size=8),
    )


def digits_mlp_8() -> ClassifierConfig:
    """64-32-8, the small old model of digits."""
    return _digits(32, 8, 10)


def digits_mlp_32() -> ClassifierConfig:
    """64-128-32, the larger new model of digits."""
    return _digits(128, 32, 10)


def digits_mlp_16() -> ClassifierConfig:
    """64-128-16 without a head, for side information of digits."""
    return _digits(128, 16, 0)
