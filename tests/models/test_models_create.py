"""Named models: creation, overrides, outputs, preprocessing, training behaviour."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy import models
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.models.image.conv import ConvConfig
from understudy.models.image.mci import MciConfig, MciTower
from understudy.models.image.vit import VitConfig
from understudy.models.layers import DropPath, LayerScale
from understudy.models.multimodal.clip import CLIP
from understudy.models.preprocess import Preprocess, to_tensor
from understudy.models.text.train_tokenizer import train_words

CAPTIONS = ["a large 3", "a small 7", "left of the 3"]


def test_importing_the_room_does_not_import_torch():
    code = "import sys, understudy.models as m; list(m.MODELS); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_seed_decides_the_weights_and_nothing_else():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = models.create("mobileclip-nano", seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    two = models.create("mobileclip-nano", seed=1).state_dict()
    other = models.create("mobileclip-nano", seed=2).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["image.head.weight"], other["image.head.weight"])


def test_overrides():
    model = models.create("cnn-small", num_classes=3, image={"channels": [4, 8, 8]})
    assert model(torch.rand(2, 3, 32, 32))["logits"].shape == (2, 3)
    model = models.create("mobileclip-nano", **{"text.depth": 2, "embed_dim": 8})
    assert len(model.text.blocks) == 4
    assert model.encode_image(torch.rand(2, 3, 48, 48)).shape == (2, 8)
    config = models.config("mobileclip-nano", **{"image.image_size": 32})
    assert config.preprocess.size == 32
    tower = ConvConfig(channels=(8,), strides=(4,), image_size=48)
    model = models.create("mobileclip-nano", image=tower)
    assert model.config.image == tower
    empty = models.create("mci-nano", num_classes=0).eval()
    assert empty(torch.rand(1, 3, 32, 32))["features"].shape == (1, 128)
    with pytest.raises(ConfigError, match=r"there is no model 'mobileclip-s9'. Did you mean"):
        models.create("mobileclip-s9")
    with pytest.raises(ConfigError, match=r"unknown key 'num_clases'. Did you mean 'num_classes'"):
        models.create("cnn-tiny", num_clases=3)
    with pytest.raises(ConfigError, match=r"CLIPConfig.image: unknown key 'depth'"):
        models.create("mobileclip-nano", **{"image.depth": 3})
    with pytest.raises(ConfigError, match="a classifier reads no text"):
        models.create("cnn-tiny", tokenizer=train_words(CAPTIONS))


def test_clip_outputs():
    model = models.create("mobileclip-nano", seed=0, tokenizer=train_words(CAPTIONS)).eval()
    assert isinstance(model, CLIP)
    images, texts = torch.rand(3, 3, 48, 48), model.tokenize(CAPTIONS)
    with torch.no_grad():
        out = model(images, texts, texts.flip(0))
        assert set(out) == {"image_features", "text_features", "syn_text_features", "logit_scale"}
        for key in ("image_features", "text_features", "syn_text_features"):
            assert torch.allclose(out[key].norm(dim=-1), torch.ones(3), atol=1e-6)
        assert torch.allclose(out["syn_text_features"].flip(0), out["text_features"], atol=1e-6)
        assert torch.allclose(model.encode_text(texts), out["text_features"], atol=1e-6)
        assert torch.equal(model.encode_image(images), out["image_features"])
        raw = model.encode_image(images, normalize=False)
        assert torch.allclose(raw / raw.norm(dim=-1, keepdim=True), out["image_features"])
        assert set(model(syn_texts=texts)) == {"syn_text_features", "logit_scale"}
        assert set(model(images=images)) == {"image_features", "logit_scale"}
        assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
        assert out["logit_scale"].item() == pytest.approx(1 / 0.07, rel=1e-6)
        model.logit_scale.fill_(9.0)
        assert model()["logit_scale"].item() == 100.0


def test_permuting_a_batch_permutes_rows():
    model = models.create("clip-teacher-a", seed=0).eval()
    images = torch.rand(5, 3, 48, 48)
    order = torch.tensor([3, 1, 4, 0, 2])
    with torch.no_grad():
        out, other = model.encode_image(images), model.encode_image(images[order])
    assert torch.allclose(out[order], other, atol=1e-6)


def test_tokenizers_and_models_must_fit():
    tokenizer = train_words(CAPTIONS, context_length=10)
    model = models.create("mobileclip-nano", tokenizer=tokenizer)
    assert model.config.text.vocab_size == tokenizer.vocab_size
    assert model.tokenize(CAPTIONS).shape == (3, 24)
    bare = models.create("mobileclip-nano")
    with pytest.raises(ModelError, match=r"mobileclip-nano has no tokenizer: .*set_tokenizer"):
        bare.tokenize(CAPTIONS)
    with pytest.raises(ModelError, match=r"ids, but the text tower has 512"):
        bare.set_tokenizer(tokenizer)


@pytest.mark.parametrize(
    "name", ["mobileclip-nano", "clip-conv-nano", "clip-teacher-b", "mci-nano"][:]
)
def test_every_parameter_gets_a_gradient(name):
    model = models.create(name, seed=0).train()
    size = model.preprocess.size
    images = torch.rand(4, 3, size, size)
    if isinstance(model, CLIP):
        tokens = torch.randint(1, 511, (4, 24))
        out = model(images, tokens)
        logits = out["logit_scale"] * out["image_features"] @ out["text_features"].T
    else:
        logits = model(images)["logits"]
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_towers_take_other_resolutions_and_give_maps():
    model = models.create("mobileclip-nano", seed=0).eval()
    for size, expected in ((48, [12, 6, 3, 2]), (64, [16, 8, 4, 2]), (96, [24, 12, 6, 3])):
        maps = model.image.stage_maps(torch.rand(1, 3, size, size))
        assert [m.shape[-1] for m in maps] == expected
        assert [m.shape[1] for m in maps] == [8, 16, 32, 64]
    changes = {"width": 32, "depth": 1, "num_heads": 2, "image_size": 48}
    text = {"width": 16, "depth": 1, "num_heads": 2, "vocab_size": 8}
    vit = models.create("mobileclip-b", image=changes, text=text).eval().image
    assert vit.stage_maps(torch.rand(1, 3, 48, 48))[0].shape == (1, 32, 3, 3)
    assert vit.stage_maps(torch.rand(1, 3, 64, 32))[0].shape == (1, 32, 4, 2)


def test_class_token_has_no_position():
    changes = {"width": 32, "depth": 0, "num_heads": 2, "image_size": 48}
    text = {"width": 16, "depth": 1, "num_heads": 2, "vocab_size": 8}
    vit = models.create("mobileclip-b", image=changes, text=text).eval().image
    images = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        before = vit.tokens(images)
        vit.positions.add_(1.0 + torch.rand_like(vit.positions))
        after = vit.tokens(images)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1:], after[:, 1:])


def test_initial_values():
    tower = MciTower(MciConfig(drop_path=0.3, blocks=(1, 2, 2, 2)), 16)
    scales = [m.gamma for m in tower.modules() if isinstance(m, LayerScale)]
    assert len(scales) == 14
    assert all(torch.equal(g, torch.full_like(g, 1e-5)) for g in scales)
    assert tower.stages[1].blocks[0].ffn.ffn.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    rates = [m.rate for m in tower.modules() if isinstance(m, DropPath)]
    # RepMixer blocks drop their feed-forward, attention blocks both branches; linear in depth
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.25, 0.3, 0.3])


def test_drop_path_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(20_000, 2)
    out = layer(x)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (out[:, 0] == out[:, 1]).all()
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MciConfig(blocks=(1, 2)), "blocks: 2 values for 4 stages"),
        (lambda: MciConfig(channels=(8, 12, 24, 48), head_dim=16), "12 is not a multiple of 8"),
        (lambda: MciConfig(head_dim=33), "33 does not divide 512 channels"),
        (lambda: MciConfig(attention_norm="group"), "'group' is not one of batch, layer"),
        (lambda: MciConfig(drop_path=1.0), r"expected \[0, 1\), got 1.0"),
        (lambda: VitConfig(image_size=100), "100 is not a multiple of 16"),
        (lambda: VitConfig(num_heads=7), "7 does not divide width 768"),
        (lambda: VitConfig(stem="patch", patch_size=14, image_size=225), "not a multiple of 14"),
        (lambda: VitConfig(patch_size=14), "the convolutional stem has stride 16, got 14"),
        (lambda: VitConfig(stem="linear"), "'linear' is not one of conv, patch"),
        (lambda: VitConfig(position_interpolation="area"), "not one of bilinear, bicubic"),
        (lambda: VitConfig(drop_path=1.0), r"expected \[0, 1\), got 1.0"),
        (lambda: ConvConfig(strides=(1,)), "1 values for 3 convolutions"),
        (lambda: ConvConfig(grid=0), "expected at least 1, got 0"),
        (lambda: Preprocess(size=0), "expected at least 1 pixel"),
        (lambda: Preprocess(size=8, std=(1, 0, 1)), "expected positive values"),
        (lambda: Preprocess(size=8, resize="crop"), "'crop' is not one of shorter-side, squash"),
        (lambda: models.config("cnn-tiny", classes=["a"]), "1 names for 10 classes"),
        (lambda: models.config("cnn-tiny", num_classes=-1), "expected at least 0"),
        (lambda: models.config("mobileclip-nano", embed_dim=0), "expected at least 1"),
    ],
)
def test_bad_configurations(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_preprocessing():
    config = Preprocess(size=8, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    expected = (images / 255.0 - np.array(config.mean)) / np.array(config.std)
    for given_as in (images, torch.from_numpy(images), list(images)):
        out = to_tensor(given_as, config)
        assert out.dtype == torch.float32
        assert np.allclose(out.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert to_tensor([], config).shape == (0, 3, 8, 8)
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = 255
    assert to_tensor([wide], Preprocess(size=8)).min() == 1.0
    assert to_tensor([wide], Preprocess(size=8, resize="squash")).min() < 1.0
    padded = to_tensor([wide], Preprocess(size=20, resize="pad"))[0]
    assert torch.equal(padded[:, 6:14], torch.from_numpy(wide / np.float32(255)).permute(2, 0, 1))
    assert padded[:, :6].max() == padded[:, 14:].max() == 0.0
    grey = to_tensor([wide.transpose(1, 0, 2)], Preprocess(size=20, resize="pad", mean=(0.5,) * 3))
    assert torch.allclose(grey[0, :, :, :6], torch.full((3, 20, 6), 127 / 255 - 0.5))
    model = models.create("cnn-tiny")
    assert torch.equal(
        model.preprocess_images(np.zeros((1, 32, 32, 3), np.uint8)), -torch.ones(1, 3, 32, 32)
    )
    with pytest.raises(DataError, match=r"expected uint8 \[height, width, 3\], got float64"):
        to_tensor([np.zeros((8, 8, 3))], config)
    with pytest.raises(DataError, match=r"got uint8 \[8, 8\]"):
        to_tensor([np.zeros((8, 8), np.uint8)], config)
    with pytest.raises(DataError, match=r"got shape \[8, 8, 3\]"):
        to_tensor(images[0], config)
    with pytest.raises(DataError, match="or a list of images, got dict"):
        to_tensor({"a": 1}, config)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(4, 60), width=st.integers(4, 60), size=st.integers(4, 40))
def test_preprocessing_always_fills_the_square(height, width, size):
    image = np.full((height, width, 3), 77, np.uint8)
    assert to_tensor([image], Preprocess(size=size, resize="pad")).shape == (1, 3, size, size)
    for resize in ("shorter-side", "squash"):
        out = to_tensor([image], Preprocess(size=size, resize=resize))
        assert out.shape == (1, 3, size, size)
        assert torch.allclose(out, torch.full_like(out, 77 / 255))


@pytest.mark.parametrize("name", ["mobileclip-nano", "clip-teacher-a"])
def test_towers_export_with_a_free_batch_size(name):
    model = models.create(name, seed=0).eval()
    batch = {0: torch.export.Dim("batch", max=64)}
    tokens = torch.randint(1, 511, (2, 24), generator=torch.Generator().manual_seed(0))
    for form in (model, model.fold()):
        for tower, x in ((form.image, torch.rand(2, 3, 48, 48)), (form.text, tokens)):
            program = torch.export.export(tower, (x,), dynamic_shapes=(batch,)).module()
            more = torch.cat([x, x, x])
            with torch.no_grad():
                assert torch.allclose(program(more), tower(more), atol=1e-5)
