import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.curate.counts import presets, shards
from understudy.curate.counts.documents import Documents, quality, unit_hash, with_scores
from understudy.curate.counts.held_out import check_held_out
from understudy.curate.counts.plan import CountConfig, CountPlan, plan_counts
from understudy.curate.counts.sharded import count_store
from understudy.curate.counts.store import documents_of, write_counts
from understudy.data.store import Store


def docs(n=60, seed=0, **changes):
    rng = np.random.default_rng(seed)
    facts = {
        "ids": [f"d{i:03d}" for i in range(n)],
        "tokens": rng.integers(5, 200, n),
        "score": rng.choice([0.1, 0.2, 0.5, 0.7, 0.95], n).astype(np.float32),
        "duplicates": rng.integers(1, 9, n),
    }
    return Documents(**{**facts, **changes})


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(1, 5), st.floats(0.05, 7.9), st.sampled_from([0.5, 1.0]))
def test_shards_give_what_all_documents_at_once_give(seed, parts, epochs, delta):
    all_, rng = docs(seed=seed), np.random.default_rng(seed)
    config = CountConfig(budget=int(all_.total * epochs) + 200, delta=delta, c_max=9)
    whole = plan_counts(all_, config)
    where = rng.integers(0, parts, len(all_))
    order = unit_hash(all_.ids)
    rows = [r for p in range(parts) if len(r := np.flatnonzero(where == p))]
    facts = [(all_.score[r], all_.duplicates[r], all_.tokens[r], order[r]) for r in rows]
    solved = shards.solve(
        shards.merged([shards.sketch(s, d, t) for s, d, t, _ in facts]),
        config.budget, gamma=config.gamma, eta=config.eta, delta=delta, most=9,
    )  # fmt: skip
    solved = shards.finish(solved, [shards.marginal(solved, *f) for f in facts])
    for r, (s, d, _, o) in zip(rows, facts, strict=True):
        assert shards.counts(solved, s, d, o).tolist() == whole.counts[r].tolist()


def test_greedy_plan_depends_on_ids_and_not_on_order():
    all_ = docs()
    config = CountConfig(budget=all_.total * 3)
    plan = plan_counts(all_, config)
    rows = np.random.default_rng(3).permutation(len(all_))
    again = plan_counts(all_.take(rows), config)
    assert again.counts.tolist() == plan.counts[rows].tolist()
    assert again.facts == plan.facts
    assert 0 <= config.budget - plan.total < all_.tokens.max()


@pytest.mark.parametrize("preset", ["uniform", "score-linear", "dup-count", "threshold-steps"])
def test_presets_meet_the_budget_and_round_to_neighbours(preset):
    all_ = docs(300)
    config = CountConfig(budget=int(all_.total * 1.7), preset=preset)
    plan = plan_counts(all_, config)
    assert 0 <= config.budget - plan.total < 2 * all_.tokens.max()
    assert plan.counts.max() <= config.c_max
    if preset == "uniform":
        assert set(plan.counts) == {1, 2}
    if preset == "score-linear":
        means = [plan.counts[all_.score == s].mean() for s in np.unique(all_.score)]
        assert means == sorted(means)


def test_threshold_steps_and_dup_count_without_a_budget_are_what_they_say():
    n = 100
    all_ = docs(n, score=np.arange(n, dtype=np.float32))
    plan = plan_counts(all_, CountConfig(preset="threshold-steps"))
    assert plan.counts.tolist() == [0] * 40 + [1] * 30 + [2] * 20 + [4] * 10
    plan = plan_counts(all_, CountConfig(preset="dup-count", c_max=5))
    assert plan.counts.tolist() == np.minimum(all_.duplicates, 5).tolist()
    with pytest.raises(ConfigError, match=r"add up to 1\.10"):
        presets.threshold_steps(np.array([0.5]), ((0.6, 2), (0.5, 1)))


def test_fractional_epochs_give_floor_and_ceiling_with_the_right_mean():
    all_ = docs(4_000)
    plan = plan_counts(all_, CountConfig(preset="uniform", epochs=2.5))
    assert set(plan.counts) == {2, 3}
    assert plan.counts.mean() == pytest.approx(2.5, abs=4 * 0.5 / 4_000**0.5)


def test_ranks_are_of_equal_scores_equal_and_within_a_source_if_asked():
    all_ = docs(
        4,
        score=np.array([0.2, 0.2, 0.9, 7.0], np.float32),
        source=["a", "a", "a", "b"],
        classifier={"a": "x", "b": "y"},
    )
    with pytest.raises(DataError, match=r"not comparable \(a: x, b: y\)"):
        quality(all_)
    assert quality(all_, by_source=True).tolist() == [1 / 3, 1 / 3, 5 / 6, 0.5]
    assert quality(docs(4, score=all_.score)).tolist() == [0.25, 0.25, 0.625, 0.875]


def test_missing_scores_follow_the_policy():
    score = np.array([0.5, np.nan, 0.1], np.float32)
    all_ = docs(3, score=score, tokens=np.array([10, 10, 10]))
    with pytest.raises(DataError, match=r"1 have no score \(d001\)"):
        plan_counts(all_, CountConfig(budget=10))
    assert with_scores(all_, "drop").ids == ["d000", "d002"]
    lowest = plan_counts(all_, CountConfig(budget=20, missing="lowest", delta=0.01, eta=0.0))
    assert lowest.counts.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["a", "b", "a"]}, r"1 ids come more than once \(a\); counts would be ambiguous"),
        ({"duplicates": np.array([1, -2, 1])}, r"duplicates of 1 \(d001\): counts the document"),
        ({"tokens": np.array([1, 0, 1])}, r"tokens of 1 \(d001\): must be at least 1"),
        ({"score": np.zeros(2)}, "3 ids, but 2 values of score"),
    ],
)
def test_bad_facts_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        docs(3, **changes)


