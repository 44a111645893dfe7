"""Bloom deduplication of pages, against the paper's pseudo-code on strings."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dedup_kit import backwards, ids, rows_of, run_step, sentence, texts, units_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json
from understudy.curate.dedup import bloom_step, bloom_tasks
from understudy.curate.dedup.bloom import num_bits
from understudy.curate.dedup.bloom_step import BloomDedup
from understudy.curate.dedup.words import words_of


def by_the_paper(documents, min_ngram=13, max_ngram=13, threshold=0.8):
    """Return the texts that stay, with a true set for a filter (None: dropped)."""
    seen, found = set(), []
    for text in documents:
        total = contained = 0
        kept = []
        first, *others = text.split("\n")
        for paragraph in [first, *("\n" + o for o in others)]:
            words = words_of(paragraph)
            grams = [
                tuple(words[i : i + max_ngram]) for i in range(max(0, len(words) - max_ngram + 1))
            ]
            if not grams and len(words) >= min_ngram:
                grams = [tuple(words)]
            known = sum(g in seen for g in grams)
            total += len(grams)
            contained += known
            if grams and known / len(grams) > threshold:
                continue
            kept.append(paragraph)
            seen.update(grams)
        whole = "".join(kept)
        drop = (total and contained / total > threshold) or (kept != [] and not whole.strip())
        found.append(None if drop or (text.strip() and not whole.strip()) else whole)
    return found


def corpus(seed: int, documents: int) -> list[str]:
    """Return documents whose paragraphs repeat, whole or in part."""
    generator = random.Random(seed)
    pool = [sentence(generator, generator.choice([3, 12, 13, 14, 30])) for _ in range(documents)]
    found = []
    for _ in range(documents):
        lines = []
        for _ in range(generator.randrange(1, 6)):
            words = generator.choice(pool).split()
            if generator.random() < 0.3:
                words[generator.randrange(len(words))] = "changed"
            lines.append(" ".join(words) + generator.choice(["", ".", " \t"]))
        found.append("\n".join(lines) + generator.choice(["", "\n", "\n\n"]))
    return found


@pytest.mark.parametrize("sizes", [(13, 13), (5, 13), (3, 4), (1, 1)])
def test_equals_the_pseudo_code(tmp_path, sizes):
    documents = corpus(0, 80)
    units = units_of(tmp_path, [documents[:30], [], documents[30:]])
    # so rare false positives that none is met here
    step = BloomDedup(min_ngram=sizes[0], max_ngram=sizes[1], eps=1e-9)
    found = run_step(step, units, tmp_path / "work")
    names = [f"u0-{i}" for i in range(30)] + [f"u2-{i}" for i in range(50)]
    expected = dict(zip(names, by_the_paper(documents, *sizes), strict=True))
    assert {r["id"]: r["text"] for r in rows_of(found)} == {
        name: text for name, text in expected.items() if text is not None
    }
    assert 0 < len(ids(found)) < 80
    assert any(t != d for t, d in zip(texts(found), documents, strict=False))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(13, 13), (4, 13)]))
def test_ngrams_of_paragraphs(seed, sizes):
    from understudy.curate.dedup.words import segment

    documents = corpus(seed, 6)
    words = segment(documents)
    grams, counts, first = bloom_tasks.paragraph_grams(words, *sizes)
    lines = [
        (d, n, words_of(p)) for d, t in enumerate(documents) for n, p in enumerate(t.split("\n"))
    ]
    expected = [(d, n, max(1, len(w) - sizes[1] + 1)) for d, n, w in lines if len(w) >= sizes[0]]
    text = words.text[first]
    number = words.line[first] - words.first_lines[text]
    assert list(zip(text.tolist(), number.tolist(), counts.tolist(), strict=True)) == expected
    windows = [
        tuple(w[i : i + sizes[1]])
        for _, _, w in lines
        if len(w) >= sizes[0]
        for i in range(max(1, len(w) - sizes[1] + 1))
    ]
    assert len(set(zip(windows, grams.tolist(), strict=True))) == len(set(windows))
    assert len(set(grams.tolist())) == len(set(windows))


def test_second_copy_of_a_corpus_goes_except_short_paragraphs(tmp_path):
    generator = random.Random(1)
    long = [sentence(generator, 13 + i) for i in range(30)]
    short = sentence(generator, 12)
    first = [line + "\n" + short for line in long]
    units = units_of(tmp_path, [first, [*first, short, short + "\n" + short]])
    found = run_step(BloomDedup(), units, tmp_path / "work")
    # a document of a seen paragraph and a short one is dropped whole: all its n-grams were seen
    assert [r["text"] for r in rows_of(found)] == [*first, short, short + "\n" + short]
    with ipc.open_file(found[1].folder / bloom_tasks.REMOVED) as reader:
        table = reader.read_all().to_pylist()
    assert [(r["row"], r["id"], r["paragraph"]) for r in table] == [
        (i, f"u1-{i}", 0) for i in range(30)
    ]
    assert all(r["seen"] == r["ngrams"] == i + 1 for i, r in enumerate(table))


def test_reasons_and_counts(tmp_path):
    line = sentence(random.Random(0), 20)
    other = sentence(random.Random(1), 200)
    units = units_of(tmp_path, [[line, line, line + "\n" + other]])
    found = run_step(BloomDedup(), units, tmp_path / "work")
    assert texts(found) == [line, "\n" + other]
    stats = read_json(found[0].folder / "_done.json")["stats"]
    assert stats["count"]["reasons"] == {"document seen": 1}
    assert stats["count"]["bytes_in"] - stats["count"]["bytes_out"] == 2 * len(line)


def test_shards_are_independent(tmp_path):
    line = sentence(random.Random(0), 40)
    units = units_of(tmp_path, [[line], [line], [line], [line]])
    assert ids(run_step(BloomDedup(), units, tmp_path / "one")) == ["u0-0"]
    two = run_step(BloomDedup(shards=2), units, tmp_path / "two")
    assert ids(two) == ["u0-0", "u1-0"]
    many = units_of(tmp_path / "many", [[line] * 30, [line] * 30])
    found = run_step(BloomDedup(shards=4, shard_by="document"), many, tmp_path / "docs")
    assert len(ids(found)) == 4
    # each shard is what its documents alone would be
    shards = {bloom_tasks.seed_for("bloom shard", i) % 4 for i in ids(found)}
    assert shards == {0, 1, 2, 3}


@pytest.mark.parametrize("options", [{}, {"shards": 3}, {"shards": 3, "shard_by": "document"}])
def test_order_of_tasks_does_not_matter(tmp_path, options):
    documents = corpus(3, 60)
    units = units_of(tmp_path, [documents[n::4] for n in range(4)])
    step = BloomDedup(**options)
    one = run_step(step, units, tmp_path / "one")
    two = backwards(step, units, tmp_path / "two")
    assert [u.hash for u in one] == [u.hash for u in two]
    assert 0 < len(ids(one)) < 60


def test_a_filter_beyond_the_memory_is_refused(tmp_path):
    documents = [sentence(random.Random(i), 400) for i in range(20)]
    units = units_of(tmp_path, [documents[:10], documents[10:]])
    total = 20 * (400 - 12)
    need = num_bits(total, 0.01) // 8 + 1
    step = BloomDedup(memory_bytes=need - 1)
    with pytest.raises(DataError) as caught:
        run_step(step, units, tmp_path / "work")
    message = str(caught.value)
    assert f"the filter of {total:,} n-grams at eps 0.01 needs {need:,} bytes" in message
    assert f"but {need - 1:,} bytes" in message
    assert "use at least 2 shards" in message
    assert not (tmp_path / "work/pass").exists()
    assert len(ids(run_step(BloomDedup(memory_bytes=need), units, tmp_path / "work"))) == 20
    two = BloomDedup(memory_bytes=need - 1, shards=2)
    assert len(ids(run_step(two, units, tmp_path / "two"))) == 20
    assert step.describe() == BloomDedup().describe()


def test_a_number_of_ngrams_that_is_too_small_is_refused(tmp_path):
    units = units_of(tmp_path, [[sentence(random.Random(0), 40)]])
    with pytest.raises(DataError, match="5 a shard were given, but a shard has 28"):
        run_step(BloomDedup(expected_ngrams=5), units, tmp_path / "work")
    found = run_step(BloomDedup(expected_ngrams=1000), units, tmp_path / "work")
    stats = read_json(tmp_path / "work/pass/shard-00000/_done.json")["stats"]
    assert stats["filter_bytes"] == -(-num_bits(1000, 0.01) // 8)
    assert len(ids(found)) == 1


def test_seen_units_are_not_judged_again(tmp_path, monkeypatch):
    documents = corpus(4, 50)
    units = units_of(tmp_path, [documents[n::5] for n in range(5)])
    whole = run_step(BloomDedup(), units, tmp_path / "whole")
    calls = []
    original = bloom_tasks.removed_paragraphs

    def stop_at_third(*args):
        calls.append(1)
        if len(calls) == 3:
            raise DataError("stopped")
        return original(*args)

    monkeypatch.setattr(bloom_tasks, "removed_paragraphs", stop_at_third)
    with pytest.raises(DataError, match="stopped"):
        run_step(BloomDedup(), units, tmp_path / "work")
    monkeypatch.setattr(bloom_tasks, "removed_paragraphs", original)
    found = run_step(BloomDedup(), units, tmp_path / "work")
    stats = read_json(tmp_path / "work/pass/shard-00000/_done.json")["stats"]
    assert stats["resumed_units"] == 2
    assert [u.hash for u in found] == [u.hash for u in whole]


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from dedup_kit import run_step, units_of
from test_dedup_bloom_step import corpus
from understudy.curate.dedup import bloom_tasks
from understudy.curate.dedup.bloom_step import BloomDedup

original = bloom_tasks.removed_paragraphs
def slowly(*args):
    found = original(*args)
    time.sleep(0.3)
    return found
bloom_tasks.removed_paragraphs = slowly
folder = Path({folder!r})
documents = corpus(5, 60)
run_step(BloomDedup(), units_of(folder, [documents[n::6] for n in range(6)]), folder / "work")
"""


