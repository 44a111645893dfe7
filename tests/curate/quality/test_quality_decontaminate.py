"""Decontamination: shared runs by brute force, and the rule of question and answer."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from quality_world import make_units, rows_of, run_here

from understudy.core.errors import ConfigError, DataError
from understudy.curate.quality.decontaminate import REPORT, TABLE, Decontaminate
from understudy.curate.quality.eval_sets import (
    EvalSet,
    Example,
    check_sets,
    last_sentence,
    read_set,
)
from understudy.curate.quality.overlap import GramIndex
from understudy.curate.quality.overlap_words import Runs, Vocabulary, spans_of, words_of
from understudy.curate.quality.questions import QuestionIndex, without

QUESTION = "A train leaves at noon. Which of these cities does it reach first?"
SOUGHT = "which of these cities does it reach first"


def plain_set(name, texts):
    return EvalSet(
        name=name,
        rule="none",
        examples=tuple(Example(question=t, options=(), sought=t) for t in texts),
    )


def question_set(rule, questions):
    return EvalSet(
        name=rule,
        rule=rule,
        examples=tuple(
            Example(
                question=q, options=o, sought=last_sentence(q) if rule == "last-sentence" else q
            )
            for q, o in questions
        ),
    )


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_words_and_spans_agree(text):
    spans = spans_of(text)
    words = words_of(text)
    assert [text[a:b].lower().encode("utf-8", "replace") for a, b in spans] == words
    ascii_text = text.encode("ascii", "ignore").decode()
    assert words_of(ascii_text) == [w.lower().encode() for w in re.findall(r"\w+", ascii_text)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 5), st.integers(0, 3))
def test_hashes_of_runs_depend_on_their_words_alone(numbers, length, seed):
    numbers = np.array(numbers)
    starts = np.arange(max(len(numbers) - length + 1, 0))
    hashes = Runs(numbers, seed).hashes(starts, length)
    for a in starts:
        for b in starts:
            same = np.array_equal(numbers[a : a + length], numbers[b : b + length])
            assert (hashes[a] == hashes[b]) == same
        alone = Runs(numbers[a : a + length], seed).hashes(np.array([0]), length)
        assert alone[0] == hashes[a]


def slow_shared(page, texts, n):
    """Mark words of a page inside runs of n or more that one of the texts holds."""
    inside = [False] * len(page)
    grams = {tuple(t[i : i + n]) for t in texts for i in range(len(t) - n + 1)}
    for i in range(len(page) - n + 1):
        if tuple(page[i : i + n]) in grams:
            inside[i : i + n] = [True] * n
    return sum(inside)


LETTERS = st.lists(st.sampled_from("abcd"), max_size=25).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    first=st.lists(LETTERS, min_size=1, max_size=3),
    second=st.lists(LETTERS, min_size=1, max_size=2),
    pages=st.lists(st.one_of(LETTERS, LETTERS.map(lambda t: t + " other " + t)), max_size=4),
    n=st.integers(2, 5),
)
def test_shared_runs_equal_brute_force(first, second, pages, n):
    sets = [plain_set("a", first), plain_set("b", second)]
    vocabulary = Vocabulary()
    index = GramIndex(sets, n, vocabulary)
    found = index.scan([vocabulary.numbers(words_of(p)) for p in pages])
    split = [p.split() for p in pages]
    texts = [[t.split() for t in first], [t.split() for t in second]]
    for page, words, row in zip(split, found.words, found.inside, strict=True):
        assert words == len(page)
        assert row.tolist() == [slow_shared(page, own, n) for own in texts]
    for own, facts in zip(texts, index.coverage(found.grams), strict=True):
        shared = [slow_shared(text, split, n) for text in own]
        assert facts["words"] == sum(map(len, own))
        assert facts["words_shared"] == sum(shared)
        assert facts["examples_shared"] == sum(s > 0 for s in shared)


def test_ten_words_count_and_nine_do_not():
    ten = "one two three four five six seven eight nine ten"
    vocabulary = Vocabulary()
    index = GramIndex([plain_set("set", [ten + " eleven twelve"])], 10, vocabulary)
    nine = ten.rsplit(" ", 1)[0]
    pages = [f"Before: {ten.upper()}!", f"{nine} and ten", f"{ten} eleven, then", "nothing"]
    found = index.scan([vocabulary.numbers(words_of(p)) for p in pages])
    assert found.inside[:, 0].tolist() == [10, 0, 11, 0]
    assert index.coverage(found.grams)[0]["words_shared"] == 11


def scan(sets, pages):
    vocabulary = Vocabulary()
    index = QuestionIndex(sets, vocabulary)
    return index, index.scan([vocabulary.numbers(words_of(page)) for page in pages])


def test_last_sentence_with_an_option():
    sets = [question_set("last-sentence", [(QUESTION, ("Lyon", "the old town of Basel"))])]
    pages = [
        f"Quiz! {SOUGHT.upper()}? Answer: lyon.",  # the sentence and an option
        f"{SOUGHT} - nobody knows",  # no option
        "Lyon and Basel",  # no question
        f"Lyon. {QUESTION} The old town -- of Basel, or Lyon?",
        "Which of these cities does it reach? Lyon",  # another question
    ]
    _, found = scan(sets, pages)
    assert [len(matches) for matches in found] == [1, 0, 0, 1, 0]
    removed = [
        without(p, [s for m in f for s in m.spans]) for p, f in zip(pages, found, strict=True)
    ]
    assert removed[0] == "Quiz! ? Answer: ."
    assert removed[3] == "Lyon. A train leaves at noon. ? , or ?"  # what follows is nearest
    assert removed[1:3] == pages[1:3]


def test_whole_question():
    whole = question_set("whole", [(QUESTION, ("Lyon",))])
    _, found = scan([whole], [f"{SOUGHT}? Lyon", f"{QUESTION} Lyon", f"Lyon! {QUESTION}"])
    assert [len(matches) for matches in found] == [0, 1, 1]
    assert without(f"Lyon! {QUESTION}", found[2][0].spans) == "! ?"


def test_an_option_inside_the_question_is_no_answer():
    sets = [question_set("whole", [("Is it true or false?", ("true", "false"))])]
    _, found = scan(sets, ["Is it true or false? Who knows.", "Is it true or false? True."])
    assert [len(matches) for matches in found] == [0, 1]
    assert without("Is it true or false? True.", found[1][0].spans) == "? ."


def test_long_questions_with_one_beginning():
    start = "which of the following statements about the old river is"
    sets = [
        question_set("whole", [(f"{start} right", ("yes",)), (f"{start} wrong", ("no",))]),
        question_set("last-sentence", [(f"Read. {start} right", ("no",)), ("???", ("a",))]),
    ]
    index, found = scan(sets, [f"{start} right? yes no", f"{start} wrong: no", f"{start} fine no"])
    assert [[(m.set, m.example) for m in f] for f in found] == [[(0, 0), (1, 0)], [(0, 1)], []]
    assert index.unmatchable == 1  # no word in it


def slow_matches(page, question, options):
    """Return (start, spans of options) of every place of a question with an answer outside it."""
    out = []
    for a in range(len(page) - len(question) + 1):
        b = a + len(question)
        if page[a:b] != question:
            continue
        spans = []
        for option in options:
            size = len(option)
            at = [i for i in range(len(page) - size + 1) if page[i : i + size] == option]
            behind, before = [i for i in at if i >= b], [i for i in at if i + size <= a]
            if behind or before:
                place = behind[0] if behind else before[-1]
                spans.append((place, place + size))
        if spans:
            out.append(((a, b), set(spans)))
    return out


WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=11)


@settings(max_examples=80, deadline=None)
@given(
    questions=st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=2)), max_size=4),
    pages=st.lists(st.lists(st.sampled_from("abcx"), max_size=30), max_size=4),
    copies=st.integers(0, 2),
)
def test_questions_equal_brute_force(questions, pages, copies):
    for question, options in questions[:copies]:  # pages that surely hold one
        pages = [*pages, ["x", *question, "x", *options[0]], [*options[-1], *question, *question]]
    texts = [(" ".join(q), tuple(" ".join(o) for o in options)) for q, options in questions]
    _, found = scan([question_set("whole", texts)], [" ".join(page) for page in pages])
    for page, matches in zip(pages, found, strict=True):
        got = sorted((m.example, m.spans[0], sorted(m.spans[1:])) for m in matches)
        expected = sorted(
            (i, span, sorted(spans))
            for i, (question, options) in enumerate(questions)
            for span, spans in slow_matches(page, question, options)
        )
        assert got == expected


def test_short_questions_can_be_left_out():
    sets = [question_set("last-sentence", [("Long ago. Why?", ("no",)), (QUESTION, ("no",))])]
    vocabulary = Vocabulary()
    index = QuestionIndex(sets, vocabulary, min_words=3)
    assert index.unmatchable == 1
    page = vocabulary.numbers(words_of(f"Why? No. {SOUGHT} no"))
    assert [m.example for m in index.scan([page])[0]] == [1]


def test_without_joins_spans():
    assert without("a b c d e", [(3, 4), (0, 2), (1, 2)]) == " c  e"
    assert without("a b c", [(0, 3), (1, 2)]) == ""
    assert without("Ünï, çode x", [(1, 2)]) == "Ünï,  x"


def write_sets(folder):
    mmlu = folder / "mmlu.jsonl"
    mmlu.write_text(json.dumps({"question": QUESTION, "choices": ["Lyon", "Basel"]}) + "\n\n")
    other = folder / "other.jsonl"
    text = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda"
    other.write_text(json.dumps({"text": text}) + "\n")
    return [
        {"name": "mmlu", "path": str(mmlu), "rule": "last-sentence"},
        {"path": str(other), "rule": "none"},
    ], text


def test_step_cleans_and_reports(tmp_path):
    sets, text = write_sets(tmp_path)
    texts = [
        "a clean page",
        f"Intro. {QUESTION} It is Basel. The end.",
        f"so {text} so",
        f"{SOUGHT} lyon",  # nothing else
        f"{text} twice {text}",
    ]
    units = make_units(tmp_path / "in", [2, 3], texts=texts)
    step = Decontaminate(sets=sets, report=str(tmp_path / "report.json"))
    kept = step.run(units, tmp_path / "work", run_here)
    assert rows_of(kept, "text") == [
        texts[0],
        "Intro. A train leaves at noon. ? It is . The end.",
        texts[2],
        texts[4],
    ]
    assert rows_of(kept, "id") == ["p0", "p1", "p2", "p4"]
    found = json.loads((tmp_path / "work" / REPORT).read_text())
    assert found == json.loads((tmp_path / "report.json").read_text())
    assert (found["pages"], found["n"], found["unmatchable"]) == (5, 10, 0)
    assert found["words"] == sum(len(t.split()) for t in texts)
    mmlu, other = found["sets"]
    assert (mmlu["pages_flagged"], mmlu["questions_flagged"], mmlu["examples"]) == (2, 1, 1)
    assert (other["name"], other["words"], other["words_shared"]) == ("other", 11, 11)
    assert (other["pages_shared"], other["words_inside"], other["examples_shared"]) == (2, 33, 1)
    # 13 words of the question; 10 of them are shared only if a page holds the whole of it
    assert (mmlu["words"], mmlu["words_shared"]) == (15, 13)
    table = (tmp_path / "work" / TABLE).read_text()
    assert "5 pages" in table
    assert re.search(r"other +none +11 +100\.00 +1 +1 +0 +0", table)


def test_units_do_not_matter(tmp_path):
    sets, text = write_sets(tmp_path)
    texts = [f"{text} {i}" if i % 3 else f"{i} {SOUGHT} Basel {i}" for i in range(9)]
    results = []
    for number, sizes in enumerate(([9], [4, 0, 5])):
        units = make_units(tmp_path / f"in{number}", sizes, texts=texts)
        work = tmp_path / f"work{number}"
        kept = Decontaminate(sets=sets).run(units, work, run_here)
        results.append((rows_of(kept, "text"), (work / REPORT).read_text()))
    assert results[0] == results[1]
    counted = Decontaminate(sets=sets, remove=False).run(units, tmp_path / "count", run_here)
    assert rows_of(counted, "text") == texts
    assert (tmp_path / "count" / REPORT).read_text() == results[0][1]


def test_identity_follows_the_sets(tmp_path):
    sets, _ = write_sets(tmp_path)
    first = Decontaminate(sets=sets).describe()
    assert Decontaminate(sets=sets, n=8).describe() != first
    Path(sets[1]["path"]).write_text('{"text": "another"}\n')
    assert Decontaminate(sets=sets).describe() != first
    assert "path" not in first["sets"][0]


@pytest.mark.parametrize(
    ("line", "rule", "message"),
    [
        ("{", "whole", r"set\.jsonl, line 2: not JSON"),
        ("[1]", "whole", "expected an object"),
        ('{"answer": 1}', "whole", "no field question or ctx .* it has answer"),
        ('{"question": 3, "options": []}', "whole", "question must be a text, got 3"),
        ('{"question": "q"}', "whole", "needs options"),
        ('{"question": "q", "options": "ab"}', "whole", "options must be a list"),
    ],
)
def test_bad_lines(line, rule, message, tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"question": "q", "options": ["a"]}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        read_set(check_sets([{"path": str(path), "rule": rule}])[0])


def test_fields_of_ones_own(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"stem": "Why?", "o": {"label": ["A"], "text": ["so"]}}) + "\n")
    found = read_set(check_sets([{"path": str(path), "question": "stem", "options": "o"}])[0])
    assert found.examples == (Example(question="Why?", options=("so",), sought="Why?"),)
    with pytest.raises(DataError, match="no field q; it has stem, o"):
        read_set(check_sets([{"path": str(path), "question": "q"}])[0])
    path.write_text("\n")
    with pytest.raises(DataError, match="no questions in it"):
        read_set(check_sets([{"path": str(path)}])[0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rule": "last"}, ConfigError, "'last' is not one of whole, last-sentence, none"),
        ({"ruel": "whole"}, ConfigError, "Did you mean 'rule'"),
        ({"path": ""}, ConfigError, "missing key 'path'"),
        ({"path": "/nowhere.jsonl"}, DataError, r"/nowhere\.jsonl: no such test set"),
    ],
)
def test_bad_sets(change, error, message, tmp_path):
    sets, _ = write_sets(tmp_path)
    with pytest.raises(error, match=message):
        Decontaminate(sets=[{**sets[0], **change}])


def test_no_sets_and_short_runs(tmp_path):
    sets, _ = write_sets(tmp_path)
    with pytest.raises(ConfigError, match="at least one test set"):
        Decontaminate(sets=[])
    with pytest.raises(ConfigError, match="the name 'mmlu' is there twice"):
        Decontaminate(sets=[sets[0], sets[0]])
    with pytest.raises(ConfigError, match="n: expected 2 words or more, got 1"):
        Decontaminate(sets=sets, n=1)
    with pytest.raises(ConfigError, match="min_words: expected 1 or more, got 0"):
        Decontaminate(sets=sets, min_words=0)
