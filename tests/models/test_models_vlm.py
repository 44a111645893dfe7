"""Vision-language models: tokens, prefill and cache, padding, tiles, files, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from understudy import models
from understudy.models.fold import fold_module
from understudy.models.image.conv import ConvConfig
from understudy.models.image.vit_config import VitConfig
from understudy.models.language.decoder import Decoder, DecoderConfig
from understudy.models.language.options import GenerateConfig
from understudy.models.multimodal.anyres import best_pinpoint, tile, tiles_of
from understudy.models.multimodal.chat import encode_conversation, encode_prompt
from understudy.models.multimodal.splice import IGNORE, IMAGE
from understudy.models.multimodal.vision_tower import VisionTower, num_tokens
from understudy.models.multimodal.vlm_config import VLMConfig, square
from vlm_toys import TOWER, hosted, toy, toy_config, words

GREEDY = GenerateConfig(method="greedy", max_tokens=6)


def picture(seed=0, height=90, width=130):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# -- tokens


@pytest.mark.parametrize(
    ("size", "tokens"), [(256, 16), (512, 64), (768, 144), (1024, 256), (1536, 576)]
)
def test_the_resolution_is_the_token_budget(size, tokens):
    with torch.device("meta"):
        tower = VisionTower(size)
        found = tower.tokens(torch.empty(2, 3, size, size))
    assert found.shape == (2, tokens, 3072)
    assert tower.num_tokens == num_tokens(size, tower.config) == tokens


def test_the_tower_is_fastvithd():
    with torch.device("meta"):
        folded = fold_module(VisionTower(1024).eval(), "branches")
    assert sum(p.numel() for p in folded.parameters()) == 122_714_208


def test_tokens_are_the_maps_positions_row_by_row():
    tower = VisionTower(192, TOWER).eval()
    images = torch.rand(2, 3, 192, 192)
    with torch.no_grad():
        tokens, grid = tower.tokens(images), tower.tower.expanded_map(images)
    assert torch.equal(tokens[1, 5], grid[1, :, 1, 2])
    assert tokens.shape == (2, 9, 32)


def test_other_towers_and_pooling():
    vit = VisionTower(64, VitConfig(image_size=64, width=16, depth=1, num_heads=2, stem="patch"))
    assert vit.tokens(torch.rand(1, 3, 64, 64)).shape == (1, 16, 16)
    pooled = VisionTower(64, vit.config, pool=2)
    pooled.tower = vit.tower
    square_of_tokens = vit.tokens(torch.ones(1, 3, 64, 64))[0, [0, 1, 4, 5]].mean(0)
    found = pooled.tokens(torch.ones(1, 3, 64, 64))[0, 0]
    assert torch.allclose(found, square_of_tokens, atol=1e-6)
    conv = VisionTower(32, ConvConfig(channels=(4, 6), strides=(2, 2)))
    assert conv.tokens(torch.rand(1, 3, 32, 32)).shape == (1, 64, 6)


@pytest.mark.parametrize("features", ["average", "depthwise"])
def test_earlier_stages_come_along(features):
    tower = VisionTower(128, TOWER, features=features).eval()
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        tokens = tower.tokens(images)
        maps = tower.tower.stage_maps(images)
    assert tokens.shape == (1, 4, 32 + 4 + 4 + 8 + 16)
    assert tower.width == tokens.shape[-1]
    # a depthwise convolution begins as the mean, so both are the mean of their square
    assert torch.allclose(tokens[0, 0, :4], maps[0][0, :, :16, :16].mean((1, 2)), atol=1e-6)


def test_folding_changes_nothing():
    model = toy()
    folded = model.fold()
    pixels = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        expected, found = model.encode_images(pixels), folded.encode_images(pixels)
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5
    folded.train()  # as released: fine-tuning trains folded kernels
    assert folded.is_folded


# -- language


def test_prefill_with_a_cache_is_the_full_forward_pass():
    model = toy()
    ids = [torch.tensor([3, IMAGE, 4, 5, 6, 7]), torch.tensor([5, 8, 9])]
    pixels = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        full = model(ids, pixels)
        for padding in ("right", "left"):
            model.config = replace(model.config, padding=padding)
            logits, cache = model.prefill(model.splice([r[:-2] for r in ids], pixels))
            steps = [logits]
            for place in (-2, -1):
                tokens = torch.stack([r[place] for r in ids])[:, None]
                logits, cache = model.step(tokens, cache)
                steps.append(logits)
            for row in range(2):
                end = int(full["valid"][row].sum())
                expected = full["logits"][row, end - 3 : end]
                found = torch.stack([s[row] for s in steps])
                assert torch.allclose(found, expected, atol=1e-4)


def test_greedy_answers_do_not_depend_on_padding():
    model = toy()
    images, prompts = [picture(0), None, [picture(1), picture(2)]], [
        "which digit is at the top left?", "how many", "<image> 3 <image> is the largest 5 6 7?"
    ]  # fmt: skip
    alone = [model.generate(i, p, GREEDY) for i, p in zip(images, prompts, strict=True)]
    assert len(set(alone)) > 1
    for padding in ("right", "left"):
        model.config = replace(model.config, padding=padding)
        assert model.generate(images, prompts, GREEDY) == alone


def test_padding_tokens_of_the_decoder_change_nothing():
    decoder = Decoder(DecoderConfig(vocab_size=11, width=16, depth=2, num_heads=2)).eval()
    ids = torch.tensor([[1, 2, 3]])
    plain = decoder(decoder.embed(ids))
    padded = torch.cat([torch.randn(1, 2, 16), decoder.embed(ids)], 1)
    valid = torch.tensor([[False, False, True, True, True]])
    positions = torch.tensor([[0, 0, 0, 1, 2]])
    found = decoder(padded, valid, positions)
    assert torch.isfinite(found).all()
    assert torch.allclose(found[:, 2:], plain, atol=1e-5)


def test_a_transformers_language_model():
    model = toy(language=hosted())
    ids = [torch.tensor([3, IMAGE, 4, 5]), torch.tensor([5, 8, 9])]
    pixels = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        full = model(ids, pixels)
        logits, cache = model.prefill(model.splice([r[:-1] for r in ids], pixels))
        after, _ = model.step(torch.stack([r[-1] for r in ids])[:, None], cache)
        for row in range(2):
            end = int(full["valid"][row].sum())
            assert torch.allclose(logits[row], full["logits"][row, end - 2], atol=1e-4)
            assert torch.allclose(after[row], full["logits"][row, end - 1], atol=1e-4)
    both = model.generate([picture(0), None], ["which digit", "how many 3 4 5"], GREEDY)
    assert both[0] == model.generate(picture(0), "which digit", GREEDY)
    assert both[1] == model.generate(None, "how many 3 4 5", GREEDY)


def test_one_file_holds_a_model_with_its_language_model(tmp_path):
    for language in (toy_config().language, hosted()):
        model = toy(language=language, pinpoints=((256, 256),))
        path = models.save(model, tmp_path / "m.safetensors")
        again = models.load(path)
        assert again.config == model.config
        assert again.tokenizer.fingerprint() == model.tokenizer.fingerprint()
        ids, pixels = [torch.tensor([3, IMAGE, 4])], torch.rand(1, 3, 128, 128)
        with torch.no_grad():
            assert torch.equal(again(ids, pixels)["logits"], model(ids, pixels)["logits"])
    # tied tables stay one table, so that training keeps them equal
    lm = again.language.model
    assert lm.get_input_embeddings().weight is lm.get_output_embeddings().weight


# -- conversations


def test_only_the_assistant_is_learned():
    coder = words()
    turns = [
        {"from": "human", "value": "<image>\nwhich digit?"},
        {"from": "gpt", "value": "7"},
        {"from": "human", "value": "how many?"},
        {"from": "gpt", "value": "2 3"},
    ]
    ids, labels = encode_conversation(turns, coder, "words", 1, "x")
    seven, two, three = (coder.encode(w)[0] for w in "723")
    assert ids[:2] == [coder.start_id, IMAGE]
    learned = [t for t in labels if t != IGNORE]
    assert learned == [seven, coder.end_id, two, three, coder.end_id]
    assert all(label in (IGNORE, token) for token, label in zip(ids, labels, strict=True))
    plain, _ = encode_conversation(turns[:2], coder, "plain", 1, "x")
    assert plain == [IMAGE, seven, coder.end_id]
    assert encode_prompt("which digit?", coder, "words", 1)[:2] == [coder.start_id, IMAGE]


class Letters:
    """A tokenizer whose ids are letters: what a template writes can be read."""

    end_id = 0

    def encode(self, text):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(chr(i) if i > 0 else "[image]" for i in ids)


def test_the_qwen2_template():
    turns = [{"from": "human", "value": "<image>\nwhat {is} it?"}, {"from": "gpt", "value": "cat"}]
    ids, labels = encode_conversation(turns, Letters(), "qwen2", 1, "x")
    assert Letters().decode(ids) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n[image]\nwhat {is} it?<|im_end|>\n<|im_start|>assistant\ncat<|im_end|>\n"
    )
    assert Letters().decode(t for t in labels if t != IGNORE) == "cat<|im_end|>"
    assert (
        Letters()
        .decode(encode_prompt("why?", Letters(), "qwen2", 2))
        .endswith("<|im_start|>user\n[image][image]\nwhy?<|im_end|>\n<|im_start|>assistant\n")
    )


# -- tiles


def test_tiles_of_a_large_image():
    preprocess = square(128)
    image = np.zeros((256, 256, 3), np.uint8)
    image[:128, 128:] = 200
    found = tile(image, [(256, 256)], preprocess)
    assert len(found) == tiles_of((256, 256), 128) == 5
    assert [int(t.mean()) for t in found[1:]] == [0, 200, 0, 0]
    assert found[0].shape == (128, 128, 3)
    assert best_pinpoint(100, 400, [(256, 256), (512, 128)]) == (512, 128)
    model = toy(pinpoints=((256, 256),))
    pixels = model.views(picture(0, 200, 300))
    assert pixels.shape == (5, 3, 128, 128)
    assert [len(f) for f in model.image_features(pixels, [5])] == [5 * 4]
    assert model.config.most_tokens == 20
    assert isinstance(model.generate(picture(0), "which digit", GREEDY), str)
    with torch.device("meta"):
        full = VLMConfig(
            name="x", image=models.config("fastvithd").image, language=DecoderConfig(),
            preprocess=square(1024), pinpoints=((2048, 2048),),
        )  # fmt: skip
    assert full.most_tokens == 1280


@pytest.mark.parametrize(("height", "width"), [(1, 1000), (1000, 1), (3, 3)])
def test_extreme_shapes_are_padded_not_cut(height, width):
    model = toy()
    image = np.full((height, width, 3), 255, np.uint8)
    pixels = model.views(image)
    assert pixels.shape == (1, 3, 128, 128)
    assert pixels.max() > 0.05  # something of the picture is left
    assert toy(pinpoints=((256, 256),)).views(image).shape[0] == 5
