"""Dense models: shapes for odd sizes, folding, statistics, taps, heads by their description."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from understudy import models
from understudy.core.errors import ConfigError, DataError, MissingExtraError, ModelError
from understudy.models.build import build
from understudy.models.dense.config import HeadConfig
from understudy.models.dense.fpn import FeaturePyramid, SemanticFpn
from understudy.models.dense.io import load_dense, save_dense
from understudy.models.dense.model import DenseModel, dense_model, pad_to
from understudy.models.dense.taps import Neck
from understudy.models.dense.uper import UperNet
from understudy.models.image.vit import VitTower
from understudy.models.image.vit_config import VitConfig

CLASSES = tuple("abcde")
HEADS = {
    "semantic-fpn": HeadConfig(classes=CLASSES, width=16, hidden=8),
    "uper": HeadConfig(classes=CLASSES, kind="uper", width=8, hidden=8),
    "linear": HeadConfig(classes=CLASSES, kind="linear"),
    "decoder": HeadConfig(task="depth", kind="decoder", width=16, hidden=8, low=0.1, high=8.0),
}


def mci(seed: int = 0, **changes):
    return models.create("mci-nano", seed=seed, **changes)


def vit(seed: int = 0, depth: int = 6, size: int = 32, **options):
    config = models.config("mci-nano")
    image = VitConfig(
        image_size=size, width=16, depth=depth, num_heads=2, head_bias=True, **options
    )
    return build(
        replace(config, image=image, preprocess=replace(config.preprocess, size=size)), seed=seed
    )


def shaken(model):
    """Give batch norms other statistics than the trivial ones, as training does."""
    draw = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(torch.randn(shape, generator=draw) * 0.1)
            module.running_var.copy_(torch.rand(shape, generator=draw) + 0.5)
    return model


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (7, 70)])
def test_output_has_the_inputs_size(name, size):
    model = dense_model(mci(), HEADS[name], seed=1).eval()
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = model(x)
    if name == "decoder":
        assert out["depth"].shape == (2, *size)
        assert 0.1 <= float(out["depth"].min())
        assert float(out["depth"].max()) <= 8.0
    else:
        assert out["logits"].shape == (2, len(CLASSES), *size)


def test_padding_is_below_and_right_and_is_cut_off():
    x = torch.randn(1, 3, 40, 50)
    padded = pad_to(x, 32)
    assert padded.shape[-2:] == (64, 64)
    assert torch.equal(padded[..., :40, :50], x)
    assert float(padded[..., 40:, :].abs().sum() + padded[..., 50:].abs().sum()) == 0
    assert pad_to(x[..., :32, :32], 32) is not None
    model = dense_model(mci(), HEADS["semantic-fpn"]).eval()
    with torch.no_grad():
        assert torch.equal(model(x)["logits"], model(padded)["logits"][..., :40, :50])


@pytest.mark.parametrize("name", HEADS)
def test_pyramid_strides_and_shapes(name):
    model = dense_model(mci(), HEADS[name]).eval()
    with torch.no_grad():
        maps = model.maps(torch.zeros(1, 3, 64, 96))
    assert model.neck.strides == (4, 8, 16, 32)
    assert model.neck.multiple == 32
    assert [tuple(m.shape[1:]) for m in maps] == [
        (8, 16, 24), (16, 8, 12), (32, 4, 6), (64, 2, 3),
    ]  # fmt: skip


def test_a_five_stage_tower_has_a_fifth_map():
    changes = {
        "image.channels": [8, 8, 16, 16, 32],
        "image.blocks": [1] * 5,
        "image.mixers": ["repmixer"] * 4 + ["attention"],
        "image.se_downsample": [False] * 5,
        "image.positions": [False] * 4 + [True],
    }
    model = dense_model(mci(**changes), HEADS["semantic-fpn"]).eval()
    assert model.neck.strides == (4, 8, 16, 32, 64)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 65, 20))["logits"].shape[-2:] == (65, 20)


@pytest.mark.parametrize("taps", [(), (0, 2, 3, 5), (5,)])
def test_a_vit_is_brought_to_four_scales(taps):
    model = dense_model(vit(), replace(HEADS["uper"], taps=taps)).eval()
    assert model.neck.strides == (4, 8, 16, 32)
    with torch.no_grad():
        maps = model.maps(torch.zeros(2, 3, 64, 32))
        assert model(torch.zeros(2, 3, 50, 21))["logits"].shape[-2:] == (50, 21)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 8), (16, 8, 4), (16, 4, 2), (16, 2, 1)]


def test_a_vits_table_is_resized_bicubically_and_its_own_grid_is_left_alone():
    model = dense_model(vit(size=64), HEADS["linear"])
    tower = model.tower
    assert isinstance(tower, VitTower)
    assert torch.equal(tower.position_table(4, 4), tower.positions)
    square = tower.positions.reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    expected = F.interpolate(square, size=(3, 5), mode="bicubic", align_corners=False)
    torch.testing.assert_close(tower.position_table(3, 5), expected.flatten(2).transpose(1, 2))


def test_the_towers_weights_are_copied_and_clips_parts_are_left_behind():
    source = mci(seed=3)
    before = {k: v.clone() for k, v in source.state_dict().items()}
    model = dense_model(source, HEADS["linear"])
    own = model.tower.state_dict()
    assert not any(k.startswith(("expand", "head")) for k in own)
    for key, value in own.items():
        assert torch.equal(value, before[f"image.{key}"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(v, before[k]) for k, v in source.state_dict().items())


def test_equal_seeds_give_equal_heads_on_different_towers():
    a, b = (dense_model(mci(seed=s), HEADS["semantic-fpn"], seed=7) for s in (0, 1))
    c = dense_model(mci(seed=0), HEADS["semantic-fpn"], seed=8)
    first, second, third = (m.head.state_dict() for m in (a, b, c))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["classifier.weight"], third["classifier.weight"])


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("tower", ["mci", "vit"])
@pytest.mark.parametrize("mode", ["all", "branches"])
def test_folding_after_tuning_changes_nothing(name, tower, mode):
    source = mci(**{"image.layer_scale": 0.5}) if tower == "mci" else vit()
    model = shaken(dense_model(source, HEADS[name])).eval()
    x = torch.randn(2, 3, 40, 36, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        folded = model.fold(mode)
        for key, value in model(x).items():
            assert float((folded(x)[key] - value).abs().max()) < 1e-4
    assert folded.is_folded
    with pytest.raises(ModelError, match="folded already"):
        folded.fold()
    with pytest.raises(ModelError, match="cannot be trained"):
        folded.train()


def test_fold_of_a_model_in_training_mode_is_refused():
    with pytest.raises(ModelError, match="training mode"):
        dense_model(mci(), HEADS["linear"]).train().fold()


def test_bad_input_a_folded_tower():
    with pytest.raises(ModelError, match="mci-nano is folded .* fine-tune the unfolded model"):
        dense_model(mci().eval().fold(), HEADS["linear"])


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("tower", ["mci", "vit"])
def test_save_and_load(tmp_path, folded, tower):
    source = mci() if tower == "mci" else vit()
    model = shaken(dense_model(source, HEADS["semantic-fpn"])).eval()
    model = model.fold() if folded else model
    path = save_dense(model, tmp_path / "m.safetensors", {"note": 1})
    again = load_dense(path)
    x = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        assert torch.equal(again(x)["logits"], model(x)["logits"])
    assert again.config == model.config
    assert again.is_folded == folded
    models.save(mci(), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="holds no dense model"):
        load_dense(tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="no such weights file"):
        load_dense(tmp_path / "none.safetensors")


def norms(model):
    return [m for m in model.tower.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_statistics_are_a_declared_choice():
    x = torch.randn(4, 3, 32, 32)
    frozen = dense_model(mci(), replace(HEADS["linear"], statistics="frozen")).train()
    assert not any(m.training for m in norms(frozen))
    assert all(m.weight.requires_grad for m in norms(frozen))
    assert frozen.neck.norms[0].training  # what the head adds learns its own
    before = [m.running_mean.clone() for m in norms(frozen)]
    frozen(x)
    assert all(torch.equal(m.running_mean, b) for m, b in zip(norms(frozen), before, strict=True))
    tuned = dense_model(mci(), HEADS["linear"]).train()
    tuned(x)
    assert not torch.equal(norms(tuned)[0].running_mean, before[0])
    sync = dense_model(mci(), replace(HEADS["linear"], statistics="sync"))
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms(sync))
    plain = dense_model(mci(), HEADS["linear"]).eval()
    with torch.no_grad():
        assert torch.equal(sync.eval()(x)["logits"], plain(x)["logits"])
        folded = sync.fold()
        assert float((folded(x)["logits"] - plain(x)["logits"]).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", ["batch", "layer", "none"])
def test_one_norm_for_each_tapped_map(kind):
    neck = Neck(mci().image, kind)
    names = {"batch": "BatchNorm2d", "layer": "ChannelLayerNorm", "none": "Identity"}
    assert [type(n).__name__ for n in neck.norms] == [names[kind]] * 4


def test_a_frozen_tower_gets_no_gradient_and_stays_in_eval_mode():
    model = dense_model(mci(), HEADS["semantic-fpn"]).freeze_tower().train()
    assert not any(m.training for m in model.tower.modules())
    model(torch.randn(2, 3, 32, 32))["logits"].sum().backward()
    assert all(p.grad is None for p in model.tower.parameters())
    assert all(p.grad is not None for p in model.head.parameters())


def test_learning_rates_fall_from_layer_to_layer():
    model = dense_model(vit(depth=6), HEADS["uper"])
    factors = model.layer_scales(0.5)
    assert factors.keys() == dict(model.named_parameters()).keys()
    assert factors["tower.class_token"] == 0.5**7
    assert factors["tower.positions"] == 0.5**7
    assert factors["tower.blocks.0.attention.qkv.weight"] == 0.5**6
    assert factors["tower.blocks.5.attention.qkv.weight"] == 0.5
    assert factors["head.classifier.weight"] == factors["neck.norms.0.weight"] == 1.0
    staged = dense_model(mci(), HEADS["uper"]).layer_scales(0.5)
    assert min(staged.values()) == 0.5**5  # the stem, below four stages
    assert {v for k, v in staged.items() if k.startswith("tower.stages.3.")} == {0.5}
    assert set(model.layer_scales(1.0).values()) == {1.0}


def test_semantic_fpn_is_its_description():
    """Written out for four maps: laterals, nearest sums, smoothing, blocks, bilinear enlarging."""
    torch.manual_seed(0)
    channels, side = (8, 16, 32, 64), 16
    head = shaken(SemanticFpn(channels, 5, 12, 6, 0.1)).eval()
    c = [torch.randn(2, ch, side >> i, side >> i) for i, ch in enumerate(channels)]
    pyramid, levels = head.fuse.pyramid, head.fuse.levels

    def up(x, mode="bilinear"):
        size = [2 * s for s in x.shape[-2:]]
        if mode == "nearest":
            return F.interpolate(x, size=size, mode="nearest")
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    with torch.no_grad():
        p4 = pyramid.laterals[3](c[3])
        p3 = pyramid.laterals[2](c[2]) + up(p4, "nearest")
        p2 = pyramid.laterals[1](c[1]) + up(p3, "nearest")
        p1 = pyramid.laterals[0](c[0]) + up(p2, "nearest")
        p1, p2, p3, p4 = (s(p) for s, p in zip(pyramid.smooth, (p1, p2, p3, p4), strict=True))
        s1, s2 = levels[0][0](p1), up(levels[1][0](p2))
        s3 = up(levels[2][2](up(levels[2][0](p3))))
        s4 = up(levels[3][4](up(levels[3][2](up(levels[3][0](p4))))))
        expected = head.classifier(s1 + s2 + s3 + s4)
        torch.testing.assert_close(head(c)["logits"], expected)
    assert [len(level) for level in levels] == [1, 2, 4, 6]


def test_published_sizes_of_heads():
    with torch.device("meta"):
        fpn = SemanticFpn((64, 128, 256, 512), 150, 256, 128, 0.1)
        uper = UperNet((768,) * 4, 150, 512, 256, 0.1)
    laterals = (64 + 128 + 256 + 512) * 256 + 4 * 256
    smooth = 4 * (256 * 256 * 9 + 256)
    blocks = 4 * (256 * 128 * 9 + 256) + 3 * (128 * 128 * 9 + 256)
    assert sum(p.numel() for p in fpn.parameters()) == laterals + smooth + blocks + 129 * 150
    assert [b.conv.conv.in_channels for b in uper.pooling.branches] == [768] * 4
    assert uper.pooling.join.conv.conv.in_channels == 768 + 4 * 512
    assert uper.fuse.conv.conv.in_channels == 4 * 512


def test_the_auxiliary_head_speaks_in_training_only():
    model = dense_model(mci(), HEADS["uper"])
    x = torch.randn(2, 3, 40, 40)
    assert model.train()(x)["aux"].shape == (2, 5, 40, 40)
    assert set(model.eval()(x)) == {"logits"}


def test_feature_pyramid_mixes_coarse_into_fine():
    torch.manual_seed(0)
    pyramid = FeaturePyramid((4, 4), 4).eval()
    fine, coarse = torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 2, 2)
    with torch.no_grad():
        base = pyramid([fine, coarse])
        coarse[..., 0, 0] = 1.0
        moved = pyramid([fine, coarse])
    changed = (moved[0] - base[0]).abs().sum(1)[0] > 1e-6
    assert bool(changed[:2, :2].all())
    assert not bool(changed[3, 3])


def test_bad_input_heads():
    for options, message in (
        ({"kind": "uperr"}, "Did you mean 'uper'"),
        ({"classes": ("a",)}, "at least two"),
        ({"task": "depth"}, "HeadConfig.kind for depth"),
        ({"width": 0}, "width and hidden"),
        ({"taps": (3, 1, 2, 4)}, "growing block numbers"),
        ({"statistics": "running"}, "HeadConfig.statistics"),
        ({"low": 2.0, "high": 1.0}, "0 < low < high"),
    ):
        with pytest.raises(ConfigError, match=message):
            HeadConfig(**{"classes": CLASSES, **options})
    with pytest.raises(ConfigError, match="there is no block 9"):
        dense_model(vit(depth=4), replace(HEADS["linear"], taps=(0, 1, 2, 9)))
    with pytest.raises(ModelError, match="gives no maps"):
        Neck(nn.Conv2d(3, 3, 1), "batch")


def test_bad_input_detection_without_torchvision(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    source = mci()
    monkeypatch.setattr("understudy.core.lazy.importlib.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"detection \(Mask R-CNN\) needs torchvision"):
        dense_model(source, HeadConfig(task="det", kind="mask-rcnn", classes=("a",)))


def test_a_meta_model_costs_no_memory():
    config = dense_model(mci(), HEADS["semantic-fpn"]).config
    with torch.device("meta"):
        assert next(DenseModel(config).parameters()).is_meta
