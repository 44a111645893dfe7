"""Applying a map: what is written, what is refused, and that a kill changes nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import kill_apply
import numpy as np
import pyarrow.parquet as pq
import pytest
from map_world import NEW, OLD, SIDE, make_map, make_store, put, vectors

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.spaces import Space, SpaceError, space_of
from understudy.data.store import Store
from understudy.models.embedding.linear import LinearConfig, LinearTransform
from understudy.update.apply import apply_map
from understudy.update.apply_files import apply_store_to_file, apply_to_file
from understudy.update.apply_plan import describe_plan, plan_apply
from understudy.update.gallery import Gallery
from understudy.update.maps import CompatibleMap, load_map
from understudy.update.vector_files import open_vectors, write_npz

pytestmark = pytest.mark.filterwarnings("ignore::understudy.update.fit.FitWarning")
OUT = "embed.new.from.old"


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """A map without and one with side information and uncertainty."""
    folder = tmp_path_factory.mktemp("maps")
    store = make_store(folder / "s")
    return {
        "plain": make_map(store, folder / "plain"),
        "side": make_map(store, folder / "side", side="embed.psi", loss="l2+unc"),
        "folder": folder,
    }


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "s", n=80, seed=3)


def test_a_column_beside_the_old_one(store, maps):
    report = apply_map(store, maps["side"], unit_rows=30)
    assert (report.column, report.uncertainty) == (OUT, f"{OUT}.u")
    assert (report.rows, report.written) == (80, 80)
    assert report.items_per_second > 0
    x = vectors(3, 80)
    z, u = maps["side"].transform(x["old"], x["side"])
    np.testing.assert_allclose(store.array(OUT), z, atol=1e-6)
    np.testing.assert_allclose(store.array(f"{OUT}.u"), u, atol=1e-6)
    np.testing.assert_array_equal(store.array("embed.old"), x["old"])
    space = space_of(store, OUT)
    assert (space.kind, space.target, space.lineage) == ("mapped", NEW.id, (OLD.id,))
    assert store.card(OUT).fingerprint == maps["side"].fingerprint
    assert space.serves(NEW)
    gallery = Gallery.open(store, new="embed.new", mapped=OUT)
    assert gallery.counts()["encoded"] == 80


def test_again_is_nothing_to_do_and_new_rows_are_mapped(store, maps):
    apply_map(store, maps["plain"])
    before = store.content_hash()
    report = apply_map(store, maps["plain"])
    assert report.written == 0
    assert store.content_hash() == before
    store.append([{"id": [f"n{i}" for i in range(5)], "label": [0] * 5}])
    x = vectors(4, 85)
    put(store, "embed.old", OLD, x["old"], rows=np.arange(80, 85))
    report = apply_map(store, maps["plain"])
    assert (report.rows, report.written) == (85, 5)
    z, _ = maps["plain"].transform(x["old"][80:])
    np.testing.assert_allclose(store.array(OUT, np.arange(80, 85)), z, atol=1e-6)


def test_another_map_does_not_write_over_it(store, maps, tmp_path):
    apply_map(store, maps["plain"])
    other = make_map(make_store(tmp_path / "t"), tmp_path / "other", seed=5)
    with pytest.raises(CardError, match="already holds"):
        apply_map(store, other)
    apply_map(store, other, overwrite=True)
    assert store.card(OUT).fingerprint == other.fingerprint
    apply_map(store, maps["plain"], out="embed.elsewhere", where="label = 1")
    x = vectors(3, 80)
    assert store.filled("embed.elsewhere").tolist() == (x["labels"] == 1).tolist()


def test_in_place_is_one_version_and_the_one_before_is_tagged(store, maps):
    report = apply_map(store, maps["side"], in_place=True)
    x = vectors(3, 80)
    z, u = maps["side"].transform(x["old"], x["side"])
    np.testing.assert_allclose(store.array("embed.old"), z, atol=1e-6)
    np.testing.assert_allclose(store.array("embed.old.u"), u, atol=1e-6)
    assert space_of(store, "embed.old").target == NEW.id
    before = Store.open(store.path, report.tag)
    np.testing.assert_array_equal(before.array("embed.old"), x["old"])
    assert space_of(before, "embed.old") == OLD
    assert Gallery.open(store, mapped="embed.old").counts()["mapped"] == 80


def test_a_column_in_the_target_space_is_refused(store, maps):
    apply_map(store, maps["plain"], in_place=True)
    before = store.content_hash()
    for options in ({"in_place": True}, {"in_place": False}):
        with pytest.raises(DataError, match="in the target space .* already .*applied once"):
            apply_map(store, maps["plain"], **options)
    with pytest.raises(DataError, match="already"):  # the new model's own vectors as well
        apply_map(store, maps["plain"], old="embed.new")
    assert store.content_hash() == before


def test_another_space_of_the_same_width_is_refused(store, maps):
    stranger = Space(model="stranger", fingerprint="zz", dim=6)
    put(store, "embed.stranger", stranger, vectors(3, 80)["old"])
    with pytest.raises(SpaceError, match="Equal widths do not make them one") as error:
        apply_map(store, maps["plain"], old="embed.stranger")
    assert stranger.id in str(error.value)
    assert OLD.id in str(error.value)
    assert "update fit" in str(error.value)
    report = apply_map(store, maps["plain"], old="embed.stranger", trust=True)
    assert report.column == "embed.new.from.stranger"
    wide = Space(model="wide", fingerprint="yy", dim=7)
    put(store, "embed.wide", wide, np.ones((80, 7), np.float32))
    with pytest.raises(SpaceError):
        apply_map(store, maps["plain"], old="embed.wide", trust=True)


def test_the_old_column_must_be_named_or_known(store, maps):
    with pytest.raises(DataError, match=r"no column 'embed.nowhere' .*embed.old"):
        apply_map(store, maps["plain"], old="embed.nowhere")


def test_a_store_without_side_information(tmp_path, maps):
    store = make_store(tmp_path / "s", n=20, side=False)
    with pytest.raises(DataError, match="all 20 rows lack it") as error:
        apply_map(store, maps["side"])
    assert "without --side" in str(error.value)


def test_rows_without_side_information_are_named(tmp_path, maps):
    store = make_store(tmp_path / "s", n=20, side=False)
    x = vectors(0, 20)
    put(store, "embed.psi", SIDE, x["side"], rows=np.arange(3, 20))
    with pytest.raises(DataError, match="3 items .*'i0', 'i1', 'i2'") as error:
        apply_map(store, maps["side"])
    assert "needs none" in str(error.value)
    report = apply_map(store, maps["side"], skip_missing_side=True)
    assert (report.rows, report.skipped) == (17, 3)
    assert store.filled(OUT).tolist() == [False] * 3 + [True] * 17
    np.testing.assert_array_equal(store.filled(f"{OUT}.u"), store.filled(OUT))
    with pytest.raises(ConfigError, match="would lose their vectors"):
        apply_map(store, maps["side"], skip_missing_side=True, in_place=True)


def test_side_information_of_another_space(store, maps):
    other = Space(model="psi2", fingerprint="ee", dim=3)
    put(store, "embed.psi2", other, vectors(3, 80)["side"])
    with pytest.raises(SpaceError, match="side column 'embed.psi2'"):
        apply_map(store, maps["side"], side="embed.psi2")
    with pytest.raises(ConfigError, match="uses no side information"):
        apply_map(store, maps["plain"], side="embed.psi")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_bad_vectors_name_their_items(tmp_path, maps, bad):
    import pyarrow as pa

    from understudy.data.card import Card
    from understudy.data.knowledge import embedding_config, fixed_list

    store = make_store(tmp_path / "s", n=40)
    store.drop("embed.old")
    values = vectors(0, 40)["old"].copy()
    values[[7, 31]] = bad
    config = {**embedding_config([6], "float32"), "space": OLD.to_dict()}
    card = Card(column="embed.old", writer="old", fingerprint="aa", config=config)
    with store.job([card], {"embed.old": pa.list_(pa.float32(), 6)}) as job:
        for unit in job.todo():
            job.write(unit, {"embed.old": fixed_list(values)})
    with pytest.raises(DataError, match="'i7', 'i31'"):
        apply_map(store, maps["plain"])
    assert not store.has(OUT)


def test_normalised_vectors_where_others_were_learned_from(tmp_path, maps):
    store = make_store(tmp_path / "s", n=30)
    unit = vectors(0, 30)["old"]
    put(store, "embed.unit", OLD, unit / np.linalg.norm(unit, axis=1, keepdims=True))
    with pytest.raises(DataError, match="these vectors are normalised"):
        apply_map(store, maps["plain"], old="embed.unit")


def test_options_that_exclude_each_other(store, maps):
    with pytest.raises(ConfigError, match="all rows of the column"):
        apply_map(store, maps["plain"], in_place=True, where="label = 1")
    with pytest.raises(ConfigError, match="leave one out"):
        apply_map(store, maps["plain"], in_place=True, out="embed.x")


def test_the_plan_counts(store, maps):
    facts = describe_plan(plan_apply(store, maps["side"]), maps["side"])
    assert facts["rows"] == 80
    assert facts["parameters"] == sum(p.numel() for p in maps["side"].module.parameters())
    assert facts["bytes_read"] == 80 * 4 * (6 + 3)
    assert facts["bytes_written"] == 80 * 4 * (5 + 1)
    matrices = sum(p.numel() for p in maps["side"].module.parameters() if p.ndim == 2)
    assert facts["flops"] == 2 * matrices * 80
    assert not store.has(OUT)


def run(path: Path, map_path: Path, in_place: str, kill_after: float | None) -> None:
    pause = "0.03" if kill_after is not None else "0"
    command = [sys.executable, kill_apply.__file__, str(path), str(map_path), pause, in_place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            assert process.wait(kill_after) == 0
        except subprocess.TimeoutExpired:
            process.kill()  # SIGKILL
            process.wait()


@pytest.mark.parametrize("in_place", ["no", "yes"])
def test_kill_and_run_again(tmp_path, maps, in_place):
    """No row is lost, none is written twice, and the content is that of an unbroken run."""
    path = maps["folder"] / ("side" if in_place == "no" else "plain")
    compatible = load_map(path)
    column = OUT if in_place == "no" else "embed.old"
    whole = make_store(tmp_path / "whole", n=250)
    apply_map(whole, compatible, in_place=in_place == "yes", unit_rows=17)
    store = make_store(tmp_path / "s", n=250)
    draw = random.Random(1)
    for number in range(2):
        run(Path(store.path), path, in_place, draw.uniform(0.05, 0.2))
        store.refresh()
        assert store.verify() == []
        if number == 0:
            assert not (
                store.has(column) and store.card(column).fingerprint == compatible.fingerprint
            )
    try:
        run(Path(store.path), path, in_place, None)
    except AssertionError:
        # a kill may have come after the commit: then it is done, and says so
        with pytest.raises(DataError, match="already"):
            apply_map(store, compatible, in_place=True)
    store.refresh()
    assert store.content_hash() == whole.content_hash()
    assert store.card(column).rows_done == 250
    assert store.verify() == []
    assert store.info()["staging"] == []
    if in_place == "yes":
        (tag,) = store.tags()
        np.testing.assert_array_equal(
            Store.open(store.path, tag).array("embed.old"), vectors(0, 250)["old"]
        )


def test_memory_does_not_grow_with_the_gallery(tmp_path):
    width, peaks = 64, []
    wide = [Space(model=m, fingerprint=m, dim=width) for m in ("a", "b")]
    manifest = {"from_space": wide[0].to_dict(), "to_space": wide[1].to_dict()}
    module = LinearTransform(LinearConfig(old_dim=width, new_dim=width))
    for n in (2_000, 20_000):
        store = Store.create(tmp_path / str(n), [{"id": [str(i) for i in range(n)]}])
        put(store, "embed.a", wide[0], np.random.default_rng(0).normal(size=(n, width)))
        tracemalloc.start()
        apply_map(store, CompatibleMap(module, manifest), old="embed.a", unit_rows=500)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 18,000 rows more are 9 MB of vectors; numbers and masks of rows are a few bytes each
    assert peaks[1] - peaks[0] < 1_500_000


def test_from_parquet_to_parquet(tmp_path, maps):
    x = vectors(8, 50)
    ids = np.array([f"p{i}" for i in range(50)])
    fields = {"old": x["old"], "side": x["side"]}
    write_npz(tmp_path / "in.npz", ids, fields, spaces={"old": OLD, "side": SIDE})
    report = apply_to_file(maps["side"], tmp_path / "in.npz", tmp_path / "out.parquet")
    assert report.rows == 50
    z, u = maps["side"].transform(x["old"], x["side"])
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["id"].to_pylist() == list(ids)
    np.testing.assert_allclose(np.stack(found["vectors"].to_numpy()), z, atol=1e-6)
    np.testing.assert_allclose(found["u"].to_numpy(), u, atol=1e-6)
    opened = open_vectors(tmp_path / "out.parquet")
    assert opened.spaces["vectors"].target == NEW.id
    with pytest.raises(DataError, match="already"):  # what was mapped is not mapped again
        apply_to_file(maps["side"], tmp_path / "out.parquet", tmp_path / "x.npz", field="vectors",
                      trust=True)  # fmt: skip


def test_from_npy_to_npy(tmp_path, maps):
    x = vectors(8, 50)["old"]
    np.save(tmp_path / "in.npy", x)
    with pytest.raises(DataError, match="names no space"):
        apply_to_file(maps["plain"], tmp_path / "in.npy", tmp_path / "out.npy")
    apply_to_file(maps["plain"], tmp_path / "in.npy", tmp_path / "out.npy", trust=True)
    z = maps["plain"].transform(x)[0]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), z, atol=1e-6)
    assert not (tmp_path / "out.u.npy").exists()
    with pytest.raises(ConfigError, match="no ids"):
        apply_to_file(maps["plain"], tmp_path / "in.npy", tmp_path / "out.npz", trust=True)
    with pytest.raises(ConfigError, match=r"expected a \.parquet"):
        apply_to_file(maps["plain"], tmp_path / "in.npy", tmp_path / "out.csv", trust=True)
    with pytest.raises(DataError, match="no field 'side'"):
        apply_to_file(maps["side"], tmp_path / "in.npy", tmp_path / "out.npy", trust=True)


def test_a_broken_file_leaves_nothing_behind(tmp_path, maps):
    x = vectors(8, 50)["old"].copy()
    x[33] = np.nan
    write_npz(tmp_path / "in.npz", np.array([f"p{i}" for i in range(50)]), {"v": x})
    with pytest.raises(DataError, match="'p33'"):
        apply_to_file(maps["plain"], tmp_path / "in.npz", tmp_path / "out.parquet", trust=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.npz"]


def test_from_a_store_to_files(store, maps, tmp_path):
    before = store.version
    apply_store_to_file(store, maps["side"], tmp_path / "out.npz")
    apply_store_to_file(store, maps["side"], tmp_path / "out.npy")
    x = vectors(3, 80)
    z, u = maps["side"].transform(x["old"], x["side"])
    found = np.load(tmp_path / "out.npz")
    assert found["ids"].tolist() == [f"i{i}" for i in range(80)]
    np.testing.assert_allclose(found["vectors"], z, atol=1e-6)
    np.testing.assert_allclose(found["u"], u, atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "out.u.npy"), u, atol=1e-6)
    assert store.refresh().version == before
