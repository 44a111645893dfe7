"""Exported maps for vision-language models, and files in eight bits."""

import json
import os

import numpy as np
import onnx
import pytest
import torch
from test_compress_export import CAPTIONS, run, shaken

from understudy import models
from understudy.compress.export import export_model
from understudy.core.errors import ConfigError
from understudy.models.text.train_tokenizer import train_words


@pytest.fixture(scope="module")
def clip():
    tokenizer = train_words(CAPTIONS, context_length=24)
    return shaken(models.create("mobileclip-nano", seed=1, tokenizer=tokenizer))


def test_map_of_the_last_convolution(tmp_path):
    model = shaken(models.create("mci-nano5", seed=1, **{"image.image_size": 64}))
    export_model(model, tmp_path, towers=["map"], safetensors=False, card=False)
    assert sorted(os.listdir(tmp_path)) == ["export.json", "map.onnx", "preprocess.json"]
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = model.image.expanded_map(model.preprocess_images(pixels))
    found = run(tmp_path / "map.onnx", pixels.numpy())
    assert found.shape == (3, 384, 1, 1)
    assert float((found - expected).abs().max()) < 1e-4
    graph = onnx.load(tmp_path / "map.onnx")
    assert [o.name for o in graph.graph.output] == ["map"]
    facts = {p.key: p.value for p in graph.metadata_props}
    assert json.loads(facts["understudy.preprocess"])["output"] == "map"
    assert json.loads((tmp_path / "export.json").read_text())["max_difference"]["map.onnx"] < 1e-4
    with pytest.raises(ConfigError, match="tower: 'map' is not one of image"):
        export_model(models.create("cnn-tiny").eval(), tmp_path / "no", towers=["map"])


@pytest.mark.parametrize("in_graph", [True, False])
def test_eight_bits(clip, tmp_path, in_graph):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (60, 48 + n, 3), dtype=np.uint8) for n in range(12)]
    files = export_model(clip, tmp_path, card=False, in_graph=in_graph, int8=images)
    assert {"image-int8.onnx", "text-int8.onnx"} <= {f.name for f in files}
    manifest = json.loads((tmp_path / "export.json").read_text())
    assert manifest["int8"].keys() == {"image-int8.onnx", "text-int8.onnx"}
    assert manifest["sha256"].keys() >= manifest["int8"].keys()
    for found in manifest["int8"].values():
        assert 0.98 < found["cosine_min"] <= found["cosine"] <= 1.0 + 1e-6
        assert 0.0 < found["error"] < 0.3
    for name in ("image", "text"):
        small, large = ((tmp_path / f"{name}{end}.onnx").stat().st_size for end in ("-int8", ""))
        assert small < large
    # the file takes what the float one takes, in any batch
    pixels = clip.preprocess_images(images[:3])
    given = rng.integers(0, 256, (3, 48, 48, 3), dtype=np.uint8) if in_graph else pixels.numpy()
    assert run(tmp_path / "image-int8.onnx", given).shape == (3, 64)
    with pytest.raises(ConfigError, match="int8 files are made from ONNX files"):
        export_model(clip, tmp_path, onnx=False, int8=images)
