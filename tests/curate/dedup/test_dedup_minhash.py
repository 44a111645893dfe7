"""MinHash: estimates, the odds of a match, clusters, and the step."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from dedup_kit import backwards, groups_of, ids, near_copies, rows_of, run_step, sentence, units_of
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.curate.dedup import minhash, minhash_step, minhash_tasks
from understudy.curate.dedup.components import components
from understudy.curate.dedup.copies import read_matches
from understudy.curate.dedup.hashing import mix64
from understudy.curate.dedup.minhash import band_keys, match_probability, shingles, signatures
from understudy.curate.dedup.minhash_step import MinHashDedup
from understudy.curate.dedup.words import segment


def sets_with(jaccard: float, size: int, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return shingles of pairs of sets with exactly that similarity, and their starts."""
    both = round(jaccard * size)
    own = (size - both) // 2
    values = mix64(np.arange(pairs * size, dtype=np.uint64) + np.uint64(seed << 32))
    rows = values.reshape(pairs, size)
    left = rows[:, : both + own]
    right = np.concatenate([rows[:, :both], rows[:, both + own : both + 2 * own]], 1)
    assert abs(both / (both + 2 * own) - jaccard) < 1e-9
    flat = np.stack([left, right], 1).reshape(-1)
    return flat, np.arange(2 * pairs) * (both + own)


def test_signature_is_the_minimum_of_affine_maps():
    hashes = mix64(np.arange(50, dtype=np.uint64))
    starts = np.array([0, 1, 20])
    found = signatures(hashes, starts, 5, 3)
    factors, summands = minhash.permutations(5, 3)
    a, b = 1, 0
    for row in range(5):
        a = a * int(factors[row]) % 2**32
        b = (b * int(factors[row]) + int(summands[row])) % 2**32
        values = [(a * (int(h) >> 32) + b) % 2**32 for h in hashes]
        assert found[row].tolist() == [values[0], min(values[1:20]), min(values[20:])]


def test_chunks_do_not_matter(monkeypatch):
    hashes = mix64(np.arange(3000, dtype=np.uint64))
    starts = np.sort(np.random.default_rng(0).choice(np.arange(1, 3000), 40, replace=False))
    starts[0] = 0
    whole = signatures(hashes, starts, 30, 0)
    monkeypatch.setattr(minhash, "CHUNK_SHINGLES", 100)
    assert np.array_equal(signatures(hashes, starts, 30, 0), whole)


@pytest.mark.parametrize("jaccard", [0.2, 0.5, 0.8])
def test_equal_rows_estimate_the_similarity(jaccard):
    pairs, count = 60, 200
    flat, starts = sets_with(jaccard, 100, pairs, 1)
    found = signatures(flat, starts, count, 0)
    share = (found[:, 0::2] == found[:, 1::2]).mean()
    assert abs(share - jaccard) < 4 * np.sqrt(jaccard * (1 - jaccard) / (pairs * count))


@pytest.mark.parametrize(("jaccard", "pairs"), [(0.7, 300), (0.76, 300), (0.8, 300), (0.9, 100)])
def test_pairs_match_as_often_as_banding_says(jaccard, pairs):
    flat, starts = sets_with(jaccard, 100, pairs, 2)
    keys = band_keys(signatures(flat, starts, 93 * 15, 0), 93, 15)
    share = (keys[:, 0::2] == keys[:, 1::2]).any(0).mean()
    expected = 1 - (1 - jaccard**15) ** 93
    assert match_probability(jaccard, 93, 15) == expected
    spread = np.sqrt(expected * (1 - expected) / pairs)
    assert abs(share - expected) < 3.5 * spread + 1e-9
    assert 0.02 < match_probability(0.5, 14, 8) < 0.06
    assert abs(match_probability(0.8, 93, 15) - 0.965) < 0.001


def test_band_keys_are_equal_when_all_rows_are():
    signature = np.random.default_rng(0).integers(0, 2, (6, 400), dtype=np.uint32)
    keys = band_keys(signature, 2, 3)
    for band in range(2):
        rows = [tuple(column) for column in signature[band * 3 : band * 3 + 3].T.tolist()]
        assert len(set(zip(rows, keys[band].tolist(), strict=True))) == len(set(rows)) == 8
        assert len(set(keys[band].tolist())) == 8


def test_shingles_are_word_ngrams():
    text = ["The cat, the CAT; the cat sat down.", "one two", "", "one two", "?!", "a b c d e"]
    hashes, owner = shingles(segment(text), 5, letters=True)
    assert owner.tolist() == [0] * 4 + [1, 3] + [5]
    assert hashes[4] == hashes[5]
    again, _ = shingles(segment(["the cat the cat the. Cat SAT down"]), 5, letters=True)
    assert set(again.tolist()) == set(hashes[:4].tolist())
    _, owner = shingles(segment(text), 5, letters=False)
    assert owner.tolist().count(0) == 11 - 4
    assert owner.tolist().count(4) == 1
    # "a b" is no copy of the shingle "a b ..." of longer texts
    short, _ = shingles(segment(["x", "x x", "x x x"]), 5, letters=True)
    assert len(set(short.tolist())) == 3


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60),
)
def test_components_equal_flooding(pairs):
    edges = np.array(pairs, np.int64).reshape(-1, 2)
    nodes, roots = components(edges[:, 0], edges[:, 1])
    expected = groups_of(41, pairs)
    assert nodes.tolist() == sorted({n for pair in pairs for n in pair})
    assert roots.tolist() == [expected[n] for n in nodes.tolist()]


def test_a_long_path_is_one_component():
    order = np.random.default_rng(0).permutation(5000)
    _, roots = components(order[:-1], order[1:])
    assert (roots == 0).all()


