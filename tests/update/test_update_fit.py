"""Learning a map: phases, held-out pairs, classifiers, warnings, resuming."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from map_world import CLASSES, NEW_DIM, make_store, quick, vectors
from safetensors.torch import load_file, save_file

from understudy.core.errors import ConfigError, DataError
from understudy.models.embedding.compatible import CompatibleTransform
from understudy.train.checkpoint import read, step_folder, steps
from understudy.train.optim import make_optimizer
from understudy.train.schedule import learning_rate
from understudy.update.classifier import FrozenHead, load_head, prototypes
from understudy.update.fit import FitWarning, fit_map, transform_config
from understudy.update.fit_config import FitConfig
from understudy.update.fit_score import score, split_items
from understudy.update.fit_step import MapBatches, MapStep
from understudy.update.maps import load_map
from understudy.update.pair_files import pairs_of_file
from understudy.update.pairs import pairs_of_store
from understudy.update.vector_files import write_npz

pytestmark = pytest.mark.filterwarnings("ignore::understudy.update.fit.FitWarning")


def pairs_at(path, n=300, seed=0, labels=True, **changes):
    made = {**vectors(seed, n), **changes}
    write_npz(
        path,
        np.array([f"i{seed}-{k}" for k in range(n)]),
        {"old": made["old"], "new": made["new"]},
        labels=made["labels"] if labels else None,
    )
    return pairs_of_file(path)


@pytest.fixture
def pairs(tmp_path):
    return pairs_at(tmp_path / "pairs.npz")


def test_defaults_are_the_published_ones():
    config = FitConfig()
    train = config.train_config(steps_per_epoch=7, batch_size=1024)
    assert (train.steps, train.batch_size, train.lr) == (560, 1024, 5e-4)
    assert train.weight_decay == 3.0517578125e-5
    for epoch in range(80):  # lr (e + 1) / 5, then a cosine by the epoch
        expected = (epoch + 1) / 5
        if epoch >= 5:
            expected = 0.5 * (1 + math.cos(math.pi * (epoch - 5) / 75))
        for step in (7 * epoch, 7 * epoch + 6):
            assert learning_rate(step, train) == pytest.approx(5e-4 * expected)
    model = CompatibleTransform(transform_config_of(old=3, new=2), seed=0)
    optimizer = make_optimizer(dict(model.named_parameters()), train)
    assert type(optimizer) is torch.optim.Adam  # decay is added to the gradient, not decoupled
    assert [g["weight_decay"] for g in optimizer.param_groups] == [2.0**-15]
    assert optimizer.defaults["betas"] == (0.9, 0.999)


def transform_config_of(old, new):
    from understudy.models.embedding.compatible import TransformConfig

    return TransformConfig(old_dim=old, new_dim=new, inner=4)


def test_statistics_are_frozen_in_the_second_half_and_weights_are_not(pairs, tmp_path):
    out = tmp_path / "run"
    config = quick(epochs=6, checkpoints=6)
    fit_map(pairs, config, out)
    kept = steps(out / "checkpoints")
    assert len(kept) == 2  # the last two epochs, both in the second half
    first, last = (read(step_folder(out / "checkpoints", s))[0]["model"] for s in kept)
    moved = {k for k in first if not torch.equal(first[k], last[k])}
    assert not any("running" in k or "num_batches" in k for k in moved)
    assert all(k in moved for k in first if k.endswith("weight"))
    assert any(k.endswith("norm.weight") for k in moved)


def test_statistics_learn_in_the_first_half(pairs, tmp_path):
    config = quick(epochs=5)  # epochs 0, 1 and 2 are less than 5 / 2
    model = CompatibleTransform(transform_config(pairs, config), seed=0)
    batches = MapBatches(pairs, np.arange(len(pairs)), 64, 0)
    assert config.frozen_epochs == 2
    step = MapStep(config=config, freeze_at=3 * batches.steps_per_epoch)
    batch = next(iter(batches(0, 1)))
    for number, learns in ((0, True), (step.freeze_at - 1, True), (step.freeze_at, False)):
        before = model.p1[0].norm.running_mean.clone()
        model.train()  # what the loop does when it starts again
        step(model, {**batch, "step": number})
        assert torch.equal(before, model.p1[0].norm.running_mean) != learns
        assert model.training == learns


def test_it_learns_and_the_score_is_that_of_pairs_it_never_saw(pairs, tmp_path):
    result = fit_map(pairs, quick(epochs=60, lr=5e-3), tmp_path / "run")
    assert result.held_out.r2 > 0.5
    learned, scored = split_items(pairs, 0.1, 0)
    assert result.learned == len(learned) == 270
    found = load_map(tmp_path / "run")
    z, u = found.transform(pairs.old.take(scored))
    assert u is None
    new = pairs.new.take(scored)
    error = ((z - new) ** 2).mean()
    assert found.manifest["held_out_mse"] == pytest.approx(error, rel=1e-4)
    total = ((new - new.mean(0)) ** 2).sum()
    r2 = 1 - ((z - new) ** 2).sum() / total
    assert found.manifest["held_out_r2"] == pytest.approx(r2, rel=1e-4)
    assert found.manifest["train_pairs"] == 270
    assert found.manifest["train_fingerprint"] == pairs.fingerprint


def test_r2_of_the_mean_is_zero(pairs):
    items = np.arange(len(pairs))
    mean = pairs.new.take(items).mean(0)
    found = score(lambda old, side: np.tile(mean, (len(old), 1)), pairs, items)
    assert found.r2 == pytest.approx(0, abs=1e-9)


def test_held_out_items_follow_their_ids(tmp_path):
    """Not their order: the same item is held out wherever it stands."""
    made, n = vectors(), 300
    ids = np.array([f"x{k}" for k in range(n)])
    turned = np.random.default_rng(5).permutation(n)
    held = []
    for name, order in (("a", np.arange(n)), ("b", turned)):
        fields = {"old": made["old"][order], "new": made["new"][order]}
        write_npz(tmp_path / f"{name}.npz", ids[order], fields)
        pairs = pairs_of_file(tmp_path / f"{name}.npz")
        learned, scored = split_items(pairs, 0.2, 7)
        assert sorted([*learned, *scored]) == list(range(n))
        held.append({pairs.name(i) for i in scored})
    assert held[0] == held[1]
    assert len(held[0]) == 60
    other = split_items(pairs, 0.2, 8)[1]
    assert {pairs.name(i) for i in other} != held[0]


def test_uncertainty_learns_the_log_of_the_loss(pairs, tmp_path):
    result = fit_map(pairs, quick(loss="l2+unc", epochs=60), tmp_path / "run")
    items = split_items(pairs, 0.1, 0)[0]
    z, u = result.map.transform(pairs.old.take(items))
    errors = ((z - pairs.new.take(items)) ** 2).mean(1)
    # the mean of exp(-u) l is 1 at the optimum of the mean over items
    assert np.mean(np.exp(-u) * errors) == pytest.approx(1, abs=0.3)
    assert np.corrcoef(u, np.log(errors))[0, 1] > 0.1


def test_nothing_but_the_map_learns(pairs, tmp_path):
    head = FrozenHead(
        weight=torch.randn(CLASSES, NEW_DIM, requires_grad=True),
        bias=torch.zeros(CLASSES),
        origin="test",
    )
    kept = head.weight.clone()
    old, new = pairs.old.values.copy(), pairs.new.values.copy()
    result = fit_map(pairs, quick(loss="l2+disc+unc", held_out=0.2), tmp_path / "run", head=head)
    assert not head.weight.requires_grad
    assert torch.equal(kept, head.weight)
    assert np.array_equal(old, pairs.old.values)
    assert np.array_equal(new, pairs.new.values)
    names = load_file(tmp_path / "run" / "model.safetensors")
    assert not any("classifier" in name for name in names)
    # it travels in the map's file, beside what it learned
    found = load_map(result.path)
    assert torch.equal(found.head["weight"], kept)
    assert found.manifest["classifier"]["origin"] == "test"


def test_held_out_labels_are_not_looked_at(tmp_path):
    clean = pairs_at(tmp_path / "a.npz")
    scored = split_items(clean, 0.1, 0)[1]
    labels = clean.labels.copy()
    labels[scored] = 999  # would be refused, or change the prototypes
    dirty = dataclasses.replace(clean, labels=labels)
    for head in (None, FrozenHead(weight=torch.randn(4, 5), bias=torch.zeros(4), origin="t")):
        name = "given" if head else "prototypes"
        runs = [
            fit_map(p, quick(loss="l2+disc", epochs=2), tmp_path / name / str(i), head=head)
            for i, p in enumerate((clean, dirty))
        ]
        assert runs[0].map.fingerprint == runs[1].map.fingerprint


def test_prototypes_are_the_nearest_mean(tmp_path):
    draw = np.random.default_rng(0)
    classes = np.array([2, 5, 9])  # labels need not be 0, 1, 2
    labels = classes[draw.integers(0, 3, 90)]
    new = draw.normal(size=(90, 4)) + labels[:, None]
    head = prototypes(lambda: [(new[:40], labels[:40]), (new[40:], labels[40:])], classes)
    means = np.stack([new[labels == c].mean(0) for c in classes])
    residual = new - means[np.searchsorted(classes, labels)]
    variance = (residual**2).sum() / (87 * 4)
    z = draw.normal(size=(7, 4)) * 5
    expected = -((z[:, None] - means) ** 2).sum(2) / (2 * variance)
    found = head.logits(torch.from_numpy(z)).numpy()
    expected -= expected.mean(1, keepdims=True)
    found -= found.mean(1, keepdims=True)
    factor = (found * expected).sum() / (expected**2).sum()
    np.testing.assert_allclose(found, factor * expected, rtol=1e-3, atol=1e-3)
    assert head.places(torch.tensor([5, 9, 2])).tolist() == [1, 2, 0]

    def smoothed(t):  # the factor is the best power of two there is
        logits = -t * ((new[:, None] - means) ** 2).sum(2) / (2 * variance)
        logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        right = logs[np.arange(90), np.searchsorted(classes, labels)]
        return -(0.9 * right + 0.1 * logs.mean(1)).mean()

    assert smoothed(factor) <= min(smoothed(factor * 2), smoothed(factor / 2)) + 1e-9
    assert factor < 1  # classes this far apart would be told apart with too much certainty


def test_copies_of_a_dimension_do_not_make_prototypes_surer():
    """Dimensions are not independent: a hundred copies of them say no more than one."""
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 3, 200)
    new = draw.normal(size=(200, 4)) + 0.7 * labels[:, None]
    spread = []
    for copies in (1, 100):
        wide = np.tile(new, (1, copies))
        head = prototypes(lambda wide=wide: [(wide, labels)], np.arange(3))
        spread.append(float(head.logits(torch.from_numpy(wide)).std(1).mean()))
    assert spread[1] < 2.1 * spread[0]  # the factor is a power of two; without it, 100 times


def test_prototypes_stand_in_and_the_manifest_says_so(pairs, tmp_path):
    result = fit_map(pairs, quick(loss="l2+disc+unc"), tmp_path / "run")
    assert "class means" in result.map.manifest["classifier"]["origin"]
    assert result.map.has_uncertainty


def save_classifier(path, classes=CLASSES, dim=NEW_DIM, names=("weight", "bias")):
    save_file({names[0]: torch.randn(classes, dim), names[1]: torch.zeros(classes)}, path)
    return path


def test_classifiers_from_files(tmp_path):
    head = load_head(save_classifier(tmp_path / "a.safetensors"))
    assert (head.num_classes, head.dim) == (CLASSES, NEW_DIM)
    other = save_classifier(tmp_path / "b.safetensors", names=("x.head.weight", "x.head.bias"))
    assert torch.equal(load_head(other).weight, load_head(f"{other}:x.head").weight)
    bare = tmp_path / "c.safetensors"
    save_file({"weight": torch.ones(3, 2, 1, 1)}, bare)  # a 1x1 convolution without a bias
    assert load_head(bare).bias.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"kernel": torch.ones(3, 2)}, "no tensor 'weight'"),
        ({"weight": torch.ones(3)}, "expected 'weight' \\[classes, dim\\]"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, "expected 'weight'"),
    ],
)
def test_files_that_hold_no_classifier(tmp_path, tensors, words):
    path = tmp_path / "head.safetensors"
    save_file(tensors, path)
    with pytest.raises(DataError, match=words):
        load_head(path)


def test_missing_and_broken_classifier_files(tmp_path):
    with pytest.raises(DataError, match="no such classifier file"):
        load_head(tmp_path / "none.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a safetensors file"):
        load_head(tmp_path / "x.safetensors")


def test_classifiers_that_do_not_fit(pairs, tmp_path):
    def head(classes, dim):
        return load_head(save_classifier(tmp_path / "h.safetensors", classes, dim))

    config = quick(loss="l2+disc")
    with pytest.raises(DataError, match="takes vectors of 7 numbers, the new vectors have 5"):
        fit_map(pairs, config, tmp_path / "a", head=head(CLASSES, 7))
    with pytest.raises(DataError, match="outside of 0 to 2") as error:
        fit_map(pairs, config, tmp_path / "b", head=head(3, NEW_DIM))
    first = int(np.argmax(pairs.labels[split_items(pairs, 0.1, 0)[0]] == 3))
    assert f"'{pairs.name(int(split_items(pairs, 0.1, 0)[0][first]))}'" in str(error.value)
    known = dataclasses.replace(pairs, num_classes=CLASSES)
    with pytest.raises(DataError, match="tells 6 classes apart, the data have 4"):
        fit_map(known, config, tmp_path / "c", head=head(6, NEW_DIM))
    with pytest.raises(ConfigError, match="uses no classifier"):
        fit_map(pairs, quick(), tmp_path / "d", head=head(CLASSES, NEW_DIM))
    unlabelled = pairs_at(tmp_path / "u.npz", labels=False)
    with pytest.raises(DataError, match="needs labels"):
        fit_map(unlabelled, config, tmp_path / "e")


def test_the_store_names_the_number_of_classes(tmp_path):
    store = make_store(tmp_path / "s", side=False)
    assert pairs_of_store(store, "embed.old", "embed.new", labels="label").num_classes == 4


def warned(pairs, out, config=None, **options):
    with pytest.warns(FitWarning) as caught:
        result = fit_map(pairs, config or quick(), out, **options)
    assert [str(w.message) for w in caught if w.category is FitWarning] == result.warnings
    assert result.map.manifest["warnings"] == result.warnings
    return result.warnings


def test_too_few_pairs_warn_with_the_score(tmp_path):
    few = pairs_at(tmp_path / "few.npz", n=40)
    (sentence,) = [w for w in warned(few, tmp_path / "run") if "fewer than 10" in w]
    assert "36 pairs" in sentence
    assert "held-out MSE" in sentence


def test_a_map_that_is_no_better_than_the_mean_warns(tmp_path):
    noise = np.random.default_rng(0).normal(size=(300, NEW_DIM)).astype(np.float32)
    unrelated = pairs_at(tmp_path / "noise.npz", new=noise)
    found = warned(unrelated, tmp_path / "run", quick(epochs=30))
    assert any("no better than the mean" in w for w in found)


def test_pairs_that_are_scored_and_learned_from_warn(pairs, tmp_path):
    found = warned(pairs, tmp_path / "run", eval_pairs=pairs)
    assert any("300 of 300 pairs to score are also learned from" in w for w in found)
    other = pairs_at(tmp_path / "other.npz", seed=4)
    result = fit_map(pairs, quick(), tmp_path / "fair", eval_pairs=other)
    assert not any("also learned from" in w for w in result.warnings)
    assert result.held_out.count == 300


def test_normalised_and_other_vectors_mixed_warn(tmp_path):
    old = vectors()["old"].copy()
    old[::2] /= np.linalg.norm(old[::2], axis=1, keepdims=True)
    mixed = pairs_at(tmp_path / "mixed.npz", old=old)
    found = warned(mixed, tmp_path / "run")
    assert any("normalised and other vectors are mixed" in w for w in found)


def test_nothing_held_out_warns(pairs, tmp_path):
    found = warned(pairs, tmp_path / "run", quick(held_out=0.0))
    assert any("no pairs were held out" in w for w in found)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("field", ["old", "new"])
def test_bad_vectors_name_their_items(tmp_path, field, bad):
    values = vectors()[field].copy()
    values[[17, 42]] = bad
    broken = pairs_at(tmp_path / "bad.npz", **{field: values})
    with pytest.raises(DataError, match="'i0-17', 'i0-42'"):
        fit_map(broken, quick(), tmp_path / "run")


def test_a_run_that_was_stopped_ends_with_the_same_bytes(pairs, tmp_path):
    config = quick(loss="l2+disc+unc", epochs=4, checkpoints=4)
    whole = fit_map(pairs, config, tmp_path / "whole")
    calls = 0
    while True:
        part = fit_map(pairs, config, tmp_path / "parts", seconds_limit_s=1e-9)
        calls += 1
        if part.finished:
            break
        assert calls < 200
    assert calls > 3
    assert part.map.fingerprint == whole.map.fingerprint
    files = [load_file(tmp_path / run / "map.safetensors") for run in ("whole", "parts")]
    assert all(torch.equal(files[0][k], files[1][k]) for k in files[0])
    again = fit_map(pairs, config, tmp_path / "parts")  # done: nothing is trained again
    assert again.map.fingerprint == whole.map.fingerprint


def test_another_fit_does_not_go_on_in_the_same_folder(pairs, tmp_path):
    fit_map(pairs, quick(), tmp_path / "run")
    with pytest.raises(ConfigError):
        fit_map(pairs, quick(mu_sim=2.0), tmp_path / "run")
    fit_map(pairs, quick(mu_sim=2.0), tmp_path / "run", resume=False)


def test_a_rest_of_one_pair_is_left_out():
    class One:
        fields = {}  # noqa: RUF012
        labels = None

        def __len__(self):
            return 65

    batches = MapBatches(One(), np.arange(65), 64, 0)
    assert [len(batches.sampler.batch(s).rows) for s in range(2)] == [64, 64]
    batches = MapBatches(One(), np.arange(66), 64, 0)
    assert [len(batches.sampler.batch(s).rows) for s in range(2)] == [64, 2]
    assert MapBatches(One(), np.arange(20), 64, 0).batch_size == 20


def test_a_store_larger_than_memory_gives_the_same_map(tmp_path):
    store = make_store(tmp_path / "s")
    found = []
    for name, limit in (("memory", 1 << 30), ("store", 0)):
        pairs = pairs_of_store(
            store, "embed.old", "embed.new", side="embed.psi", memory_bytes=limit
        )
        assert hasattr(pairs.old, "values") == bool(limit)
        found.append(fit_map(pairs, quick(epochs=2, warmup_epochs=0), tmp_path / name).map)
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].side_dim == 3
    assert found[0].manifest["columns"]["side"] == "embed.psi"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"held_out": 50.0}, "a share of the pairs"),
        ({"epochs": 0}, "epochs"),
        ({"warmup_epochs": 80}, "must end before"),
        ({"batch_size": 1}, "batch_size"),
        ({"lr": 0.0}, "lr"),
        ({"loss": "l3"}, "not one of"),
        ({"frozen_share": 1.5}, "frozen_share"),
        ({"kind": "orthogonal", "loss": "l2+unc"}, "needs the network"),
        ({"mu_unc": -1.0}, "mu_unc"),
    ],
)
def test_bad_configurations(changes, word):
    with pytest.raises(ConfigError, match=word):
        FitConfig(**changes)
