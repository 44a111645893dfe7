"""ResNets that end in their embedding, and fully connected towers: counts, shapes, folding."""

from __future__ import annotations

import pytest
import torch

from understudy import models
from understudy.core.errors import ConfigError, ModelError
from understudy.models.count import count_towers
from understudy.models.image.mlp import MlpConfig
from understudy.models.image.resnet import BLOCKS, ResNetConfig

STAGES = (64, 128, 256, 512)


def by_hand(depth: int, embed_dim: int) -> int:
    """Count a ResNet's weights and normalisations layer by layer, without building it."""

    def conv_bn(a: int, b: int, kernel: int) -> int:
        return a * b * kernel**2 + 2 * b

    total, channels, wide = conv_bn(3, 64, 7), 64, 1 if depth == 18 else 4
    for stage, planes in enumerate(STAGES):
        for block in range(BLOCKS[depth][stage]):
            last = stage == 3 and block == BLOCKS[depth][3] - 1
            out = embed_dim if last else planes * wide
            if depth == 18:
                total += conv_bn(channels, out, 3) + conv_bn(out, out, 3)
            else:
                total += conv_bn(channels, planes, 1) + conv_bn(planes, planes, 3)
                total += conv_bn(planes, out, 1)
            if channels != out or (stage and not block):
                total += conv_bn(channels, out, 1)
            channels = out
    return total


@pytest.mark.parametrize(("depth", "count"), [(18, 7_259_456), (50, 22_783_552), (101, 41_775_680)])
def test_parameters_of_embedders(depth, count):
    config = models.config(f"resnet{depth}-128")
    tower = count_towers(config)["image"].parameters - 1000 * 128  # the classifier has no bias
    assert tower == count == by_hand(depth, 128)


@pytest.mark.parametrize(
    ("depth", "width", "count"),
    [(18, 512, 11_689_512), (50, 2048, 25_557_032), (101, 2048, 44_549_160)],
)
def test_usual_widths_give_the_known_counts(depth, width, count):
    image = {"embed_dim": 0, "head_bias": True}
    config = models.config(f"resnet{depth}-128", image=image)
    assert config.image.width == width
    assert count_towers(config)["image"].parameters == count


def test_last_block_projects_by_convolution_and_shortcut():
    model = models.create("resnet50-128", seed=0, num_classes=3, image={"image_size": 32})
    block = model.image.stages[3][2]
    assert [tuple(layer.conv.weight.shape[:2]) for layer in block.layers] == [
        (512, 2048), (512, 512), (128, 512),
    ]  # fmt: skip
    assert tuple(block.shortcut.conv.weight.shape) == (128, 2048, 1, 1)
    assert model.image.stages[3][1].shortcut is None
    assert model.image.head.bias is None
    assert model.preprocess.crop == 0.875


@pytest.mark.parametrize("nonlin", [True, False])
def test_last_nonlinearity_decides_the_sign_of_embeddings(nonlin):
    model = models.create(
        "resnet18-128", seed=1, num_classes=4,
        image={"image_size": 32, "stem": "small", "last_nonlin": nonlin, "embed_dim": 16},
    ).eval()  # fmt: skip
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.features(pixels)
        logits = model(pixels)["logits"]
    assert features.shape == (3, 16)
    assert bool((features < 0).any()) != nonlin
    torch.testing.assert_close(logits, features @ model.image.head.weight.T)


def test_folding_and_pyramid():
    model = models.create("resnet18-128", seed=0, num_classes=5, image={"embed_dim": 8})
    model.train()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model(pixels)  # running statistics move
    model.eval()
    folded = model.fold()
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        torch.testing.assert_close(
            folded(pixels)["logits"], model(pixels)["logits"], atol=1e-4, rtol=1e-4
        )
        maps = model.pyramid(pixels)
    assert [stride for stride, _ in maps] == [4, 8, 16, 32] == list(model.pyramid_strides)
    assert [m.shape[1] for _, m in maps] == list(model.pyramid_channels) == [64, 128, 256, 8]
    assert [m.shape[-1] for _, m in maps] == [16, 8, 4, 2]
    with pytest.raises(ModelError, match="multiples of 32"):
        model.pyramid(pixels[..., :60])


def test_save_and_load(tmp_path):
    model = models.create("digits-mlp-8", seed=0, num_classes=5).eval()
    again = models.load(models.save(model, tmp_path / "m.safetensors"))
    pixels = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(again(pixels)["logits"], model(pixels)["logits"])
    assert again.config == model.config


@pytest.mark.parametrize(
    ("name", "width", "count"),
    [
        ("digits-mlp-8", 8, 64 * 32 + 32 + 32 * 8 + 8 + 80),
        ("digits-mlp-32", 32, 64 * 128 + 128 + 128 * 32 + 32 + 320),
        ("digits-mlp-16", 16, 64 * 128 + 128 + 128 * 16 + 16),
    ],
)
def test_towers_of_digits(name, width, count):
    config = models.config(name)
    assert count_towers(config)["image"].parameters == count
    model = models.create(name, seed=0).eval()
    gray = torch.rand(5, 1, 8, 8).expand(5, 3, 8, 8)
    features = model.features(gray)
    assert features.shape == (5, width)
    if not config.num_classes:
        torch.testing.assert_close(model(gray)["features"], features)
    layers = model.image.layers
    by_rule = layers[2](torch.relu(layers[0](gray[:, 0].flatten(1))))
    torch.testing.assert_close(features, by_rule)


def test_mlp_refuses_other_sizes():
    model = models.create("digits-mlp-8", seed=0)
    with pytest.raises(ModelError, match=r"\[9, 8\] pixels for a tower of 8 x 8"):
        model(torch.rand(1, 3, 9, 8))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ResNetConfig(depth=34), "ResNetConfig.depth: expected 18, 50, 101, got 34"),
        (lambda: ResNetConfig(embed_dim=-1), "ResNetConfig.embed_dim: expected at least 0"),
        (lambda: ResNetConfig(stem="tiny"), "ResNetConfig.stem"),
        (lambda: MlpConfig(hidden=(0,)), r"MlpConfig.hidden\[0\]: expected at least 1, got 0"),
    ],
)
def test_bad_sizes(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_other_uses_of_towers_know_them():
    from understudy.models.multimodal.vision_tower import VisionTower, num_tokens

    config = ResNetConfig(depth=18, embed_dim=24)
    tower = VisionTower(64, config)
    assert num_tokens(64, config) == 4
    assert tower.width == 24
    with pytest.raises(ConfigError, match="no map"):
        VisionTower(8, MlpConfig())
