"""Task files: prompts to the letter, scores by hand, mistakes by line."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from language_toys import Bigram, Bytes, Recurrent, Spaced, slow_losses

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.evaluate.lm_tasks import (
    answers_match,
    choose,
    exact_match,
    extract_answer,
    normalise_answer,
)
from understudy.evaluate.lm_tasks_prompts import answer_tokens, fewshot_rows, prompts
from understudy.evaluate.lm_tasks_run import run_task, run_tasks
from understudy.evaluate.lm_tasks_spec import TaskSpec, find_tasks, read_questions, read_task_list

CHOICE = [
    {"query": f"Q{i} is", "choices": ["yes", "no", "maybe so"], "gold": i % 3} for i in range(6)
]
SCHEMA = [
    {"context_options": [f"A{i} is big so", f"B{i} is big so"], "continuation": "it fits",
     "gold": i % 2} for i in range(4)
]  # fmt: skip
WORDS = [{"context": f"the word {i} is", "continuation": f"w{i}"} for i in range(5)]


def spec(kind="multiple_choice", **options):
    return TaskSpec(name="t", kind=kind, **options)


def texts(made, coder):
    return [(coder.decode(a), coder.decode(b)) for a, b in made.pairs]


# -- pure scores


def test_choice_by_mean_sum_and_characters():
    losses = [[1.0, 1.0, 1.0, 1.0], [1.5, 1.5], [3.6]]
    assert choose(losses) == 0
    assert choose(losses, "sum") == 1
    assert choose(losses, "characters", ["abcd", "ab", "abcdefgh"]) == 2
    assert choose([[1.0], [1.0]]) == 0  # of equal ones the first
    for wrong in ([], [[1.0], []], [[float("nan")]]):
        with pytest.raises(DataError, match="choose"):
            choose(wrong)


def test_exact_match_needs_every_token():
    assert exact_match([True, True])
    assert not exact_match([True, False])
    with pytest.raises(DataError):
        exact_match([])


def test_answers():
    assert normalise_answer("  The_quick, (brown) FOX's an a ") == "quick brown fox s"
    text = "It is 3 + 4. #### 7\n\nQ: next #### 9"
    assert extract_answer(text, ("\n\n", "Q:"), " #### ") == "7"
    assert extract_answer("5 #### 6 #### 7", delimiter="####") == " 7"  # the last one counts
    assert extract_answer("no thought") == "no thought"
    assert extract_answer("a.b", (".",)) == "a"  # stops are texts, not patterns
    assert answers_match("Barack Obama, of course", ["obama", "barack obama"])
    assert not answers_match("I think Obama", ["obama"])
    assert answers_match("Obama", ["obama"])
    assert not answers_match("Obama", ["obama"], normalise=False)
    # an answer that normalisation empties does not match everything
    assert not answers_match("something else", ["the"])
    assert answers_match(" The ", ["the"])
    with pytest.raises(DataError):
        answers_match("x", [])


# -- examples and prompts


@given(st.integers(1, 30), st.integers(0, 40), st.data())
def test_examples_are_distinct_and_never_the_question(count, shots, data):
    own = data.draw(st.integers(0, count - 1))
    seed = data.draw(st.integers(0, 99))
    found = fewshot_rows(count, shots, own, random.Random(seed))
    assert len(found) == len(set(found)) == min(shots, count - 1)
    assert own not in found
    assert all(0 <= i < count for i in found)
    assert found == fewshot_rows(count, shots, own, random.Random(seed))


def test_examples_come_in_the_order_of_a_set():
    """LLM-Foundry writes the examples of a question in the order of a set of integers."""
    found = fewshot_rows(1000, 6, 0, random.Random(1234))
    assert found == list(set(random.Random(1234).sample(range(1000), 6)))
    assert found != sorted(found)


def test_examples_are_uniform():
    stream = random.Random(0)
    hits = np.zeros(8)
    for _ in range(4000):
        hits[fewshot_rows(8, 3, 2, stream)] += 1
    expected = 4000 * 3 / 7
    chosen = np.delete(hits, 2)
    assert hits[2] == 0
    assert ((chosen - expected) ** 2 / expected).sum() < 22.5  # chi-square, 6 d.o.f., p = 0.001


def test_multiple_choice_prompts_to_the_letter():
    rows, coder = CHOICE[:2], Spaced()
    made = prompts(
        spec(num_fewshot=1, prompt="Try.", prelimiter="? ", continuation_delimiter="\nAnswer: "),
        rows, coder, 200,
    )  # fmt: skip
    head = "Try.\n? Q1 is\nAnswer: no\n? Q0 is\nAnswer:"
    assert texts(made[0], coder) == [(head, " yes"), (head, " no"), (head, " maybe so")]
    assert made[0].gold == 0
    zero = prompts(spec(), rows, coder, 200)
    assert texts(zero[1], coder)[0] == ("Q1 is", " yes")


def test_spaces_follow_the_tokenizer():
    for option, expected in (("auto", "yes"), ("yes", " yes"), ("no", "yes")):
        made = prompts(spec(prefix_space=option), CHOICE[:1], Bytes(), 200)
        assert texts(made[0], Bytes())[0] == ("Q0 is", expected)
    made = prompts(spec(prefix_space="no", strip=False), CHOICE[:1], Bytes(), 200)
    assert texts(made[0], Bytes())[0] == ("Q0 is ", "yes")


def test_schema_and_language_modelling_prompts_to_the_letter():
    coder = Spaced()
    made = prompts(spec("schema", num_fewshot=1), SCHEMA[:2], coder, 200)
    before = "B1 is big so it fits"
    assert texts(made[0], coder) == [
        (f"{before}\nA0 is big so", " it fits"),
        (f"{before}\nB0 is big so", " it fits"),
    ]
    assert texts(prompts(spec("schema"), SCHEMA, coder, 200)[1], coder)[0][0] == "A1 is big so"
    words = prompts(spec("language_modeling", num_fewshot=1), WORDS[:2], coder, 200)
    assert texts(words[1], coder) == [("the word 0 is w0\nthe word 1 is", " w1")]


def test_prompts_lose_their_beginning():
    made = prompts(spec(num_fewshot=5), CHOICE, Bytes(), 20)
    for question in made:
        for context, scored in question.pairs:
            assert len(context) + len(scored) == 20
            assert Bytes().decode(context).endswith(" is")
    with pytest.raises(DataError, match="question 0: an answer of 8 tokens does not fit .* of 8"):
        prompts(spec(), CHOICE, Bytes(), 8)


# -- running


def test_multiple_choice_by_hand():
    model = Recurrent(context=128)
    result = run_task(model, CHOICE, spec(num_fewshot=2))
    right = {"mean": 0, "sum": 0, "characters": 0}
    losses = []
    for question in prompts(spec(num_fewshot=2), CHOICE, Bytes(), 128):
        scores = {name: [] for name in right}
        for (context, scored), text in zip(question.pairs, question.texts, strict=True):
            part = slow_losses(model, context + scored, last=len(scored))
            scores["mean"].append(part.mean())
            scores["sum"].append(part.sum())
            scores["characters"].append(part.sum() / len(text))
        losses.append(scores["mean"][question.gold])
        for name, values in scores.items():
            right[name] += int(np.argmin(values) == question.gold)
    assert result.accuracy == right["mean"] / 6
    assert result.others["sum"] == right["sum"] / 6
    assert result.others["characters"] == right["characters"] / 6
    assert result.others["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert (result.count, result.num_fewshot, result.seed) == (6, 2, 1234)


def test_schema_scores_the_continuation_only():
    # "so" + " " decides the first letter of the continuation, by what stands before it
    rows = [
        {"context_options": ["x", "y"], "continuation": "z", "gold": 1},
        {"context_options": ["x", "y"], "continuation": "w", "gold": 0},
    ]
    model = Bigram({ord("y"): ord("z"), ord("x"): ord("w")})
    assert run_task(model, rows, spec("schema")).accuracy == 1.0
    flipped = [{**row, "gold": 1 - row["gold"]} for row in rows]
    assert run_task(model, flipped, spec("schema")).accuracy == 0.0


def test_language_modelling_is_greedy_exact_match():
    model = Bigram({ord("a"): ord("b"), ord("b"): ord("c"), ord("c"): ord("d")})
    rows = [
        {"context": "a", "continuation": "bcd"},
        {"context": "a", "continuation": "bcx"},
        {"context": "za", "continuation": "b"},
    ]
    result = run_task(model, rows, spec("language_modeling"))
    assert result.right == (True, False, True)
    assert result.accuracy == pytest.approx(2 / 3)


def test_question_answering_generates_and_extracts():
    rows = [
        {"context": "3+4", "answer": "7", "chain_of_thought": "three and four", "aliases": ["vii"]},
        {"context": "1+1", "answer": "2", "chain_of_thought": "one and one"},
    ]
    task = spec(
        "question_answering", num_fewshot=1, cot_delimiter=" #### ", stops=("\n\n",),
        prelimiter="Q: ", continuation_delimiter="\nA: ",
    )  # fmt: skip
    seen = []

    def writer(asked, max_tokens, stop=None):
        seen.append(([Bytes().decode(ids) for ids in asked], max_tokens))
        assert stop(list(b"x\n\n"))
        assert not stop(list(b"x\n"))
        return [list(b"hm #### VII\n\n #### 9"), list(b"#### 3")]

    result = run_task(Recurrent(context=128), rows, task, generate=writer)
    assert result.right == (True, False)
    first = seen[0][0][0]
    assert first == "Q: 1+1\nA: one and one #### 2\nQ: 3+4\nA:"
    longest = len(b"three and four #### vii") + 10
    assert seen[0][1] == longest == answer_tokens(task, rows, Bytes())


def test_question_answering_with_a_model_of_its_own():
    model = Bigram({ord(":"): ord("7"), ord("7"): 256})
    rows = [{"context": "3+4", "answer": "7"}, {"context": "3+5", "answer": "8"}]
    task = spec("question_answering", continuation_delimiter="\nA:")
    assert run_task(model, rows, task).right == (True, False)


def test_categories_are_averaged_and_give_examples_of_their_own():
    rows = [{**CHOICE[0], "category": "a", "query": f"a{i}"} for i in range(3)]
    rows.insert(1, {**CHOICE[1], "category": "b", "query": "b0"})
    model = Recurrent(context=128)
    whole = run_task(model, rows, spec(categories=True, num_fewshot=2))
    only_a = run_task(model, [r for r in rows if r["category"] == "a"], spec(num_fewshot=2))
    only_b = run_task(model, rows[1:2], spec(num_fewshot=2))
    assert whole.categories == {"a": only_a.accuracy, "b": only_b.accuracy}
    assert whole.accuracy == pytest.approx((only_a.accuracy + only_b.accuracy) / 2)
    assert whole.right == (only_a.right[0], only_b.right[0], *only_a.right[1:])


# -- files


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_folder_of_files(tmp_path):
    write(tmp_path / "copa.jsonl", CHOICE)
    write(tmp_path / "winograd.jsonl", SCHEMA)
    write(tmp_path / "jeopardy.jsonl", WORDS)
    found = {s.name: (s.kind, s.num_fewshot) for s in find_tasks(tmp_path)}
    assert found == {
        "copa": ("multiple_choice", 0),
        "winograd": ("schema", 0),
        "jeopardy": ("language_modeling", 10),  # the suite's shots
    }
    results = run_tasks(Recurrent(context=128), tmp_path, names=["copa"])
    assert [r.name for r in results] == ["copa"]
    with pytest.raises(ConfigError, match="task: 'cope' is not one of .* Did you mean 'copa'"):
        run_tasks(Recurrent(), tmp_path, names=["cope"])


def test_llm_foundrys_task_list(tmp_path):
    write(tmp_path / "q.jsonl", CHOICE)
    (tmp_path / "tasks.yaml").write_text(
        "icl_tasks:\n- label: mine\n  dataset_uri: q.jsonl\n  num_fewshot: [0, 2]\n"
        '  icl_task_type: multiple_choice\n  continuation_delimiter: "\\nAnswer: "\n'
        "  question_prelimiter: 'Q: '\n  has_categories: true\n"
    )
    found = find_tasks(tmp_path)
    assert [(s.name, s.num_fewshot) for s in found] == [("mine_0shot", 0), ("mine_2shot", 2)]
    assert found[0].continuation_delimiter == "\nAnswer: "
    assert (found[0].prelimiter, found[0].categories) == ("Q: ", True)
    assert len(run_tasks(Recurrent(context=128), tmp_path)) == 2
    for text, message in (
        ("icl_tasks: []", "expected a list 'icl_tasks'"),
        ("icl_tasks:\n- label: a\n  icl_task_typ: schema", "unknown key 'icl_task_typ'"),
        ("icl_tasks:\n- label: a\n  icl_task_type: chema", "'chema' is not one of"),
        ("icl_tasks:\n- label: a\n  icl_task_type: schema\n  dataset_uri: no.jsonl", "missing"),
        ("icl_tasks:\n- dataset_uri: q.jsonl", "expected a label and an icl_task_type"),
    ):
        (tmp_path / "tasks.yaml").write_text(text)
        with pytest.raises((ConfigError, DataError), match=message):
            read_task_list(tmp_path / "tasks.yaml")


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("multiple_choice", {"query": "q", "choices": ["a"], "gold": 0}, "'choices': expected at"),
        ("multiple_choice", {"query": "q", "choices": ["a", "b"], "gold": 2}, "'gold': 2 is none"),
        ("multiple_choice", {"query": "q", "choices": ["a", "b"]}, "'gold': .* got nothing"),
        ("multiple_choice", {"query": "q", "choices": ["a", " "], "gold": 0}, "empty choice"),
        ("schema", {"context_options": "ab", "continuation": "c", "gold": 0}, "expected list"),
        ("language_modeling", {"context": "c", "continuation": 3}, "expected str, got 3"),
        ("language_modeling", {"context": "c", "continuation": " "}, "nothing to score"),
        ("question_answering", {"context": "c", "answer": "a", "aliases": [1]}, "'aliases'"),
    ],
)
def test_wrong_questions_name_line_and_field(tmp_path, kind, row, message):
    file = write(tmp_path / "q.jsonl", [row])
    with pytest.raises(DataError, match=f"line 1.*{message}"):
        read_questions(file, kind)


def test_other_mistakes(tmp_path):
    with pytest.raises(DataError, match="no such folder of tasks"):
        find_tasks(tmp_path / "none")
    with pytest.raises(DataError, match=r"neither tasks.yaml nor JSONL"):
        find_tasks(tmp_path)
    write(tmp_path / "x.jsonl", [{"a": 1}])
    with pytest.raises(DataError, match="line 1: its fields fit no kind of task"):
        find_tasks(tmp_path)
    with pytest.raises(ConfigError, match="num_fewshot: expected 0 or more"):
        spec(num_fewshot=-1)
    with pytest.raises(DataError, match="task 't': no questions"):
        run_task(Recurrent(), [], spec())
    model = Recurrent()
    model.tokenizer = None
    with pytest.raises(ModelError, match="no tokenizer"):
        run_task(model, CHOICE, spec())
