"""Fine-tuning and transfer: frozen towers, layer rates, choice of rates, resuming, refusals."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from understudy import models
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.transfer_rows import read_transfer
from understudy.data.dense import DepthSpec, MaskSpec
from understudy.data.dense_augment import DenseAugment
from understudy.data.scenes.pack import png
from understudy.data.subsets import held_back, nested_subsets
from understudy.models.dense.config import HeadConfig
from understudy.models.dense.io import load_dense
from understudy.train.config import TrainConfig
from understudy.train.dense import FineTuneConfig, build_model, fine_tune
from understudy.train.optim import LR_SCALE, make_optimizer, set_rate
from understudy.train.student_batches import train_rows
from understudy.train.transfer import TransferConfig, protocol, transfer

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from dense_world import CLASSES, dense_store

SPEC = MaskSpec(classes=CLASSES)
ROWS = np.arange(1, 12)


def tune(**changed) -> FineTuneConfig:
    train = {"steps": 4, "batch_size": 4, "lr": 1e-2, "device": "cpu", "log_every": 1}
    train |= changed.pop("train", {})
    base = {
        "head": HeadConfig(classes=CLASSES, width=8, hidden=8),
        "masks": SPEC,
        "size": 16,
        "augment": DenseAugment(flip=0.0),
        "workers": 0,
        "train": TrainConfig(**train),
    }
    return FineTuneConfig(**{**base, **changed})


def source(seed: int = 0, name: str = "mci-nano"):
    return models.create(name, seed=seed, **{"image.layer_scale": 0.1})


def count_class(model):
    """A stand-in for a scorer: anything that depends on the weights."""
    return {"miou": float(model.head.classifier.weight.detach().abs().mean())}


@pytest.fixture
def store(tmp_path):
    return dense_store(tmp_path / "store")


def test_a_run_learns_saves_and_is_taken_up_again(store, tmp_path):
    first = fine_tune(store, source(), tune(), tmp_path / "run", ROWS, count_class)
    assert first.steps == 4
    assert first.facts["trainable"] == first.facts["parameters"]
    assert first.metrics["miou"] == pytest.approx(count_class(first.model)["miou"])
    saved = load_dense(tmp_path / "run" / "dense.safetensors")
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name]), name
    again = fine_tune(store, source(), tune(), tmp_path / "run", ROWS, count_class)
    assert again.metrics == first.metrics
    assert all(
        torch.equal(v, again.model.state_dict()[k]) for k, v in first.model.state_dict().items()
    )
    with pytest.raises(ConfigError, match="tower"):
        fine_tune(store, source(seed=1), tune(), tmp_path / "run", ROWS, count_class)


def test_equal_seeds_repeat_a_run_bit_for_bit(store, tmp_path):
    a, b, c = (
        fine_tune(store, source(), tune(seed=s), tmp_path / f"run{i}", ROWS)
        for i, s in enumerate((3, 3, 4))
    )
    states = [r.model.state_dict() for r in (a, b, c)]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    assert any(not torch.equal(v, states[2][k]) for k, v in states[0].items())


def test_a_killed_run_goes_on_to_the_same_weights(store, tmp_path):
    whole = fine_tune(store, source(), tune(train={"steps": 6}), tmp_path / "whole", ROWS)
    config = tune(train={"steps": 6, "checkpoint_every": 2})

    class Killed(Exception):
        pass

    def kill(model):
        raise Killed

    stopping = replace(config, train=replace(config.train, eval_every=3))
    with pytest.raises(Killed):
        fine_tune(store, source(), stopping, tmp_path / "cut", ROWS, kill)
    rest = fine_tune(store, source(), config, tmp_path / "cut", ROWS)
    state = rest.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in whole.model.state_dict().items())


def test_a_frozen_tower_stays_bit_identical(store, tmp_path):
    own = source()
    run = fine_tune(store, own, tune(frozen=True), tmp_path / "run", ROWS)
    before = own.image.state_dict()
    for name, value in run.model.tower.state_dict().items():
        assert torch.equal(value, before[name]), name
    fresh = build_model(own, tune(frozen=True)).head.state_dict()
    assert any(not torch.equal(v, fresh[k]) for k, v in run.model.head.state_dict().items())
    assert run.facts["trainable"] < run.facts["parameters"]


def test_end_to_end_moves_the_tower_and_spares_the_source(store, tmp_path):
    own = source()
    before = {k: v.clone() for k, v in own.state_dict().items()}
    run = fine_tune(store, own, tune(), tmp_path / "run", ROWS)
    assert all(torch.equal(v, before[k]) for k, v in own.state_dict().items())
    moved = run.model.tower.state_dict()
    assert any(not torch.equal(v, before[f"image.{k}"]) for k, v in moved.items())


def test_each_layer_learns_at_its_own_rate(store, tmp_path):
    model = build_model(source(), tune(layer_decay=0.5))
    parameters = dict(model.named_parameters())
    config = TrainConfig(steps=2, lr=1.0, weight_decay=0.1)
    optimizer = make_optimizer(parameters, config)
    set_rate(optimizer, 0.8)
    seen = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen += 1
            assert group["lr"] == pytest.approx(0.8 * getattr(parameter, LR_SCALE))
    assert seen == len(parameters)
    assert {getattr(p, LR_SCALE) for p in parameters.values()} == {0.5**i for i in range(6)}
    plain = make_optimizer(dict(build_model(source(), tune()).named_parameters()), config)
    assert len(plain.param_groups) == 2
    slow = fine_tune(store, source(), tune(layer_decay=1e-6), tmp_path / "slow", ROWS)
    before = source().image.state_dict()
    for name, parameter in slow.model.tower.named_parameters():
        assert float((parameter - before[name]).abs().max().detach()) < 1e-6


def test_statistics_of_batches_are_frozen_where_that_was_chosen(store, tmp_path):
    head = HeadConfig(classes=CLASSES, width=8, hidden=8, statistics="frozen")
    run = fine_tune(store, source(), tune(head=head), tmp_path / "run", ROWS)
    before = source().image.state_dict()
    for name, value in run.model.tower.state_dict().items():
        if "running" in name:
            assert torch.equal(value, before[name])


def test_drop_path_grows_with_depth():
    from understudy.models.layers import DropPath

    model = build_model(source(), tune(drop_path=0.2))
    rates = [m.rate for m in model.tower.modules() if isinstance(m, DropPath)]
    assert rates == sorted(rates)
    assert rates[-1] == 0.2
    assert rates[0] < 0.1
    assert model.config.image.drop_path == 0.2
    assert build_model(source(), tune()).config.image.drop_path == 0.0
    with pytest.raises(ConfigError, match="no residual branches"):
        build_model(models.create("cnn-tiny", seed=0), tune(drop_path=0.1))


def test_depth_is_tuned_as_well(store, tmp_path):
    config = tune(
        head=HeadConfig(task="depth", kind="decoder", width=8, hidden=8),
        masks=None,
        depth=DepthSpec(),
        train={"steps": 30, "lr": 5e-3},
    )
    run = fine_tune(store, source(), config, tmp_path / "run", ROWS)
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [x["loss"] for x in lines if "loss" in x]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert run.model.config.head.task == "depth"


def test_bad_input_of_fine_tuning(store, tmp_path):
    with pytest.raises(ModelError, match="is folded .* fine-tune the unfolded model"):
        fine_tune(store, source().eval().fold(), tune(), tmp_path / "a", ROWS)
    with pytest.raises(ConfigError, match="mean: mci-nano was pretrained on images normalised"):
        fine_tune(store, source(), tune(mean=(0.48, 0.45, 0.4)), tmp_path / "b", ROWS)
    with pytest.raises(DataError, match="class 0 is 'ball' for the head and 'ground' for the data"):
        tune(head=HeadConfig(classes=CLASSES[::-1]))
    with pytest.raises(ConfigError, match="say where the masks are"):
        tune(masks=None)
    with pytest.raises(ConfigError, match="cannot be shared"):
        fine_tune(store, source(), tune(train={"batch_size": 0}), tmp_path / "c", ROWS)
    config = tune(
        head=HeadConfig(task="depth", kind="decoder"), masks=None, depth=DepthSpec(scale=1.0)
    )
    with pytest.raises(DataError, match="give the unit"):
        fine_tune(store, source(), config, tmp_path / "d", ROWS)
    for options, message in (
        ({"layer_decay": 0.0}, "layer_decay: expected"),
        ({"layer_decay": 0.5, "train": {"strategy": "fsdp"}}, "lose their own learning rates"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"alpha": 2.0}, "alpha: expected"),
    ):
        with pytest.raises(ConfigError, match=message):
            tune(**options)


def scorer_of(rows):
    """Return a scorer of some rows; this one does not look at them."""
    return count_class


def test_transfer_reports_every_label_count(store, tmp_path, caplog):
    config = TransferConfig(tune=tune(seed=5), labels=(2, 0.5, 1.0), lrs=(1e-2,), validation=0)
    rows = transfer(store, source(), config, tmp_path / "t", scorer_of, arm="a", samples_seen=0)
    assert [r.labels for r in rows] == [2, 4, 9]
    assert [r.fraction for r in rows] == pytest.approx([2 / 9, 4 / 9, 1.0])
    assert {(r.arm, r.seed, r.steps, r.lrs_tried) for r in rows} == {("a", 5, 4, 1)}
    assert rows[0].params > 0
    assert rows[0].flops > 2 * rows[0].params
    assert read_transfer(tmp_path / "t") == rows
    again = transfer(store, source(), config, tmp_path / "t", scorer_of, arm="a", samples_seen=0)
    assert [r.value for r in again] == [r.value for r in rows]


def test_the_rate_is_chosen_on_rows_that_no_subset_uses(store, tmp_path):
    asked: list = []

    def scorer(rows):
        asked.append(rows)
        return lambda model: {"miou": 0.7 if rows is None else float(model.training is False)}

    config = TransferConfig(
        tune=tune(), labels=(3, 1.0), lrs=(1e-2, 1e-3), validation=3, search_labels=3
    )
    rows = transfer(store, source(), config, tmp_path / "t", scorer, arm="a")
    validation = [r for r in asked if r is not None]
    assert len(validation) == 2
    assert np.array_equal(validation[0], validation[1])
    used = json.loads((tmp_path / "t" / "transfer_report.json").read_text())["facts"]
    assert used["validation_rows"] == 3
    assert used["labelled_rows"] == 6
    assert set(used["tried"]) == {"0.01", "0.001"}
    assert {r.lrs_tried for r in rows} == {2}
    assert {r.lr for r in rows} == {1e-3}  # of equals the smaller one
    assert max(r.labels for r in rows) == 6
    # the search's winner with three labels is the run with three labels
    assert not (tmp_path / "t" / "labels-3").exists()
    assert (tmp_path / "t" / "labels-6").exists()
    fresh = fine_tune(
        store, source(), tune(train={"lr": 1e-3}), tmp_path / "f", subset_of(rows, store)
    )
    searched = load_dense(tmp_path / "t" / "search-0.001" / "dense.safetensors").state_dict()
    assert all(torch.equal(v, searched[k]) for k, v in fresh.model.state_dict().items())


def subset_of(rows, store):
    """Return the rows of the smallest subset, as the protocol draws them."""
    pool, _ = held_back(train_rows(store), 3, rows[0].seed)
    return nested_subsets(pool, [rows[0].labels], rows[0].seed)[rows[0].labels]


def test_a_better_rate_wins_and_errors_want_to_be_small(store, tmp_path):
    def by_rate(sign):
        def scorer(rows):
            return lambda model: {
                name: sign * float(model.head.classifier.weight.detach().std())
                for name in ("miou",)
            }

        return scorer

    config = TransferConfig(tune=tune(), labels=(1.0,), lrs=(1e-4, 5e-2), validation=2)
    grown = transfer(store, source(), config, tmp_path / "a", by_rate(1), arm="a")
    shrunk = transfer(store, source(), config, tmp_path / "b", by_rate(-1), arm="a")
    assert {grown[0].lr, shrunk[0].lr} == {1e-4, 5e-2}


def test_bad_input_a_class_without_a_pixel_is_named(tmp_path, caplog):
    flat = np.zeros((12, 16), np.uint8)
    store = dense_store(tmp_path / "s", mask=[png(flat)] * 12)
    config = TransferConfig(tune=tune(), labels=(2,))
    with caplog.at_level(logging.WARNING):
        rows = transfer(store, source(), config, tmp_path / "t", lambda rows: count_class, arm="a")
    assert rows[0].missing_classes == ["box", "ball"]
    assert "2 labelled rows have no pixel of: box, ball" in caplog.text


def test_what_makes_arms_comparable(store):
    config = TransferConfig(tune=tune(), labels=(0.5,))
    same = replace(config, tune=replace(config.tune, workers=1, seed=9), labels=(0.25, 0.5))
    assert protocol(store, config) == protocol(store, same)
    for changed in (
        replace(config, lrs=(1e-4,)),
        replace(config, tune=replace(config.tune, size=8)),
        replace(config, tune=replace(config.tune, frozen=True)),
        replace(config, tune=replace(config.tune, train=replace(config.tune.train, steps=5))),
    ):
        assert protocol(store, changed) != protocol(store, config)


def test_bad_input_of_transfer(store):
    for options, message in (
        ({"labels": ()}, "labels: expected positive"),
        ({"labels": (0.0,)}, "labels: expected positive"),
        ({"lrs": (1e-3, 1e-3)}, "different positive learning rates"),
        ({"lrs": (1e-3, 1e-2), "validation": 0}, "choosing among learning rates takes labelled"),
        ({"metric": "rmse_pixels"}, "'rmse_pixels' is not one of miou"),
    ):
        with pytest.raises(ConfigError, match=message):
            TransferConfig(tune=tune(), **options)
