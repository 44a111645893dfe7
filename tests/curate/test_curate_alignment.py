"""Alignment sets: relevance, quotas, repeats, leakage, mixes, reports, stored decisions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.curate.alignment import (
    AlignmentReport,
    caption_key,
    image_key,
    label_captions,
    leaks,
    mix_sources,
    near_repeats,
    repeats,
    report_on,
    write_selection,
)
from understudy.curate.relevance import (
    balanced_quota,
    check_classes,
    class_relevance,
    select_top,
)
from understudy.data.store import Store


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def world(count=60, classes=4, prompts=3, seed=0):
    draw = np.random.default_rng(seed)
    pool = draw.standard_normal((count, 5))
    asked = draw.standard_normal((classes * prompts, 5))
    owner = draw.permutation(np.repeat(np.arange(classes), prompts))
    return pool, asked, owner


def test_relevance_is_the_largest_cosine_to_any_prompt_of_the_class():
    pool, asked, owner = world()
    got = class_relevance(pool, asked, owner, 4, chunk=7)
    scores = unit(pool) @ unit(asked).T
    for c in range(4):
        assert np.allclose(got[:, c], scores[:, owner == c].max(1), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), total=st.integers(1, 24), assign=st.sampled_from(["best", "any"]))
def test_top_k_equals_brute_force(seed, total, assign):
    pool, asked, owner = world(seed=seed)
    relevance = class_relevance(pool, asked, owner, 4)
    usable = np.random.default_rng(seed).random(60) < 0.8
    chosen = select_top(relevance, total, assign=assign, usable=usable)
    quota = [total // 4 + (c < total % 4) for c in range(4)]
    expected: list[tuple[int, int]] = []
    if assign == "best":
        for c in range(4):
            mine = [r for r in range(60) if usable[r] and relevance[r].argmax() == c]
            mine.sort(key=lambda r: (-relevance[r, c], r))
            expected += [(r, c) for r in mine[: quota[c]]]
    else:
        free = set(np.flatnonzero(usable).tolist())
        for turn in range(max(quota)):
            for c in range(4):
                if turn < quota[c]:
                    r = min(free, key=lambda r: (-relevance[r, c], r))
                    free.discard(r)
                    expected.append((r, c))
    assert sorted(expected) == list(zip(chosen.rows.tolist(), chosen.classes.tolist(), strict=True))
    assert np.allclose(chosen.scores, relevance[chosen.rows, chosen.classes])


@settings(max_examples=25, deadline=None)
@given(total=st.integers(0, 500), classes=st.integers(1, 30))
def test_quota_is_balanced_to_one(total, classes):
    quota = balanced_quota(total, classes)
    assert quota.sum() == total
    assert quota.max() - quota.min() <= 1


def test_taking_turns_meets_the_quota_exactly():
    relevance = class_relevance(*world(), 4)
    chosen = select_top(relevance, 22, assign="any")
    assert chosen.coverage.tolist() == [6, 6, 5, 5]
    assert len(set(chosen.rows.tolist())) == 22


def test_without_balance_the_best_rows_win():
    relevance = class_relevance(*world(), 4)
    chosen = select_top(relevance, 10, balance=False)
    assert set(chosen.rows) == set(np.argsort(-relevance.max(1), kind="stable")[:10])


def test_least_score_leaves_classes_short_and_the_report_names_them():
    relevance = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.3], [0.2, 0.1]])
    chosen = select_top(relevance, 4, min_score=0.5)
    assert chosen.rows.tolist() == [0, 1]
    report = report_on(chosen.rows, list("abcd"), list("wxyz"), chosen.coverage, ["cat", "dog"])
    assert report.coverage == {"cat": 2, "dog": 0}
    assert report.zero_coverage == ("dog",)
    assert "classes without a pair: dog" in report.text()


def test_image_relevance_is_the_same_with_target_images():
    pool, targets, _ = world()
    relevance = class_relevance(pool, targets, np.zeros(len(targets), int), 1)
    chosen = select_top(relevance, 5)
    nearest = (unit(pool) @ unit(targets).T).max(1)
    assert set(chosen.rows) == set(np.argsort(-nearest)[:5])


def test_repeats_and_near_repeats():
    assert repeats(["a", "b", "a", "a"]).tolist() == [False, False, True, True]
    base = np.eye(4)
    close = base[0] + 0.01 * base[1]
    features = np.stack([base[0], base[1], close, base[2], base[1] * 3])
    for chunk in (2, 100):
        found = near_repeats(features, 0.99, chunk=chunk)
        assert found.tolist() == [False, False, True, False, True]
    assert caption_key("  The  CAT ") == caption_key("the cat")


def test_no_test_sample_gets_into_a_set():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (20, 4, 4, 3), dtype=np.uint8)
    keys = [image_key(image) for image in images]
    leaked = leaks(keys, [image_key(image.copy()) for image in images[[3, 17]]])
    assert np.flatnonzero(leaked).tolist() == [3, 17]
    relevance = draw.random((20, 2))
    chosen = select_top(relevance, 18, usable=~leaked, balance=False)
    assert not {3, 17} & set(chosen.rows.tolist())
    assert image_key(images[0]) != image_key(images[0].reshape(2, 8, 3))


def test_label_captions_use_every_template_and_depend_on_the_item_only():
    labels = [i % 2 for i in range(200)]
    made = label_captions(labels, ["cat", "dog"], ["a photo of a {}", "one {}"], seed=1)
    assert made[:50] == label_captions(
        labels[:50], ["cat", "dog"], ["a photo of a {}", "one {}"], 1
    )
    assert {m.rsplit(" ", 1)[0] for m in made} == {"a photo of a", "one"}
    assert all(m.endswith("dog") == bool(i % 2) for i, m in enumerate(made))


def test_mix_follows_the_weights_and_temperature_evens_them_out():
    rows = {"web": np.arange(1000), "books": np.arange(1000, 1100)}
    plain = mix_sources(rows, 110)
    assert {s: len(r) for s, r in plain.items()} == {"web": 100, "books": 10}
    weighted = mix_sources(rows, 100, weights={"web": 9.0, "books": 1.0}, temperature=2.0)
    assert {s: len(r) for s, r in weighted.items()} == {"web": 75, "books": 25}
    flat = mix_sources(rows, 101, weights={"web": 9.0, "books": 1.0}, temperature=1e9)
    assert sorted(len(r) for r in flat.values()) == [50, 51]
    for source, drawn in weighted.items():
        assert len(set(drawn)) == len(drawn)
        assert np.isin(drawn, rows[source]).all()
    again = mix_sources(rows, 100, weights={"web": 9.0, "books": 1.0}, temperature=2.0)
    assert all((again[s] == weighted[s]).all() for s in rows)


def test_report_counts_different_images_and_captions():
    captions = ["A cat", "a  cat", "a dog", "owl"]
    report = report_on(np.array([0, 1, 2]), captions, ["i", "j", "i", "k"], seen_names=("dog",))
    assert (report.size, report.distinct_images, report.distinct_captions) == (3, 2, 2)
    assert "no longer zero-shot): dog" in report.text()
    assert AlignmentReport(**report.to_dict()) == report


def make_store(path, count=12):
    return Store.create(path, [{"id": [f"s{i}" for i in range(count)]}])


def test_decision_is_written_beside_the_rows(tmp_path):
    store = make_store(tmp_path / "s")
    pool = np.array([1, 2, 4, 5, 8, 9])
    relevance = np.random.default_rng(0).random((6, 2))
    chosen = select_top(relevance, 4, assign="any")
    report = report_on(chosen.rows, list("abcdef"), list("uvwxyz"), chosen.coverage, ["x", "y"])
    write_selection(store, "toy", pool, relevance, chosen, report, {"total": 4})
    assert store.where("select.toy = true").tolist() == pool[chosen.rows].tolist()
    assert np.allclose(store.array("score.toy", pool), relevance.max(1))
    assert store.array("class.toy", pool)[chosen.rows].tolist() == chosen.classes.tolist()
    assert store.filled("score.toy").sum() == 6
    assert store.card("select.toy").facts["report"]["coverage"] == {"x": 2, "y": 2}
    write_selection(store, "toy", pool, relevance, chosen, report, {"total": 4})
    with pytest.raises(CardError, match=r"config.total: stored 4, new 5"):
        write_selection(store, "toy", pool, relevance, chosen, report, {"total": 5})


def test_bad_input_pool_smaller_than_the_request():
    with pytest.raises(DataError, match="61 pairs were asked of a pool with 60 usable rows"):
        select_top(class_relevance(*world(), 4), 61)
    with pytest.raises(DataError, match="source 'books' is to give 50 rows and has 10"):
        mix_sources({"web": range(100), "books": range(10)}, 100, weights={"web": 1, "books": 1})


def test_bad_input_class_list_with_duplicates():
    with pytest.raises(ConfigError, match="'Cat' is class 0 and class 2"):
        check_classes(["cat", "dog", "Cat"])
    with pytest.raises(ConfigError, match="class 1 has an empty name"):
        check_classes(["cat", " "])
    with pytest.raises(ConfigError, match="'cat' is class 0 and class 1"):
        label_captions([0], ["cat", "cat"], ["a {}"])


def test_bad_input_relevance():
    pool, asked, owner = world()
    with pytest.raises(DataError, match=r"pool \[60, 5\] and prompts \[12, 4\]"):
        class_relevance(pool, asked[:, :4], owner, 4)
    with pytest.raises(DataError, match="class 4 has no prompt"):
        class_relevance(pool, asked, owner, 5)
    for value in (0.0, np.nan):
        broken = pool.copy()
        broken[31] = value
        with pytest.raises(DataError, match="pool row 31 has a feature vector that is zero or not"):
            class_relevance(broken, asked, owner, 4, chunk=8)


def test_bad_input_mix_and_templates():
    with pytest.raises(ConfigError, match="positive weight for each of a"):
        mix_sources({"a": range(3)}, 2, weights={"b": 1.0})
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        mix_sources({"a": range(3)}, 2, temperature=0)
    with pytest.raises(ConfigError, match=r"expected exactly one \{\}"):
        label_captions([0], ["cat"], ["a photo"])
    with pytest.raises(DataError, match="label of item 1 is 3; there are 2 class names"):
        label_captions([0, 3], ["cat", "dog"], ["a {}"])
    with pytest.raises(ConfigError, match="at least 1 row to choose, got 0"):
        select_top(np.ones((2, 2)), 0)
    with pytest.raises(ConfigError, match=r"threshold must lie in \(0, 1\]"):
        near_repeats(np.eye(2), 0.0)
