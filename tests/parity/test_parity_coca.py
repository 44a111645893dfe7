"""Our captioner against OpenCLIP's on equal weights, and its count at full size."""

import open_clip
import pytest
import torch
from test_parity_teachers import COCA, PIXELS, save_openclip

from understudy import models
from understudy.core.errors import ModelError
from understudy.models.convert_coca import load_openclip_coca
from understudy.models.count import parameters
from understudy.models.io import skeleton
from understudy.models.multimodal.coca import CoCaConfig
from understudy.models.preprocess import Preprocess
from understudy.objectives.captioning import CAPTIONING, CONTRASTIVE

TINY = CoCaConfig(
    name="tiny",
    embed_dim=32,
    image=models.config("coca-vit-l14").image.__class__(
        image_size=32,
        width=32,
        depth=2,
        num_heads=2,
        stem="patch",
        patch_size=8,
        pre_norm=True,
        class_position=True,
    ),
    text=models.config("coca-vit-l14").text.__class__(
        context_length=76, width=32, depth=2, num_heads=2, causal=True
    ),
    decoder_depth=2,
    num_queries=256,
    pool_heads=2,
    preprocess=Preprocess(size=32, mean=tuple(PIXELS["mean"]), std=tuple(PIXELS["std"])),
)
TEXTS = ["a photo of a cat", "two dogs", "x " * 100, ""]


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    model = save_openclip(tmp_path_factory.mktemp("coca") / "tiny-coca2", COCA, 3)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():  # fresh projections of zeros or ones hide mistakes
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=draw) * 0.05)
    return model.eval()


def test_the_full_size_has_openclips_parameters():
    theirs = open_clip.create_model("coca_ViT-L-14", pretrained=None, device="meta")
    ours = skeleton(models.config("coca-vit-l14"))
    assert parameters(ours) == parameters(theirs) == 638_450_177
    assert parameters(ours.text) == parameters(theirs.text) == 123_651_072
    assert parameters(ours.decoder) == parameters(theirs.text_decoder) == 208_074_240


def test_embeddings_and_logits_are_openclips(peer):
    ours = load_openclip_coca(peer.state_dict(), TINY).eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    texts = open_clip.get_tokenizer("coca_ViT-L-14")(TEXTS)
    with torch.no_grad():
        theirs = peer(images, texts)
        found = ours(images=images, texts=texts)
    for ours_key, theirs_key in (
        ("image_features", "image_features"),
        ("text_features", "text_features"),
        ("caption_logits", "logits"),
    ):
        assert torch.allclose(found[ours_key], theirs[theirs_key], atol=1e-4), ours_key
    assert torch.equal(theirs["labels"], texts[:, 1:])


def test_the_losses_have_openclips_weights():
    from open_clip_train.params import parse_args

    args = parse_args(["--model", "coca_ViT-L-14"])
    assert args.coca_contrastive_loss_weight == CONTRASTIVE
    assert args.coca_caption_loss_weight == CAPTIONING


def test_bad_input_weights(peer):
    with pytest.raises(ModelError, match="expected tensors under 'visual.', with attentional"):
        load_openclip_coca({"logit_scale": torch.zeros(())}, TINY)
    with pytest.raises(ModelError, match="tensors missing"):
        load_openclip_coca(peer.state_dict(), "coca-vit-l14")
