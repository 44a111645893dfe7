"""Spaces: what may be compared with what."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import CardError, ConfigError
from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, encode_embeddings
from understudy.data.spaces import Space, SpaceError, check_comparable, check_one_target, space_of
from understudy.data.store import Store

OLD = Space(model="old", fingerprint="aa", preprocess="p", dim=4)
NEW = Space(model="new", fingerprint="bb", preprocess="p", dim=4)


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "cc"},
        {"preprocess": "q"},
        {"dtype": "bfloat16"},
        {"normalised": True},
        {"dim": 5},
    ],
)
def test_whatever_decides_the_vectors_decides_the_id(change):
    assert dataclasses.replace(OLD, **change).id != OLD.id


def test_the_name_is_for_people():
    assert dataclasses.replace(OLD, model="renamed").id == OLD.id


def test_equal_width_is_not_compatibility():
    with pytest.raises(SpaceError, match="Equal widths") as error:
        check_comparable(NEW, OLD, "column 'embed.old'")
    assert OLD.id in str(error.value)
    assert NEW.id in str(error.value)
    assert "update fit" in str(error.value)


def test_other_widths_get_no_word_on_widths():
    with pytest.raises(SpaceError) as error:
        check_comparable(dataclasses.replace(NEW, dim=7), OLD, "here")
    assert "Equal widths" not in str(error.value)


def test_mapped_vectors_are_searched_from_their_target_only():
    mapped = OLD.mapped("map1", NEW)
    check_comparable(NEW, mapped, "here")
    assert mapped.lineage == (OLD.id,)
    for query in (OLD, mapped):  # what was mapped is a gallery, never a query
        with pytest.raises(SpaceError):
            check_comparable(query, mapped, "here")


def test_a_chain_keeps_its_lineage():
    third = Space(model="third", fingerprint="cc", dim=6)
    twice = OLD.mapped("m1", NEW).mapped("m2", third)
    assert twice.searched_from == third.id
    assert twice.lineage == (OLD.id, OLD.mapped("m1", NEW).id)


def test_only_one_target_in_a_gallery():
    assert check_one_target([NEW, OLD.mapped("m", NEW)], "here") == NEW.id
    with pytest.raises(SpaceError, match="would be mixed"):
        check_one_target([NEW, OLD], "here")


@given(st.booleans(), st.integers(1, 4096), st.sampled_from(["float32", "bfloat16"]))
def test_plain_data_brings_it_back(normalised, dim, dtype):
    space = Space(model="m", fingerprint="f", normalised=normalised, dim=dim, dtype=dtype)
    for one in (space, space.mapped("map", NEW)):
        again = Space.from_dict(one.to_dict())
        assert again == one
        assert again.id == one.id


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dim": 0}, "dim must be"),
        ({"fingerprint": ""}, "fingerprint"),
        ({"target": "x"}, "no target"),
        ({"kind": "mapped"}, "has; got kind"),
        ({"kind": "other"}, "not one of"),
    ],
)
def test_what_is_no_space(change, word):
    with pytest.raises(ConfigError, match=word):
        dataclasses.replace(OLD, **change)


def test_an_unknown_key_is_named():
    with pytest.raises(ConfigError, match="colour"):
        Space.from_dict({**OLD.to_dict(), "colour": 1})


def test_space_on_the_card(tmp_path):
    store = Store.create(tmp_path / "s", [{"id": ["a", "b"]}])
    values = np.ones((2, 4), np.float32)
    for name, extra in (("embed.old", {"space": OLD.to_dict()}), ("embed.bare", {})):
        card = Card(column=name, writer="w", config={**embedding_config([4], "float32"), **extra})
        with store.job([card], {name: pa.list_(pa.float32(), 4)}) as job:
            for unit in job.todo():
                job.write(unit, {name: encode_embeddings(values, "float32")})
    assert space_of(store, "embed.old") == OLD
    with pytest.raises(CardError, match="names no space"):
        space_of(store, "embed.bare")
