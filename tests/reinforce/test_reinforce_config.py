"""The configuration: validation, files, the command line."""

import json

import pytest
import yaml
from reinforce_world import VIEWS, make_store, nano_clip

from understudy import models
from understudy.cli.common import parse_config
from understudy.cli.reinforce import reinforce as command
from understudy.core.errors import ConfigError
from understudy.data.store import Store
from understudy.reinforce.config import ReinforceConfig, TeacherSpec


def test_round_trip_through_plain_data():
    config = ReinforceConfig(
        views=VIEWS,
        teachers=(TeacherSpec(name="a", path="a.safetensors", options={"fold": False}),),
        dtype="bfloat16",
    )
    assert ReinforceConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_logit_scales_go_to_the_teachers():
    two = (TeacherSpec(name="a"), TeacherSpec(name="b", logit_scale=5.0))
    config = ReinforceConfig(teachers=two, logit_scales=(70, 60.5))
    assert [t.logit_scale for t in config.teachers] == [70.0, 60.5]
    assert ReinforceConfig.from_dict(config.to_dict()) == config


def test_bad_input_logit_scales():
    two = (TeacherSpec(name="a"), TeacherSpec(name="b"))
    with pytest.raises(ConfigError, match="logit_scales: 1 scales for 2 teachers"):
        ReinforceConfig(teachers=two, logit_scales=(50.0,))
    with pytest.raises(ConfigError, match="expected a list with one number a teacher, got 50"):
        ReinforceConfig.from_dict({"teachers": [{"name": "a"}, {"name": "b"}], "logit_scales": 50})


def test_bad_input_values():
    for changes, message in (
        ({"num_views": -1}, "num_views: expected an integer of at least 0"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1"),
        ({"captions": True}, "captions: expected an integer"),
        ({"dtype": "int8"}, "dtype: 'int8' is not one of float16"),
        ({"view_set": "a.b"}, "view_set: 'a.b'"),
        ({"ensemble": "a.b"}, "ensemble: 'a.b'"),
        ({"empty_captions": "keep"}, "'keep' is not one of text, drop"),
        ({"teachers": (TeacherSpec(name="a"), TeacherSpec(name="a"))}, "'a' is given twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            ReinforceConfig(**changes)
    with pytest.raises(ConfigError, match="unknown key 'view'. Did you mean 'views'"):
        ReinforceConfig.from_dict({"view": {}})
    with pytest.raises(ConfigError, match="unknown key 'random_resize_crop'"):
        ReinforceConfig.from_dict({"views": {"transforms": {"random_resize_crop": {}}}})


@pytest.fixture
def setting(tmp_path):
    """A store, and a configuration file that names a teacher."""
    make_store(tmp_path / "store", 12)
    models.save(nano_clip(), tmp_path / "a.safetensors")
    data = {
        "num_views": 2,
        "views": {"size": 48, "transforms": {"random_resized_crop": {}}},
        "teachers": [{"name": "a", "path": str(tmp_path / "a.safetensors"), "logit_scale": 30}],
        "unit_rows": 5,
        "batch_size": 8,
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
    return str(tmp_path / "store"), str(tmp_path / "r.yaml")


def test_command_line(setting, capsys):
    store, config = setting
    parsed = parse_config(ReinforceConfig, ["--config", config, "--seed", "3"], "reinforce")
    assert (parsed.seed, parsed.num_views, parsed.teachers[0].logit_scale) == (3, 2, 30.0)
    command([store, "--config", config, "--dry-run", "--json"], "understudy reinforce")
    costs = json.loads(capsys.readouterr().out)
    assert costs["teacher_calls"] == {"a": {"images": 24, "texts": 12}}
    assert not Store.open(store).has("view.main.0")
    command([store, "--config", config, "--json"], "understudy reinforce")
    report = json.loads(capsys.readouterr().out)
    assert report["columns"] == [
        "view.main.0",
        "a.image.main.0",
        "view.main.1",
        "a.image.main.1",
        "a.text",
    ]
    command([store, "--config", config, "--verify"], "understudy reinforce")
    assert "views and teacher outputs replay" in capsys.readouterr().out
    command([store, "--config", config], "understudy reinforce")
    assert "12 rows, 5 columns, 0 bytes" in capsys.readouterr().out
    words = [store, "--config", config, "--verify"]
    assert command([*words, "--num-views", "3"], "understudy reinforce") == 1
    assert "stored values do not replay" in capsys.readouterr().out
    assert command([*words, "--num-views", "3", "--json"], "understudy reinforce") == 1
    assert json.loads(capsys.readouterr().out)["problems"]
    assert command(words, "understudy reinforce") == 0
