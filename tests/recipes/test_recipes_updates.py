"""fct and fastfill: the claims' wiring, the plans' numbers, runs on a small store, their pages."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from understudy.cli import main
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json
from understudy.data import scenes
from understudy.evaluate.claims import Context
from understudy.models.embedding.compatible import TransformConfig, count_parameters
from understudy.recipes import RECIPES, fastfill, fastfill_arms, fct, fct_arms
from understudy.recipes.fastfill_claim import AUC, in_order
from understudy.train.config import TrainConfig
from understudy.update.fit_config import FitConfig
from understudy.update.maps import load_map
from understudy.update.small_update import SETTINGS, read_samples

TINY = {**SETTINGS, "old_epochs": 2, "new_epochs": 2, "side_epochs": 2, "inner": 8,
        "map_epochs": 2, "map_batch": 256}  # fmt: skip


def context(folder, recipe: str, settings=TINY) -> Context:
    return Context(
        recipe=recipe,
        scale="laptop",
        settings=settings,
        shared_dir=folder / "shared",
        seed_dir=folder / "seed",
        arm_dir=folder / "seed",
    )


pytestmark = pytest.mark.filterwarnings("ignore::understudy.update.fit.FitWarning")


@pytest.fixture(scope="module")
def fct_world(tmp_path_factory):
    made = context(tmp_path_factory.mktemp("fct"), "fct")
    return replace(made, prepared=fct_arms.prepare(1000, made))


@pytest.fixture(scope="module")
def fill_world(tmp_path_factory):
    made = context(tmp_path_factory.mktemp("fill"), "fastfill")
    return replace(made, prepared=fastfill_arms.prepare(1000, made))


def run(module, arm, world, tmp_path):
    return module.run_arm(arm, 1000, replace(world, arm_dir=tmp_path))


# -- the claim of fct


def test_the_set_up_is_the_documented_one(fct_world):
    train, test = read_samples(fct_world.prepared)
    assert (len(train), len(test)) == (1078, 719)
    assert not set(train.ids) & set(test.ids)
    assert (train.old.shape[1], train.new.shape[1]) == (8, 32)
    assert train.side is not None
    assert train.side.shape[1] == 16
    assert (SETTINGS["old_epochs"], SETTINGS["new_epochs"], SETTINGS["side_epochs"]) == (20, 40, 60)
    assert (SETTINGS["inner"], SETTINGS["map_epochs"], SETTINGS["map_batch"]) == (256, 80, 64)
    from understudy.models.runs import load_run

    folder = fct_world.seed_dir
    assert load_run(folder / "old").config.num_classes == 5  # type: ignore[union-attr]
    assert load_run(folder / "new").config.num_classes == 10  # type: ignore[union-attr]


def test_every_arm_runs_and_maps_have_the_counted_size(fct_world, tmp_path):
    found = {a: run(fct_arms, a, fct_world, tmp_path / a) for a in fct_arms.ARMS}
    assert all(0 < row["map"] <= 1 and row["queries"] == 719 for row in found.values())
    for arm, side in (("plain", 0), ("side", 16), ("shuffled", 16), ("noise", 16)):
        h = TransformConfig(old_dim=8, new_dim=32, side_dim=side, inner=8)
        assert found[arm]["parameters"] == count_parameters(h)
    assert found["linear"]["mse"] <= found["rotation"]["mse"]
    assert found["bct"]["own_map"] > 0


def test_controls_keep_the_size_of_the_side_information_and_nothing_else(fct_world):
    train, _ = read_samples(fct_world.prepared)
    side = train.side
    shuffled = fct_arms._control(train, "shuffled", "train", 7).side
    noise = fct_arms._control(train, "noise", "train", 7).side
    assert side is not None
    assert shuffled is not None
    assert noise is not None
    assert np.array_equal(np.sort(shuffled, 0), np.sort(side, 0))
    assert (shuffled != side).any(1).mean() > 0.99
    np.testing.assert_allclose(noise.std(0), side.std(0), rtol=0.15)
    other = fct_arms._control(train, "noise", "test", 7).side
    assert not np.array_equal(noise, other)


def test_checks_of_fct_can_pass_and_fail():
    claim = fct.CLAIM
    good = {"old": 0.62, "new": 0.96, "plain": 0.86, "side": 0.95, "shuffled": 0.82, "noise": 0.82,
            "linear": 0.8, "rotation": 0.7, "bct": 0.5, "reconstruct": 0.94}  # fmt: skip

    def verdicts(**changes):
        values = {**good, **changes}
        jitter = np.linspace(0, 1e-3, 5)
        results = {
            a: {"map": values[a] + jitter, "cmc_1": values[a] + jitter} for a in fct_arms.ARMS
        }
        return {c.name: c.judge(results).passed for c in claim.checks if c.required}

    assert all(verdicts().values())
    assert not verdicts(side=0.89)["side information helps"]
    assert not verdicts(shuffled=0.95)["side information of other items does worse"]
    assert not verdicts(shuffled=0.9)["side information of other items gives none of the gain"]
    assert not verdicts(noise=0.94)["noise of that size does worse"]
    assert not verdicts(new=1.2)["most of a full backfill's gain is had without it"]
    assert not verdicts(plain=0.7)["a map without it beats no update"]


def test_the_claims_use_fresh_seeds():
    assert len(fct.CLAIM.seeds) == len(fastfill.CLAIM.seeds) == 5
    assert not {1000, 1001, 1002} & {*fct.CLAIM.seeds, *fastfill.CLAIM.seeds}


# -- the claim of fastfill


def test_orders_of_one_map_share_their_ends(fill_world, tmp_path):
    skipped = ("fct-disc", "index", "reversed")
    arms = [a for a in fastfill_arms.ARMS if a not in skipped]
    found = {a: run(fastfill_arms, a, fill_world, tmp_path / a) for a in arms}
    orders = ("random", "uncertainty", "oracle", "wrong-labels")
    for end in ("at_0", "at_1"):
        assert len({found[a][end] for a in orders}) == 1
    assert found["fct"]["at_1"] == found["random"]["at_1"] == found["fair-random"]["at_1"]
    assert found["fct"]["at_0"] != found["random"]["at_0"]
    assert found["hot-refresh"]["at_1"] != found["random"]["at_1"]
    assert -1 <= found["random"]["spearman"] <= 1
    fair = found["fair-random"], found["fair-uncertainty"]
    assert fair[0]["gap_at_0"] == fair[1]["gap_at_0"]
    assert "gap_fall" not in found["random"]


def test_orders_of_the_arms(fill_world):
    _, test = read_samples(fill_world.prepared["files"]["main"])
    made = load_map(fill_world.prepared["maps"]["full"])
    mapped, u = made.transform(test.old)
    assert u is not None

    def order(kind):
        return fastfill_arms._orders(kind, test, mapped, u, None, 1000)

    (first,), (last,) = order("uncertainty"), order("reversed")
    assert (np.diff(u[first]) <= 0).all()
    assert (np.diff(u[last]) >= 0).all()
    error = np.linalg.norm(mapped - test.new, axis=1)
    assert (np.diff(error[order("oracle")[0]]) <= 1e-6).all()
    assert len({tuple(o) for o in order("random")}) == fastfill_arms.RANDOM
    assert order("index")[0].tolist() == list(range(719))


def test_the_biased_old_model_sees_a_tenth_of_one_digit(fill_world):
    from understudy.update.small_update import SmallUpdate

    update = SmallUpdate(fill_world.seed_dir, 1000, TINY)
    minority, kept = fastfill_arms.MINORITY, fastfill_arms.KEPT
    rows = update._biased(kept, minority)
    labels = update.store.take(update.store.where(rows.where), ["label"])["label"].to_numpy()
    whole = update.store.take(update.store.where(update.old_rows.where), ["label"])
    before = np.bincount(whole["label"].to_numpy(), minlength=5)
    after = np.bincount(labels, minlength=5)
    assert after[minority] == round(kept * before[minority])
    assert np.array_equal(np.delete(after, minority), np.delete(before, minority))


def test_checks_of_fastfill_can_pass_and_fail():
    good = {"fct": 0.905, "fct-disc": 0.906, "random": 0.908, "uncertainty": 0.933,
            "reversed": 0.888, "oracle": 0.95, "index": 0.91, "wrong-labels": 0.905,
            "fair-random": 0.9, "fair-uncertainty": 0.91, "hot-refresh": 0.8}  # fmt: skip

    def verdicts(**changes):
        values, jitter = {**good, **changes}, np.linspace(0, 1e-3, 5)
        results = {
            a: {AUC: values[a] + jitter, "gap_fall": values[a] + jitter,
                "at_0": 0.9 + jitter, "at_1": 0.96 + jitter}
            for a in fastfill_arms.ARMS
        }  # fmt: skip
        return {c.name: c.judge(results).passed for c in fastfill.CLAIM.checks if c.required}

    assert all(verdicts().values())
    assert not verdicts(uncertainty=0.912)["uncertain items first"]
    assert not verdicts(**{"wrong-labels": 0.931})["uncertainty of wrong labels does worse"]
    assert not verdicts(index=0.932)["item numbers do worse"]
    assert not verdicts(oracle=0.92)["orders stand as they should"]
    assert not verdicts(reversed=0.91)["orders stand as they should"]
    low = {n: {AUC: np.array([v])} for n, v in good.items()}
    assert in_order(low)[0]


# -- plans


def test_plans_count_h_to_the_unit():
    made = fct.PLAN()
    assert made.value("parameters of h") == 5_712_000
    assert made.value("side information of an item") == 512
    assert made.value("a billion items: side information") == 512e9
    assert made.value("parameters of a backbone") == 22_783_552 + 128_000
    ratio = made.value("an item through the new model") / made.value("an item through h")
    assert made.value("new model / h") == pytest.approx(ratio)
    full, mapping = (made.value(f"ImageNet: {how}") for how in ("full backfill", "mapping"))
    assert full / mapping == pytest.approx(ratio)
    assert made.value("device hours: total") > full
    filled = fastfill.PLAN()
    assert filled.value("parameters of h, 384 -> 768") == 15_026_689
    assert filled.value("parameters of h with uncertainty") == 5_712_000 + 129
    tenth = filled.value("ImageNet: backfill of 10%")
    assert filled.value("ImageNet: backfill of 100%") == pytest.approx(10 * tenth)


@pytest.mark.parametrize("name", ["fct", "fastfill"])
def test_plans_refuse_what_they_cannot_count(name):
    with pytest.raises(ConfigError, match="no classifier"):
        RECIPES.load(name).PLAN(model="mobileclip-s0")
    with pytest.raises(ConfigError, match="scale"):
        RECIPES.load(name).PLAN(scale="laptop")


# -- runs


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return scenes.to_store("scans", tmp_path_factory.mktemp("scans") / "s", train=300)


def settings(store, **changes):
    base = {
        "old": "train:digits-mlp-8",
        "new": "train:digits-mlp-32",
        "limit": 150,
        "train": TrainConfig(
            steps=60, batch_size=32, lr=1e-2, optimizer="adam", schedule="constant", device="cpu"
        ),
        "fit": FitConfig(inner=16, epochs=6, warmup_epochs=1, batch_size=32, device="cpu"),
    }
    return {"store": store.path, **base, **changes}


def test_run_fct_on_trained_models(store, tmp_path):
    config = fct.Config(
        **settings(store, side="simclr:digits-mlp-16", shift=1, noise=0.1, out=tmp_path / "out")
    )
    folder = fct.run(config)
    result = read_json(folder / "result.json")
    updates = result["updates"]
    assert list(updates) == [
        "old/old", "new/new", "rotation", "least squares", "h", "h with side",
        "backward-compatible",
    ]  # fmt: skip
    assert updates["old/old"]["gain_map"] == 0
    assert updates["new/new"]["gain_map"] == 1
    assert result["rows"] == {"train": 150, "test": 150}
    assert result["costs"]["side_bytes_per_item"] == 64
    made = load_map(folder / "maps" / "h-with-side" / "map.safetensors")
    assert made.side_dim == 16
    assert made.num_parameters == updates["h with side"]["parameters"]
    assert made.from_space.model == "digits-mlp-8"
    assert not made.to_space.serves(made.from_space)


def test_run_fct_from_the_command_line_with_equal_widths(store, tmp_path, capsys):
    words = [
        "run", "fct", str(store.path), "--old", "supplied", "--new", "x",
    ]  # fmt: skip
    assert main([*words, "--out", str(tmp_path / "x")]) == 2
    assert "supplied" in capsys.readouterr().err
    line = "random-conv?dim=8&size=8&grid=1&filters=16"
    words = [
        "run", "fct", str(store.path), "--old", f"one={line}", "--new", f"two={line}&seed=1",
        "--limit", "120", "--fit.inner", "8", "--fit.epochs", "2", "--fit.warmup-epochs", "0",
        "--fit.batch-size", "64", "--fit.device", "cpu", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main([*words, "--dry-run", "--json"]) == 0
    rows = {r["label"]: r["value"] for r in json.loads(capsys.readouterr().out)["rows"]}
    assert (rows["items to learn from"], rows["maps"]) == (120, 1)
    assert not (tmp_path / "out").exists()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "report.html" in said
    result = read_json(tmp_path / "out" / "result.json")
    raw = result["updates"]["new/old, raw"]
    assert raw["map"] < result["updates"]["old/old"]["map"] - 0.1  # one width, another space
    assert "backward-compatible" not in result["updates"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "least squares" in page
    assert "share of the gain" in page


def test_run_fastfill_with_groups(store, tmp_path):
    config = fastfill.Config(
        **settings(store, groups="text", minority="the handwritten digit eight", points=5,
                   permutations=2, out=tmp_path / "out")
    )  # fmt: skip
    folder = fastfill.run(config)
    result = read_json(folder / "result.json")
    assert result["classifier"] == "the new model's own"
    assert list(result["curves"]) == ["l2", "l2+disc", "l2+disc+unc"]
    plain, full = result["curves"]["l2"]["orders"], result["curves"]["l2+disc+unc"]["orders"]
    assert set(plain) == {"random", "distance", "class-mean"}
    assert set(full) == {*plain, "uncertainty", "ascending"}
    assert full["random"]["permutations"] == 2
    assert len(full["uncertainty"]["gap"]) == 5
    end = {curve["metrics"]["map"][-1] for curve in (*plain.values(), *full.values())}
    assert end == {result["updates"]["new/new"]["map"]}
    assert (folder / "curves" / "l2" / "curve.png").is_file()
    assert result["maps"]["l2"]["spearman"] is None
    from understudy.report.update_pages import write_update_page

    text = write_update_page(folder, title="t").read_text()
    assert "Backfilling, loss l2+disc+unc" in text
    assert "Spearman of uncertainty" in text


def test_run_on_files_of_pairs(fct_world, tmp_path):
    files = fct_world.prepared
    fit = FitConfig(inner=8, epochs=2, warmup_epochs=0, batch_size=256, device="cpu")
    shared = {"store": files["train"], "test": files["test"], "fit": fit}
    found = read_json(fct.run(fct.Config(**shared, out=tmp_path / "fct")) / "result.json")
    assert "h with side" in found["updates"]
    own = fastfill.Config(
        **shared, out=tmp_path / "fill", classifier=files["head"], losses=("l2+disc+unc",),
        with_side=False,
    )  # fmt: skip
    filled = read_json(fastfill.run(own) / "result.json")
    assert filled["classifier"] == files["head"]
    without = fastfill.Config(**shared, out=tmp_path / "means", losses=("l2+disc",), points=3)
    assert read_json(fastfill.run(without) / "result.json")["classifier"] == "class means"
    assert fastfill.preview(without).value("maps") == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"losses": ("l3",)}, "losses"),
        ({"losses": ("l2", "l2")}, "expected different ones"),
        ({"points": 1}, "points, permutations"),
        ({"minority": "a"}, "a group of which column"),
    ],
)
def test_bad_options_of_fastfill(store, changes, text):
    with pytest.raises(ConfigError, match=text):
        fastfill.Config(**settings(store, **changes))


def test_a_classifier_that_does_not_fit(fct_world, tmp_path):
    files = fct_world.prepared
    fit = FitConfig(inner=8, epochs=2, warmup_epochs=0, batch_size=256, device="cpu")
    shared = {"store": files["train"], "test": files["test"], "fit": fit, "losses": ("l2+disc",)}
    old = f"{fct_world.seed_dir / 'old' / 'model.safetensors'}:image.head"
    with pytest.raises(DataError, match="takes vectors of 8 numbers, the new vectors have 32"):
        fastfill.run(fastfill.Config(**shared, classifier=old, out=tmp_path / "x"))
