"""Centered accuracy, CORE and EXTENDED, and the files of other harnesses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.centered import aggregate, centered_accuracy
from understudy.evaluate.centered_results import read_results
from understudy.evaluate.core_tasks import CORE, MMLU, read_table, task_table

RELEASED_1B = (
    0.663215, 0.315461, 0.653659, 0.643098, 0.341297, 0.75, 0.264537, 0.763330, 0.408, 0.625461,
    0.676459, 0.798535, 0.619574, 0.202, 0.204348, 0.365909, 0.209524, 0.09375, 0.417881, 0.352123,
    0.658410, 0.2479,
)  # fmt: skip
KNOWN = dict(zip(CORE, RELEASED_1B, strict=True))


def everything(value=0.7):
    return dict.fromkeys(task_table("v1").tasks, value)


def test_the_released_models_known_answer():
    v2, v1 = aggregate(KNOWN), aggregate(KNOWN, "v1")
    assert (round(v2.mean, 5), round(v2.core, 5), round(v1.core, 5)) == (0.46702, 0.31274, 0.33793)
    assert (v2.version, v1.version) == ("v2", "v1")


@given(st.floats(0, 0.99), st.floats(0, 1))
def test_centering(baseline, accuracy):
    assert centered_accuracy(baseline, baseline) == 0
    assert centered_accuracy(1, baseline) == 1
    # linear: halfway between guessing and perfection is one half
    assert centered_accuracy((1 + baseline) / 2, baseline) == pytest.approx(0.5)
    back = baseline + (1 - baseline) * centered_accuracy(accuracy, baseline)
    assert back == pytest.approx(accuracy, abs=1e-12)


def test_the_suite_has_the_published_sizes_and_baselines():
    v1, v2 = task_table("v1"), task_table("v2")
    assert (len(v1.tasks), len(CORE), len(set(CORE))) == (53, 22, 22)
    assert not v1.unknown
    assert not set(v2.unknown) & set(CORE)
    assert v1.tasks["boolq"].baseline == v2.tasks["boolq"].baseline == 62
    changed = {n for n in CORE if v1.tasks[n].baseline != v2.tasks[n].baseline}
    assert changed == {"commonsense_qa", "agi_eval_lsat_ar", "bigbench_language_identification"}
    assert {v1.tasks[n].num_fewshot for n in ("hellaswag_zeroshot", "agi_eval_lsat_ar", MMLU)} == {
        0, 3, 5,
    }  # fmt: skip


# a released 7B model (DCLM-7B, 8k context), tasks in the order of the table; published with it:
# CORE v1 .571361, EXTENDED v1 .453845
RELEASED_7B = (
    0.5534879, 0.7932683, 0.5252137, 0.5703334, 0.1023503, 0.2227273, 0.1061224, 0.5133333,
    0.7344127, 0.8249158, 0.6126280, 0.6368585, 0.6849315, 0.88, 0.8270215, 0.7993448, 0.8161045,
    0.45, 0.65625, 0.7758621, 0.6539974, 0.7552882, 0.8102968, 0.9010989, 0.7395422, 0.1219512,
    0.5216, 0.6796116, 0.3499738, 0.347, 0.2608696, 0.5378788, 0.3653333, 0.5, 0.53125, 0.3, 0.307,
    0.3107610, 0.4147466, 0.717, 0.6316935, 0.7014925, 0.5372549, 0.4980584, 0.7089947, 0.8284404,
    0.8252427, 0.6333333, 0.5833333, 0.8091311, 0.6419721, 0.2611607, 0.2171717,
)  # fmt: skip


def test_the_released_7b_models_extended_score():
    table = task_table("v1")
    found = aggregate(dict(zip(table.tasks, RELEASED_7B, strict=True)), table)
    assert found.core == pytest.approx(0.5713606, abs=1e-6)
    assert found.extended == pytest.approx(0.4538447, abs=1e-6)
    assert found.mmlu == pytest.approx(0.6368585)


def test_a_missing_task_makes_core_unavailable_and_is_named():
    results = {k: v for k, v in KNOWN.items() if k not in ("boolq", "copa")}
    found = aggregate(results)
    assert (found.core, found.mean) == (None, None)
    assert found.missing_core == ("copa", "boolq")
    assert found.to_plain()["core"] == "N/A"
    with pytest.raises(DataError, match="CORE v2 is N/A: no result of copa, boolq"):
        found.require("core")
    assert aggregate(KNOWN).require("core") == aggregate(KNOWN).core


def test_extended_needs_all_results_and_all_baselines():
    table = task_table("v1")
    full = aggregate(everything(), table)
    by_hand = sum((0.7 - t.baseline / 100) / (1 - t.baseline / 100) for t in table.tasks.values())
    assert full.extended == pytest.approx(by_hand / 53)
    assert full.mmlu == 0.7
    partial = everything()
    del partial["bbq"]
    assert aggregate(partial, table).extended is None
    with pytest.raises(DataError, match="EXTENDED v1 is N/A: no result of bbq"):
        aggregate(partial, table).require("extended")
    with pytest.raises(DataError, match="EXTENDED v2 is N/A: no baseline of .*table file"):
        aggregate(everything()).require("extended")
    with pytest.raises(DataError, match="MMLU v2 is N/A: no result of mmlu_fewshot"):
        aggregate(KNOWN).require("mmlu")


def test_a_table_of_ones_own(tmp_path):
    file = tmp_path / "table.csv"
    rows = [f"{name},5,25" for name in task_table("v1").tasks]
    file.write_text("Eval Task,#shots,Random baseline\n" + "\n".join(rows) + "\n")
    table = read_table(file, "house")
    found = aggregate(everything(), table)
    assert found.version == "house"
    assert found.extended == pytest.approx(0.6)
    assert table.tasks["boolq"].num_fewshot == 5
    (tmp_path / "small.json").write_text(json.dumps({"mine": 50}))
    small = aggregate({"mine": 0.75, "other": 0.5}, read_table(tmp_path / "small.json", "mine"))
    assert (small.centered, small.extended, small.core) == ({"mine": 0.5}, 0.5, None)
    assert small.unused == ("other",)


def test_tables_that_are_wrong(tmp_path):
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"mine": 0.25}))
    with pytest.raises(DataError, match=r"task 'mine': baseline 0.25 is below 1 %.*25 may be"):
        read_table(file, "mine")
    file.write_text(json.dumps({"mine": 100}))
    with pytest.raises(DataError, match="not a percentage"):
        read_table(file, "mine")
    with pytest.raises(ConfigError, match="version name of its own, got 'v2'"):
        read_table(file, "v2")
    with pytest.raises(ConfigError, match="no version 'v3'.*v1, v2"):
        task_table("v3")
    (tmp_path / "t.csv").write_text("task,baseline\na,1\n")
    with pytest.raises(DataError, match="no column 'Eval Task'; it has task, baseline"):
        read_table(tmp_path / "t.csv", "mine")
    (tmp_path / "d.csv").write_text("Eval Task,Random baseline\na,5\na,6\n")
    with pytest.raises(DataError, match="row 3: task 'a' is there twice"):
        read_table(tmp_path / "d.csv", "mine")
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.csv", "mine")


@pytest.mark.parametrize("value", [46.7, -0.1, True, float("nan")])
def test_accuracies_are_fractions(value):
    with pytest.raises(DataError, match="accuracy of 'copa' is .*fraction in"):
        aggregate({"copa": value})


def test_lm_evals_results(tmp_path):
    file = tmp_path / "r.json"
    results = {
        "hellaswag": {"alias": "hellaswag", "acc,none": 0.4, "acc_norm,none": 0.5, "acc_stderr": 1},
        "boolq": {"acc,none": 0.7, "acc_stderr,none": 0.01},
        "openbookqa": {"acc,none": 0.2, "acc_norm,none": 0.3},
        "wikitext": {"word_perplexity,none": 20.0},
        "coqa": {"em,none": 0.6, "f1,none": 0.7},
    }
    file.write_text(json.dumps({"results": results, "n-shot": {"hellaswag": 0, "boolq": 10}}))
    found = read_results(file)
    assert found.accuracies == {
        "hellaswag_zeroshot": 0.5, "boolq": 0.7, "openbook_qa": 0.3, "coqa": 0.6
    }  # fmt: skip
    assert found.metrics["hellaswag_zeroshot"] == "acc_norm,none"
    assert found.harness == "lm-eval"
    assert "mine" in read_results(file, {"boolq": "mine"}).accuracies
    file.write_text(json.dumps({"results": {"wikitext": {"word_perplexity,none": 20.0}}}))
    with pytest.raises(DataError, match="no accuracy in its results"):
        read_results(file)


def test_llm_foundrys_results(tmp_path):
    file = tmp_path / "r.csv"
    file.write_text(
        "Category,Benchmark,Subtask,Accuracy,Number few shot,Model\n"
        "a,jeopardy,Average,0.5,10-shot,m\na,jeopardy,history,0.9,10-shot,m\n"
        "a,mmlu_fewshot,law,0.2,5-shot,m\na,mmlu_fewshot,art,0.4,5-shot,m\na,copa,,0.75,0-shot,m\n"
    )
    found = read_results(file)
    assert found.accuracies == pytest.approx({"jeopardy": 0.5, "mmlu_fewshot": 0.3, "copa": 0.75})
    file.write_text("Benchmark,Accuracy,Model\ncopa,0.5,a\ncopa,0.6,b\n")
    with pytest.raises(DataError, match=r"results of 2 models \(a, b\)"):
        read_results(file)
    file.write_text("Benchmark,Accuracy\ncopa,0.5\ncopa,0.6\n")
    with pytest.raises(DataError, match="row 3: a second result of 'copa'"):
        read_results(file)


def test_dclms_and_plain_results(tmp_path):
    file = tmp_path / "r.json"
    file.write_text(json.dumps({"eval_metrics": {"icl": KNOWN}, "name": "x"}))
    assert aggregate(read_results(file).accuracies).core == aggregate(KNOWN).core
    file.write_text(
        json.dumps({"metrics/copa/0-shot/InContextLearningMultipleChoiceAccuracy": 0.7})
    )
    assert read_results(file).accuracies == {"copa": 0.7}
    file.write_text(json.dumps({"copa": {"acc": 0.5}}))
    with pytest.raises(DataError, match="'copa' is no accuracy"):
        read_results(file)
    file.write_text("[1]")
    with pytest.raises(DataError, match="expected a JSON object"):
        read_results(file)
