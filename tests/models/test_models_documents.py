"""Attention inside documents: each way equals the documents alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy import models
from understudy.core.errors import ConfigError, DataError
from understudy.models.language.documents import (
    Documents,
    document_mask,
    document_positions,
    document_runs,
)
from understudy.objectives.language import causal_lm, head_causal_lm

WAYS = ("mask", "split", "flex")


def segments_of(*rows):
    return torch.tensor([[d for d, n in row for _ in range(n)] for row in rows])


def test_runs_positions_and_mask_by_hand():
    segments = segments_of([(3, 2), (1, 1), (3, 3)], [(0, 6)])
    assert document_runs(segments).tolist() == [[0, 0, 1, 2, 2, 2], [0] * 6]
    assert document_positions(segments).tolist() == [[0, 1, 0, 0, 1, 2], list(range(6))]
    mask = document_mask(segments)
    assert mask.shape == (2, 1, 6, 6)
    for row in range(2):
        for query in range(6):
            for key in range(6):
                same = document_runs(segments)[row, query] == document_runs(segments)[row, key]
                assert bool(mask[row, 0, query, key]) == (key <= query and bool(same))


lengths = st.lists(st.integers(1, 7), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(lengths, st.integers(0, 1000), st.integers(1, 2))
def test_every_way_equals_attention_in_each_document(sizes, seed, rows):
    compare(sizes, seed, rows, WAYS[:2])


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_as_written_is_the_same():
    compare([3, 1, 7, 2], 5, 2, ("flex",))


def compare(sizes, seed, rows, ways):
    draw = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    parts = [torch.randn(rows, 2, count, 4, generator=draw) for _ in range(3)]
    # the second row has the same documents in another order
    orders = [sizes, sizes[::-1]][:rows]
    segments = segments_of(*[list(enumerate(order)) for order in orders])
    wanted = torch.empty_like(parts[0])
    for row, order in enumerate(orders):
        start = 0
        for size in order:
            q, k, v = (part[row, :, start : start + size] for part in parts)
            scores = (q @ k.transpose(-1, -2)) / 2.0
            hidden = torch.ones(size, size).triu(1).bool()
            scores = scores.masked_fill(hidden, float("-inf"))
            wanted[row, :, start : start + size] = scores.softmax(-1) @ v
            start += size
    for way in ways:
        assert torch.allclose(Documents(segments, way)(*parts), wanted, atol=1e-5), way


@pytest.fixture(scope="module")
def model():
    return models.create("openlm-micro", seed=0)


def drawn(sizes, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (size + 1,), generator=draw) for size in sizes]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [8, 32])
def test_a_batch_of_short_rows_equals_one_long_masked_row(model, way, size):
    rows = torch.stack(drawn([size] * 4))
    short = {"ids": rows[:, :-1], "targets": rows[:, 1:]}
    long = {k: v.reshape(1, -1) for k, v in short.items()}
    long["segments"] = torch.arange(4).repeat_interleave(size)[None]
    model.decoder.documents = way
    losses, grads = [], []
    for batch in (short, long):
        found = causal_lm(model(batch["ids"], batch.get("segments")), batch, z_loss=1e-4)
        losses.append(float(found["loss"].detach()))
        grads.append(torch.autograd.grad(found["loss"], list(model.parameters())))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for one, two in zip(*grads, strict=True):
        assert torch.allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_packed_documents_score_as_they_do_alone(model, way):
    rows = drawn([5, 20, 1, 11], seed=3)
    model.decoder.documents = way
    ids = torch.cat([row[:-1] for row in rows])[None]
    targets = torch.cat([row[1:] for row in rows])[None]
    segments = torch.arange(4).repeat_interleave(torch.tensor([5, 20, 1, 11]))[None]
    packed = head_causal_lm(
        *model(ids, segments, lambda s, t: {"s": s, "t": t}).values(), {"targets": targets}
    )
    alone = 0.0
    for row in rows:
        found = causal_lm(model(row[None, :-1]), {"targets": row[None, 1:]})
        alone += float(found["nll"]) * (len(row) - 1)
    assert float(packed["nll"]) == pytest.approx(alone / 37, abs=1e-5)


def test_without_segments_documents_see_each_other(model):
    (row,) = drawn([24])
    segments = torch.tensor([[0] * 12 + [1] * 12])
    with torch.no_grad():
        plain, masked = (model(row[None, :-1], s)["logits"] for s in (None, segments))
    assert torch.allclose(plain[:, :12], masked[:, :12], atol=1e-5)
    assert not torch.allclose(plain[:, 12:], masked[:, 12:], atol=1e-2)


def test_the_processor_takes_documents_one_by_one():
    segments = segments_of([(0, 2), (1, 2)])
    assert Documents(segments).way == "split"
    assert [p[1:] for p in Documents(segments)._pieces] == [(2, 2)]
    assert [p[1:] for p in Documents(segments_of([(0, 1), (1, 3)]))._pieces] == [(1, 1), (1, 3)]


def test_bad_input(model):
    ids = torch.zeros(2, 6, dtype=torch.long)
    with pytest.raises(DataError, match=r"segments: expected \[rows, length\], got \[6\]"):
        Documents(torch.zeros(6, dtype=torch.long))
    with pytest.raises(ConfigError, match="documents: 'masks' is not one of"):
        Documents(ids, "masks")
    with pytest.raises(DataError, match=r"segments: \[2, 5\] for 2 rows of 6 tokens"):
        model(ids, ids[:, :5])
    embedded = model.decoder.embed(ids)
    with pytest.raises(DataError, match="segments go with neither padding"):
        model.decoder(embedded, valid=torch.ones(2, 6, dtype=torch.bool), segments=ids)
