"""Adapters to other libraries: Transformers, sentence encoders, ONNX Runtime, EfficientNet-Lite."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from reinforce_world import TEXTS

from understudy.core.errors import ConfigError, DataError, MissingExtraError
from understudy.models.language.sampling import nucleus
from understudy.models.language.stops import first_sentence
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers import create
from understudy.reinforce.teachers.captioning import CaptionOptions, DrawnTokens, caption_draws
from understudy.reinforce.teachers.efficientnet_lite import EfficientNetLiteTeacher, load_released
from understudy.reinforce.teachers.lite_net import EfficientNetLite, released_names

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A Transformers tokenizer over the test captions, in a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>", ".", *sorted({w for t in TEXTS for w in t.split()})]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def processor_config(folder, **changes):
    """Write a preprocessor_config.json of 16-pixel images."""
    data = {
        "crop_size": {"height": 16, "width": 16},
        "size": {"shortest_edge": 16},
        "do_center_crop": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "resample": 3,
        "rescale_factor": 1 / 255,
        **changes,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(data))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory, words):
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(words),
            "max_position_embeddings": 9,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    processor_config(folder)
    return folder


def test_transformers_clip(clip_folder, words):
    from transformers import CLIPModel

    teacher = create(TeacherSpec(name="h", kind="transformers", path=str(clip_folder)))
    assert teacher.capabilities == {"embed_images", "embed_texts"}
    model = CLIPModel.from_pretrained(clip_folder).eval()
    pixels = (
        torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255
        - torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1)
    ) / torch.tensor([0.2, 0.3, 0.4]).reshape(3, 1, 1)
    tokens = words(TEXTS, padding="max_length", max_length=9, return_tensors="pt")
    with torch.no_grad():
        out = model(
            pixel_values=pixels,
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
        )
    assert np.abs(teacher.embed_images(IMAGES) - out.image_embeds.numpy()).max() < 1e-5
    assert np.abs(teacher.embed_texts(TEXTS) - out.text_embeds.numpy()).max() < 1e-5
    assert teacher.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))
    longer = create(
        TeacherSpec(name="h", kind="transformers", path=str(clip_folder), options={"max_length": 5})
    )
    assert longer.fingerprint != teacher.fingerprint


def test_transformers_siglip_attends_to_padding(tmp_path, words):
    from transformers import SiglipConfig, SiglipModel

    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    torch.manual_seed(1)
    config = SiglipConfig(
        text_config={**small, "vocab_size": len(words), "max_position_embeddings": 9},
        vision_config={**small, "image_size": 16, "patch_size": 8},
    )
    model = SiglipModel(config).eval()
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    processor_config(
        tmp_path, crop_size=None, do_center_crop=False, size={"height": 16, "width": 16}
    )
    teacher = create(TeacherSpec(name="s", kind="transformers", path=str(tmp_path)))
    assert teacher.preprocess.resize == "squash"
    tokens = words(TEXTS, padding="max_length", max_length=9, return_tensors="pt")
    with torch.no_grad():
        found = model.get_text_features(input_ids=tokens["input_ids"])
    expected = torch.nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1)
    assert np.abs(teacher.embed_texts(TEXTS) - expected.numpy()).max() < 1e-5


def test_transformers_classifier(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        num_labels=5,
    )
    torch.manual_seed(0)
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    processor_config(tmp_path, do_normalize=False)
    teacher = create(TeacherSpec(name="v", kind="transformers", path=str(tmp_path)))
    with torch.no_grad():
        logits = model(torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255).logits
    assert np.abs(teacher.classify(IMAGES) - logits.softmax(-1).numpy()).max() < 1e-5
    assert teacher.num_classes == 5


@pytest.fixture(scope="module")
def captioner_folder(tmp_path_factory, words):
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
    )

    folder = tmp_path_factory.mktemp("captioner")
    torch.manual_seed(3)
    encoder = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    decoder = GPT2Config(
        vocab_size=len(words),
        n_positions=16,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        is_decoder=True,
        add_cross_attention=True,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    model = VisionEncoderDecoderModel(config)
    model.generation_config.decoder_start_token_id = 1
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    processor_config(folder)
    return folder


def test_transformers_captioner(captioner_folder):
    options = {"max_tokens": 8}
    spec = TeacherSpec(name="cap", kind="transformers", path=str(captioner_folder), options=options)
    teacher = create(spec)
    assert teacher.capabilities == {"caption"}
    captions = teacher.caption(IMAGES, 4, [1, 2, 3])
    assert [len(row) for row in captions] == [4, 4, 4]
    flat = [text for row in captions for text in row]
    assert len(set(flat)) > 6
    assert not any("</s>" in text or "<s>" in text or "." in text for text in flat)
    # an image's captions depend on its own seed, not on its neighbours
    assert teacher.caption(IMAGES[1:2], 4, [2])[0] == captions[1]
    assert teacher.caption(IMAGES, 4, [1, 2, 3]) == captions
    assert teacher.caption(IMAGES, 4, [4, 5, 6]) != captions
    prompted = create(
        TeacherSpec(
            name="cap",
            kind="transformers",
            path=str(captioner_folder),
            options={**options, "prompt": "a red"},
        )
    )
    assert all(text.startswith("a red") for row in prompted.caption(IMAGES, 2) for text in row)
    assert prompted.fingerprint != teacher.fingerprint


def test_methods_of_a_transformers_captioner(captioner_folder):
    def teacher(**options):
        spec = TeacherSpec(
            name="cap",
            kind="transformers",
            path=str(captioner_folder),
            options={"max_tokens": 6, **options},
        )
        return create(spec)

    greedy = teacher(method="greedy").caption(IMAGES, 1, [1, 2, 3])
    assert greedy == teacher(method="greedy").caption(IMAGES, 1, [7, 8, 9])
    narrow = teacher(top_k=1).caption(IMAGES, 2, [1, 2, 3])
    assert all(row == [best[0]] * 2 for row, best in zip(narrow, greedy, strict=True))
    beam = teacher(method="beam", beams=3).caption(IMAGES, 3, [1, 2, 3])
    assert [len(row) for row in beam] == [3, 3, 3]
    assert beam == teacher(method="beam", beams=3).caption(IMAGES, 3, [7, 8, 9])
    prints = {
        teacher(**options).fingerprint
        for options in ({}, {"top_k": 5}, {"method": "beam"}, {"method": "beam", "beams": 3})
    }
    assert len(prints) == 4
    assert teacher(beams=9).fingerprint == teacher().fingerprint  # no beams, no difference
    with pytest.raises(ConfigError, match="greedy writes one caption an image and 2 are asked"):
        teacher(method="greedy").caption(IMAGES, 2)
    with pytest.raises(ConfigError, match="5 beams give at most as many captions and 6 are asked"):
        teacher(method="beam").caption(IMAGES, 6)


def test_captions_end_at_the_first_full_stop():
    assert first_sentence("a red box . a green  disc .") == "a red box"
    assert first_sentence("a  2.5 m tall box. more") == "a 2.5 m tall box"
    assert first_sentence(". nothing") == ""


def test_nucleus_keeps_the_smallest_set_and_its_proportions():
    probabilities = torch.tensor([[0.05, 0.5, 0.2, 0.15, 0.1]])
    draws = torch.arange(0, 1, 1 / 1000, dtype=torch.float64)
    tokens = nucleus(probabilities.log().expand(1000, 5), draws, top_p=0.8)
    shares = torch.bincount(tokens, minlength=5) / 1000
    assert shares.tolist() == pytest.approx([0, 0.5 / 0.85, 0.2 / 0.85, 0.15 / 0.85, 0], abs=2e-3)
    greedy = nucleus(probabilities.log().expand(1000, 5), draws, top_p=0.01)
    assert set(greedy.tolist()) == {1}
    everything = nucleus(probabilities.log().expand(1000, 5), draws, top_p=1.0)
    assert torch.bincount(everything, minlength=5).tolist() == pytest.approx(
        [50, 500, 200, 150, 100], abs=2
    )


def test_drawn_tokens_follow_each_rows_own_draws():
    draws = caption_draws([7, 8], 2, 5)
    assert draws.shape == (4, 5)
    assert (caption_draws([8], 2, 5) == draws[2:]).all()
    assert len(set(draws[:, 0])) == 4
    processor = DrawnTokens(draws, 1, CaptionOptions())
    scores = torch.randn(4, 11, generator=torch.Generator().manual_seed(0))
    out = processor(torch.zeros(4, 3, dtype=torch.long), scores)
    assert (out.isfinite().sum(1) == 1).all()
    expected = nucleus(scores, torch.from_numpy(draws[:, 2]), 0.9)
    assert torch.equal(out.argmax(1), expected)


def test_sentence_encoder_pools_over_real_tokens(tmp_path, words):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = BertModel(config).eval()
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    teacher = create(TeacherSpec(name="s", kind="sentence", path=str(tmp_path)))
    texts = ["a red box", "red", "a green disc . a blue bar"]
    with torch.no_grad():
        alone = [
            model(**words(t, return_tensors="pt", return_token_type_ids=False))
            .last_hidden_state[0]
            .mean(0)
            for t in texts
        ]
    expected = torch.nn.functional.normalize(torch.stack(alone), dim=-1).numpy()
    assert np.abs(teacher.embed_texts(texts) - expected).max() < 1e-5
    tokens, mask = teacher.text_tokens(texts)
    assert tokens.shape[2] == 16
    assert mask.sum(1).tolist() == [5, 3, 9]
    first = create(
        TeacherSpec(name="s", kind="sentence", path=str(tmp_path), options={"pooling": "cls"})
    )
    assert np.abs(first.embed_texts(texts) - teacher.embed_texts(texts)).max() > 1e-3
    with pytest.raises(ConfigError, match="cannot embed_images"):
        teacher.embed_images(IMAGES)


def write_graph(path):
    """Write a graph of pixels to features [B, 6] and logits [B, 5]; return it as a function."""
    from onnx import TensorProto, helper, numpy_helper, save

    draw = np.random.default_rng(0)
    shapes = {"kernel": (6, 3, 4, 4), "shift": (6,), "weight": (6, 5), "bias": (5,)}
    tables = {k: draw.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Conv", ["pixels", "kernel", "shift"], ["maps"], strides=[4, 4]),
            node("GlobalAveragePool", ["maps"], ["pooled"]),
            node("Flatten", ["pooled"], ["features"]),
            node("Gemm", ["features", "weight", "bias"], ["logits"]),
        ],
        "images",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["b", 3, 16, 16])],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["b", 6]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 5]),
        ],
        [numpy_helper.from_array(table, name) for name, table in tables.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    save(model, path)
    kernel, shift, weight, bias = (torch.from_numpy(t) for t in tables.values())

    def run(pixels):
        maps = torch.nn.functional.conv2d(pixels, kernel, shift, stride=4)
        features = maps.mean((2, 3))
        return features, features @ weight + bias

    return run


def test_onnx_images(tmp_path):
    path = tmp_path / "g.onnx"
    graph = write_graph(path)
    options = {
        "image_output": "features",
        "class_output": "logits",
        "size": 16,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }
    teacher = create(TeacherSpec(name="o", kind="onnx", path=str(path), options=options))
    assert teacher.capabilities == {"embed_images", "classify"}
    pixels = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        features, logits = graph(pixels)
    assert np.abs(teacher.image_features(IMAGES) - features.numpy()).max() < 1e-5
    assert np.abs(teacher.classify(IMAGES) - logits.softmax(-1).numpy()).max() < 1e-5
    more = create(
        TeacherSpec(name="o", kind="onnx", path=str(path), options={**options, "threads": 2})
    )
    assert more.fingerprint == teacher.fingerprint
    other = {**options, "std": [0.5, 0.5, 0.5]}
    spec = TeacherSpec(name="o", kind="onnx", path=str(path), options=other)
    assert create(spec).fingerprint != teacher.fingerprint
    for wrong, message in (
        ({"image_output": "feature"}, "Did you mean 'features'"),
        ({"image_input": "images", "image_output": "features"}, "'images' is not one of pixels"),
        ({}, "name an output to use"),
        ({"text_output": "features"}, "give a tokenizer.json file"),
        ({"image_output": "features", "layout": "hwc"}, "'hwc' is not one of nchw, nhwc"),
    ):
        with pytest.raises(ConfigError, match=message):
            create(TeacherSpec(name="o", kind="onnx", path=str(path), options=wrong))
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    for name, message in (("broken.onnx", "does not open it"), ("none.onnx", "no such ONNX file")):
        spec = TeacherSpec(
            name="o", kind="onnx", path=str(tmp_path / name), options={"image_output": "features"}
        )
        with pytest.raises(DataError, match=message):
            create(spec)


def test_onnx_texts(tmp_path, words):
    from onnx import TensorProto, helper, numpy_helper, save

    table = np.random.default_rng(0).normal(size=(len(words), 6)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["tokens"])],
        "texts",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, ["b", "t"])],
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["b", "t", 6])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    save(model, tmp_path / "t.onnx")
    words.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    options = {
        "text_output": "tokens",
        "tokenizer": str(tmp_path / "tokenizer.json"),
        "context_length": 8,
    }
    spec = TeacherSpec(name="t", kind="onnx", path=str(tmp_path / "t.onnx"), options=options)
    teacher = create(spec)
    ids = words("a red box")["input_ids"]
    assert np.abs(teacher.text_features(["a red box", "red"])[0] - table[ids].mean(0)).max() < 1e-6
    assert teacher.text_dim == 6


@pytest.mark.parametrize(
    ("variant", "count"), [("lite0", 4_652_008), ("lite1", 5_416_680), ("lite2", 6_092_072)]
)
def test_efficientnet_lite_counts(variant, count):
    with torch.device("meta"):
        net = EfficientNetLite(variant)
    assert sum(p.numel() for p in net.parameters()) == count


def released(net):
    """Return a network's tensors under the released names."""
    top = {"stem.conv": "_conv_stem", "stem.norm": "_bn0", "head.conv": "_conv_head"}
    top |= {"head.norm": "_bn1", "classifier": "_fc"}
    inner = {"expand.conv": "_expand_conv", "expand.norm": "_bn0", "depth.conv": "_depthwise_conv"}
    inner |= {"depth.norm": "_bn1", "project.conv": "_project_conv", "project.norm": "_bn2"}
    out = {}
    for name, tensor in net.state_dict().items():
        if name.startswith("blocks."):
            _, i, a, b, leaf = name.split(".")
            out[f"_blocks.{i}.{inner[f'{a}.{b}']}.{leaf}"] = tensor
        else:
            part, leaf = name.rsplit(".", 1)
            out[f"{top[part]}.{leaf}"] = tensor
    return out


