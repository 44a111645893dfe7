"""Plans: what is planned, in which order, for what, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backfill_world import (
    MAPPED_COLUMN,
    NEW,
    NEW_COLUMN,
    OLD,
    make_world,
    write_column,
)

from understudy.core.errors import ConfigError, DataError
from understudy.data.spaces import Space, SpaceError
from understudy.update.orders import class_mean_distances, distances, order_by_score
from understudy.update.plan import (
    PlanConfig,
    check_plan,
    make_plan,
    read_plan,
    write_plan,
)
from understudy.update.plan_file import KEY


def ids_of(store):
    return store.array("id").tolist()


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path / "s", encoded=[3, 17, 40])


def test_uncertain_items_first_and_encoded_ones_outside(world):
    store, _, _, u = world
    plan = make_plan(store, PlanConfig(new=NEW_COLUMN))
    ids = ids_of(store)
    left = [i for i in range(60) if i not in (3, 17, 40)]
    expected = sorted(left, key=lambda i: (-u[i], ids[i]))
    assert plan.rows.tolist() == expected
    assert plan.ids.to_pylist() == [ids[i] for i in expected]
    assert np.array_equal(plan.u, u[expected])
    facts = plan.facts
    assert (facts["remaining"], facts["planned"], facts["encoded"], facts["absent"]) == (
        57,
        57,
        3,
        0,
    )
    assert facts["mapped"] == MAPPED_COLUMN
    assert facts["new_space"] == NEW.id


def test_the_other_policies(world):
    store, z, n, u = world
    left = np.array([i for i in range(60) if i not in (3, 17, 40)])
    ids = [ids_of(store)[i] for i in left]
    labels = store.array("label")[left]

    def rows(**options):
        return make_plan(store, PlanConfig(new=NEW_COLUMN, **options)).rows.tolist()

    up = order_by_score(u[left], ids, ascending=True)
    assert rows(policy="ascending") == left[up].tolist()
    assert sorted(rows(policy="random", seed=1)) == left.tolist()
    assert rows(policy="random", seed=1) == rows(policy="random", seed=1)
    assert rows(policy="random", seed=1) != rows(policy="random", seed=2)
    mean = order_by_score(class_mean_distances(z[left], labels), ids)
    assert rows(policy="class-mean", labels="label") == left[mean].tolist()
    write_column(store, "embed.full", NEW, n, np.arange(60))
    far = order_by_score(distances(z[left], n[left]), ids)
    assert rows(policy="distance", oracle="embed.full") == left[far].tolist()
    assert make_plan(store, PlanConfig(new=NEW_COLUMN, policy="random")).u is None


def test_budget_cuts_the_order_and_shows_what_is_unspent(world):
    store = world[0]
    whole = make_plan(store, PlanConfig(new=NEW_COLUMN))
    part = make_plan(store, PlanConfig(new=NEW_COLUMN, budget="0.2"))
    assert part.rows.tolist() == whole.rows[:11].tolist()  # floor(0.2 * 57)
    assert part.facts["unspent"] == 0
    more = make_plan(store, PlanConfig(new=NEW_COLUMN, budget="100items"))
    assert (more.facts["planned"], more.facts["unspent"]) == (57, 43)
    nothing = make_plan(store, PlanConfig(new=NEW_COLUMN, budget="0"))
    assert len(nothing) == 0


def test_rows_without_vectors_are_counted_as_absent(world):
    store = world[0]
    store.append([{"id": ["late"], "text": ["item 1 late"], "label": [1], "brand": ["b1"]}])
    plan = make_plan(store, PlanConfig(new=NEW_COLUMN))
    assert plan.facts["absent"] == 1
    assert "late" not in plan.ids.to_pylist()


def test_thousands_of_uncertainty(tmp_path):
    store, _, _, _ = make_world(tmp_path / "s", rows=4, uncertainty=False)
    u = np.array([-1000.0, 1000.0, 0.0, 1000.0], np.float32)
    write_column(store, MAPPED_COLUMN + ".u", NEW, u, np.arange(4), pa.float32(), {"map": "x"})
    plan = make_plan(store, PlanConfig(new=NEW_COLUMN))
    assert plan.u.tolist() == [1000.0, 1000.0, 0.0, -1000.0]
    first = plan.ids.to_pylist()[:2]
    assert first == sorted(first)


def test_file_round_trip(world, tmp_path):
    store = world[0]
    for policy in ("uncertainty", "random"):
        plan = make_plan(store, PlanConfig(new=NEW_COLUMN, policy=policy, budget="0.5"))
        path = write_plan(plan, tmp_path / "plan.parquet")
        table = pq.read_table(path)
        assert table.column_names == ["rank", "id", "row", "u", "policy"]
        assert table.column("rank").to_pylist() == list(range(len(plan)))
        assert set(table.column("policy").to_pylist()) == {policy}
        assert (table.column("u").null_count == len(plan)) == (policy == "random")
        again = read_plan(path)
        assert again.rows.tolist() == plan.rows.tolist()
        assert again.facts == plan.facts
        assert again.fingerprint == plan.fingerprint
        check_plan(again, store, "plan.parquet")
    empty = make_plan(store, PlanConfig(new=NEW_COLUMN, budget="0"))
    assert len(read_plan(write_plan(empty, tmp_path / "empty.parquet"))) == 0


def rewrite(path, change):
    table = pq.read_table(path)
    changed = change(table)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


def test_an_item_twice_is_refused_by_name(world, tmp_path):
    store = world[0]
    path = write_plan(make_plan(store, PlanConfig(new=NEW_COLUMN)), tmp_path / "p.parquet")
    name = pq.read_table(path).column("id")[5].as_py()
    rewrite(path, lambda t: pa.concat_tables([t, t.slice(5, 1)]))
    with pytest.raises(DataError, match=f"item '{name}' is in the plan twice"):
        read_plan(path)


def test_changed_plans_are_refused(world, tmp_path):
    store = world[0]
    path = write_plan(make_plan(store, PlanConfig(new=NEW_COLUMN)), tmp_path / "p.parquet")
    rewrite(path, lambda t: t.slice(3))
    with pytest.raises(DataError, match="ranks are not 0, 1, 2"):
        read_plan(path)
    path = write_plan(make_plan(store, PlanConfig(new=NEW_COLUMN)), tmp_path / "p.parquet")
    rewrite(path, lambda t: t.slice(0, 10))
    with pytest.raises(DataError, match="was changed or damaged"):
        read_plan(path)
    (tmp_path / "no.parquet").write_text("rank,id")
    with pytest.raises(DataError, match="not a plan file"):
        read_plan(tmp_path / "no.parquet")
    with pytest.raises(DataError, match="no such plan"):
        read_plan(tmp_path / "none.parquet")
    pq.write_table(pa.table({"rank": [0]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no column id"):
        read_plan(tmp_path / "other.parquet")


def test_changed_facts_are_refused(world, tmp_path):
    path = write_plan(make_plan(world[0], PlanConfig(new=NEW_COLUMN)), tmp_path / "p.parquet")
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[KEY])
    facts["uid"] = "somebody else's"
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(facts)}), path)
    with pytest.raises(DataError, match="was changed or damaged"):
        read_plan(path)


def test_a_plan_is_for_one_store_space_and_map(world, tmp_path):
    store, z, _, _ = world
    plan = make_plan(store, PlanConfig(new=NEW_COLUMN))
    other, *_ = make_world(tmp_path / "other", encoded=[3])
    with pytest.raises(DataError, match="made for another store"):
        check_plan(plan, other, "plan.parquet")
    again = OLD.mapped("a better map", NEW)
    store.drop(MAPPED_COLUMN)
    with pytest.raises(DataError, match="does not have"):
        check_plan(plan, store, "plan.parquet")
    write_column(store, MAPPED_COLUMN, again, z, np.arange(60))
    with pytest.raises(DataError, match="made for (another map|vectors mapped)"):
        check_plan(plan, store, "plan.parquet")
    newer = Space(model="newer", fingerprint="newer-weights", dim=NEW.dim)
    store.drop(MAPPED_COLUMN)
    store.drop(NEW_COLUMN)
    write_column(store, MAPPED_COLUMN, OLD.mapped("map-weights", newer), z, np.arange(60))
    with pytest.raises(DataError, match="another new model"):
        check_plan(plan, store, "plan.parquet")


def test_ids_must_be_those_of_the_rows(world):
    store = world[0]
    plan = make_plan(store, PlanConfig(new=NEW_COLUMN))
    plan.rows[[0, 1]] = plan.rows[[1, 0]]
    with pytest.raises(DataError, match="in the store, but"):
        check_plan(plan, store, "plan.parquet")


def test_a_map_without_uncertainties(tmp_path):
    store, *_ = make_world(tmp_path / "s", uncertainty=False)
    with pytest.raises(DataError, match="no uncertainty head; use --policy random or refit"):
        make_plan(store, PlanConfig(new=NEW_COLUMN))
    assert len(make_plan(store, PlanConfig(new=NEW_COLUMN, policy="random"))) == 60


def test_what_a_policy_needs(world):
    store = world[0]
    with pytest.raises(ConfigError, match="class-mean needs a class"):
        make_plan(store, PlanConfig(new=NEW_COLUMN, policy="class-mean"))
    with pytest.raises(ConfigError, match="policy distance .* is a diagnosis"):
        make_plan(store, PlanConfig(new=NEW_COLUMN, policy="distance"))
    with pytest.raises(DataError, match="'embed.new' .* is not filled in 57 rows"):
        make_plan(store, PlanConfig(new=NEW_COLUMN, policy="distance", oracle=NEW_COLUMN))
    with pytest.raises(ConfigError, match="A budget is a fraction"):
        PlanConfig(new=NEW_COLUMN, budget="50")
    with pytest.raises(DataError, match="no column of vectors mapped to 'embed.newer'"):
        make_plan(store, PlanConfig(new="embed.newer"))
    other, zeros = Space(model="else", fingerprint="x", dim=8), np.zeros((60, 8), np.float32)
    write_column(store, "embed.else", other, zeros, np.arange(60))
    with pytest.raises(SpaceError, match="is mapped to"):
        make_plan(store, PlanConfig(new="embed.else", mapped=MAPPED_COLUMN))
    with pytest.raises(DataError, match="is encoded, not mapped"):
        make_plan(store, PlanConfig(new="embed.else", mapped="embed.else"))


def test_plans_do_not_depend_on_fragments(tmp_path):
    plans = [
        make_plan(
            make_world(tmp_path / f"{policy} {size}", rows_per_fragment=size)[0],
            PlanConfig(new=NEW_COLUMN, policy=policy, labels="label"),
        )
        for size in (7, 60)
        for policy in ("uncertainty", "class-mean")
    ]
    assert plans[0].rows.tolist() == plans[2].rows.tolist()
    assert plans[1].rows.tolist() == plans[3].rows.tolist()