def test_a_killed_pass_goes_on_where_it_was(tmp_path):
    documents = corpus(5, 60)
    units = units_of(tmp_path, [documents[n::6] for n in range(6)])
    whole = run_step(BloomDedup(), units, tmp_path / "whole")
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    state = tmp_path / "work/state"
    for _ in range(2000):
        if len(list(state.glob("*/unit-*.npy"))) >= 2 or process.poll() is not None:
            break
        time.sleep(0.03)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
    assert not (tmp_path / "work/pass/shard-00000").exists()
    found = run_step(BloomDedup(), units, tmp_path / "work")
    stats = read_json(tmp_path / "work/pass/shard-00000/_done.json")["stats"]
    assert 2 <= stats["resumed_units"] < 6
    assert [u.hash for u in found] == [u.hash for u in whole]


def test_nothing_in_nothing_out(tmp_path):
    assert run_step(BloomDedup(), [], tmp_path / "a") == []
    found = run_step(BloomDedup(), units_of(tmp_path, [[], ["", "\n"]]), tmp_path / "b")
    assert texts(found) == ["", "\n"]


def test_bad_options():
    with pytest.raises(ConfigError, match="expected 1 <= min_ngram <= max_ngram, got 14 and 13"):
        BloomDedup(min_ngram=14)
    with pytest.raises(ConfigError, match=r"eps: expected a rate in \(0, 1\), got 0"):
        BloomDedup(eps=0)
    with pytest.raises(ConfigError, match=r"threshold: expected a share in \[0, 1\], got 2"):
        BloomDedup(threshold=2)
    with pytest.raises(ConfigError, match="shards: expected 1 or more, got 0"):
        BloomDedup(shards=0)
    with pytest.raises(ConfigError, match="shard_by: expected unit or document, got 'x'"):
        BloomDedup(shard_by="x")
    assert bloom_step.BloomDedup().describe()["eps"] == 0.01