def test_budgets_and_options_out_of_reach_are_refused():
    all_ = docs(10)
    with pytest.raises(ConfigError, match=f"{all_.total * 10:,}; that is the largest reachable"):
        plan_counts(all_, CountConfig(budget=all_.total * 10 + 1))
    with pytest.raises(ConfigError, match="largest reachable budget"):
        plan_counts(all_, CountConfig(budget=all_.total * 10 + 1, preset="uniform"))
    with pytest.raises(ConfigError, match=f"smallest document has {all_.tokens.min()}"):
        plan_counts(all_, CountConfig(budget=int(all_.tokens.min()) - 1))
    with pytest.raises(ConfigError, match="preset greedy needs one"):
        CountConfig()
    with pytest.raises(ConfigError, match=r"Did you mean 'greedy'"):
        CountConfig(budget=1, preset="greedi")


def test_more_than_forty_repeats_are_warned_about_with_their_worth():
    all_ = docs(5)
    with pytest.warns(UserWarning, match=r"100\.0% of the tokens .* more than 40 times; .* worth"):
        plan_counts(all_, CountConfig(preset="uniform", epochs=50, c_max=60))


def test_plans_come_back_from_files_and_are_checked(tmp_path):
    all_ = docs()
    plan = plan_counts(all_, CountConfig(budget=all_.total * 2, tokenizer_hash="abc"))
    again = CountPlan.read(plan.write(tmp_path / "plan"))
    assert (again.counts.tolist(), again.facts, again.config) == (
        plan.counts.tolist(), plan.facts, plan.config,
    )  # fmt: skip
    again.check_tokenizer("abc")
    with pytest.raises(ConfigError, match="counted with tokenizer abc, the trainer has xyz"):
        again.check_tokenizer("xyz")
    other = plan_counts(all_, CountConfig(budget=all_.total * 3))
    other.write(tmp_path / "other")
    (tmp_path / "other" / "counts.parquet").replace(tmp_path / "plan" / "counts.parquet")
    with pytest.raises(DataError, match="not the one of plan.json"):
        CountPlan.read(tmp_path / "plan")


def test_held_out_near_duplicates_are_refused():
    all_ = docs(3, cluster=["x", "y", "z"])
    plan = plan_counts(all_, CountConfig(preset="uniform", epochs=1))
    held = docs(2, ids=["h0", "h1"], cluster=["w", "y"])
    with pytest.raises(DataError, match=r"1 held-out documents \(h1\) have near-duplicates"):
        check_held_out(plan, all_, held)
    check_held_out(plan, all_, docs(1, ids=["h0"], cluster=["w"]))
    with pytest.raises(ConfigError, match="both sides need near-duplicate clusters"):
        check_held_out(plan, all_, docs(1, ids=["h0"]))


def test_counts_become_a_column_with_a_card(tmp_path):
    all_ = docs(20)
    store = Store.create(
        tmp_path / "s",
        [
            {
                "id": all_.ids,
                "length": all_.tokens,
                "score.q": all_.score,
                "dup_count": all_.duplicates,
            }
        ],
    )
    found = documents_of(store, score="score.q")
    assert found.identity() == all_.identity()
    plan = plan_counts(found, CountConfig(budget=all_.total))
    write_counts(store, plan)
    assert store.array("count").tolist() == plan.counts.tolist()
    assert store.card("count").facts["tokens"] == plan.total
    other = plan_counts(found, CountConfig(budget=all_.total * 2))
    with pytest.raises(CardError):
        write_counts(store, other)
    write_counts(store, other, overwrite=True)
    assert store.array("count").tolist() == other.counts.tolist()
    with pytest.raises(DataError, match="no column 'score.z'"):
        documents_of(store, score="score.z")
    stranger = plan_counts(docs(3, ids=["p", "q", "r"]), CountConfig(preset="uniform", epochs=1))
    with pytest.raises(DataError, match="counts 3 documents that are not there"):
        write_counts(store, stranger, column="count2")


@pytest.mark.parametrize("rows", [7, 100])
def test_a_store_is_counted_in_three_passes_of_tasks(tmp_path, rows):
    all_ = docs(40)
    columns = {"id": all_.ids, "length": all_.tokens, "score.q": all_.score}
    store = Store.create(tmp_path / "s", [{**columns, "dup_count": all_.duplicates}])
    config = CountConfig(budget=int(all_.total * 2.3))
    plan = plan_counts(all_, config)
    facts = count_store(store, config, tmp_path / "work", score="score.q", rows=rows, workers=1)
    assert store.array("count").tolist() == plan.counts.tolist()
    assert facts["tokens"] == plan.total
    assert facts["lambda"] == pytest.approx(plan.facts["lambda"])
    with pytest.raises(ConfigError, match="use plan_counts for the rest"):
        count_store(store, CountConfig(preset="uniform", epochs=1), tmp_path, score="score.q")
