"""The named models: functions that return configurations.

Released sizes (arXiv 2311.17049, arXiv 2508.20691), nano sizes for a laptop's processor, and small
classifiers. To add one, write a function here and its line in `understudy.models.MODELS`.
"""

from __future__ import annotations

from dataclasses import replace

from understudy.models.families import FAMILIES
from understudy.models.image.classifier import ClassifierConfig
from understudy.models.image.conv import ConvConfig
from understudy.models.image.mci_sizes import (
    MCI0,
    MCI1,
    MCI2,
    MCI3,
    MCI4,
    MCI_NANO,
    MCI_NANO4,
    MCI_NANO5,
    NAIVE,
    NAIVE_NANO,
)
from understudy.models.image.vit_config import VIT_B16, VIT_L14, VIT_NANO16
from understudy.models.multimodal.clip import CLIPConfig
from understudy.models.multimodal.coca import CoCaConfig
from understudy.models.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from understudy.models.text.transformer import BASE_TEXT, MCT, NANO_TEXT, WIDE_TEXT, TextConfig
from understudy.models.towers import ImageConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _released(
    name: str,
    image: ImageConfig,
    text: TextConfig,
    embed_dim: int = 512,
    interpolation: str = "bilinear",
) -> CLIPConfig:
    mean, std = FAMILIES[name]
    pixels = Preprocess(size=image.image_size, mean=mean, std=std, interpolation=interpolation)
    return CLIPConfig(name=name, embed_dim=embed_dim, image=image, text=text, preprocess=pixels)


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


def mobileclip2_s3() -> CLIPConfig:
    """MCi3 and the wide text tower: 125.2 + 123.7 M parameters."""
    return _released("mobileclip2-s3", MCI3, WIDE_TEXT, 768)


def mobileclip2_s4() -> CLIPConfig:
    """MCi4 and the wide text tower: 321.8 + 123.7 M parameters."""
    return _released("mobileclip2-s4", MCI4, WIDE_TEXT, 768)


def mobileclip2_l() -> CLIPConfig:
    """ViT-L/14 and the wide text tower: 304.0 + 123.7 M parameters."""
    return _released("mobileclip2-l", VIT_L14, WIDE_TEXT, 768, "bicubic")


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


def mci3() -> ClassifierConfig:
    """MCi3 with a classification head."""
    return _tower("mci3", MCI3)


def mci4() -> ClassifierConfig:
    """MCi4 with a classification head."""
    return _tower("mci4", MCI4)


def _backbone(name: str, image: ImageConfig) -> ClassifierConfig:
    # what a vision-language model feeds its tower (arXiv 2412.13303): nothing cropped, [0, 1]
    pixels = Preprocess(size=image.image_size, interpolation="bicubic", resize="pad")
    return ClassifierConfig(name=name, num_classes=0, image=image, preprocess=pixels)


def fastvithd() -> ClassifierConfig:
    """FastViTHD, the vision encoder of FastVLM: MCi3 at 1,024 pixels, without a head."""
    return _backbone("fastvithd", replace(MCI3, image_size=1024))


def naive_4_stage() -> ClassifierConfig:
    """Four stages scaled up: the baseline of FastViTHD, 96.9 M parameters, without a head."""
    return _backbone("naive-4-stage", replace(NAIVE, image_size=1024))


def mci_nano5() -> ClassifierConfig:
    """Five stages, stride 64: MCi3 at about 1.1 M parameters, without a head."""
    return _backbone("mci-nano5", MCI_NANO5)


def mci_nano4() -> ClassifierConfig:
    """Four stages, stride 32: MCi2 with the parameters of mci-nano5."""
    return _backbone("mci-nano4", MCI_NANO4)


def naive_nano() -> ClassifierConfig:
    """Four stages, stride 32: naive-4-stage with the parameters of mci-nano5."""
    return _backbone("naive-nano", NAIVE_NANO)


def vit_nano16() -> ClassifierConfig:
    """A plain ViT of patch 16 with the parameters of mci-nano5."""
    return _backbone("vit-nano16", VIT_NANO16)


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


def coca_vit_l14() -> CoCaConfig:
    """ViT-L/14, 12 text and 12 + 12 decoder layers, as OpenCLIP's `coca_ViT-L-14`: 638.5 M."""
    text = TextConfig(context_length=76, width=768, num_heads=12, causal=True)
    return CoCaConfig(
        name="coca-vit-l14",
        embed_dim=768,
        image=replace(VIT_L14, drop_path=0.0),
        text=text,
        decoder_depth=12,
        num_queries=256,
        pool_heads=8,
        preprocess=Preprocess(size=224, mean=CLIP_MEAN, std=CLIP_STD, interpolation="bicubic"),
        legacy_mask=True,
    )


def coca_nano() -> CoCaConfig:
    """A captioner for 48x48 scenes: plain convolutions, two text layers, two decoder layers."""
    image = ConvConfig(
        image_size=48, channels=(16, 32, 32, 64, 64), strides=(2, 1, 2, 1, 2), grid=1
    )
    text = TextConfig(
        vocab_size=512, context_length=24, width=64, depth=2, num_heads=4, causal=True
    )
    return CoCaConfig(
        name="coca-nano",
        embed_dim=64,
        image=image,
        text=text,
        decoder_depth=2,
        num_queries=17,
        pool_heads=4,
        preprocess=Preprocess(size=48, mean=CLIP_MEAN, std=CLIP_STD),
        tokenizer="own",
    )
