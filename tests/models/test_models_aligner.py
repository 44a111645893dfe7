"""Heads and aligners: pooled and token-level, padding, files, frozen towers, closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from understudy.core.errors import CardError, ConfigError, DataError, ModelError
from understudy.models.io import weights_hash
from understudy.models.multimodal import linear_align
from understudy.models.multimodal.aligner import (
    Aligner,
    AlignerConfig,
    Modality,
    count_parameters,
    load_aligner,
    save_aligner,
)
from understudy.models.multimodal.dual import AlignedTowers, check_frozen, freeze
from understudy.models.multimodal.heads import (
    FREEZE_ALIGN,
    IDENTITY,
    LINEAR,
    SHARELOCK,
    HeadConfig,
    apply_to_tokens,
    head_parameters,
    make_head,
)
from understudy.models.text.ngrams import (
    NgramConfig,
    NgramTokenizer,
    NgramTower,
    fit_lsa,
    tfidf,
    word_vocabulary,
)

HEADS = (
    IDENTITY,
    LINEAR,
    HeadConfig(kind="linear"),
    HeadConfig(depth=1),
    HeadConfig(depth=4, hidden=12),
    HeadConfig(depth=5, hidden=8, activation="relu", norm="batch", residual=True, bias=False),
    HeadConfig(depth=6, hidden=8, norm="none", dropout=0.1),
    HeadConfig(kind="sharelock", depth=4, hidden=16, dropout=0.2),
    FREEZE_ALIGN,
)
IMAGE, TEXT = torch.randn(6, 8), torch.randn(6, 5, 8)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0],
                     [1, 0, 1, 0, 1], [1, 1, 1, 1, 0]]).bool()  # fmt: skip


def aligner(image=IDENTITY, text=HEADS[4], placement="pooled", dim=8, seed=0) -> Aligner:
    return Aligner(
        AlignerConfig(
            dim=dim,
            modalities=(
                Modality(name="image", encoder="eye", in_dim=8, head=image),
                Modality(name="text", encoder="ear", in_dim=8, head=text, placement=placement),
            ),
        ),
        seed=seed,
    )


@pytest.mark.parametrize("placement", ["pooled", "tokens"])
@pytest.mark.parametrize("config", HEADS, ids=lambda c: f"{c.kind}-{c.depth}-{c.norm}")
def test_heads_map_to_the_shared_width_and_have_the_formulas_parameters(config, placement):
    head = make_head(config, 8, 8, placement)
    assert head(IMAGE).shape == (6, 8)
    assert sum(p.numel() for p in head.parameters()) == head_parameters(config, 8, 8, placement)


def test_the_papers_head_has_the_weights_that_77_percent_fewer_amounts_to():
    config = HeadConfig(depth=6, hidden=4096)
    weights = 2 * 1024 * 4096 + 4 * 4096**2
    assert head_parameters(config, 1024, 1024) == weights + 5 * 4096 * 3 + 1024
    assert 75.4e6 < weights < 75.6e6
    assert 1 - weights / 330e6 == pytest.approx(0.77, abs=0.005)
    assert SHARELOCK.hidden == 4096
    assert SHARELOCK.depth == 4


def test_block_order_is_linear_activation_norm_dropout():
    head = make_head(HeadConfig(depth=2, hidden=12, residual=True), 8, 8).eval()
    linear, norm, last = head[0].linear, head[0].norm, head[1]
    expected = last(F.layer_norm(F.gelu(linear(IMAGE)), (12,), norm.weight, norm.bias))
    assert torch.allclose(head(IMAGE), expected, atol=1e-6)


def test_residual_adds_the_input_where_widths_agree():
    head = make_head(HeadConfig(depth=2, hidden=8, residual=True), 8, 8).eval()
    plain = make_head(HeadConfig(depth=2, hidden=8), 8, 8).eval()
    plain.load_state_dict(head.state_dict())
    block, last = head[0], head[1]
    without = plain[0](IMAGE)
    assert torch.allclose(head(IMAGE), last(IMAGE + without), atol=1e-6)
    assert not torch.allclose(head(IMAGE), plain(IMAGE), atol=1e-3)
    assert block.residual
    assert not make_head(HeadConfig(depth=2, hidden=12, residual=True), 8, 8)[0].residual


def test_linear_head_on_tokens_equals_linear_head_on_their_mean():
    for config in (LINEAR, HeadConfig(kind="linear")):
        pooled = aligner(text=config)
        tokens = aligner(text=config, placement="tokens")
        tokens.load_state_dict(pooled.state_dict())
        a, b = pooled.encode("text", TEXT, MASK), tokens.encode("text", TEXT, MASK)
        assert torch.allclose(a, b, atol=1e-6)


def test_nonlinear_head_on_tokens_differs_from_the_head_on_their_mean():
    pooled, tokens = aligner(), aligner(placement="tokens")
    tokens.load_state_dict(pooled.state_dict())
    difference = pooled.encode("text", TEXT, MASK) - tokens.encode("text", TEXT, MASK)
    assert difference.abs().max() > 1e-2


@pytest.mark.parametrize("config", HEADS[1:8], ids=lambda c: f"{c.kind}-{c.depth}-{c.norm}")
def test_one_token_text_is_the_same_pooled_and_token_level(config):
    pooled, tokens = aligner(text=config).eval(), aligner(text=config, placement="tokens").eval()
    tokens.load_state_dict(pooled.state_dict())
    one = TEXT[:, :1]
    mask = torch.ones(6, 1, dtype=torch.bool)
    assert torch.equal(pooled.encode("text", one, mask), tokens.encode("text", one, mask))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("placement", ["pooled", "tokens"])
@pytest.mark.parametrize("norm", ["layer", "batch"])
@settings(max_examples=8, deadline=None)
@given(extra=st.integers(1, 4), fill=st.sampled_from([0.0, 1e3, math.nan]))
def test_padding_has_no_effect(extra, fill, norm, placement, training):
    head = HeadConfig(depth=3, hidden=8, norm=norm)
    model = aligner(text=head, placement=placement).train(training)
    padded = torch.cat([TEXT, torch.full((6, extra, 8), fill)], 1)
    mask = torch.cat([MASK, torch.zeros(6, extra, dtype=torch.bool)], 1)
    filled = padded.masked_fill(~mask[..., None], fill)
    assert torch.allclose(
        model.encode("text", TEXT, MASK), model.encode("text", filled, mask), atol=1e-6
    )


def test_all_valid_mask_equals_no_mask():
    model = aligner(placement="tokens").eval()
    every = torch.ones(6, 5, dtype=torch.bool)
    assert torch.allclose(model.encode("text", TEXT), model.encode("text", TEXT, every), atol=1e-6)


def test_outputs_are_unit_vectors_and_the_scale_is_clamped():
    model = aligner()
    out = model({"image": IMAGE, "text": TEXT}, {"text": MASK})
    for name in ("image_features", "text_features"):
        assert torch.allclose(out[name].norm(dim=1), torch.ones(6), atol=1e-6)
    assert float(out["logit_scale"].detach()) == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(1e4))
    assert float(model.scale().detach()) == pytest.approx(100.0)


def test_identity_heads_on_the_same_projection_find_every_pair():
    latent, map_ = torch.randn(50, 6), torch.randn(6, 8)
    out = aligner(text=IDENTITY)({"image": latent @ map_, "text": latent @ map_})
    found = (out["image_features"] @ out["text_features"].T).argmax(1)
    assert torch.equal(found, torch.arange(50))


def test_missing_rows_never_enter_a_head():
    model = aligner(text=HeadConfig(depth=3, hidden=8, norm="batch")).train()
    there = torch.tensor([1, 0, 1, 1, 0, 1]).bool()
    broken = TEXT.clone()
    broken[~there] = math.nan
    out = model({"text": broken}, {"text": MASK}, {"text": there})["text_features"]
    alone = model({"text": TEXT[there]}, {"text": MASK[there]})["text_features"]
    assert torch.allclose(out[there], alone, atol=1e-6)
    assert torch.equal(out[~there], torch.zeros(2, 8))


def test_file_brings_back_heads_scale_encoders_and_manifest(tmp_path):
    model = aligner(placement="tokens", text=SHARELOCK, seed=3).eval()
    with torch.no_grad():
        model.logit_scale.add_(0.3)
    path = save_aligner(model, tmp_path / "a.safetensors", {"seen_names": ["seven"]})
    again = load_aligner(path)
    assert again.config == model.config
    assert again.manifest == {"seen_names": ["seven"]}
    assert weights_hash(again) == weights_hash(model)
    assert torch.equal(again.encode("text", TEXT, MASK), model.encode("text", TEXT, MASK))
    assert not again.training


def test_parameters_are_counted_by_modality():
    model = aligner(image=LINEAR)
    counts = count_parameters(model.config)
    assert counts["image"] == 64
    assert counts["total"] == sum(p.numel() for p in model.parameters())


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = aligner(seed=1), aligner(seed=1), aligner(seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert weights_hash(first) == weights_hash(second) != weights_hash(other)


class Tower(nn.Module):
    """Batch normalisation and dropout: what moves in a tower that is only called frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))

    def forward(self, x):
        return self.net(x)


