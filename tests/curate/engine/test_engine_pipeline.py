"""Pipelines: what is wrong in one is said before anything runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import engine_steps

from understudy.core.errors import ConfigError
from understudy.curate.engine.build import COMMIT, Step, build
from understudy.curate.engine.phases import phases
from understudy.curate.engine.pipeline import FOLDER, Pipeline
from understudy.curate.engine.stage import Stage
from understudy.curate.engine.steps import STEPS
from understudy.curate.engine.units import GlobalStep

AT_LEAST = "engine_steps:AtLeast"


def test_forms_of_a_pipeline_mean_the_same(tmp_path):
    flat = [{"name": AT_LEAST, "chars": 3}, {"func": "engine_steps:upper"}, "commit"]
    for number, data in enumerate((flat, [{"steps": flat}], {"steps": flat})):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(data))
        loaded = Pipeline.load(path)
        assert loaded.names == [AT_LEAST, "engine_steps:upper", "commit"]
        assert loaded.to_plain() == Pipeline(flat).to_plain()
        assert [s.number for s in loaded.steps] == [1, 2, 3]
    again = Pipeline(json.loads(json.dumps(Pipeline(flat).to_plain())))
    assert again.to_plain() == Pipeline(flat).to_plain()


def test_functions_and_classes_go_by_their_names():
    pipeline = Pipeline([engine_steps.upper, engine_steps.AtLeast])
    assert pipeline.names == ["engine_steps:upper", "engine_steps:AtLeast"]
    with pytest.raises(ConfigError, match="step 1: .*<lambda> cannot be imported by workers"):
        Pipeline([lambda page: [page]])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["page-lenght"], "step 1: there is no step 'page-lenght'. Did you mean page-length"),
        (["newlines-x", "commit", "zzzz"], "step 1: .*Did you mean newlines"),
        (["zzzz"], "there is no step 'zzzz'. Known: extract, .*commit. A step of your own"),
        (
            [{"name": AT_LEAST, "char": 3}],
            r"step 1 \(engine_steps:AtLeast\): unknown argument 'char'. Did you mean 'chars'\? "
            "It accepts chars=10, seed=0",
        ),
        ([{"name": AT_LEAST, "chars": -1}], r"step 1 \(.*\): chars: expected 0 or more, got -1"),
        ([{"name": AT_LEAST, "chars": "x"}], r"step 1 \(.*\): '<' not supported.*It accepts chars"),
        (
            ["commit", {"name": "engine_steps:slow", "second": 1}],
            r"step 2 \(engine_steps:slow\): unknown argument 'second'.*accepts seconds=0.002",
        ),
        (["engine_steps:nothing"], "step 1 .*cannot be imported"),
        (["no_such_module:f"], "step 1 .*cannot be imported"),
        (["engine_steps:json"], "is neither a function nor a class"),
        (["engine_steps:Path"], "the class is neither a Stage nor a GlobalStep"),
        (
            [{"name": "engine_steps:upper", "_adds": {"x": "no"}}],
            "_adds.x: no Arrow type is called",
        ),
        ([{"name": "engine_steps:upper", "_adds": 3}], "_adds: expected {column: type}, got 3"),
        ([{"chars": 3}], "step 1: expected one of the keys 'name' and 'func', got chars"),
        ([{"name": "a", "func": "b"}], "expected one of the keys 'name' and 'func'"),
        ([{"name": 3}], "name: expected a name, got 3"),
        ([{"name": "commit", "x": 1}], "unknown key 'x'"),
        ([3], "step 1: expected a name or a mapping with 'name', got 3"),
        ([{"name": "newlines", "x": {1, 2}}], "arguments must be plain data"),
        ([{"steps": ["commit"], "sources": "x"}], "unknown key 'sources'. Did you mean 'source'"),
        ([{"steps": "commit"}], "steps: expected a list, got 'commit'"),
        ([{"steps": [], "source": 3}], "source: expected a pattern, got 3"),
        (["commit", {"steps": []}], "expected steps or sections with 'steps', got both"),
    ],
)
def test_mistakes_are_named(items, message):
    with pytest.raises(ConfigError, match=message):
        Pipeline(items).build()


def test_missing_arguments_are_named(monkeypatch):
    monkeypatch.setattr(engine_steps, "needs", lambda page, column: [page], raising=False)
    with pytest.raises(ConfigError, match="missing argument 'column'. It accepts column"):
        build(Step(name="engine_steps:needs", number=4))


def test_files_that_are_no_pipelines(tmp_path):
    path = tmp_path / "p.yaml"
    for text, message in (
        ("a: [", "not valid YAML"),
        ("a: 1", "expected a list of steps"),
        ("", "expected a list of steps"),
        ("!!python/object/apply:os.system ['x']", "not valid YAML"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=f"p.yaml: {message}"):
            Pipeline.load(path)
    with pytest.raises(ConfigError, match="none.yaml: cannot be read"):
        Pipeline.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="no pipeline 'dcml'. Did you mean dclm"):
        Pipeline.named("dcml")


def test_seed_goes_to_steps_that_take_one():
    stage = Pipeline([AT_LEAST]).build(seed=7)[0].stage
    assert stage.seed == 7
    assert Pipeline([{"name": AT_LEAST, "seed": 3}]).build(seed=7)[0].stage.seed == 3


def test_identity_follows_settings_and_source(monkeypatch):
    def identity(items, seed=0):
        return [one.described for one in Pipeline(items).build(seed)]

    assert identity([AT_LEAST]) == identity([{"name": AT_LEAST, "chars": 10}])
    assert identity([AT_LEAST]) != identity([{"name": AT_LEAST, "chars": 11}])
    assert identity([AT_LEAST]) != identity([AT_LEAST], seed=1)
    before = identity(["engine_steps:upper"])

    def upper(page):
        return []

    monkeypatch.setattr(engine_steps, "upper", upper)
    assert identity(["engine_steps:upper"]) != before


def test_local_steps_are_fused_up_to_steps_over_all_units_and_commits():
    names = ["upper", "AtLeast", "FirstOnly", "FirstOnly", "upper", "slow"]
    items = [f"engine_steps:{n}" for n in names]
    groups = phases(Pipeline([*items, "commit", items[0]]).build())
    assert [[o.step.number for o in g] for g in groups] == [[1, 2], [3], [4], [5, 6], [8]]
    # the first group reads, even if it has no steps
    assert [len(g) for g in phases(Pipeline([items[2]]).build())] == [0, 1]
    assert [len(g) for g in phases([])] == [0]


def test_named_steps_are_stages_of_that_name():
    for name in STEPS:
        found = STEPS.load(name)
        assert issubclass(found, Stage | GlobalStep), name
        assert found.name == name


@pytest.mark.parametrize("name", ["dclm", "dclm-offline"])
def test_arguments_of_the_packages_pipelines_are_accepted(name):
    for step in Pipeline.named(name).steps:
        if step.name in (COMMIT, "language", "quality-score") and name == "dclm":
            continue  # their models may be absent
        if step.name != COMMIT:
            assert build(step).name == step.name


def test_pipelines_of_the_package_name_known_steps():
    known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert "dclm" in known
    for name in known:
        pipeline = Pipeline.named(name)
        assert set(pipeline.names) <= {*STEPS, "commit"}
    assert Pipeline.named("dclm-offline").names == Pipeline.named("dclm").names
    # the order of the paper's section 4 and of its configuration
    assert [n for n in Pipeline.named("dclm").names if n != "commit"] == [
        "extract",
        "url-domain-ban",
        "url-word-ban",
        "url-removal",
        "newlines",
        "language",
        "page-length",
        "word-length",
        "symbol-ratio",
        "bullet-lines",
        "ellipsis-lines",
        "alphabetic-words",
        "stop-words",
        "repetition",
        "line-edits",
        "bloom-dedup",
        "quality-score",
        "quality-threshold",
    ]