def test_efficientnet_lite_reads_released_names(tmp_path):
    torch.manual_seed(0)
    net = EfficientNetLite("lite2", num_classes=7).eval()
    state = released(net)
    assert set(released_names(state)) == set(net.state_dict())
    torch.save(state, tmp_path / "lite.pth")
    spec = TeacherSpec(
        name="e", kind="efficientnet-lite", path=str(tmp_path / "lite.pth"), options={"size": 32}
    )
    teacher = create(spec)
    assert teacher.module.variant == "lite2"
    pixels = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() - 127) / 128
    pixels = torch.nn.functional.interpolate(pixels, size=(32, 32), mode="nearest")
    big = IMAGES.repeat(2, axis=1).repeat(2, axis=2)
    with torch.no_grad():
        features, logits = net.features(pixels), net(pixels)
    assert features.shape == (3, 1280)
    assert np.abs(teacher.image_features(big) - features.numpy()).max() < 1e-4
    assert np.abs(teacher.classify(big) - logits.softmax(-1).numpy()).max() < 1e-5
    assert EfficientNetLiteTeacher("e", net).preprocess.size == 260
    del state["_conv_head.weight"]
    for name, content, message in (
        ("none.pth", None, "no such weights file"),
        ("short.pth", {"_conv_stem.weight": torch.zeros(1)}, "are none of lite0, lite1, lite2"),
        ("code.pth", {"x": types.SimpleNamespace()}, "not a checkpoint of plain tensors"),
        ("list.pth", [torch.zeros(1)], "expected a mapping of names to tensors"),
    ):
        if content is not None:
            torch.save(content, tmp_path / name)
        with pytest.raises(DataError, match=message):
            load_released(tmp_path / name)