def test_frozen_tower_stays_frozen_whatever_train_is_called():
    tower = freeze(Tower())
    model = AlignedTowers(aligner(), {"image": tower}, frozen=("image",))
    before = weights_hash(tower), tower(IMAGE).clone()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert owned == {id(p) for p in model.aligner.parameters()}
    for _ in range(3):
        model.train()
        out = model({"image": IMAGE, "text": TEXT}, {"text": MASK})
        loss = -(out["image_features"] * out["text_features"]).sum()
        loss.backward()
        optimizer.step()
    assert weights_hash(tower) == before[0]
    assert torch.equal(tower(IMAGE), before[1])
    assert not tower.training


def test_tuned_tower_learns_beside_cached_features():
    tower = Tower()
    model = AlignedTowers(aligner(text=LINEAR), {"text": tower})
    out = model({"image": IMAGE, "text": IMAGE})
    out["text_features"].sum().backward()
    assert tower.net[0].weight.grad is not None
    assert torch.allclose(out["image_features"], F.normalize(IMAGE, dim=1))


# -- closed forms


def pairs(count=60, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((count, 8))
    return x, x @ draw.standard_normal((8, 5)) + 0.1 * draw.standard_normal((count, 5)) + 2.0


def test_ridge_solves_the_normal_equations():
    x, y = pairs()
    maps = linear_align.ridge(x, y, 0.1)
    a, b = x - x.mean(0), y - y.mean(0)
    direct = np.linalg.solve(a.T @ a + 0.1 * len(x) * np.eye(8), a.T @ b)
    assert np.allclose(maps.first, direct, atol=1e-9)
    assert np.allclose(maps.project(x, y)[0].mean(0), y.mean(0))


def test_procrustes_recovers_a_rotation():
    x, _ = pairs()
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    maps = linear_align.procrustes(x, x @ rotation + 3.0)
    first, second = maps.project(x, x @ rotation + 3.0)
    assert np.allclose(first, second, atol=1e-9)
    assert np.allclose(maps.first @ maps.second.T, rotation, atol=1e-9)


def test_cca_finds_unit_variance_directions_with_the_largest_correlations():
    x, y = pairs(400)
    maps = linear_align.cca(x, y, 3, l2=1e-9)
    first, second = maps.project(x, y)
    assert np.allclose(np.cov(first.T, bias=True), np.eye(3), atol=1e-4)
    correlations = [np.corrcoef(first[:, i], second[:, i])[0, 1] for i in range(3)]
    assert np.allclose(correlations, maps.strengths, atol=1e-4)
    assert maps.strengths[0] > 0.99
    assert abs(np.corrcoef(first[:, 0], second[:, 1])[0, 1]) < 1e-3


def test_closed_form_becomes_an_ordinary_aligner(tmp_path):
    x, y = pairs()
    maps = linear_align.ridge(x, y, 1e-3)
    sides = [Modality(name=n, encoder=n, in_dim=d) for n, d in (("image", 8), ("text", 5))]
    model = linear_align.to_aligner(maps, *sides)
    path = save_aligner(model, tmp_path / "ridge.safetensors")
    got = load_aligner(path).project("image", torch.from_numpy(x).float())
    assert torch.allclose(got, torch.from_numpy(maps.project(x, y)[0]).float(), atol=1e-5)


# -- n-gram text towers

CORPUS = ["a photo of the cat in ink", "a cat in oil", "the dog"] * 4 + [
    "an owl, in oil",
    "a dog",
] * 3


def test_lsa_table_holds_the_right_singular_vectors_of_tfidf():
    config = NgramConfig(kind="words", orders=(1, 2), vocabulary=word_vocabulary(CORPUS), grams=2)
    tower = fit_lsa(CORPUS, config, 4, whiten=0.0)
    dense = tfidf(NgramTokenizer(config), CORPUS)[0].to_dense()
    values, right = torch.linalg.svd(dense, full_matrices=False)[1:]
    scaled = tower.table.double() * values[0] / len(CORPUS) ** 0.5
    expected = right[:4].T
    assert torch.allclose(scaled.abs(), expected.abs(), atol=1e-5)
    tokens, mask = tower(NgramTokenizer(config)(CORPUS[:2]))
    pooled = tokens.sum(1) / mask.sum(1, keepdim=True)
    assert torch.allclose(pooled, (dense[:2] @ tower.table.double()).float(), atol=1e-5)


def test_unknown_words_share_an_id_where_there_is_one():
    words = {"kind": "words", "orders": (1, 1), "grams": 1}
    tokenizer = NgramTokenizer(NgramConfig(vocabulary=("<unk>", "cat"), **words))
    assert tokenizer.tokens("cat zebra") == [[2], [1]]
    assert NgramTokenizer(NgramConfig(vocabulary=("cat",), **words)).tokens("cat zebra") == [[1]]


def test_char_ngrams_are_stable_and_share_parts():
    config = NgramConfig(kind="chars", orders=(2, 4), buckets=997)
    tokenizer = NgramTokenizer(config)
    assert torch.equal(tokenizer(["Seven"]), NgramTokenizer(config)(["seven"]))
    seven, seventy = (set(tokenizer.tokens(w)[0]) for w in ("seven", "seventy"))
    assert seven & seventy
    assert tokenizer.truncated(["a " * 40, "short"]) == 1
    tokenizer(["a " * 40])
    assert tokenizer.num_truncated == 1


# -- bad input


def test_bad_input_training_mode_encoder():
    with pytest.raises(ModelError, match=r"'eye': .*training mode; .*freeze"):
        AlignedTowers(aligner(), {"image": Tower().requires_grad_(False)}, frozen=("image",))


def test_bad_input_encoder_with_gradients():
    with pytest.raises(ModelError, match=r"net.0.weight takes gradients"):
        check_frozen(Tower().eval(), "eye")


def test_bad_input_feature_width():
    with pytest.raises(DataError, match=r"encoder 'ear': 7 numbers, the head expects 8"):
        aligner().encode("text", torch.randn(2, 7))


def test_bad_input_tokens_missing():
    with pytest.raises(DataError, match=r"works on tokens .* got \[6, 8\]"):
        aligner(placement="tokens").encode("text", IMAGE)


def test_bad_input_other_checkpoint_and_preprocessing():
    side = Modality(name="image", encoder="eye", in_dim=8, encoder_hash="aa", preprocess_hash="bb")
    side.check_card("eye", "aa", "bb")
    with pytest.raises(CardError, match=r"checkpoint hash is 'xx', .* made for 'aa'"):
        side.check_card("eye", "xx", "bb")
    with pytest.raises(CardError, match=r"preprocess hash is 'yy', .* made for 'bb'"):
        side.check_card("eye", "aa", "yy")


@pytest.mark.parametrize("placement", ["pooled", "tokens"])
def test_bad_input_all_padding(placement):
    mask = MASK.clone()
    mask[4] = False
    with pytest.raises(DataError, match="batch position 4 is all padding"):
        aligner(placement=placement).encode("text", TEXT, mask)


def test_bad_input_identity_of_other_width():
    with pytest.raises(ModelError, match="8 numbers and the shared space 16"):
        aligner(dim=16, text=LINEAR)


def test_bad_input_tokenizer_of_another_tower():
    tower = NgramTower(NgramConfig(buckets=100), 8)
    other = NgramTokenizer(NgramConfig(buckets=200))
    with pytest.raises(ModelError, match=r"with 101 ids, got .* with 201"):
        tower.check_tokenizer(other)


def test_bad_input_text_without_a_known_word():
    config = NgramConfig(kind="words", vocabulary=("cat",), orders=(1, 1), grams=1)
    with pytest.raises(DataError, match="text 1: 'unicorn' has no word"):
        NgramTokenizer(config)(["cat", "unicorn"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "mpl"}, "HeadConfig.kind: 'mpl' is not one of"),
        ({"depth": 0}, "depth and hidden must be at least 1"),
        ({"dropout": 1.0}, r"rate in \[0, 1\), got 1.0"),
    ],
)
def test_bad_input_head_config(change, message):
    with pytest.raises(ConfigError, match=message):
        HeadConfig(**change)


