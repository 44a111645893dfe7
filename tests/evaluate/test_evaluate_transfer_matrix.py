"""Transfer matrices: known answers, cells that are missing, and scores of every step."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.data import scenes
from understudy.evaluate.transfer_matrix import TransferMatrix, transfer_matrix
from understudy.evaluate.transfer_tasks import step_scores
from understudy.models.text.train_tokenizer import train_bpe

NINE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]

# Losses of oracles (rows: what they saw last) on seven months, and the oracle of the last month:
# released with arXiv 2504.02107, rounded to four digits.
MONTHS = ("201305", "201501", "201701", "201901", "202101", "202301", "202407")
LOSSES = [
    [2.3111, 2.3935, 2.4941, 2.6709, 2.6610, 2.6356, 2.5904],
    [2.3359, 2.2891, 2.4438, 2.6559, 2.6477, 2.6231, 2.5772],
    [2.3445, 2.2832, 2.3194, 2.6265, 2.6235, 2.6014, 2.5557],
    [2.3481, 2.2903, 2.3040, 2.5007, 2.5482, 2.5345, 2.4841],
    [2.3540, 2.2977, 2.3073, 2.4732, 2.4765, 2.4836, 2.4332],
    [2.3600, 2.3044, 2.3127, 2.4700, 2.4548, 2.4345, 2.3888],
    [2.3632, 2.3068, 2.3141, 2.4670, 2.4482, 2.4151, 2.3366],
]


def square(values, **options):
    return TransferMatrix.square(values, [f"t{i}" for i in range(len(values))], **options)


def test_known_means():
    found = square(NINE).summary()
    assert found["in_domain"] == 5
    assert found["backward"] == pytest.approx(19 / 3)
    assert found["forward"] == pytest.approx(11 / 3)
    assert found["last"] == 8


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**31))
def test_means_against_the_double_sum(size, seed):
    e = np.random.default_rng(seed).random((size, size))
    found = square(e)
    pairs = [(i, j) for i in range(size) for j in range(size)]
    factor = 2 / (size * (size - 1)) if size > 1 else None
    assert found.in_domain == pytest.approx(sum(e[i, i] for i in range(size)) / size)
    if factor is None:
        assert found.backward is None
        assert found.forward is None
    else:
        assert found.backward == pytest.approx(factor * sum(e[i, j] for i, j in pairs if i > j))
        assert found.forward == pytest.approx(factor * sum(e[i, j] for i, j in pairs if i < j))


@settings(max_examples=30, deadline=None)
@given(st.floats(-5, 5), st.integers(2, 6))
def test_a_constant_matrix_gives_its_constant(value, size):
    found = square(np.full((size, size), value)).summary()
    assert all(v == pytest.approx(value) for v in found.values())


def test_equal_rows_may_change_places():
    values = np.array([[1.0, 2, 3], [1, 2, 3], [4, 5, 6]])
    assert square(values).summary() == square(values[[1, 0, 2]]).summary()


def test_regret_of_published_losses():
    matrix = TransferMatrix.square(LOSSES, MONTHS, metric="loss", lower_is_better=True)
    regret = matrix.regret(dict(zip(MONTHS, LOSSES[-1], strict=True)))
    assert regret.lower_is_better
    assert regret.backward == pytest.approx(-0.00608, abs=1e-4)
    assert regret.in_domain == pytest.approx(0.00241, abs=1e-4)
    assert regret.forward == pytest.approx(0.16423, abs=1e-4)
    better = TransferMatrix.square([[0.6]], ("a",)).regret([0.7])
    assert better.values[0, 0] == pytest.approx(0.1)
    with pytest.raises(DataError, match="the reference has no score on '202407'; regret was not"):
        matrix.regret(dict(zip(MONTHS[:-1], LOSSES[-1], strict=False)))


def test_times_decide_where_rows_and_columns_differ():
    matrix = TransferMatrix(
        values=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        rows=("2019-06", "2020-06"),
        columns=("2019", "2020", "2021"),
        row_times=(2019, 2020),
        column_times=(2019, 2020, 2021),
    )
    assert (matrix.in_domain, matrix.backward, matrix.forward) == (3.0, 4.0, 11 / 3)


def test_missing_cells_are_named_and_nothing_is_computed():
    values = np.array(NINE, float)
    values[2, 0], values[0, 1] = np.nan, np.inf
    matrix = square(values, metric="top1")
    assert matrix.missing() == [("t0", "t1"), ("t2", "t0")]
    for read in (matrix.summary, lambda: matrix.in_domain, lambda: matrix.forward):
        with pytest.raises(DataError) as caught:
            read()
        assert "2 cells of top1 are missing or not finite: (t0, t1), (t2, t0)" in str(caught.value)
        assert "metrics were not computed" in str(caught.value)
    again = TransferMatrix.from_dict(json.loads(json.dumps(matrix.to_dict())))
    assert again.missing() == [("t0", "t1"), ("t2", "t0")]
    np.testing.assert_array_equal(again.values[1], values[1])


def test_shapes_and_names_are_checked():
    with pytest.raises(DataError, match=r"\[2, 3\] values for 2 checkpoints and 2 evaluation sets"):
        TransferMatrix.square(np.zeros((2, 3)), ("a", "b"))
    found = transfer_matrix({"a": 1, "b": 2}, {"a": 10, "b": 20}, lambda m, s: m * s, name="x")
    assert found.values.tolist() == [[10, 20], [20, 40]]
    assert found.metric == "x"
    with pytest.raises(DataError, match="are not the same steps in the same order"):
        transfer_matrix({"a": 1, "b": 2}, {"b": 10, "a": 20}, lambda m, s: 0.0)


def test_dynamic_tasks_of_every_step(tmp_path):
    from understudy import models
    from understudy.evaluate.run import evaluate_model

    store = scenes.to_store("drifting-digits", tmp_path / "s", steps=2, train=10, test=8)
    tokenizer = train_bpe(["a scan of seven"], 520, context_length=24)
    model = models.create("clip-conv-nano", seed=0, tokenizer=tokenizer, **{"image.image_size": 16})
    sets = {str(t): store.where(f"split = 'test' and time = {t}") for t in range(2)}
    found = step_scores(model, store, sets, tasks=("retrieval", "zeroshot"), prompts=("{}",))
    assert list(found) == ["retrieval", "zeroshot"]
    alone = evaluate_model(model, store, rows=sets["1"], prompts=("{}",))
    assert found["zeroshot"]["1"] == alone["zeroshot.top1"]
    both = (alone["retrieval.i2t_r1"] + alone["retrieval.t2i_r1"]) / 2
    assert found["retrieval"]["1"] == pytest.approx(both)
    with pytest.raises(ConfigError, match="dynamic task: 'ranking' is not one of"):
        step_scores(model, store, sets, tasks=("ranking",))
    with pytest.raises(DataError, match="time step 'empty': .*no rows to evaluate"):
        step_scores(model, store, {"empty": np.zeros(0, np.int64)})
