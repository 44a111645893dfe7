"""The named models: functions that return configurations.

Released sizes (arXiv 2311.17049, arXiv 2508.20691), nano sizes for a laptop's processor, and small
classifiers. To add one, write a function here and its line in `understudy.models.MODELS`.
"""

from __future__ import annotations

from dataclasses import replace

from understudy.models.image.classifier import ClassifierConfig
from understudy.models.image.conv import ConvConfig
from understudy.models.image.mci import MCI0, MCI1, MCI2, MCI_NANO
from understudy.models.image.vit import VIT_B16
from understudy.models.multimodal.clip import CLIPConfig
from understudy.models.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from understudy.models.text.transformer import BASE_TEXT, MCT, NANO_TEXT, TextConfig
from understudy.models.towers import ImageConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _released(name: str, image: ImageConfig, text: TextConfig) -> CLIPConfig:
    size = Preprocess(size=image.image_size)
    return CLIPConfig(name=name, embed_dim=512, image=image, text=text, preprocess=size)


def mobileclip_s0() -> CLIPConfig:
    """MCi0 and MCt: 11.4 + 42.4 M parameters."""
    return _released("mobileclip-s0", MCI0, MCT)


def mobileclip_s1() -> CLIPConfig:
    """MCi1 and the base text tower: 21.5 + 63.4 M parameters."""
    return _released("mobileclip-s1", MCI1, BASE_TEXT)


def mobileclip_s2() -> CLIPConfig:
    """MCi2 and the base text tower: 35.7 + 63.4 M parameters."""
    return _released("mobileclip-s2", MCI2, BASE_TEXT)


def mobileclip_b() -> CLIPConfig:
    """ViT-B/16 and the causal base text tower: 86.3 + 63.4 M parameters."""
    return _released("mobileclip-b", VIT_B16, TextConfig(causal=True))


def mobileclip2_s0() -> CLIPConfig:
    """MCi0 and the base text tower: 11.4 + 63.4 M parameters."""
    return _released("mobileclip2-s0", MCI0, BASE_TEXT)


def mobileclip2_s2() -> CLIPConfig:
    """MCi2 and the base text tower: 35.7 + 63.4 M parameters."""
    return _released("mobileclip2-s2", MCI2, BASE_TEXT)


def mobileclip2_b() -> CLIPConfig:
    """ViT-B/16 and the causal base text tower: 86.3 + 63.4 M parameters."""
    return _released("mobileclip2-b", VIT_B16, TextConfig(causal=True))


def _small(name: str, image: ImageConfig, text: TextConfig, embed_dim: int) -> CLIPConfig:
    return CLIPConfig(
        name=name,
        embed_dim=embed_dim,
        image=image,
        text=text,
        preprocess=Preprocess(size=image.image_size, mean=CLIP_MEAN, std=CLIP_STD),
        tokenizer="own",
    )


def mobileclip_nano() -> CLIPConfig:
    """MCi-nano (8-64 channels) and Text-RepMixer-nano for 48x48 scenes."""
    return _small("mobileclip-nano", MCI_NANO, NANO_TEXT, 64)


def clip_conv_nano() -> CLIPConfig:
    """A plain convolutional student of 8-64 channels with the nano text tower."""
    image = ConvConfig(image_size=48, channels=(8, 16, 32, 64), strides=(2, 2, 2, 1), grid=2)
    return _small("clip-conv-nano", image, NANO_TEXT, 64)


def clip_teacher_a() -> CLIPConfig:
    """A teacher for small scenes: plain convolutions, two text layers; under 250 k parameters."""
    image = ConvConfig(
        image_size=48, channels=(16, 32, 32, 64, 64), strides=(2, 1, 2, 1, 2), grid=3
    )
    text = TextConfig(vocab_size=512, context_length=24, width=64, depth=2, num_heads=4)
    return _small("clip-teacher-a", image, text, 64)


def clip_teacher_b() -> CLIPConfig:
    """Another teacher of other widths, so that the two err differently; under 250 k parameters."""
    image = ConvConfig(image_size=48, channels=(24, 24, 48, 72), strides=(2, 2, 1, 2), grid=2)
    text = TextConfig(vocab_size=512, context_length=24, width=72, depth=2, num_heads=4)
    return _small("clip-teacher-b", image, text, 72)


def _tower(name: str, image: ImageConfig) -> ClassifierConfig:
    biased = replace(image, head_bias=True)
    pixels = Preprocess(
        size=image.image_size, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bicubic"
    )
    return ClassifierConfig(name=name, num_classes=1000, image=biased, preprocess=pixels)


def mci0() -> ClassifierConfig:
    """MCi0 with a classification head."""
    return _tower("mci0", MCI0)


def mci1() -> ClassifierConfig:
    """MCi1 with a classification head."""
    return _tower("mci1", MCI1)


def mci2() -> ClassifierConfig:
    """MCi2 with a classification head."""
    return _tower("mci2", MCI2)


def mci_nano() -> ClassifierConfig:
    """MCi-nano with a classification head, for 32x32 pictures of ten classes."""
    return _digits("mci-nano", MCI_NANO)


def _digits(name: str, image: ImageConfig) -> ClassifierConfig:
    image = replace(image, image_size=32, head_bias=True)
    return ClassifierConfig(
        name=name,
        num_classes=10,
        image=image,
        preprocess=Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    )


def cnn_teacher() -> ClassifierConfig:
    """A teacher CNN of about 200 k parameters for 32x32 pictures."""
    image = ConvConfig(channels=(32, 64, 96, 140), strides=(2, 2, 2, 1))
    return _digits("cnn-teacher", image)


def cnn_small() -> ClassifierConfig:
    """A student CNN of about 15 k parameters for 32x32 pictures."""
    return _digits("cnn-small", ConvConfig(channels=(16, 24, 48), strides=(2, 2, 2)))


def cnn_tiny() -> ClassifierConfig:
    """A student CNN of about 1 k parameters for 32x32 pictures."""
    return _digits("cnn-tiny", ConvConfig(channels=(4, 6, 10), strides=(2, 2, 2)))
