"""Quantised files: what is quantised, what is left in float, how well it agrees."""

import onnx
import pytest
import torch
from torch import nn

from understudy import models
from understudy.compress.int8 import (
    Int8Config,
    agreement,
    is_convolutional,
    operators,
    quantise_dynamic,
    quantise_static,
)
from understudy.compress.onnx import write_onnx
from understudy.core.errors import ConfigError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small five-stage tower, its ONNX file and images."""
    small = {"image.channels": (8, 16, 32, 64, 128), "image.blocks": (1, 1, 1, 1, 1)}
    model = models.create("mci-nano5", seed=0, **small).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 128, 128, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.fill_(0.3)
        # statistics of the images, so that outputs depend on them
        for part in model.train().modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        model(images)
    tower = model.eval().fold().image
    path = tmp_path_factory.mktemp("int8") / "tower.onnx"
    write_onnx(tower, images, path, input_name="images", output_name="features")
    return tower, path, images


def weights_of(path):
    """Return the convolutions' weight types by name: one byte or four."""
    graph = onnx.load(path).graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "Conv":
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            found[node.name] = (groups, kinds.get(node.input[1]) == onnx.TensorProto.FLOAT)
    return found


def test_dense_convolutions_are_quantised_and_grouped_ones_are_not(exported, tmp_path):
    tower, path, images = exported
    out = quantise_static(path, tmp_path / "q.onnx", [images])
    kinds = weights_of(out)
    convolutions = [m for m in tower.modules() if isinstance(m, nn.Conv2d)]
    assert len(kinds) == len(convolutions)
    for groups, is_float in kinds.values():
        if groups > 1:
            assert is_float
    # the two of squeeze-excite see one pixel
    left = sum(is_float for _, is_float in kinds.values())
    assert left == sum(m.groups > 1 for m in convolutions) + 2
    assert out.stat().st_size < path.stat().st_size / 2


def test_everything_if_asked_for(exported, tmp_path):
    _, path, images = exported
    config = Int8Config(grouped=True, single_pixel=True)
    out = quantise_static(path, tmp_path / "q.onnx", [images], config)
    assert not any(is_float for _, is_float in weights_of(out).values())


def test_runtime_says_what_fell_back(exported, tmp_path):
    _, path, images = exported
    whole = operators(path)
    assert not any(name.startswith(("QLinear", "Quantize")) for name in whole)
    found = operators(quantise_static(path, tmp_path / "q.onnx", [images]))
    everything = Int8Config(grouped=True, single_pixel=True)
    more = operators(quantise_static(path, tmp_path / "all.onnx", [images], everything))
    assert found["QLinearConv"] > 10
    assert found["QLinearConv"] + found["Conv"] == more["QLinearConv"]
    assert "Conv" not in more
    assert found["QuantizeLinear"] > 0


@pytest.mark.parametrize("per_channel", [True, False])
def test_agreement(exported, tmp_path, per_channel):
    tower, path, images = exported
    config = Int8Config(per_channel=per_channel)
    out = quantise_static(path, tmp_path / "q.onnx", [images[:2], images[2:]], config)
    with torch.no_grad():
        pairs = [(images[:3], tower(images[:3])), (images[3:], tower(images[3:]))]
        exact = agreement(path, pairs)
    found = agreement(out, pairs)
    assert exact["cosine_min"] > 1 - 1e-6
    # white noise through a net that normalises it up to full size is the worst there is
    assert exact["error"] < 1e-4 < found["error"] < 0.5
    assert 0.95 < found["cosine_min"] <= found["cosine"]


def test_scales_come_from_the_calibration_images(exported, tmp_path):
    tower, path, images = exported
    good = quantise_static(path, tmp_path / "good.onnx", [images])
    dark = quantise_static(path, tmp_path / "dark.onnx", [images * 0.05])
    with torch.no_grad():
        pairs = [(images, tower(images))]
    # values outside the calibrated ranges are cut off
    assert agreement(dark, pairs)["error"] > 2 * agreement(good, pairs)["error"]


def test_products_of_a_transformer(tmp_path):
    text = models.create("mobileclip-nano", seed=0, **{"text.variant": "base"}).eval().text
    tokens = torch.randint(1, 511, (3, 24), generator=torch.Generator().manual_seed(0))
    path = write_onnx(
        text, tokens, tmp_path / "text.onnx", input_name="tokens", output_name="embeddings"
    )
    out = quantise_dynamic(path, tmp_path / "q.onnx")
    assert "MatMulInteger" in {n.op_type for n in onnx.load(out).graph.node}
    with torch.no_grad():
        assert agreement(out, [(tokens, text(tokens))])["cosine_min"] > 0.99


def test_which_towers_are_convolutional():
    with torch.device("meta"):
        expected = {"mci-nano5": True, "cnn-tiny": True, "vit-nano16": False, "mci0": True}
        for name, convolutional in expected.items():
            assert is_convolutional(models.create(name).image) == convolutional
        clip = models.create("mobileclip-nano")
        assert not is_convolutional(clip.text)


def test_bad_input(exported, tmp_path):
    _, path, _ = exported
    with pytest.raises(ConfigError, match="no calibration images"):
        quantise_static(path, tmp_path / "q.onnx", [])
