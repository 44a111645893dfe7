"""The captioner: masks, cached generation, folding, files, sizes."""

import pytest
import torch

from understudy import models
from understudy.core.errors import ConfigError
from understudy.models.language.generate import GenerateConfig, generate
from understudy.models.multimodal.coca import CoCaConfig
from understudy.models.multimodal.coca_layers import grid_positions
from understudy.models.text.train_tokenizer import train_words

WORDS = ["a red disc", "a blue box left of a green bar", "some grey things"]


@pytest.fixture(scope="module")
def captioner():
    tokenizer = train_words(WORDS, 64, context_length=12)
    model = models.create("coca-nano", seed=0, tokenizer=tokenizer, **{"text.context_length": 12})
    with torch.no_grad():
        model.decoder.head.weight.mul_(30)  # fresh weights prefer nothing
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def test_outputs_and_their_shapes(captioner, images):
    texts = captioner.tokenize(WORDS)
    out = captioner(images=images, texts=texts)
    vocabulary = captioner.config.text.vocab_size
    assert out["caption_logits"].shape == (3, 11, vocabulary)
    for key in ("image_features", "text_features"):
        assert out[key].shape == (3, 64)
        assert torch.allclose(out[key].norm(dim=-1), torch.ones(3), atol=1e-5)
    assert torch.allclose(out["image_features"], captioner.encode_image(images))
    assert torch.allclose(out["text_features"], captioner.encode_text(texts))
    assert set(captioner(texts=texts)) == {"logit_scale", "text_features"}


def test_a_word_depends_on_earlier_words_and_the_image_alone(captioner, images):
    texts = captioner.tokenize(WORDS)
    changed = texts.clone()
    changed[:, 3:] = captioner.tokenize(["some green disc left of a box"] * 3)[:, 3:]
    with torch.no_grad():
        first = captioner(images=images, texts=texts)["caption_logits"]
        second = captioner(images=images, texts=changed)["caption_logits"]
        other = captioner(images=images.flip(0), texts=texts)["caption_logits"]
    assert torch.allclose(first[:, :3], second[:, :3], atol=1e-5)
    assert not torch.allclose(first[:, 3:], second[:, 3:], atol=1e-2)
    assert not torch.allclose(first[0], other[0], atol=1e-2)


def test_padding_changes_no_embedding(captioner):
    texts = captioner.tokenize(WORDS)
    garbage = texts.clone()
    ends = texts.argmax(-1)
    for row, end in zip(garbage, ends.tolist(), strict=True):
        row[end + 1 :] = 5
    with torch.no_grad():
        assert torch.allclose(
            captioner.encode_text(texts), captioner.encode_text(garbage), atol=1e-6
        )


def test_the_shifted_mask_of_released_weights_sees_one_place_more(captioner):
    texts = captioner.tokenize(WORDS)
    encoder = captioner.text
    size = texts.shape[1] + 1
    for legacy in (False, True):
        encoder.legacy = legacy
        mask = encoder._mask(texts)[:, 0]
        encoder.legacy = False
        assert mask.shape == (3, size, size)
        for row, end in zip(mask, texts.argmax(-1).tolist(), strict=True):
            seen = row[-1].nonzero()[:, 0].tolist()
            if legacy:
                assert seen == list(range(end + 2))
            else:
                assert seen == [*range(end + 1), size - 1]


def test_cached_writing_equals_reading_whole_texts(captioner, images):
    def whole(tokens, cache):
        ids = torch.cat([cache, tokens], dim=1)
        padded = torch.nn.functional.pad(ids, (0, 1))
        out = captioner(images=images.repeat_interleave(2, 0), texts=padded)
        return out["caption_logits"][:, ids.shape[1] - 1], ids

    config = GenerateConfig(max_tokens=9, end_ids=(captioner.end_id,))
    seeds = list(range(6))
    with torch.no_grad():
        start = torch.full((6, 1), captioner.start_id)
        slow = generate(whole, whole(start, start[:, :0]), config, seeds=seeds)
        fast = generate(captioner.step, captioner.begin_captions(images, 2), config, seeds=seeds)
    assert fast.rows() == slow.rows()
    assert torch.allclose(fast.scores, slow.scores, atol=1e-3)
    assert len({tuple(row) for row in fast.rows()}) > 3


def test_beams_share_an_image(captioner, images):
    config = GenerateConfig(method="beam", beams=3, max_tokens=8, end_ids=(captioner.end_id,))
    with torch.no_grad():
        found = generate(
            captioner.step, captioner.begin_captions(images), config, num_returns=2
        ).rows()
        single = generate(
            captioner.step, captioner.begin_captions(images[1:2]), config, num_returns=2
        ).rows()
    assert found[2:4] == single


def test_the_folded_form_is_equal(captioner, images):
    with torch.no_grad():
        for module in captioner.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 2.0)
        texts = captioner.tokenize(WORDS)
        expected = captioner(images=images, texts=texts)
        folded = captioner.fold()
        found = folded(images=images, texts=texts)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    for key, value in expected.items():
        assert torch.allclose(found[key], value, atol=1e-4 * float(value.abs().max()))


def test_a_captioner_comes_back_from_its_file(captioner, images, tmp_path):
    path = models.save(captioner, tmp_path / "c.safetensors", {"note": 1})
    again = models.load(path)
    assert again.config == captioner.config
    assert again.tokenizer.fingerprint() == captioner.tokenizer.fingerprint()
    with torch.no_grad():
        assert torch.equal(again.encode_image(images), captioner.encode_image(images))
    assert models.config_of(path)["config"]["kind"] == "coca"


def test_every_tower_can_be_read(images):
    for image in (
        {"kind": "mci", "image_size": 48, "channels": [8, 16, 32, 64], "blocks": [1, 1, 1, 1]},
        {"kind": "vit", "image_size": 48, "width": 32, "depth": 1, "num_heads": 2},
    ):
        model = models.create("coca-nano", seed=0, image=image)
        texts = torch.tensor([[510, 3, 511] + [0] * 21]).expand(3, -1)
        out = model(images=images, texts=texts)
        assert out["caption_logits"].shape == (3, 23, 512)
        out["caption_logits"].sum().backward()
        idle = [
            n for n, p in model.named_parameters()
            if p.grad is None and not n.startswith(("head", "text.norm", "text.head"))
            and n not in ("logit_scale",)
        ]  # fmt: skip
        assert idle == []


def test_positions_tell_places_apart():
    table = grid_positions(4, 6, 10)
    assert table.shape == (24, 10)
    assert len({tuple(row) for row in table.tolist()}) == 24
    assert (table[:, 8:] == 0).all()


def test_bad_input_captioner():
    config = models.config("coca-nano")
    with pytest.raises(ConfigError, match="a captioner reads causally"):
        models.config("coca-nano", **{"text.causal": False})
    with pytest.raises(ConfigError, match="pool_heads: 5 does not divide"):
        models.config("coca-nano", pool_heads=5)
    with pytest.raises(ConfigError, match="num_queries: expected at least 2"):
        models.config("coca-nano", num_queries=1)
    assert isinstance(config, CoCaConfig)
