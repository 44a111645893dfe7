"""What a reinforcement refuses once it runs: the sample is named, nothing is half-written."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from reinforce_functions import SMALL, colour_classes, colour_embedding, small_teachers
from reinforce_world import VIEWS, function_teacher, make_store, nano_clip, rows, say

from understudy.core.errors import ConfigError, DataError
from understudy.data import store_files
from understudy.data.knowledge import decode_embeddings
from understudy.data.store import Store
from understudy.data.views import ViewConfig, ViewPipeline
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.generate import reinforce
from understudy.reinforce.teachers.function import FunctionTeacher
from understudy.reinforce.teachers.own import OwnTeacher

BASE = ReinforceConfig(num_views=3, views=VIEWS, unit_rows=8, batch_size=12)


def spoilt(function, value):
    """Return `function` with a wrong row in every batch of views (not in the probe of one)."""

    def answer(images):
        out = function(images)
        if len(images) > 1:
            out[4] = value
        return out

    return answer


@pytest.mark.parametrize(
    ("ability", "function", "value", "message"),
    [
        ("classify", colour_classes, np.nan, "probabilities of .* hold NaN or infinity"),
        ("classify", colour_classes, 0.0, "probabilities of .* sum to 0; expected numbers"),
        ("embed_images", colour_embedding, np.nan, "embedding of .* is NaN or infinity; check"),
        ("embed_images", colour_embedding, 0.0, "embedding of .* is a zero vector; check"),
    ],
)
def test_bad_input_useless_answers_name_the_sample(tmp_path, ability, function, value, message):
    store = make_store(tmp_path / "s", 8)
    teacher = FunctionTeacher("t", {ability: spoilt(function, value)})
    config = replace(BASE, topk=2 if ability == "classify" else 0)
    # three views a row: the fifth view of a batch is the second row's
    where = message.replace(".*", r"row 1 \(id 's0001'\)", 1)
    with pytest.raises(DataError, match=f"teacher 't': the {where}"):
        reinforce(store, config, teachers={"t": teacher})
    assert store.columns == ["id", "image", "text", "label", "split"]


def test_bad_input_filter_that_leaves_no_row(tmp_path):
    store = make_store(tmp_path / "s", 8)
    message = r'rows: "label > 99" matches none of the 8 rows of .*s; loosen .*columns: id, image'
    with pytest.raises(DataError, match=message):
        reinforce(store, replace(BASE, rows="label > 99"), teachers={"c": function_teacher("c")})
    schema = pa.schema({"id": pa.string(), "image": pa.binary()})
    empty = Store.create(tmp_path / "empty", [], schema=schema)
    with pytest.raises(DataError, match="empty: the store has no rows; import some first"):
        reinforce(empty, BASE, teachers={"c": function_teacher("c")})


def test_bad_input_teachers_of_different_normalisation_each_get_their_own(tmp_path):
    store = make_store(tmp_path / "s", 8)
    own = {"preprocess": {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}}
    teachers = {"a": OwnTeacher("a", nano_clip()), "b": OwnTeacher("b", nano_clip(**own))}
    assert teachers["a"].preprocess.mean != teachers["b"].preprocess.mean
    reinforce(store, BASE, teachers=teachers)
    card = store.card("view.main.1")
    pipeline = ViewPipeline.from_card(card)
    images = store.take(range(8), ["image"]).column(0).to_pylist()
    views = pipeline.apply(images, pipeline.unpack(store.array("view.main.1")))
    found = {}
    for name, teacher in teachers.items():
        column = f"{name}.image.main.1"
        found[name] = decode_embeddings(store.array(column), store.card(column).config)
        assert np.abs(found[name] - teacher.embed_images(views)).max() < 1e-3
    assert np.abs(found["a"] - found["b"]).max() > 1e-2  # the same weights: only pixels differ


def test_bad_input_teacher_larger_than_the_views_says_what_to_set(tmp_path):
    store = make_store(tmp_path / "s", 4)
    config = replace(BASE, views=ViewConfig(size=24))
    message = "'a' takes 48-pixel .* views have 24: set views.size to at least 48, or .*upscale"
    with pytest.raises(ConfigError, match=message):
        reinforce(store, config, teachers={"a": OwnTeacher("a", nano_clip())})


def test_bad_input_disk_full_in_the_middle_leaves_no_part_visible(tmp_path, monkeypatch):
    whole = make_store(tmp_path / "whole", 20)
    reinforce(whole, SMALL, teachers=small_teachers())
    store = make_store(tmp_path / "s", 20)
    real, written = store_files.write_bytes, []

    def fills_up(path, data):
        written.append(path)
        if len(written) > 9:  # the captions are committed, the views are not finished
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(store_files, "write_bytes", fills_up)
        with pytest.raises(DataError, match="No space left .*mend it and run the same command ag"):
            reinforce(store, SMALL, teachers=small_teachers())
    kept = Store.open(store.path)
    assert kept.columns == ["id", "image", "text", "label", "split", "caption.cap"]
    assert kept.verify() == []
    report = reinforce(kept, SMALL, teachers=small_teachers())
    assert 0 < report.computed < 2 * 20  # views and texts, less the units that were finished
    assert kept.content_hash() == whole.content_hash()


def test_bad_input_image_that_is_missing(tmp_path):
    data = rows(12)
    data["image"][9] = None
    store = Store.create(tmp_path / "s", [data])
    with pytest.raises(DataError, match=r"row 9 \(id 's0009'\): it has no image; leave such rows"):
        reinforce(store, BASE, teachers={"c": function_teacher("c")})
    captioner = {"cap": FunctionTeacher("cap", {"caption": say})}
    with pytest.raises(DataError, match=r"row 9 \(id 's0009'\): not an image, it is empty"):
        reinforce(store, BASE, teachers=captioner)
    mixing = ViewConfig(size=48, transforms={"random_resized_crop": {}, "mixup": {"p": 1.0}})
    # many views of few rows: one of the first unit's draws row 9 as its partner
    mixed = replace(BASE, views=mixing, num_views=30, unit_rows=1)
    with pytest.raises(DataError, match=r"row 9 \(id 's0009'\): not an image, it is empty; rest"):
        reinforce(store, mixed, teachers={"c": function_teacher("c")})
    assert store.columns == ["id", "image", "text", "label", "split"]
