"""Exported files compute what the model does, on pictures and texts as they come, and say so."""

import json
import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from understudy import models
from understudy.compress import export_files as exporting
from understudy.compress.card import CardFacts, model_card
from understudy.compress.export import export_model
from understudy.compress.latency import measure_onnx
from understudy.compress.onnx import check_onnx, text_samples
from understudy.compress.timing import LatencyConfig
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.hashing import hash_file
from understudy.models.text.train_tokenizer import train_words

CAPTIONS = ["a large 3", "a small 7 left of the 3", "7", "3 " * 40]


def shaken(model):
    """Random statistics and layer scales: fresh ones would hide mistakes."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.3, 0.3, generator=generator)
                part.running_var.uniform_(0.5, 2.0, generator=generator)
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.uniform_(0.1, 0.5, generator=generator)
    return model.eval()


def run(path, values):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: values})[0])


@pytest.fixture(scope="module")
def clip():
    tokenizer = train_words(CAPTIONS, context_length=24)
    return shaken(models.create("mobileclip-nano", seed=1, tokenizer=tokenizer))


@pytest.fixture(scope="module")
def exported(clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    files = export_model(clip, out, facts=CardFacts(data="scenes", weights_licence="Apache-2.0"))
    return out, files


def test_files(exported):
    out, files = exported
    names = [f.name for f in files]
    assert sorted(names) == sorted(os.listdir(out))
    assert set(names) == {
        "image.onnx",
        "text.onnx",
        "preprocess.json",
        "tokenizer.json",
        "model.safetensors",
        "export.json",
        "README.md",
    }
    manifest = json.loads((out / "export.json").read_text())
    assert manifest["max_difference"].keys() == {"image.onnx", "text.onnx"}
    assert max(manifest["max_difference"].values()) < 1e-5
    for name, digest in manifest["sha256"].items():
        assert hash_file(out / name) == digest


@pytest.mark.parametrize("batch", [1, 4])
def test_image_graph_takes_pictures_as_they_come(exported, clip, batch):
    pixels = np.random.default_rng(batch).integers(0, 256, (batch, 48, 48, 3)).astype(np.uint8)
    with torch.no_grad():
        expected = clip.encode_image(clip.preprocess_images(pixels))
    found = run(exported[0] / "image.onnx", pixels)
    assert found.shape == (batch, 64)
    assert (found - expected).abs().max() < 1e-5


def test_text_graph_pools_the_end_of_each_text(exported, clip):
    tokens = clip.tokenize(CAPTIONS)
    with torch.no_grad():
        expected = clip.encode_text(tokens)
    found = run(exported[0] / "text.onnx", tokens.numpy())
    assert (found - expected).abs().max() < 1e-5
    assert (found[0] - found[2]).abs().max() > 1e-3
    # pooling anywhere else would be seen
    with torch.no_grad():
        last = nn.functional.normalize(clip.text.head(clip.text.hidden(tokens)[:, -1]), dim=-1)
    assert (found[:3] - last[:3]).abs().max() > 1e-3


def test_tokenizer_file_gives_the_models_ids(exported, clip):
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(exported[0] / "tokenizer.json"))
    texts = [*CAPTIONS, "  A LARGE\t3 ", "", "unheard words"]
    ids = torch.tensor([e.ids for e in backend.encode_batch(texts)])
    assert torch.equal(ids, clip.tokenize(texts))


def test_preprocessing_is_described(exported, clip):
    data = json.loads((exported[0] / "preprocess.json").read_text())
    image, text = data["image"], data["text"]
    assert (image["dtype"], image["layout"], image["shape"]) == ("uint8", "NHWC", [-1, 48, 48, 3])
    assert image["normalised_in_graph"] is True
    assert image["mean"] == list(clip.preprocess.mean)
    assert (image["resize"], image["interpolation"]) == ("shorter-side", "bilinear")
    assert text["end_of_text"] == clip.tokenizer.end_id
    assert data["logit_scale"] == pytest.approx(clip.scale().item())
    for tower, entry in (("image", image), ("text", text)):
        loaded = onnx.load(exported[0] / f"{tower}.onnx")
        kept = {p.key: p.value for p in loaded.metadata_props}
        assert json.loads(kept["understudy.preprocess"]) == entry
        assert loaded.graph.input[0].name == entry["input"]
        assert loaded.graph.output[0].name == entry["output"]
        assert loaded.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_folded_weights_load_again(exported, clip):
    model = models.load(exported[0] / "model.safetensors")
    assert model.fold_state == "all"
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.allclose(model.encode_image(images), clip.encode_image(images), atol=1e-5)
    assert model.tokenizer.fingerprint() == clip.tokenizer.fingerprint()


def test_card(exported, clip):
    text = (exported[0] / "README.md").read_text()
    folded = clip.fold()
    assert f"{sum(p.numel() for p in folded.image.parameters()):,}" in text
    for line in (
        "# mobileclip-nano",
        "- Training data: scenes",
        "- Licence of the weights: Apache-2.0",
        "- Licence of the data: not stated",
        "- Weights from: own training",
        "| image.onnx |",
    ):
        assert line in text
    card = model_card(clip, CardFacts(title="Mine", metrics={"top1": 0.5}, provenance={"steps": 9}))
    assert "# Mine" in card
    assert "| top1 | 0.5 |" in card
    assert "- steps: 9" in card
    assert "not folded" in card


def test_onnx_file_is_timed(exported):
    config = LatencyConfig(rounds=2, inferences=5, trim=1, batch=2)
    for name, size in (("image", 48), ("text", 24)):
        found = measure_onnx(exported[0] / f"{name}.onnx", config)
        assert (found.size, found.batch, found.runtime) == (size, 2, "onnxruntime")
        assert 0 < found.min_ms <= found.mean_ms


def test_causal_text_tower_and_vision_transformer(tmp_path):
    model = models.create(
        "mobileclip-b",
        seed=0,
        embed_dim=16,
        image={"image_size": 32, "width": 24, "depth": 1, "num_heads": 2},
        text={"vocab_size": 50, "context_length": 10, "width": 16, "depth": 2, "num_heads": 2},
    ).eval()
    files = export_model(model, tmp_path)
    assert "tokenizer.json" not in [f.name for f in files]
    tokens = torch.tensor([[48, 5, 6, 49, 0, 0, 0, 0, 0, 0], [48, 7, 49, 0, 0, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        expected = model.encode_text(tokens)
    assert (run(tmp_path / "text.onnx", tokens.numpy()) - expected).abs().max() < 1e-5
    # causal: what follows the end has no say
    after = tokens.clone()
    after[:, 4:] = 9
    assert (run(tmp_path / "text.onnx", after.numpy()) - expected).abs().max() < 1e-5
    assert "No tokenizer travels along" in (tmp_path / "README.md").read_text()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model = shaken(models.create("cnn-tiny", seed=0, num_classes=3, classes=("a", "b", "c")))
    models.save(model, folder / "model.safetensors", {"steps": 7, "context": {"recipe": "toy"}})
    averaged = shaken(models.create("cnn-tiny", seed=5, num_classes=3, classes=("a", "b", "c")))
    models.save(averaged, folder / "model-ema.safetensors", {"steps": 7})
    metrics = {"top1": 0.5, "ema_top1": 0.75, "train/loss": 1.0}
    (folder / "record.json").write_text(json.dumps({"metrics": metrics}))
    return folder, model, averaged


def test_classifier_of_a_run_with_preprocessing_beside(run_folder, tmp_path):
    folder, model, averaged = run_folder
    files = export_model(folder, tmp_path, in_graph=False, weights="final", fold="branches")
    data = json.loads((tmp_path / "preprocess.json").read_text())
    assert "text" not in data
    image = data["image"]
    assert (image["dtype"], image["shape"]) == ("float32", [-1, 3, 32, 32])
    assert (image["output"], data["classes"]) == ("logits", ["a", "b", "c"])
    # what the file says is what the model's own preprocessing does
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    mean, std = (np.array(image[k], np.float32) for k in ("mean", "std"))
    ready = ((pixels * image["scale"] - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    found = run(tmp_path / "image.onnx", np.ascontiguousarray(ready))
    with torch.no_grad():
        expected = model(model.preprocess_images(pixels))["logits"]
        other = averaged(averaged.preprocess_images(pixels))["logits"]
    assert (found - expected).abs().max() < 1e-4 * max(1.0, float(expected.abs().max()))
    assert (found - other).abs().max() > 1e-3
    card = (tmp_path / "README.md").read_text()
    assert "| top1 | 0.5 |" in card
    assert "- steps: 7" in card
    assert "- context: recipe toy" in card
    assert "branches folded" in card
    assert "tokenizer.json" not in [f.name for f in files]


def test_averaged_weights_come_first(run_folder, tmp_path):
    folder, _, averaged = run_folder
    export_model(folder, tmp_path, onnx=False)
    assert "| top1 | 0.75 |" in (tmp_path / "README.md").read_text()
    again = models.load(tmp_path / "model.safetensors")
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(again(images)["logits"], averaged(images)["logits"], atol=1e-4)
    assert not (tmp_path / "image.onnx").exists()


def test_bad_input_export_that_differs(run_folder, tmp_path, monkeypatch):
    folder, _, _ = run_folder
    real = exporting.write_onnx

    def damaged(graph, sample, path, **options):
        with torch.no_grad():
            next(iter(graph.tower.parameters())).add_(0.5)
        try:
            return real(graph, sample, path, **options)
        finally:
            with torch.no_grad():
                next(iter(graph.tower.parameters())).sub_(0.5)

    monkeypatch.setattr(exporting, "write_onnx", damaged)
    with pytest.raises(
        ModelError, match=r"image.onnx: ONNX Runtime differs .* nothing was written"
    ):
        export_model(folder, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_wrong_pooling_would_be_seen(exported, clip):
    def last(tokens):
        hidden = clip.text.hidden(tokens)[:, -1]
        return nn.functional.normalize(clip.text.head(hidden), dim=-1)

    samples = text_samples(clip, (3,))
    with pytest.raises(ModelError, match="differs from PyTorch"):
        check_onnx(last, exported[0] / "text.onnx", samples)
    with pytest.raises(ModelError, match=r"gives \[3, 64\] where PyTorch gives \[3, 32\]"):
        check_onnx(lambda t: clip.encode_text(t)[:, :32], exported[0] / "text.onnx", samples)


def test_bad_input_models(clip, tmp_path):
    training = models.create("cnn-tiny", seed=0)
    with pytest.raises(ModelError, match="training mode"):
        export_model(training, tmp_path)
    with pytest.raises(ModelError, match=r"is torch.bfloat16; export float32"):
        export_model(models.create("cnn-tiny", seed=0).eval().bfloat16(), tmp_path)
    with pytest.raises(ConfigError, match="tower: 'audio' is not one of image, text"):
        export_model(clip, tmp_path, towers=["audio"])
    with pytest.raises(ConfigError, match="nothing to write"):
        export_model(clip, tmp_path, onnx=False, safetensors=False, card=False)
    with pytest.raises(ConfigError, match="'none' is not one of branches, all"):
        export_model(clip, tmp_path, fold="none")
    assert os.listdir(tmp_path) == []


def test_bad_input_runs(run_folder, tmp_path):
    folder, _, _ = run_folder
    with pytest.raises(DataError, match="no such run's folder or weights file"):
        export_model(tmp_path / "none", tmp_path)
    with pytest.raises(DataError, match="has no finished weights"):
        export_model(tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"no model-best.safetensors .* it has model-ema"):
        export_model(folder, tmp_path, weights="best")
    with pytest.raises(ConfigError, match="can only be chosen in a run's folder"):
        export_model(folder / "model.safetensors", tmp_path, weights="ema")
