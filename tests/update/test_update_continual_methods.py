"""Equal compute: what every method spends on a stream."""

from __future__ import annotations

import pytest

from understudy.core.errors import ConfigError
from understudy.update.continual_methods import (
    METHODS,
    budget,
    compute,
    compute_table,
    method_of,
    total_compute,
)


def test_known_totals_at_seven_steps():
    assert total_compute("oracle", 7) == 28
    assert total_compute("cumulative-all-star", 7) == 10.5
    assert total_compute("cumulative-all", 7) == 7
    assert total_compute("lwf", 7) == pytest.approx(1 + 6 * 1.2)
    saving = {row.method: row.saving for row in compute_table(7)}
    assert saving["cumulative-all-star"] == pytest.approx(2.667, abs=1e-3)
    assert saving["cumulative-all"] == 4
    assert saving["oracle"] == 1


@pytest.mark.parametrize("total", [1, 2, 3, 4, 7, 50])
def test_equal_compute_and_the_oracles_square(total):
    rows = {row.method: row for row in compute_table(total)}
    assert rows["oracle"].total == total * (total + 1) / 2
    for name in ("restart", "sequential", "patching", "cumulative-exp", "cumulative-equal"):
        assert rows[name].steps == (1.0,) * total
    assert list(rows) == list(METHODS)
    star = rows["cumulative-all-star"].steps
    assert star[0] == 1.0
    assert list(star) == sorted(star)


def test_star_follows_the_figure():
    assert [budget("cumulative-all-star", t, 7) for t in range(1, 8)] == [1, 1, 1, 1, 1.5, 2, 3]
    assert [compute("lwf", t, 3) for t in (1, 2, 3)] == [1.0, 1.2, 1.2]


def test_what_methods_are_and_what_is_refused():
    assert method_of("oracle").start == method_of("restart").start == "fresh"
    assert [m.name for m in METHODS.values() if m.replay in ("exp", "equal")] == [
        "cumulative-exp",
        "cumulative-equal",
    ]
    with pytest.raises(ConfigError, match="'cumulative' is not one of oracle, restart"):
        method_of("cumulative")
    with pytest.raises(ConfigError, match="step 8 of 7"):
        budget("oracle", 8, 7)
