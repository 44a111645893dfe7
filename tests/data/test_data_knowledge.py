from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data import knowledge as kn

FLOATS = hnp.arrays(
    np.float32, (5, 6), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)


def decoded(values: np.ndarray, dtype: str) -> np.ndarray:
    column = kn.encode_embeddings(values, dtype)
    assert column.type == kn.embedding_type(values.shape[1:], dtype)
    assert column.null_count == 0
    flat = column.flatten().to_numpy().reshape(len(values), column.type.list_size)
    return kn.decode_embeddings(flat, kn.embedding_config(values.shape[1:], dtype))


@settings(max_examples=50, deadline=None)
@given(values=FLOATS)
def test_bfloat16_is_torch_s_and_within_half_a_unit(values: np.ndarray):
    bits = kn.to_bfloat16(values)
    ours = kn.from_bfloat16(bits)
    np.testing.assert_array_equal(kn.to_bfloat16(ours), bits)  # a second trip changes nothing
    theirs = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(ours, theirs)
    normal = (np.abs(values) > 1e-37) & np.isfinite(ours)  # the largest numbers round to infinity
    values, ours = values.astype(np.float64), ours.astype(np.float64)
    relative = np.abs(ours - values)[normal] / np.abs(values)[normal]
    assert (relative <= 2.0**-8).all()


def test_bfloat16_of_nan_stays_nan():
    values = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    back = kn.from_bfloat16(kn.to_bfloat16(values))
    np.testing.assert_array_equal(back, values)
    assert np.signbit(back[3])


@pytest.mark.parametrize(("dtype", "unit"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_unit_vectors_survive_storage(dtype: str, unit: float):
    values = np.random.default_rng(0).standard_normal((20, 3, 16)).astype(np.float32)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    back = decoded(values, dtype)
    assert back.dtype == np.float32
    assert back.shape == values.shape
    np.testing.assert_allclose(back, values, rtol=unit, atol=1e-7)


def test_float32_is_exact_and_nothing_is_copied():
    values = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    np.testing.assert_array_equal(decoded(values, "float32"), values)
    column = kn.fixed_list(values)
    assert column.flatten().buffers()[1].address == values.ctypes.data


def test_no_rows():
    assert decoded(np.zeros((0, 4), np.float32), "float16").shape == (0, 4)
    assert len(kn.encode_topk(np.zeros((0, 3)), np.zeros((0, 3), int))) == 0


def test_top_k_round_trip():
    rng = np.random.default_rng(0)
    values = rng.random((7, 10)).astype(np.float32)
    ids = rng.integers(0, 65536, (7, 10))
    column = kn.encode_topk(values, ids)
    assert column.type == kn.topk_type(10)
    assert column.type.list_size == 40  # four bytes a kept class
    back, back_ids = kn.decode_topk(column.flatten().to_numpy().reshape(7, -1))
    np.testing.assert_array_equal(back_ids, ids)
    np.testing.assert_array_equal(back, values.astype(np.float16).astype(np.float32))
    assert (back.dtype, back_ids.dtype) == (np.float32, np.int64)


def test_column_names_are_those_of_the_contract():
    assert kn.view_column("main", 3) == "view.main.3"
    assert kn.image_column("a", "main", 3) == "a.image.main.3"
    assert kn.text_column("a") == "a.text"
    assert kn.captions_column("c") == "caption.c"
    assert kn.caption_column("a", "c", 2) == "a.caption.c.2"
    assert kn.topk_column("a", "main", 3) == "a.topk.main.3"
    assert kn.feature_column("e", "image") == "feature.e.image"


def test_caption_columns_end_at_a_gap():
    there = {"a.caption.c.0", "a.caption.c.1", "a.caption.c.3", "b.caption.c.0", "caption.c"}
    assert kn.caption_columns(there, "a", "c") == ["a.caption.c.0", "a.caption.c.1"]
    assert kn.caption_columns(there, "a", "d") == []


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e5])
def test_bad_input_embedding_out_of_range(wrong: float):
    values = np.zeros((3, 4), np.float32)
    values[2, 1] = wrong
    with pytest.raises(DataError, match="item 2 holds NaN, infinity or a number beyond float16"):
        kn.encode_embeddings(values)
    if np.isfinite(wrong):
        assert decoded(values, "bfloat16")[2, 1] == pytest.approx(wrong, rel=2**-8)


def test_bad_input_dtype():
    with pytest.raises(ConfigError, match="'float8' is not one of"):
        kn.embedding_type([4], "float8")


def test_bad_input_card_does_not_fit_the_column():
    with pytest.raises(CardError, match="no 'dtype' and 'shape'"):
        kn.decode_embeddings(np.zeros((1, 4), np.float16), {})
    with pytest.raises(CardError, match=r"rows of \[4\] numbers, but the card says \[5\]"):
        kn.decode_embeddings(np.zeros((1, 4), np.float16), kn.embedding_config([5]))


def test_bad_input_top_k():
    ones = np.ones((2, 3), np.float32)
    with pytest.raises(DataError, match="class id 65536 does not fit 16 bits"):
        kn.encode_topk(ones, np.full((2, 3), 65536))
    with pytest.raises(DataError, match="must be .N, K. both"):
        kn.encode_topk(ones, np.zeros((2, 4), int))
    with pytest.raises(CardError, match="expected uint8"):
        kn.decode_topk(np.zeros((2, 6), np.uint8))
    assert isinstance(kn.topk_type(3), pa.DataType)
