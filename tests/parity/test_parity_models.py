"""Our towers against timm's and OpenCLIP's on equal, non-trivial weights."""

import gzip
import random
import sys
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from timm.utils.model import reparameterize_model

from understudy import models
from understudy.models.convert import load_openclip_state_dict, load_original, load_timm
from understudy.models.text.tokenizer import ClipTokenizer, Tokenizer

sys.path.append(str(Path(__file__).parents[1] / "models"))
from original_names import original_state

TOLERANCE = 1e-5


def shake(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give every statistic, gain and layer scale a random value: fresh ones hide mistakes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.copy_(uniform(part.running_mean, -0.3, 0.3))
                part.running_var.copy_(uniform(part.running_var, 0.5, 2.0))
            if isinstance(part, torch.nn.BatchNorm2d | torch.nn.LayerNorm):
                part.weight.copy_(uniform(part.weight, 0.5, 1.5))
                part.bias.copy_(uniform(part.bias, -0.3, 0.3))
            if isinstance(part, torch.nn.Linear | torch.nn.Conv2d) and part.bias is not None:
                part.bias.copy_(uniform(part.bias, -0.1, 0.1))
        for name, parameter in module.named_parameters():
            if "gamma" in name and "layer_scale" in name:
                parameter.copy_(uniform(parameter, 0.1, 0.5))
    return module.eval()


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize(("index", "size"), [(0, 256), (0, 192), (1, 128), (2, 128)])
def test_mci_equals_timm_folded_and_not(index, size):
    theirs = shake(timm.create_model(f"fastvit_mci{index}", num_classes=512), 10 + index)
    ours = load_timm(theirs.state_dict(), f"mci{index}")
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(images)
        assert expected.std() > 1e-2
        assert error(ours(images)["logits"], expected) < TOLERANCE
        for mode in ("branches", "all"):
            assert error(ours.fold(mode)(images)["logits"], expected) < TOLERANCE
        # timm's own folding, read as it is
        folded = reparameterize_model(theirs)
        again = load_timm(folded.state_dict(), f"mci{index}")
        assert again.fold_state == "branches"
        assert error(again(images)["logits"], expected) < TOLERANCE


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("MobileCLIP-S1", "mobileclip-s1"),
        ("MobileCLIP-S2", "mobileclip-s2"),
        ("MobileCLIP-B", "mobileclip-b"),
        ("MobileCLIP2-S0", "mobileclip2-s0"),
    ],
)
def test_clip_equals_openclip(theirs, ours):
    peer = shake(open_clip.create_model(theirs, pretrained=None), 3)
    tokenizer = ClipTokenizer(default_bpe())
    model = load_openclip_state_dict(peer.state_dict(), ours, tokenizer=tokenizer)
    texts = ["a photo of a cat", "two dogs, it's raining!", "x " * 100, ""]
    tokens = open_clip.get_tokenizer(theirs)(texts)
    assert torch.equal(model.tokenize(texts), tokens)
    assert model.tokenizer.num_truncated == 1
    size = model.preprocess.size
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = peer.encode_image(images, normalize=True)
        assert error(model.encode_image(images), expected) < TOLERANCE
        assert error(model.fold().encode_image(images), expected) < TOLERANCE
        expected = peer.encode_text(tokens, normalize=True)
        assert error(model.encode_text(tokens), expected) < TOLERANCE
        assert float(model.scale()) == pytest.approx(float(peer.logit_scale.exp()), rel=1e-6)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("MobileCLIP-S1", "mobileclip-s1"), ("MobileCLIP-B", "mobileclip-b")]
)
def test_original_checkpoint_equals_openclips_reading_of_it(theirs, ours):
    state = original_state(shake(models.create(ours, seed=0), 6))
    model = load_original(state, ours)
    peer = open_clip.create_model(theirs, pretrained=None)
    peer.load_state_dict(open_clip.convert.convert_state_dict(peer, dict(state)), strict=False)
    peer.eval()
    if ours == "mobileclip-b":
        # timm's tower lacks the original's padding and epsilon; give it both
        peer.visual.trunk.patch_embed.backbone[0].conv.padding = (1, 1)
        for part in peer.visual.trunk.modules():
            if isinstance(part, torch.nn.LayerNorm):
                part.eps = 1e-5
    size = model.preprocess.size
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    tokens = open_clip.get_tokenizer(theirs)(["a photo of a cat", "two dogs"])
    with torch.no_grad():
        expected = peer.encode_image(images, normalize=True)
        assert error(model.encode_image(images), expected) < TOLERANCE
        expected = peer.encode_text(tokens, normalize=True)
        assert error(model.encode_text(tokens), expected) < TOLERANCE


def odd_texts(count: int) -> list[str]:
    """Return texts of many scripts, spaces, digits, marks and entities."""
    pieces = [
        *"abcXYZ0189", "don't", "we'll", "I'VE", "HTML &amp;amp; &lt;b&gt;", "naïve", "Straße",
        "日本語", "한국어", "العربية", "हिन्दी", "ελληνικά", "Ünïcödé", "🙂", "👩‍👩‍👧", "½", "x²",
        "--", "...", "!!!", "#tag", "@me", "a_b", "\t", "\n", "\u00a0", "\u200b", "\u3000", "'s",
        "''d", "3.14", "1,000", "http://a.b/c?d=e", "<start_of_text>", "!<end_of_text>",
        "<END_OF_TEXT>", "schÃ¶n", "ﬁsh", "İstanbul", "e\u0301", "superfragilistic", "’s", "“q”",
    ]  # fmt: skip
    draw = random.Random(5)
    texts = ["", " ", "a", *pieces]
    while len(texts) < count:
        joint = draw.choice(["", " ", "  "])
        texts.append(joint.join(draw.choice(pieces) for _ in range(draw.randint(1, 40))))
    return texts


def test_tokenizer_equals_openclip(tmp_path):
    peer = SimpleTokenizer()
    ours = ClipTokenizer(default_bpe())
    assert ours.vocab_size == peer.vocab_size == 49408
    assert ours.end_id == 49407 == max(ours.start_id, ours.end_id, *ours.vocab.values())
    texts = odd_texts(600)
    expected = peer(texts)
    assert torch.equal(ours(texts), expected)
    assert ours.num_truncated == sum(len(peer.encode(t)) > 75 for t in texts) > 0
    assert torch.equal(Tokenizer.from_json(ours.to_json())(texts), expected)
    plain = tmp_path / "bpe.txt"
    with open(default_bpe(), "rb") as file:
        plain.write_bytes(gzip.decompress(file.read()))
    assert torch.equal(ClipTokenizer(plain)(texts), expected)
    assert ours.decode(ours("a photo of 2 cats")[0]) == "a photo of 2 cats"


def test_preprocessing_equals_torchvision():
    import numpy as np
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

    from understudy.models.preprocess import Preprocess, to_tensor

    rng = np.random.default_rng(0)
    for shape in ((300, 400), (333, 257), (64, 200), (256, 256), (101, 99)):
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        peer = Compose(
            [Resize(96, interpolation=InterpolationMode.BILINEAR), CenterCrop(96), ToTensor()]
        )
        assert torch.equal(to_tensor([image], Preprocess(size=96))[0], peer(Image.fromarray(image)))