@pytest.mark.parametrize(("kind", "module"), [("timm", "timm"), ("openclip", "open_clip")])
def test_bad_input_missing_or_mismatched_vision_libraries(monkeypatch, kind, module, tmp_path):
    spec = TeacherSpec(name="a", kind=kind, model="x", options={"pretrained": "tag"})
    if kind == "timm":
        spec = TeacherSpec(name="a", kind=kind, model="x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"teacher 'a' needs {module}"):
        create(spec)
    monkeypatch.delitem(sys.modules, module)
    package = tmp_path / module
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match="with the torchvision that matches your torch"):
        create(spec)


def test_bad_input_transformers_folders(tmp_path, clip_folder, words):
    import shutil

    with pytest.raises(DataError, match="does not load"):
        create(TeacherSpec(name="a", kind="transformers", path=str(tmp_path)))
    folder = tmp_path / "scaled"
    shutil.copytree(clip_folder, folder)
    processor_config(folder, rescale_factor=1 / 127.5)
    with pytest.raises(ConfigError, match="scales levels by 0.0078.*not by 1/255"):
        create(TeacherSpec(name="a", kind="transformers", path=str(folder)))
    for options, message in (
        ({"top_p": 0.0}, "top_p: expected a number above 0"),
        ({"temperature": 0.0}, "temperature: expected"),
        ({"max_tokens": 0}, "max_tokens: expected at least 1"),
        ({"task": "translate"}, "'translate' is not one of"),
        ({"compute": "int8"}, "'int8' is not one of float32"),
    ):
        spec = TeacherSpec(name="a", kind="transformers", path=str(clip_folder), options=options)
        with pytest.raises(ConfigError, match=message):
            create(spec)
    with pytest.raises(ConfigError, match="give 'model', a timm model name"):
        create(TeacherSpec(name="a", kind="timm"))
    with pytest.raises(ConfigError, match="untrained weights are no teacher"):
        create(TeacherSpec(name="a", kind="openclip", model="ViT-B-32"))