def test_bad_input_modalities():
    side = Modality(name="image", encoder="eye", in_dim=8)
    with pytest.raises(ConfigError, match=r"two or more different names, got \['image', 'image'\]"):
        AlignerConfig(dim=8, modalities=(side, side))
    with pytest.raises(ConfigError, match="'image' is not a modality with a tower"):
        AlignedTowers(aligner(), {}, frozen=("image",))


def test_bad_input_aligner_files(tmp_path):
    from understudy import models

    with pytest.raises(DataError, match="no such aligner file"):
        load_aligner(tmp_path / "none.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match="not a safetensors file"):
        load_aligner(tmp_path / "x.safetensors")
    path = models.save(models.create("cnn-tiny", num_classes=2, seed=0), tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="not an aligner's file"):
        load_aligner(path)


def test_bad_input_closed_form_pairs():
    with pytest.raises(DataError, match="paired features"):
        linear_align.ridge(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(DataError, match="NaN"):
        linear_align.procrustes(np.full((3, 2), np.nan), np.ones((3, 2)))
    with pytest.raises(DataError, match="6 directions of sides with 8 and 5"):
        linear_align.cca(*pairs(), 6)


def test_apply_to_tokens_without_mask_is_the_mean_over_all():
    head = make_head(LINEAR, 8, 4)
    assert torch.allclose(apply_to_tokens(head, TEXT, None), head(TEXT).mean(1), atol=1e-6)
