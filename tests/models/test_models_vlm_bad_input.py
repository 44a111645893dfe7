"""Vision-language models: what is refused, and with which words."""

import numpy as np
import pytest
import torch

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.models.fold import fold_module
from understudy.models.image.conv import ConvConfig
from understudy.models.language.options import GenerateConfig
from understudy.models.multimodal.anyres import tile
from understudy.models.multimodal.vision_tower import Projector, VisionTower
from understudy.models.multimodal.vlm_config import square
from understudy.models.multimodal.vlm_parts import assemble, load_language, take_tower
from understudy.models.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from vlm_toys import TOWER, toy, toy_config

GREEDY = GenerateConfig(method="greedy", max_tokens=6)


def picture():
    return np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)


def test_bad_input_resolution_and_normalisation():
    with pytest.raises(ConfigError, match="1000 pixels are not a multiple of 64.*960 and 1024"):
        VisionTower(1000)
    with pytest.raises(ConfigError, match="the nearest legal sizes are 64"):
        VisionTower(30)
    model = toy()
    with pytest.raises(ConfigError, match="nearest legal sizes are 128 and 192"):
        model.set_resolution(150)
    with pytest.raises(ModelError, match=r"not those that CLIP's statistics make"):
        toy_config(preprocess=Preprocess(size=128, mean=CLIP_MEAN, std=CLIP_STD))
    with pytest.raises(ModelError, match=r"values from -1.80 .*CLIP's mean and std"):
        model.encode_images(torch.full((1, 3, 128, 128), -1.8))
    with pytest.raises(ConfigError, match="needs the stages of an MCi tower"):
        VisionTower(32, ConvConfig(channels=(4,), strides=(2,)), features="average")


def test_bad_input_parts():
    model = toy()
    with pytest.raises(ModelError, match="projector: 8 to 32 channels, but the vision tower gives "
                       "32 and the language model takes 32"):  # fmt: skip
        model.set_projector(Projector(8, 32))
    unfolded = VisionTower(128, TOWER).tower.state_dict()
    folded = fold_module(VisionTower(128, TOWER).eval()).tower.state_dict()
    with pytest.raises(ModelError, match="these weights are not folded, the model is"):
        take_tower(model.fold(), unfolded)
    with pytest.raises(ModelError, match="these weights are folded, the model is not"):
        take_tower(model, folded)
    language, coder = load_language("tiny", ["a b c"])
    made = assemble(toy_config(), language, coder, (folded, "all"))
    assert made.is_folded
    assert all(p.requires_grad for p in made.parameters())
    with pytest.raises(ConfigError, match="neither tiny, nano, small nor a folder"):
        load_language("qwen9")
    many = " ".join(a + b for a in "abcdefghij" for b in "klmnopq")
    tokenizer = load_language("tiny", [many])[1]
    with pytest.raises(ModelError, match="ids, but the language model has"):
        model.set_tokenizer(tokenizer)


def test_bad_input_prompts():
    model = toy()
    with pytest.raises(DataError, match="prompt 0: the text has 2 <image> marks for 1 images"):
        model.generate(picture(), "<image> or <image>?", GREEDY)
    with pytest.raises(ConfigError, match="4 visual tokens.*to be generated are .* more than"):
        model.generate(picture(), "which digit " * 60, GREEDY)
    with pytest.raises(ModelError, match="in training mode"):
        toy().train().generate(picture(), "which digit")
    with pytest.raises(DataError, match="1 images for 2 prompts"):
        model.generate([picture()], ["how", "many"])
    with pytest.raises(DataError, match="3 views, but 2 are counted"):
        model.image_features(torch.rand(3, 3, 128, 128), [2])
    model.tokenizer = None
    with pytest.raises(ModelError, match="has no tokenizer"):
        model.generate(None, "how many")


def test_bad_input_grids():
    with pytest.raises(ConfigError, match="300 x 256 is not made of squares of 128"):
        toy_config(pinpoints=((300, 256),))
    with pytest.raises(ConfigError, match=r"384 x 128 is not among the pinpoints \(256 x 256\)"):
        toy(pinpoints=((256, 256),)).views(picture(), (384, 128))
    with pytest.raises(ConfigError, match="no grid pinpoints"):
        tile(picture(), [], square(128))
