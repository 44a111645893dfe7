"""Retrieval in blocks equals a loop over the full matrix, with several captions an image."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.retrieval import retrieval_metrics, retrieval_ranks


def loop(queries, items, query_ids, item_ids):
    """Return the first relevant item's place in a plain sort."""
    ranks = []
    for query, own in zip(queries, query_ids, strict=True):
        scores = [sum(a * b for a, b in zip(query, item, strict=True)) for item in items]
        order = sorted(range(len(items)), key=lambda i: (-scores[i], i))
        ranks.append(next(place for place, i in enumerate(order) if item_ids[i] == own))
    return ranks


# whole numbers: products are exact, so that ties are ties in both computations
vectors = st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(images=vectors, texts=vectors, block=st.integers(1, 10), data=st.data())
def test_blocks_equal_a_loop(images, texts, block, data):
    owners = [data.draw(st.integers(0, len(images) - 1)) for _ in texts]
    expected = loop(texts, images, owners, range(len(images)))
    ids = torch.arange(len(images))
    found = retrieval_ranks(texts, images, owners, ids, block=block)
    assert found.tolist() == expected
    kept = sorted(set(owners))
    chosen = [images[i] for i in kept]
    expected = loop(chosen, texts, kept, owners)
    assert retrieval_ranks(chosen, texts, kept, owners, block=block).tolist() == expected
    metrics = retrieval_metrics(chosen, texts, owners, image_ids=kept, block=block, ks=(1, 2))
    assert metrics["i2t_r1"] == pytest.approx(statistics.fmean(r < 1 for r in expected))
    assert metrics["i2t_median_rank"] == statistics.median(expected) + 1


def test_metrics_of_five_captions_an_image():
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(12, 16, generator=generator), dim=1)
    texts = images.repeat_interleave(5, 0) + 0.4 * torch.randn(60, 16, generator=generator)
    owners = torch.arange(12).repeat_interleave(5)
    found = retrieval_metrics(images, texts, owners)
    scores = texts @ images.T
    top = scores.argsort(1, descending=True)
    for k in (1, 5, 10):
        hit = (top[:, :k] == owners[:, None]).any(1).float().mean()
        assert found[f"t2i_r{k}"] == pytest.approx(float(hit))
        back = scores.T.argsort(1, descending=True)[:, :k]
        hit = (owners[back] == torch.arange(12)[:, None]).any(1).float().mean()
        assert found[f"i2t_r{k}"] == pytest.approx(float(hit))
        assert found[f"mean_r{k}"] == pytest.approx((found[f"t2i_r{k}"] + found[f"i2t_r{k}"]) / 2)
    assert 0.2 < found["t2i_r1"] < 1.0


def test_perfect_shuffled_and_collapsed():
    vectors = torch.eye(20)
    found = retrieval_metrics(vectors, vectors)
    assert (found["t2i_r1"], found["i2t_r1"], found["t2i_median_rank"]) == (1.0, 1.0, 1.0)
    shuffled = retrieval_metrics(vectors, vectors.roll(1, 0))
    assert shuffled["mean_r1"] == 0.0
    collapsed = retrieval_metrics(torch.ones(20, 4), torch.ones(20, 4))
    assert collapsed["t2i_r1"] == collapsed["i2t_r1"] == pytest.approx(1 / 20)
    assert collapsed["t2i_median_rank"] == 10.5


def test_permuting_rows_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    images, texts = (torch.randn(30, 8, generator=generator) for _ in range(2))
    order = torch.randperm(30, generator=generator)
    plain = retrieval_metrics(images, texts)
    moved = retrieval_metrics(images, texts[order], order, block=7)
    assert plain == pytest.approx(moved)


def test_copies_of_one_picture_are_interchangeable():
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert retrieval_metrics(images, texts)["t2i_r1"] == pytest.approx(2 / 3)
    merged = retrieval_metrics(images, texts, [7, 7, 8], image_ids=[7, 7, 8])
    assert merged["t2i_r1"] == merged["i2t_r1"] == 1.0


def test_k_that_says_nothing_is_left_out():
    found = retrieval_metrics(torch.eye(3), torch.eye(3), ks=(1, 2, 3, 10))
    assert [k for k in found if k.startswith("t2i_r")] == ["t2i_r1", "t2i_r2"]
    alone = retrieval_metrics(torch.ones(1, 2), torch.ones(1, 2))
    assert alone["t2i_r1"] == 1.0


def test_memory_stays_in_blocks(monkeypatch):
    seen = []
    real = torch.Tensor.__matmul__

    def spy(a, b):
        out = real(a, b)
        seen.append(out.numel())
        return out

    monkeypatch.setattr(torch.Tensor, "__matmul__", spy)
    retrieval_metrics(torch.randn(100, 4), torch.randn(100, 4), block=16)
    assert max(seen) <= 16 * 16


def test_bad_input_pairs():
    eye = torch.eye(3)
    with pytest.raises(DataError, match="3 images and 2 texts: say which text belongs"):
        retrieval_metrics(eye, eye[:2])
    with pytest.raises(DataError, match=r"text 2 \(image id 9\) has no image"):
        retrieval_metrics(eye, eye, [0, 1, 9])
    with pytest.raises(DataError, match=r"image 2 \(image id 2\) has no text"):
        retrieval_metrics(eye, eye, [0, 1, 1])
    with pytest.raises(DataError, match="queries have 3 dimensions, items 2"):
        retrieval_metrics(torch.ones(2, 2), torch.ones(2, 3))
    with pytest.raises(DataError, match=r"image_of_text: expected one id for each of 3 rows"):
        retrieval_metrics(eye, eye, [0, 1])
    with pytest.raises(ConfigError, match="block must be at least 1"):
        retrieval_metrics(eye, eye, block=0)


def test_bad_input_values():
    bad = torch.eye(3)
    bad[1, 1] = float("nan")
    with pytest.raises(DataError, match="images: row 1 is not finite"):
        retrieval_metrics(bad, torch.eye(3))
    with pytest.raises(DataError, match=r"texts: expected \[rows, dim\] with rows"):
        retrieval_metrics(torch.eye(3), torch.zeros(0, 3))
