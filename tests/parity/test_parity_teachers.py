"""Our adapters against OpenCLIP and timm themselves, on random weights of small configurations."""

import json

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from understudy.models.language.stops import first_sentence
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers import create
from understudy.reinforce.teachers.openclip import OpenClipTeacher, Options

TEXTS = ["a photo of a cat", "two dogs, it's raining!", "x " * 100, ""]
TOWER = {"width": 32, "layers": 2, "heads": 2}
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, **TOWER},
}
COCA = {
    "embed_dim": 32,
    "vision_cfg": {
        **CLIP["vision_cfg"],
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {
        **CLIP["text_cfg"],
        "context_length": 76,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {**TOWER, "context_length": 76, "vocab_size": 49408, "attn_pooler_heads": 2},
    "custom_text": True,
}
PIXELS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def save_openclip(folder, config, seed):
    """Write a local OpenCLIP model of random weights; return the peer."""
    folder.mkdir()
    data = {"model_cfg": config, "preprocess_cfg": PIXELS}
    (folder / "open_clip_config.json").write_text(json.dumps(data))
    torch.manual_seed(seed)
    open_clip.add_model_config(_registered(folder, config))
    peer = open_clip.create_model(folder.name, pretrained=None, force_preprocess_cfg=PIXELS)
    if hasattr(peer, "text_decoder"):
        # OpenCLIP leaves this one to checkpoints: it is memory as it was
        torch.nn.init.normal_(peer.text_decoder.text_projection, std=0.1)
    state = {k: v.contiguous() for k, v in peer.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return peer.eval()


def _registered(folder, config):
    path = folder / f"{folder.name}.json"
    path.write_text(json.dumps(config))
    return path


def images(size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)


def test_openclip_adapter_gives_openclips_embeddings(tmp_path):
    peer = save_openclip(tmp_path / "tiny-clip", CLIP, 0)
    teacher = create(TeacherSpec(name="o", kind="openclip", path=str(tmp_path / "tiny-clip")))
    assert teacher.capabilities == {"embed_images", "embed_texts"}
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'tiny-clip'}")
    for size in (32, 50):
        views = images(size)
        pixels = torch.stack([transform(Image.fromarray(view)) for view in views])
        with torch.no_grad():
            expected = peer.encode_image(pixels, normalize=True).numpy()
        assert np.abs(teacher.embed_images(views) - expected).max() < 1e-5
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("ViT-B-32")(TEXTS)
        expected = peer.encode_text(tokens, normalize=True).numpy()
    assert np.abs(teacher.embed_texts(TEXTS) - expected).max() < 1e-5
    assert teacher.logit_scale == pytest.approx(float(peer.logit_scale.detach().exp()))
    with pytest.raises(Exception, match="cannot caption"):
        teacher.caption(images(), 2)


def test_openclip_coca_writes_captions(tmp_path):
    peer = save_openclip(tmp_path / "tiny-coca", COCA, 1)
    folder = str(tmp_path / "tiny-coca")
    spec = TeacherSpec(name="c", kind="openclip", path=folder, options={"max_tokens": 10})
    teacher = create(spec)
    assert "caption" in teacher.capabilities
    captions = teacher.caption(images(), 2, [1, 2, 3])
    assert [len(row) for row in captions] == [2, 2, 2]
    assert teacher.caption(images()[1:2], 2, [2])[0] == captions[1]
    assert captions != teacher.caption(images(), 2, [4, 5, 6])
    # (its own `generate` needs an older Transformers than the locked one)
    start, end = teacher.tokenizer.sot_token_id, teacher.tokenizer.eot_token_id
    pixels = teacher._input(images())
    ids = torch.full((3, 1), start)
    with torch.no_grad():
        while ids.shape[1] < 11:
            chosen = peer(pixels, ids, output_labels=False)["logits"][:, -1].argmax(-1)
            ids = torch.cat([ids, chosen[:, None]], dim=1)
    rows = [row[1 : row.index(end)] if end in row else row[1:] for row in ids.tolist()]
    expected = [[first_sentence(teacher.tokenizer.decode(row))] for row in rows]
    for options in ({"method": "greedy"}, {"top_p": 1e-6}, {"top_k": 1}):
        writer = OpenClipTeacher(
            "g",
            peer,
            teacher.tokenizer,
            teacher.preprocess,
            options=Options(max_tokens=10, **options),
        )
        assert writer.caption(images(), 1) == expected, options
    beam = Options(method="beam", beams=3, max_tokens=6)
    writer = OpenClipTeacher("b", peer, teacher.tokenizer, teacher.preprocess, options=beam)
    found = writer.caption(images(), 2)
    assert [len(row) for row in found] == [2, 2, 2]
    assert found == writer.caption(images(), 2, 9)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_timm_adapter_gives_timms_outputs(tmp_path, name):
    torch.manual_seed(0)
    peer = timm.create_model(name, num_classes=7).eval()
    save_file(peer.state_dict(), tmp_path / "w.safetensors")
    spec = TeacherSpec(
        name="t",
        kind="timm",
        model=name,
        path=str(tmp_path / "w.safetensors"),
        options={"num_classes": 7},
    )
    teacher = create(spec)
    config = timm.data.resolve_model_data_config(peer)
    mean, std = (torch.tensor(config[k]).reshape(3, 1, 1) for k in ("mean", "std"))
    views = images(224)
    pixels = (torch.from_numpy(views).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        logits = peer(pixels)
        features = peer.forward_head(peer.forward_features(pixels), pre_logits=True)
    assert np.abs(teacher.classify(views) - logits.softmax(-1).numpy()).max() < 1e-5
    assert np.abs(teacher.image_features(views) - features.numpy()).max() < 1e-4
    assert teacher.num_classes == 7