def shingle_set(text: str, size: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


def similar(texts: list[str], size: int, threshold: float) -> list[tuple[int, int]]:
    sets = [shingle_set(t, size) for t in texts]
    return [
        (a, b)
        for a in range(len(texts))
        for b in range(a + 1, len(texts))
        if len(sets[a] & sets[b]) >= threshold * len(sets[a] | sets[b])
    ]


def test_clusters_equal_connected_components_of_300_documents(tmp_path):
    texts = near_copies(0, 300, 60)
    units = units_of(tmp_path, [texts[:120], texts[120:121], texts[121:]])
    # 80 bands of 3 rows miss a pair above 0.6 with probability below 1e-8; verification is exact
    step = MinHashDedup(bands=80, rows=3, verify=True, jaccard=0.6)
    found = run_step(step, units, tmp_path / "work")
    groups = groups_of(300, similar(texts, 5, 0.6))
    names = [f"u{u}-{r}" for u, n in ((0, 120), (1, 1), (2, 179)) for r in range(n)]
    heads = {names[n]: groups.count(n) for n in sorted(set(groups))}
    assert {r["id"]: r["dup_count"] for r in rows_of(found)} == heads
    assert 60 < len(heads) < 250
    matched = {m["id"]: m["of_id"] for u in found for m in read_matches(u.folder).to_pylist()}
    expected = {names[n]: names[g] for n, g in enumerate(groups) if n != g}
    assert matched == expected


def test_unverified_clusters_equal_components_of_shared_bands(tmp_path):
    texts = near_copies(1, 200, 40)
    step = MinHashDedup(preset="14x8")
    found = run_step(step, units_of(tmp_path, [texts[:90], texts[90:]]), tmp_path / "work")
    words = segment(texts)
    hashes, owner = shingles(words, 5, letters=True)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    keys = band_keys(signatures(hashes, starts, 14 * 8, 0), 14, 8)
    same = (keys[:, :, None] == keys[:, None, :]).any(0)
    pairs = [(int(a), int(b)) for a, b in zip(*np.nonzero(same), strict=True) if a < b]
    groups = groups_of(200, pairs)
    names = [f"u{n // 90 if n < 90 else 1}-{n if n < 90 else n - 90}" for n in range(200)]
    assert ids(found) == [names[n] for n in range(200) if groups[n] == n]


def test_choices_of_what_stays(tmp_path):
    generator = random.Random(3)
    base = sentence(generator, 80)
    other = sentence(generator, 80)
    texts = [[base, other], [base + " tail", base]]
    units = units_of(tmp_path, texts, [[1, 1], [4, 1]])
    kept = {}
    for keep in minhash_step.KEEPS:
        found = run_step(MinHashDedup(keep=keep, preset="14x8"), units, tmp_path / keep)
        kept[keep] = [(r["id"], r["dup_count"]) for r in rows_of(found)]
    assert kept["first"] == [("u0-0", 6), ("u0-1", 1)]
    assert kept["longest"] == [("u0-1", 1), ("u1-0", 6)]
    assert kept["none"] == [("u0-1", 1)]


def test_pages_without_words_are_never_copies(tmp_path):
    units = units_of(tmp_path, [["", " ", "?!", "?!", ""], []])
    found = run_step(MinHashDedup(preset="14x8"), units, tmp_path / "work")
    assert len(ids(found)) == 5


def test_parts_and_order_of_tasks_do_not_matter(tmp_path, monkeypatch):
    texts = near_copies(2, 90, 15)
    units = units_of(tmp_path, [texts[:40], texts[40:], []])
    step = MinHashDedup(preset="14x8")
    one = run_step(step, units, tmp_path / "one")
    two = backwards(step, units, tmp_path / "two")
    monkeypatch.setattr(minhash_step, "ROWS_PER_PART", 20)
    many = run_step(step, units, tmp_path / "many")
    assert [u.hash for u in one] == [u.hash for u in two] == [u.hash for u in many]
    assert 0 < len(ids(one)) < 90


def test_a_bucket_beyond_the_limit_stays_one_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(minhash_tasks, "BUCKET_LIMIT", 5)
    base = sentence(random.Random(0), 50)
    units = units_of(tmp_path, [[base] * 9])
    found = run_step(MinHashDedup(preset="14x8", verify=True), units, tmp_path / "work")
    assert [(r["id"], r["dup_count"]) for r in rows_of(found)] == [("u0-0", 9)]


def test_unlike_pages_stay(tmp_path):
    generator = random.Random(5)
    texts = [sentence(generator, 100) for _ in range(60)]
    found = run_step(MinHashDedup(), units_of(tmp_path, [texts]), tmp_path / "work")
    assert len(ids(found)) == 60


def test_presets_and_bad_options():
    assert MinHashDedup().shape == (93, 15)
    assert MinHashDedup(preset="14x8").shape == (14, 8)
    assert MinHashDedup(bands=3, rows=2).describe()["bands"] == 3
    with pytest.raises(ConfigError, match="preset: expected 93x15 or 14x8, got '9x9'"):
        MinHashDedup(preset="9x9")
    with pytest.raises(ConfigError, match="bands, rows: expected both above 0"):
        MinHashDedup(bands=3)
    with pytest.raises(ConfigError, match="ngram: expected 1 or more words, got 0"):
        MinHashDedup(ngram=0)
    with pytest.raises(ConfigError, match="keep: expected one of first, longest, none, got 'x'"):
        MinHashDedup(keep="x")
    with pytest.raises(ConfigError, match=r"jaccard: expected a number in \(0, 1\], got 0"):
        MinHashDedup(jaccard=0)
