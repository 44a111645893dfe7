"""The released lists of parameters: read, written, read again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view_configs import configs
from view_images import noise, picture, sample

from understudy.core.errors import ConfigError, DataError
from understudy.data.view_config import ViewConfig
from understudy.data.view_params import CUT, MIXED_UP, NO_OP, pack
from understudy.data.view_reference import (
    DATACOMPDR,
    from_reference_list,
    from_reference_lists,
    to_reference_list,
)
from understudy.data.views import ViewPipeline

FULL = {
    "random_resized_crop": {},
    "random_horizontal_flip": {},
    "rand_augment": {},
    "random_erase": {},
}


def test_the_sheets_example_without_mixing():
    config = ViewConfig(transforms=FULL)
    entries = [[12, 40, 180, 150], True, [[5, -9.0], [11, 178.5]], None]
    record = from_reference_list(entries, config)
    assert record.shape == (1,)
    assert record["rrc"].tolist() == [[12, 40, 180, 150]]
    assert record["flip"].tolist() == [1]
    assert record["ra_op"].tolist() == [[5, 11]]
    assert record["ra_mag"].tolist() == [[-9.0, 178.5]]
    assert record["re"].tolist() == [[0, 0, 0, 0]]
    assert to_reference_list(record, config) == entries
    skipped = [[12, 40, 180, 150], False, None, [3, 4, 50, 60]]
    record = from_reference_list(skipped, config)
    assert (record["ra_op"] == NO_OP).all()
    assert to_reference_list(record[0], config) == skipped


def test_mixed_records_are_pairs_between_the_partner_and_the_weights():
    config = ViewConfig(transforms={**FULL, "mixup": {}, "cutmix": {}})
    image = [[12, 40, 180, 150], True, [[5, -9.0], [11, 178.5]], None]
    other = [[1, 2, 30, 40], False, [[3, 30.45], [0, 0.0]], [5, 6, 7, 8]]
    entries = [
        917,
        *[[a, b] for a, b in zip(image, other, strict=True)],
        0.25,
        [0.5, 1, 2, 100, 90],
    ]
    record = from_reference_list(entries, config)
    assert record["id2"].tolist() == [917]
    assert record["mix"].tolist() == [MIXED_UP | CUT]
    assert record["rrc2"].tolist() == [[1, 2, 30, 40]]
    assert record["re2"].tolist() == [[5, 6, 7, 8]]
    assert record["box"].tolist() == [[1, 2, 100, 90]]  # x counts rows
    written = to_reference_list(record, config)
    assert json.loads(json.dumps(written)) == entries
    unmixed = [None, *image, None, None]
    record = from_reference_list(unmixed, config)
    assert record["id2"].tolist() == [-1]
    assert to_reference_list(record, config) == unmixed
    # the reference leaves the weights out of records that are not mixed
    np.testing.assert_array_equal(from_reference_list(unmixed[:-2], config), record)


def test_datacompdr_entries_are_the_default():
    entries = [[10, 20, 200, 210], [[3, -30.45], [12, 0.0]]]
    record = from_reference_list(entries)
    assert DATACOMPDR.transforms["random_resized_crop"]["interpolation"] == "bicubic"
    assert to_reference_list(record) == entries
    view = ViewPipeline(DATACOMPDR).apply([noise(256, 256)], record)
    assert view.shape == (1, 224, 224, 3)


def test_resizes_own_entry_is_skipped():
    config = ViewConfig(size=32, transforms={"resize": {}, "random_crop": {"padding": 4}})
    record = from_reference_list([[32, 32], [3, 5, 32, 32]], config)
    assert record["rc"].tolist() == [[3, 5]]
    np.testing.assert_array_equal(from_reference_list([[3, 5]], config), record)


def test_a_negative_box_of_the_reference_erases_nothing():
    config = ViewConfig(transforms={"random_resized_crop": {}, "random_erase": {}})
    record = from_reference_list([[0, 0, 5, 5], [-1, 0, 5, 5]], config)
    assert record["re"].tolist() == [[0, 0, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(config=configs(), seed=st.integers(0, 9999))
def test_lists_round_trip_through_json(config, seed):
    pipeline = ViewPipeline(config)
    images = [picture(40, 44, i) for i in range(3)]
    params, partners = sample(pipeline, images, [seed, seed + 1, seed + 2])
    lists = json.loads(json.dumps([to_reference_list(record, config) for record in params]))
    again = from_reference_lists(lists, config)
    # Unmixed magnitudes of a skipped RandAugment and the weight of an unhit mix are not kept.
    np.testing.assert_array_equal(
        pipeline.apply(images, again, partners=partners),
        pipeline.apply(images, params, partners=partners),
    )
    assert pack(again).tobytes() == pack(params).tobytes()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("oops", "record 3: expected a list of parameters, got 'oops'"),
        ([[1, 2, 3, 4]], r"record 3: 1 entries in the list, expected one for each of random_res"),
        (
            [[1, 2, 3], [[0, 0], [0, 0]]],
            r"random_resized_crop: expected 4 numbers, got \[1, 2, 3\]",
        ),
        ([[1, 2, -3, 4], [[0, 0], [0, 0]]], "not a crop box"),
        ([[1, 2, 3, 4], [[0, 0]]], r"rand_augment: expected 2 \[op, magnitude\] pairs"),
        ([[1, 2, 3, 4], [[14, 0], [0, 0]]], "operation 14 is not one of 0 to 13"),
        ([[1, 2, 3, 4], [["a", 0], [0, 0]]], "rand_augment: expected numbers"),
        ([[1, 2, 3, 4], [[6, float("nan")], [0, 0]]], "holds values that no transform draws"),
    ],
)
def test_bad_input_record_of_another_form(entries, message):
    with pytest.raises(DataError, match=message):
        from_reference_list(entries, name="record 3")


def test_bad_input_mixed_record_of_another_form():
    config = ViewConfig(transforms={"random_resized_crop": {}, "mixup": {}})
    box = [1, 2, 3, 4]
    with pytest.raises(DataError, match="expected the partner's index or null first"):
        from_reference_list([box, 0.5], config)
    with pytest.raises(DataError, match="random_resized_crop: expected a pair"):
        from_reference_list([5, box, 0.5], config)
    with pytest.raises(DataError, match="names partner 5 but is neither mixed nor cut"):
        from_reference_list([5, [box, box], None], config)
    with pytest.raises(DataError, match="row 8: expected the partner's index"):
        from_reference_lists([[None, box, None], ["x"]], config, name=lambda i: f"row {7 + i}")
    with pytest.raises(ConfigError, match="expected one record, got 2"):
        to_reference_list(from_reference_lists([[None, box, None]] * 2, config), config)
