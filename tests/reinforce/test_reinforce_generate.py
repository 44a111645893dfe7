"""Reinforcement end to end: columns, cards, exactness, what is added later, plan and verify."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from reinforce_world import (
    VIEWS,
    colour_classes,
    colour_embedding,
    function_teacher,
    make_store,
    nano_classifier,
    nano_clip,
    rows,
    text_embedding,
)

from understudy import models
from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.decode import decode
from understudy.data.knowledge import decode_embeddings, decode_topk
from understudy.data.store import Store
from understudy.data.views import ViewConfig, ViewPipeline, verify_views
from understudy.reinforce.config import ReinforceConfig, TeacherSpec
from understudy.reinforce.generate import reinforce
from understudy.reinforce.plan import plan, sample_bytes
from understudy.reinforce.teachers.function import FunctionTeacher
from understudy.reinforce.teachers.own import OwnTeacher
from understudy.reinforce.unit import compute_unit
from understudy.reinforce.verify import verify
from understudy.reinforce.views_phase import checked_rows, top_k

BASE = ReinforceConfig(num_views=3, views=VIEWS, unit_rows=8, batch_size=12)


def stored(store, column):
    return decode_embeddings(store.array(column), store.card(column).config)


def views_of(store, k, view_set="main"):
    """Replay a stored view of all rows, independently of reinforce."""
    card = store.card(f"view.{view_set}.{k}")
    pipeline = ViewPipeline.from_card(card)
    images = store.take(range(store.num_rows), ["image"]).column(0).to_pylist()
    return pipeline.apply(images, pipeline.unpack(store.array(card.column)))


@pytest.fixture
def clip_path(tmp_path):
    return str(models.save(nano_clip(), tmp_path / "a.safetensors"))


def test_two_teachers_on_the_same_views(tmp_path, clip_path):
    store = make_store(tmp_path / "s", 20)
    config = replace(BASE, teachers=(TeacherSpec(name="a", path=clip_path, logit_scale=70.0),))
    report = reinforce(store, config, teachers={"colours": function_teacher()})
    assert report.rows == 20
    assert set(report.columns) <= set(store.columns)
    assert len(report.columns) == 3 * 3 + 2
    a, colours = OwnTeacher("a", nano_clip()), function_teacher()
    for k in range(3):
        views = views_of(store, k)
        for teacher in (a, colours):
            found = stored(store, f"{teacher.name}.image.main.{k}")
            assert np.abs(found - teacher.embed_images(views)).max() < 1e-3
    texts = store.take(range(20), ["text"]).column(0).to_pylist()
    assert np.abs(stored(store, "colours.text") - colours.embed_texts(texts)).max() < 1e-3
    assert not (views_of(store, 0) == views_of(store, 1)).all()
    card = store.card("a.image.main.1")
    assert card.facts["logit_scale"] == 70.0
    assert card.fingerprint == a.fingerprint
    assert card.config["views"] == VIEWS.hash
    assert card.config["k"] == 1
    assert store.card("colours.image.main.0").facts["logit_scale"] == 20.0
    cards = [store.card(c) for c in report.columns]
    assert sum(c.seconds for c in cards) == pytest.approx(report.unit_seconds)
    assert all(c.rows_done == 20 for c in cards)
    assert report.bytes >= 20 * plan(store, config, teachers={"colours": colours})["bytes_per_row"]
    assert {"read", "views", "teacher a", "teacher colours", "write"} <= set(report.seconds)
    assert report.to_dict()["columns"] == report.columns


def test_views_depend_on_seed_row_and_k_alone(tmp_path):
    first = make_store(tmp_path / "a", 20)
    teachers = {"colours": function_teacher()}
    reinforce(first, BASE, teachers=teachers)
    records = first.array("view.main.1")
    # other units, batches, threads and order of rows
    turned = {k: v[::-1] for k, v in rows(20).items()}
    other = Store.create(tmp_path / "b", [turned])
    changed = replace(BASE, unit_rows=5, batch_size=7, threads=3)
    reinforce(other, changed, teachers=teachers)
    assert (other.array("view.main.1")[::-1] == records).all()
    assert np.array_equal(
        other.array("colours.image.main.1")[::-1], first.array("colours.image.main.1")
    )
    again = make_store(tmp_path / "c", 20)
    reinforce(again, replace(BASE, seed=1), teachers=teachers)
    assert not (again.array("view.main.1") == records).all()


def test_same_content_whatever_the_units(tmp_path):
    hashes = set()
    for i, changes in enumerate(({}, {"unit_rows": 3}, {"unit_rows": 100, "threads": 2})):
        store = make_store(tmp_path / str(i), 15)
        reinforce(store, replace(BASE, **changes), teachers={"colours": function_teacher()})
        hashes.add(store.content_hash())
    assert len(hashes) == 1


def test_shard_larger_than_the_batch_has_all_embeddings(tmp_path):
    # the released generator left every record after the first batch of a shard empty
    store = make_store(tmp_path / "s", 70)
    config = replace(BASE, num_views=2, batch_size=8, unit_rows=70)
    reinforce(store, config, teachers={"colours": function_teacher()})
    for k in range(2):
        found = stored(store, f"colours.image.main.{k}")
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-2)
        expected = function_teacher().embed_images(views_of(store, k))
        assert np.abs(found - expected).max() < 1e-3


def test_checksums_of_a_sample_are_facts_and_replay(tmp_path):
    store = make_store(tmp_path / "s", 120)
    tiny = replace(BASE, num_views=2, unit_rows=50)
    reinforce(store, tiny, teachers={"colours": function_teacher()})
    for k in range(2):
        card = store.card(f"view.main.{k}")
        assert set(card.facts["crc"]) == {"0", "100"}
        assert "crc" not in card.config
        crc = ViewPipeline.from_card(card).checksum(views_of(store, k)[[0, 100]])
        assert list(card.facts["crc"].values()) == crc.tolist()
    assert "crc" not in store.card("colours.image.main.0").facts
    assert verify_views(store, "main") == []
    assert len(checked_rows(np.arange(10**6))) == 1000
    assert checked_rows(np.arange(7)).tolist() == [0]


def test_a_teacher_added_later_sees_the_stored_views(tmp_path):
    store = make_store(tmp_path / "s", 20)
    reinforce(store, BASE, teachers={"colours": function_teacher()})
    before = {k: store.array(f"view.main.{k}").copy() for k in range(3)}
    version = store.version
    second = FunctionTeacher("more", {"embed_images": colour_embedding})
    report = reinforce(store, BASE, teachers={"colours": function_teacher(), "more": second})
    assert report.computed == 20
    assert store.version > version
    assert np.array_equal(store.array("more.image.main.2"), store.array("colours.image.main.2"))
    more = replace(BASE, num_views=5)
    reinforce(store, more, teachers={"colours": function_teacher()})
    assert all((store.array(f"view.main.{k}") == before[k]).all() for k in range(3))
    whole = make_store(tmp_path / "w", 20)
    reinforce(whole, more, teachers={"colours": function_teacher()})
    assert (whole.array("view.main.4") == store.array("view.main.4")).all()
    assert reinforce(store, more, teachers={"colours": function_teacher()}).computed == 0


def test_rows_added_later_are_filled(tmp_path):
    store = make_store(tmp_path / "s", 12)
    reinforce(store, BASE, teachers={"colours": function_teacher()})
    store.append([rows(8, first=12)])
    second = FunctionTeacher("more", {"embed_images": colour_embedding})
    teachers = {"colours": function_teacher(), "more": second}
    reinforce(store, BASE, teachers=teachers)
    whole = make_store(tmp_path / "w", 20)
    reinforce(whole, BASE, teachers=teachers)
    for column in ("view.main.2", "colours.image.main.2", "more.image.main.0", "colours.text"):
        assert np.array_equal(store.array(column), whole.array(column)), column


def test_rows_filter(tmp_path):
    store = make_store(tmp_path / "s", 20)
    config = replace(BASE, rows="split = 'train'")
    report = reinforce(store, config, teachers={"colours": function_teacher()})
    assert report.rows == 16
    filled = store.filled("colours.image.main.0")
    assert filled.sum() == 16
    assert not filled[4]
    assert verify(store, config, teachers={"colours": function_teacher()}) == []
    with pytest.raises(DataError, match="matches none of the 20 rows of"):
        reinforce(
            store, replace(BASE, rows="split = 'dev'"), teachers={"colours": function_teacher()}
        )


def test_storage_types_and_the_size_formula(tmp_path):
    exact = function_teacher().embed_images
    sizes = {}
    for dtype, bound in (("float16", 2**-11), ("bfloat16", 2**-8), ("float32", 1e-12)):
        store = make_store(tmp_path / dtype, 12)
        config = replace(BASE, dtype=dtype)
        teachers = {"colours": function_teacher()}
        expected = plan(store, config, teachers=teachers)
        report = reinforce(store, config, teachers=teachers)
        values = exact(views_of(store, 0))
        error = np.abs(stored(store, "colours.image.main.0") - values) / np.abs(values)
        assert error.max() <= bound * 1.001
        sizes[dtype] = report.bytes
        assert report.bytes == pytest.approx(expected["bytes"], rel=0.02)
        assert verify(store, config, teachers=teachers) == []
    assert sizes["float32"] > sizes["float16"] == sizes["bfloat16"]
    two = {"x": (768, 768), "y": (768, 768)}
    for views, expected in ((30, 110_592), (10, 49_152)):
        assert sample_bytes(two, views=views, real=1, synthetic=5) == expected


def test_topk_of_one_classifier_and_of_an_ensemble(tmp_path):
    store = make_store(tmp_path / "s", 16, classes=[str(i) for i in range(12)])
    a, b = OwnTeacher("a", nano_classifier(seed=0)), OwnTeacher("b", nano_classifier(seed=1))
    config = replace(BASE, topk=3)
    reinforce(store, config, teachers={"a": a, "b": b})
    assert "a.topk.main.0" not in store.columns
    assert "a.image.main.0" not in store.columns
    mean = (a.classify(views_of(store, 1)) + b.classify(views_of(store, 1))) / 2
    values, ids = decode_topk(store.array("ensemble.topk.main.1"))
    assert np.abs(values - np.sort(mean, axis=1)[:, :-4:-1]).max() < 1e-3
    assert np.abs(np.take_along_axis(mean, ids, axis=1) - values).max() < 1e-3
    apart = replace(config, ensemble="")
    reinforce(store, apart, teachers={"a": a, "b": b})
    values, ids = decode_topk(store.array("a.topk.main.1"))
    single = a.classify(views_of(store, 1))
    assert np.abs(np.take_along_axis(single, ids, axis=1) - values).max() < 1e-3
    assert verify(store, apart, teachers={"a": a, "b": b}) == []
    everything = replace(config, topk=12, ensemble="", view_set="full")
    reinforce(store, everything, teachers={"a": a})
    values, ids = decode_topk(store.array("a.topk.full.0"))
    dense = np.zeros((16, 12), np.float32)
    np.put_along_axis(dense, ids, values, axis=1)
    assert np.abs(dense - a.classify(views_of(store, 0, "full"))).max() < 1e-3


def test_top_k_breaks_ties_by_class():
    values, ids = top_k(np.array([[0.2, 0.3, 0.2, 0.3] + [0.0] * 16]), 3)
    assert ids.tolist() == [[1, 3, 0]]
    assert values.tolist() == [[0.3, 0.3, 0.2]]
    draw = np.random.default_rng(0).dirichlet(np.ones(40), 50)
    assert (top_k(draw, 4)[1] == np.argsort(-draw, axis=1)[:, :4]).all()


@pytest.mark.parametrize("rounded", [False, True])
def test_mixed_views_are_shown_mixed_and_partners_are_among_the_rows(tmp_path, rounded):
    store = make_store(tmp_path / "s", 20)
    mixing = ViewConfig(
        size=48,
        transforms={"random_resized_crop": {}, "random_erase": {}, "mixup": {}, "cutmix": {}},
        round_mixed=rounded,
    )
    config = replace(BASE, views=mixing, rows="split = 'train'", topk=2)
    classifier = FunctionTeacher("c", {"classify": colour_classes})
    teachers = {"c": classifier, "e": FunctionTeacher("e", {"embed_images": colour_embedding})}
    reinforce(store, config, teachers=teachers)
    card = store.card("view.main.0")
    pipeline = ViewPipeline.from_card(card)
    chosen = np.flatnonzero(store.filled("view.main.0"))
    params = pipeline.unpack(store.array("view.main.0", chosen))
    mixed = params["mix"] > 0
    assert 4 < mixed.sum() < 16
    assert set(params["id2"][mixed]) <= set(chosen)
    assert (params["id2"] != chosen).all()
    images = store.take(range(20), ["image"]).column(0).to_pylist()
    partners = [images[j] if j >= 0 else None for j in params["id2"]]
    views = pipeline.apply([images[i] for i in chosen], params, partners=partners)
    assert views.dtype == (np.uint8 if rounded else np.float32)
    values, _ = decode_topk(store.array("c.topk.main.0", chosen))
    assert np.abs(values - np.sort(colour_classes(views), axis=1)[:, :-3:-1]).max() < 1e-3
    assert verify(store, config, teachers=teachers) == []


def test_reduced_decode_and_deterministic_views(tmp_path):
    data = rows(10)
    from reinforce_world import picture

    data["image"] = [picture(i, "JPEG") for i in range(10)]
    store = Store.create(tmp_path / "s", [data])
    reduced = ViewConfig(
        size=16, transforms={"random_resized_crop": {"scale": [0.5, 1.0]}}, reduced_decode=True
    )
    teachers = {"e": FunctionTeacher("e", {"embed_images": lambda x: x.reshape(len(x), -1) + 1.0})}
    config = replace(BASE, views=reduced)
    reinforce(store, config, teachers=teachers)
    assert verify(store, config, teachers=teachers) == []
    fixed = ViewConfig(size=48, transforms={"resize": {}, "center_crop": {}})
    plain = replace(BASE, views=fixed, view_set="plain", num_views=1)
    reinforce(store, plain, teachers={"colours": function_teacher()})
    first = decode(data["image"][0])
    assert views_of(store, 0, "plain")[0].shape == (48, 48, 3)
    assert first.shape[0] == 60


def test_a_smaller_teacher_gets_resized_views_and_a_larger_one_is_refused(tmp_path):
    store = make_store(tmp_path / "s", 6)
    small = OwnTeacher("small", nano_classifier())
    config = replace(BASE, topk=3)
    reinforce(store, config, teachers={"small": small})
    values, _ = decode_topk(store.array("small.topk.main.0"))
    expected = np.sort(small.classify(views_of(store, 0)), axis=1)[:, :-4:-1]
    assert np.abs(values - expected).max() < 1e-3
    narrow = replace(BASE, views=ViewConfig(size=24), view_set="narrow")
    clip = OwnTeacher("a", nano_clip())
    with pytest.raises(ConfigError, match="teacher 'a' takes 48-pixel images, views have 24"):
        reinforce(store, narrow, teachers={"a": clip})
    upscaled = replace(narrow, teachers=(TeacherSpec(name="a", upscale=True),))
    reinforce(store, upscaled, teachers={"a": clip})
    assert store.has("a.image.narrow.0")


def test_a_unit_is_a_pure_function(tmp_path, clip_path):
    store = make_store(tmp_path / "s", 20)
    config = replace(BASE, teachers=(TeacherSpec(name="a", path=clip_path),))
    fresh = compute_unit(store, config, "views", 8, 16)
    assert not store.has("view.main.0")
    texts = compute_unit(store, config, "texts", 8, 16)
    reinforce(store, config)
    again = compute_unit(store, config, "views", 8, 16)
    for column in ("view.main.1", "a.image.main.1"):
        part = store.take(range(8, 16), [column]).column(0).combine_chunks()
        assert fresh.columns[column].equals(part)
    assert again.columns["a.image.main.1"].equals(fresh.columns["a.image.main.1"])
    assert isinstance(texts.columns["a.text"], pa.FixedSizeListArray)
    with pytest.raises(ConfigError, match="no phase 'sounds'.*views, texts"):
        compute_unit(store, config, "sounds", 0, 4)


def test_plan_counts_without_writing(tmp_path, clip_path):
    store = make_store(tmp_path / "s", 20)
    config = replace(BASE, teachers=(TeacherSpec(name="a", path=clip_path),), captions=2)
    from reinforce_world import say

    teachers = {"cap": FunctionTeacher("cap", {"caption": say})}
    version = store.version
    costs = plan(store, config, teachers=teachers)
    assert store.version == version
    assert costs["rows"] == costs["todo_rows"] == 20
    assert costs["teacher_calls"] == {
        "a": {"images": 60, "texts": 60},
        "cap": {"captions": 40},
    }
    stride = ViewPipeline(VIEWS).stride
    assert costs["bytes_per_row"] == (3 + 1 + 2) * 16 * 2 + 3 * stride
    assert costs["bytes"] == 20 * (costs["bytes_per_row"] + 2 * 64)
    assert costs["columns"]["a.caption.cap.0"] == costs["columns"]["a.caption.cap.1"] == 20
    reinforce(store, config, teachers=teachers)
    after = plan(store, config, teachers=teachers)
    assert after["todo_rows"] == 0
    assert set(after["columns"]) == set(costs["columns"])
    assert after["bytes_per_row"] == costs["bytes_per_row"]


def test_verify_finds_foreign_embeddings_and_changed_images(tmp_path):
    store = make_store(tmp_path / "s", 20)
    teachers = {"colours": function_teacher()}
    reinforce(store, BASE, teachers=teachers)
    assert verify(store, BASE, teachers=teachers) == []
    # embeddings of views that were turned after they were drawn
    broken = FunctionTeacher(
        "colours", {"embed_images": colour_embedding, "embed_texts": text_embedding}
    )
    broken.__dict__["fingerprint"] = teachers["colours"].fingerprint
    broken.functions["embed_images"] = lambda x: colour_embedding(x[:, ::-1])
    problems = verify(store, BASE, teachers={"colours": broken})
    assert len(problems) == 3
    assert "colours.image.main.0: " in problems[0]
    assert "differ from what the teacher says now, first row 0 by" in problems[0]
    other = FunctionTeacher("colours", {"embed_images": colour_embedding}, version="2")
    problems = verify(store, BASE, teachers={"colours": other})
    assert all("fingerprint" in p for p in problems)
    problems = verify(store, replace(BASE, num_views=4), teachers=teachers)
    assert any("view.main.3: not written yet" in p for p in problems)
    data = rows(20)
    data["image"][0] = data["image"][1]
    changed = Store.create(tmp_path / "c", [data])
    reinforce(changed, BASE, teachers=teachers)
    taken = store.array("view.main.0")
    assert not (changed.array("view.main.0")[0] == taken[0]).all()


def test_bad_input_another_writer_is_refused(tmp_path):
    store = make_store(tmp_path / "s", 10)
    teachers = {"colours": function_teacher()}
    reinforce(store, BASE, teachers=teachers)
    other = FunctionTeacher("colours", {"embed_images": colour_embedding}, version="2")
    with pytest.raises(CardError, match="differs in fingerprint"):
        reinforce(store, BASE, teachers={"colours": other})
    with pytest.raises(CardError, match="was drawn with seed 0, the configuration says 1"):
        reinforce(store, replace(BASE, seed=1), teachers=teachers)
    flipped = ViewConfig(size=48, transforms={"random_horizontal_flip": {}})
    with pytest.raises(CardError, match="its views differ from the ones asked for in transforms"):
        reinforce(store, replace(BASE, views=flipped), teachers=teachers)
    with pytest.raises(CardError, match="differs in config.dtype"):
        reinforce(store, replace(BASE, dtype="float32"), teachers=teachers)
    assert verify(store, BASE, teachers=teachers) == []
    changed = replace(BASE, seed=1, overwrite=True)
    reinforce(store, changed, teachers=teachers)
    assert store.card("view.main.0").seed == store.card("colours.image.main.0").seed == 1
    assert verify(store, changed, teachers=teachers) == []


def test_bad_input_classes(tmp_path):
    store = make_store(tmp_path / "s", 6, classes=["a", "b", "c"])
    teacher = {"c": OwnTeacher("c", nano_classifier(12))}
    with pytest.raises(ConfigError, match="teacher 'c' tells 12 classes apart, .* has 3"):
        reinforce(store, replace(BASE, topk=2), teachers=teacher)
    with pytest.raises(ConfigError, match="topk: K is 13, but teacher 'c' has 12 classes"):
        reinforce(store, replace(BASE, topk=13, num_classes=12), teachers=teacher)
    report = reinforce(store, replace(BASE, topk=2, num_classes=12), teachers=teacher)
    assert report.computed == 6


def test_bad_input_a_useless_answer_names_the_row(tmp_path):
    store = make_store(tmp_path / "s", 10)

    def half(images):
        out = colour_classes(images)
        if len(images) > 2:
            out[2] = np.nan
        return out

    teachers = {"c": FunctionTeacher("c", {"classify": half})}
    with pytest.raises(DataError, match=r"probabilities of row 0 \(id 's0000'\) hold NaN"):
        reinforce(store, replace(BASE, topk=2), teachers=teachers)
    assert not store.has("view.main.0")


def test_bad_input_payload_and_questions(tmp_path):
    data = rows(4)
    broken = {**data, "image": [*data["image"][:3], b"no image"]}
    teachers = {"colours": function_teacher()}
    store = Store.create(tmp_path / "b", [broken])
    with pytest.raises(DataError, match=r"row 3 \(id 's0003'\): not an image"):
        reinforce(store, BASE, teachers=teachers)
    assert not store.has("view.main.0")
    store = Store.create(tmp_path / "t", [{**data, "text": [*data["text"][:3], None]}])
    with pytest.raises(DataError, match=r"row 3 \(id 's0003'\): 'text' is empty \(null\)"):
        reinforce(store, BASE, teachers=teachers)
    store = Store.create(tmp_path / "n", [{"id": ["x"], "text": ["a"]}])
    with pytest.raises(DataError, match="has no column 'image' of images; set image_column"):
        reinforce(store, BASE, teachers=teachers)
    only_text = FunctionTeacher("w", {"embed_texts": text_embedding})
    reinforce(store, BASE, teachers={"w": only_text})
    assert store.columns == ["id", "text", "w.text"]
    classifier = {"c": OwnTeacher("c", nano_classifier())}
    with pytest.raises(ConfigError, match="name at least one teacher or captioner"):
        reinforce(store, BASE)
    with pytest.raises(ConfigError, match="teachers look at views, so at least 1 is needed"):
        reinforce(store, replace(BASE, num_views=0), teachers=classifier)
    with pytest.raises(ConfigError, match="the one given as 'x' calls itself 'c'"):
        reinforce(store, BASE, teachers={"x": classifier["c"]})
    asked = (TeacherSpec(name="c", outputs=("topk",)),)
    with pytest.raises(ConfigError, match="teacher 'c' is asked for topk: set topk"):
        reinforce(store, replace(BASE, teachers=asked), teachers=classifier)
    asked = (TeacherSpec(name="c", outputs=("text",)),)
    with pytest.raises(ConfigError, match="cannot embed_texts"):
        reinforce(store, replace(BASE, teachers=asked), teachers=classifier)
