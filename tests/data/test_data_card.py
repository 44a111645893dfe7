from __future__ import annotations

import json

import pytest

from understudy.core.errors import CardError
from understudy.core.hashing import hash_data
from understudy.data.card import Card


def card(**fields) -> Card:
    known = {
        "column": "t.text",
        "writer": "clip-a",
        "fingerprint": "f1",
        "config": {"dtype": "float16", "shape": [4], "view": {"size": 224, "scale": [0.1, 1.0]}},
        "backend": {"decoder": "simplejpeg"},
        "versions": {"numpy": "2.0"},
        "seed": 3,
    }
    return Card(**{**known, **fields})


def test_json_round_trip_and_hash():
    one = card(rows_done=7, seconds=1.5, facts={"crc": {"0": 12}}, created_by="reinforce")
    assert Card.from_json(one.to_json()) == one
    assert Card.from_json(one.to_json().encode()) == one
    assert "\n" not in one.to_json()
    assert one.config_hash == hash_data(one.config)


def test_tuples_become_lists_so_that_cards_compare():
    assert card(config={"a": (1, 2)}) == card(config={"a": [1, 2]})


def test_identity_leaves_out_what_does_not_decide_the_content():
    one, two = card(), card(rows_done=5, seconds=2, facts={"x": 1}, versions={}, created_by="y")
    assert one.identity() == two.identity()
    one.check_same_writer(two)
    for field, value in (("seed", 4), ("fingerprint", "f2"), ("config", {})):
        assert card(**{field: value}).identity() != one.identity()


def test_require_compares_leaf_by_leaf():
    one = card()
    assert one.require(writer="clip-a", config=one.config, seed=3) is one
    with pytest.raises(CardError, match=r"config.view.size: expected 256, found 224"):
        one.require(config={**one.config, "view": {"size": 256, "scale": [0.1, 1.0]}})
    with pytest.raises(CardError, match=r"config.view.scale: expected \[0.1, 1.0\], found nothing"):
        card(config={"view": {}}).require(config={"view": {"scale": (0.1, 1.0)}})
    with pytest.raises(CardError, match="Reinforce the store again with the wanted settings"):
        one.require(fingerprint="f2")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fingerprint": "f2"}, "fingerprint: stored 'f1', new 'f2'"),
        ({"seed": 9}, "seed: stored 3, new 9"),
        ({"config": {"dtype": "float16"}}, "config.shape: stored .4., new nothing"),
    ],
)
def test_bad_input_two_writers_in_one_column(fields: dict, message: str):
    with pytest.raises(CardError, match=message):
        card().check_same_writer(card(writer="clip-b", **fields))
    with pytest.raises(CardError, match="another name, or pass overwrite=True"):
        card().check_same_writer(card(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"column": ""}, "must not be empty"),
        ({"writer": ""}, "must not be empty"),
        ({"seconds": -1}, "finite and >= 0"),
        ({"seconds": float("nan")}, "finite and >= 0"),
        ({"rows_done": -1}, "finite and >= 0"),
        ({"config": {"x": object()}}, "config: a card holds plain JSON data only"),
        ({"facts": {"x": float("inf")}}, "facts: a card holds plain JSON data only"),
        ({"config_hash": "beef"}, "config_hash 'beef' does not belong to its config"),
    ],
)
def test_bad_input_card_fields(fields: dict, message: str):
    with pytest.raises(CardError, match=message):
        card(**fields)


def test_bad_input_card_of_another_version():
    newer = json.dumps({**card().to_dict(), "colour": "red"})
    with pytest.raises(CardError, match="unknown key 'colour'.*written by a newer version"):
        Card.from_json(newer)
    for text in ("{", "[1]", '{"column": "a"}'):
        with pytest.raises(CardError, match="card"):
            Card.from_json(text)


def test_bad_input_required_field_does_not_exist():
    with pytest.raises(CardError, match="unknown key 'sead'. Did you mean 'seed'"):
        card().require(sead=3)
