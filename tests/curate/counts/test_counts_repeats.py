import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.curate.counts.repeats import (
    R_STAR,
    choose_decay,
    effective_tokens,
    fit_r_star,
    plan_repeat,
)


@pytest.mark.parametrize(
    ("epochs", "fraction"), [(2, 0.984), (4, 0.931), (10, 0.781), (16, 0.661), (40, 0.379)]
)
def test_published_fractions(epochs, fraction):
    assert effective_tokens(1.0, epochs) / epochs == pytest.approx(fraction, abs=5e-4)


def test_one_epoch_is_worth_itself_and_the_limit_is_known():
    assert effective_tokens(7.0, 1) == 7.0
    assert effective_tokens(1.0, 1e9) == pytest.approx(16.39)
    slope = (effective_tokens(5.0, 1 + 1e-6) - 5.0) / 1e-6
    assert slope == pytest.approx(5.0, rel=1e-4)


@given(st.floats(1, 200), st.floats(0.1, 50))
def test_worth_grows_and_bends_down(epochs, more):
    a, b, c = (effective_tokens(1.0, e) for e in (epochs, epochs + more, epochs + 2 * more))
    assert a < b < c or c == pytest.approx(1 + R_STAR, rel=1e-4)
    assert b - a >= c - b - 1e-9


@pytest.mark.parametrize("r_star", [2.0, 15.39, 80.0])
def test_r_star_is_found_again(r_star):
    points = [(e, effective_tokens(1.0, e, r_star)) for e in (1, 2, 5, 10, 40)]
    assert fit_r_star(points) == pytest.approx(r_star, rel=1e-3)


def test_decay_is_chosen_by_the_mean_and_must_be_of_the_plans_epochs():
    choice = choose_decay({0.03: [3.0, 3.2], 0.3: [2.9, 3.0], 3.0: [3.5]}, base=0.03, epochs=10)
    assert (choice.weight_decay, choice.factor) == (0.3, pytest.approx(10))
    plan = plan_repeat(300_000, 3_000_000, weight_decay=0.03, choice=choice)
    assert plan["weight_decay"] == 0.3
    assert plan["fraction"] == pytest.approx(0.781, abs=5e-4)
    with pytest.raises(ConfigError, match="the sweep ran at 10 epochs, the plan has 20"):
        plan_repeat(150_000, 3_000_000, weight_decay=0.03, choice=choice)
    assert plan_repeat(10, 20, weight_decay=0.03)["weight_decay"] == 0.03


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="less than one epoch"):
        plan_repeat(100, 99, weight_decay=0.1)
    with pytest.raises(ConfigError, match="at least 1 epoch"):
        effective_tokens(1.0, 0.5)
    with pytest.raises(ConfigError, match="no finished run"):
        choose_decay({}, base=0.1, epochs=1)
    with pytest.raises(ConfigError, match="more than one epoch"):
        fit_r_star([(1, 1.0)])
    assert np.isfinite(R_STAR)
