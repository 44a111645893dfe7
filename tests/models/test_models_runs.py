"""What people type for a model: a run's folder, a file, a name."""

import pytest
import torch

from understudy import models
from understudy.core.errors import ConfigError, DataError
from understudy.models.runs import find_model, load_run, weights_path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for i, name in enumerate(("model", "model-ema", "model-best")):
        models.save(models.create("cnn-tiny", seed=i).eval(), folder / f"{name}.safetensors")
    return folder


def test_files_of_a_run(run, tmp_path):
    for which, name in (
        ("auto", "model-ema"),
        ("final", "model"),
        ("ema", "model-ema"),
        ("best", "model-best"),
    ):
        assert weights_path(run, which) == run / f"{name}.safetensors"
    models.save(models.create("cnn-tiny", seed=0).eval(), tmp_path / "model.safetensors")
    assert weights_path(tmp_path) == tmp_path / "model.safetensors"
    assert weights_path(run / "model.safetensors") == run / "model.safetensors"
    assert load_run(run, folded=True).is_folded


def test_names_and_paths(run):
    own = models.create("cnn-tiny", seed=2).eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_run(run, "best")(images)["logits"], own(images)["logits"])
        again = find_model("cnn-tiny", seed=2)
        assert torch.equal(again(images)["logits"], own(images)["logits"])
    assert not again.training
    assert find_model(str(run)).config.name == "cnn-tiny"


def test_bad_input_runs_and_names(run, tmp_path):
    with pytest.raises(ConfigError, match="no model 'cnn-tyny'. Did you mean cnn-tiny"):
        find_model("cnn-tyny")
    for name in ("runs/none", "none.safetensors"):
        with pytest.raises(ConfigError, match="no such run's folder or weights file, nor a model"):
            find_model(name)
    with pytest.raises(DataError, match="no such run's folder or weights file"):
        load_run(tmp_path / "none")
    with pytest.raises(DataError, match="no model-best.safetensors .* it has no finished weights"):
        weights_path(tmp_path, "best")
    with pytest.raises(ConfigError, match="'bset' is not one of .* mean 'best'"):
        weights_path(run, "bset")
    with pytest.raises(ConfigError, match="weights 'best' can only be chosen in a run's folder"):
        weights_path(run / "model.safetensors", "best")
