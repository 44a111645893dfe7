"""The frozen-feature cache: cards, tokens, refusals, resuming; cached equals uncached."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from understudy.core.errors import CardError, ConfigError, DataError, ModelError
from understudy.data.features import FeatureBatches, Side, read_features
from understudy.data.samplers import ShuffledSampler
from understudy.data.scenes.pack import pngs
from understudy.data.store import Store
from understudy.models.image.conv import ConvConfig, ConvTower
from understudy.models.io import weights_hash
from understudy.models.multimodal.aligner import Aligner, AlignerConfig, Modality
from understudy.models.multimodal.dual import AlignedTowers
from understudy.models.multimodal.heads import HeadConfig
from understudy.models.preprocess import Preprocess
from understudy.models.text.ngrams import NgramConfig, NgramTower
from understudy.reinforce.encoder_specs import make_encoder, parse_encoder
from understudy.reinforce.encoders import (
    FunctionEncoder,
    ModuleEncoder,
    NgramEncoder,
    RandomConvEncoder,
    TeacherEncoder,
)
from understudy.reinforce.features import (
    Encoder,
    FeatureWarning,
    cache_features,
    preprocess_hash,
)
from understudy.reinforce.teachers.function import FunctionTeacher
from understudy.train.align import AlignStep

COUNT = 24
PIXELS = Preprocess(size=8)
WORDS = ("cat", "dog", "owl", "red fox", "old blue whale")


def images(count=COUNT, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)


def texts(count=COUNT):
    return [f"a photo of the {WORDS[i % 5]}" for i in range(count)]


@pytest.fixture
def store(tmp_path):
    rows = {"id": [f"s{i}" for i in range(COUNT)], "image": pngs(images()), "text": texts()}
    return Store.create(tmp_path / "store", [rows])


def conv(seed=0, **options):
    torch.manual_seed(seed)
    tower = ConvTower(ConvConfig(image_size=8, channels=(6, 8), strides=(2, 2)), 0)
    return ModuleEncoder("eye", tower, options.pop("preprocess", PIXELS), **options)


def ngrams(seed=0, length=6):
    config = NgramConfig(orders=(1, 3), buckets=300, context_length=length)
    return NgramEncoder("ear", NgramTower(config, 5, seed))


def function(change=lambda x: x, dim=3, name="fn"):
    def encode(batch):
        values = np.stack([np.full(dim, 1.0 + len(text)) for text in batch])
        return change(values)

    return FunctionEncoder(name, encode, dim, "v1")


def test_adapters_follow_the_protocol():
    for encoder in (conv(), ngrams(), function(), RandomConvEncoder("r", images(), 4, filters=8)):
        assert isinstance(encoder, Encoder)


def test_cache_holds_what_the_encoder_says_with_a_card(store):
    encoder = conv(grid=True)
    report = cache_features(store, encoder, "image", batch_size=5, unit_rows=7)
    pooled, tokens, mask = encoder.encode(images())
    got = read_features(store, "eye", "image")
    assert got.values.dtype == np.float16
    assert (got.values == pooled.astype(np.float16)).all()
    assert got.encoder_hash == encoder.hash
    assert got.preprocess_hash == preprocess_hash(encoder)
    cached = read_features(store, "eye", "image", tokens=True)
    assert (cached.values == tokens.astype(np.float16)).all()
    assert (cached.mask == mask).all()
    card = store.card("feature.eye.image.tokens")
    assert card.config["shape"] == list(tokens.shape[1:])
    assert card.config["dtype"] == "float16"
    assert (report.rows, report.written) == (COUNT, COUNT)
    assert report.num_bytes == COUNT * (8 * 2 * (1 + tokens.shape[1]) + tokens.shape[1])


def test_bad_input_cache_of_another_column(tmp_path):
    rows = {"id": ["a", "b"], "text": ["a cat", "a dog"], "alt": ["cat", "dog"]}
    store = Store.create(tmp_path / "other", [rows])
    cache_features(store, ngrams(), "text")
    with pytest.raises(CardError, match=r"differs in config.source: .* 'alt'"):
        cache_features(store, ngrams(), "text", column="alt")
    cache_features(store, ngrams(), "text", column="alt", overwrite=True)
    assert store.card("feature.ear.text").config["source"] == "alt"


def test_text_cache_pads_with_zeros_and_masks(store):
    cache_features(store, ngrams(), "text")
    side = read_features(store, "ear", "text", tokens=True)
    assert side.values.shape == (COUNT, 6, 5)
    assert side.mask.sum(1).tolist() == [min(len(t.split()), 6) for t in texts()]
    assert (side.values[~side.mask] == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_storage_types_keep_their_precision(store, dtype):
    cache_features(store, conv(), "image", dtype=dtype)
    exact = conv().encode(images())[0]
    got = read_features(store, "eye", "image").values.astype(np.float32)
    tolerance = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 1e-6}[dtype]
    assert np.allclose(got, exact, rtol=tolerance, atol=1e-5)


def test_a_second_call_computes_nothing_and_a_killed_one_goes_on(store):
    calls = []

    class Dies(FunctionEncoder):
        def encode(self, batch):
            calls.append(len(batch))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return super().encode(batch)

    plain = function()
    dying = Dies("fn", plain.function, 3, "v1")
    with pytest.raises(KeyboardInterrupt):
        cache_features(store, dying, "text", unit_rows=8, batch_size=8)
    first = cache_features(store, plain, "text", unit_rows=8, batch_size=8)
    assert (first.rows, first.written) == (COUNT, 8)
    assert cache_features(store, plain, "text").written == 0


def test_empty_captions_are_left_out_and_counted(tmp_path):
    captions = [*texts(4), "", "  "]
    store = Store.create(tmp_path / "s", [{"id": list("abcdef"), "text": captions}])
    report = cache_features(store, ngrams(length=5), "text")
    assert (report.rows, report.empty, report.truncated) == (
        4,
        2,
        1 if len(WORDS[3].split()) else 0,
    )
    assert store.filled("feature.ear.text").tolist() == [True] * 4 + [False] * 2
    assert store.card("feature.ear.text").facts["empty"] == 2


def test_truncated_captions_are_counted(store):
    report = cache_features(store, ngrams(length=5), "text")
    assert report.truncated == sum(len(t.split()) > 5 for t in texts()) > 0
    assert store.card("feature.ear.text").facts["truncated"] == report.truncated


def test_any_modality_can_be_cached(tmp_path):
    import pyarrow as pa

    waves = np.random.default_rng(0).standard_normal((6, 16)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(waves.reshape(-1)), 16)
    table = pa.table({"id": list("abcdef"), "wave": column})
    store = Store.create(tmp_path / "s", [table])
    spectrum = FunctionEncoder("fft", lambda x: np.abs(np.fft.rfft(x)), 9, "1")
    cache_features(store, spectrum, "ecg", column="wave", dtype="float32")
    got = read_features(store, "fft", "ecg").values
    assert np.allclose(got, np.abs(np.fft.rfft(waves)), rtol=1e-5)


def test_encoders_are_bit_identical_after_caching_and_training(store, tmp_path):
    eye, ear = conv(), ngrams()
    before = weights_hash(eye.module), weights_hash(ear.module), eye.encode(images())[0]
    cache_features(store, eye, "image")
    cache_features(store, ear, "text")
    model = aligner()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for batch in cached_batches(store)(0, 3):
        loss = AlignStep()(model, batch)["loss"]
        loss.backward()
        optimizer.step()
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for module in (eye.module, ear.module):
        assert not any(p.requires_grad or id(p) in owned for p in module.parameters())
        assert not any(part.training for part in module.modules())
    assert (weights_hash(eye.module), weights_hash(ear.module)) == before[:2]
    assert (eye.encode(images())[0] == before[2]).all()


def aligner():
    head = HeadConfig(depth=3, hidden=16)
    sides = (
        Modality(name="image", encoder="eye", in_dim=8, head=head),
        Modality(name="text", encoder="ear", in_dim=5, head=head, placement="tokens"),
    )
    return Aligner(AlignerConfig(dim=12, modalities=sides), seed=0)


def cached_batches(store):
    sides = {
        "image": read_features(store, "eye", "image"),
        "text": read_features(store, "ear", "text", tokens=True),
    }
    return FeatureBatches(sides, ShuffledSampler(COUNT, 12, 0))


def test_cached_and_uncached_training_give_the_same_loss(store):
    eye, ear = conv(), ngrams()
    cache_features(store, eye, "image")
    cache_features(store, ear, "text")
    rows = np.arange(COUNT)
    raw = {
        "image": Side(rows=rows, values=eye.inputs(images()).numpy()),
        "text": Side(rows=rows, values=ear.inputs(texts()).numpy()),
    }
    towers = {"image": eye.module, "text": ear.module}
    live = AlignedTowers(aligner(), towers, frozen=("image", "text"))
    plain = aligner()
    uncached = FeatureBatches(raw, ShuffledSampler(COUNT, 12, 0))
    losses = []
    for model, batches in ((plain, cached_batches(store)), (live, uncached)):
        model.train()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        found = []
        for batch in batches(0, 6):
            loss = AlignStep()(model, batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(float(loss.detach()))
        losses.append(found)
    assert np.allclose(*losses, rtol=5e-3)
    assert losses[0][-1] < losses[0][0]


# -- specifications


def test_lines_describe_encoders():
    spec, tokens = parse_encoder("lite=efficientnet-lite:lite0@/x/y.pth?size=128&compute=bfloat16")
    assert (spec.name, spec.kind, spec.model, spec.path) == (
        "lite",
        "efficientnet-lite",
        "lite0",
        "/x/y.pth",
    )
    assert spec.options == {"size": 128, "compute": "bfloat16"}
    assert tokens == 0
    spec, tokens = parse_encoder("sentence@/m/all-MiniLM-L6-v2?tokens=16")
    assert (spec.name, tokens, spec.options) == ("sentence", 16, {})
    assert parse_encoder("timm:vit_small_patch16")[0].name == "vit_small_patch16"


def test_fitted_kinds_need_no_download():
    words = make_encoder("words=tfidf-svd?dim=4", "text", texts)
    assert (words.name, words.dim, words.tokens) == ("words", 4, True)
    assert words.hash == make_encoder("words=tfidf-svd?dim=4", "text", texts).hash
    eye = make_encoder("random-conv?dim=4&filters=8&size=8", "image", lambda: images(30))
    assert eye.encode(images(2))[0].shape == (2, 4)
    assert make_encoder("char-ngrams?dim=8", "text", texts).dim == 8


def test_teachers_are_encoders():
    teacher = FunctionTeacher(
        "toy",
        {"embed_texts": lambda t: np.stack([np.arange(1.0, 5.0) * len(x) for x in t])},
        version="1",
    )
    encoder = TeacherEncoder(teacher, "text")
    assert (encoder.dim, encoder.hash) == (4, teacher.fingerprint)
    pooled, tokens, _ = encoder.encode(["ab"])
    assert pooled[0].tolist() == [2.0, 4.0, 6.0, 8.0]
    assert tokens is None
    with pytest.raises(ConfigError, match="'toy' gives no text tokens"):
        TeacherEncoder(teacher, "text", 8)


# -- bad input


def test_bad_input_cache_of_another_checkpoint(store):
    cache_features(store, conv(), "image")
    other = conv(seed=1)
    with pytest.raises(CardError, match=f"checkpoint hash '{conv().hash}', .* has '{other.hash}'"):
        cache_features(store, other, "image")
    with pytest.raises(CardError, match=f"checkpoint hash '{conv().hash}', .* has '{other.hash}'"):
        read_features(store, "eye", "image", encoder_hash=other.hash)
    assert cache_features(store, other, "image", overwrite=True).written == COUNT
    read_features(store, "eye", "image", encoder_hash=other.hash)


def test_bad_input_cache_of_another_preprocessing(store):
    cache_features(store, conv(), "image")
    other = conv(preprocess=Preprocess(size=8, mean=(0.5, 0.5, 0.5)))
    assert other.hash == conv().hash
    hashes = preprocess_hash(conv()), preprocess_hash(other)
    with pytest.raises(CardError, match=f"preprocess hash '{hashes[0]}', .* has '{hashes[1]}'"):
        cache_features(store, other, "image")


def test_bad_input_encoder_in_training_mode_or_with_gradients(store):
    encoder = conv()
    encoder.module.train()
    with pytest.raises(ModelError, match="encoder 'eye': the module is in training mode"):
        cache_features(store, encoder, "image")
    encoder.module.eval().requires_grad_(True)
    with pytest.raises(ModelError, match="takes gradients"):
        cache_features(store, encoder, "image")


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "row 3 are NaN or infinity"), (0.0, "row 3 are a zero vector")]
)
def test_bad_input_nan_and_zero_features(store, value, message):
    def spoil(values):
        values[3] = value
        return values

    with pytest.raises(DataError, match=message):
        cache_features(store, function(spoil), "text")
    assert not store.has("feature.fn.text")


def test_bad_input_features_near_float16s_range(store):
    with pytest.warns(FeatureWarning, match=r"length .* \(above 10000\) are close to float16"):
        cache_features(store, function(lambda v: v * 800), "text")
    with pytest.raises(DataError, match="beyond float16's range"), pytest.warns(FeatureWarning):
        cache_features(store, function(lambda v: v * 1e5, name="huge"), "text")
    cache_features(store, function(lambda v: v * 1e5, name="wide"), "text", dtype="bfloat16")


def test_bad_input_shapes_tokens_and_padding(store):
    with pytest.raises(DataError, match=r"shape \[24, 2\], expected \[24, 3\]"):
        cache_features(store, function(lambda v: v[:, :2]), "text")
    liar = FunctionEncoder("fn", lambda b: np.ones((len(b), 3)), 3, "1", tokens=True)
    with pytest.raises(DataError, match="'fn' has no tokens"):
        cache_features(store, liar, "text")

    def padded(batch):
        mask = np.ones((len(batch), 2), bool)
        mask[len(batch) // 2] = False
        return np.ones((len(batch), 3)), np.ones((len(batch), 2, 3)), mask

    empty = FunctionEncoder("pad", padded, 3, "1", tokens=True)
    with pytest.raises(DataError, match="row 12 is all padding"):
        cache_features(store, empty, "text")


def test_bad_input_nothing_cached(store):
    with pytest.raises(DataError, match="no features of encoder 'eye' for modality 'image'"):
        read_features(store, "eye", "image")
    cache_features(store, conv(), "image")
    with pytest.raises(DataError, match="no token features of encoder 'eye'"):
        read_features(store, "eye", "image", tokens=True)


def test_bad_input_specifications():
    with pytest.raises(ConfigError, match="expected NAME=KIND"):
        parse_encoder("@@")
    with pytest.raises(ConfigError, match="kind tfidf-svd is not for images"):
        make_encoder("tfidf-svd", "image", images)
    with pytest.raises(ConfigError, match="unknown key 'dims'"):
        make_encoder("tfidf-svd?dims=4", "text", texts)
    with pytest.raises(ConfigError, match="50 components of 24 images"):
        make_encoder("random-conv?dim=50&size=8", "image", images)


def test_gradients_never_reach_a_frozen_tower():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8), requires_grad=False)

        def forward(self, x):
            assert not torch.is_grad_enabled()
            return x * self.weight

    head = HeadConfig(depth=2, hidden=4)
    sides = (
        Modality(name="image", encoder="eye", in_dim=8, head=head),
        Modality(name="text", encoder="ear", in_dim=8, head=head),
    )
    model = Aligner(AlignerConfig(dim=4, modalities=sides), seed=0)
    towers = AlignedTowers(model, {"image": Counts().eval()}, frozen=("image",))
    towers({"image": torch.randn(3, 8), "text": torch.randn(3, 8)})[
        "image_features"
    ].sum().backward()
    assert model.heads["image"][0].linear.weight.grad is not None
