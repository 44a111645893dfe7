import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.curate.counts.greedy import greedy_counts, greedy_with_floor, log_value


def heap_greedy(log_u, tokens, order, budget, delta, most):
    """The definition: always the copy of the largest value, ties by copy, then by hash."""
    step = -np.log(delta)
    counts = np.zeros(len(log_u), np.int64)
    heap = [(-log_u[d], 1, order[d], d) for d in range(len(log_u))]
    heapq.heapify(heap)
    while heap:
        _, k, _, d = heapq.heappop(heap)
        if tokens[d] > budget:
            break
        budget -= tokens[d]
        counts[d] = k
        if k < most:
            heapq.heappush(heap, (-(log_u[d] - k * step), k + 1, order[d], d))
    return counts


@st.composite
def worlds(draw, largest=40):
    n = draw(st.integers(1, 12))
    values = draw(
        st.lists(st.sampled_from([0.05, 0.1, 0.4, 0.55, 0.9, 1.0]), min_size=n, max_size=n)
    )
    dups = draw(st.lists(st.integers(1, 5), min_size=n, max_size=n))
    tokens = np.array(draw(st.lists(st.integers(1, largest), min_size=n, max_size=n)), np.int64)
    gamma, eta = draw(st.sampled_from([0.0, 1.0, 2.0])), draw(st.sampled_from([0.0, 0.25]))
    delta = draw(st.sampled_from([0.3, 0.7, 0.99]))
    most = draw(st.integers(1, 6))
    budget = draw(st.integers(int(tokens.min()), int(most * tokens.sum())))
    order = np.random.default_rng(draw(st.integers(0, 99))).random(n)
    log_u = log_value(np.array(values), np.array(dups), gamma, eta)
    return log_u, tokens, order, budget, delta, most


@settings(max_examples=400, deadline=None)
@given(worlds())
def test_closed_form_is_the_heap_greedy(world):
    log_u, tokens, order, budget, delta, most = world
    counts, _ = greedy_counts(log_u, tokens, order, budget, delta=delta, most=most)
    assert counts.tolist() == heap_greedy(*world).tolist()


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_budget_is_met_within_one_document_and_better_ones_get_no_fewer_copies(world):
    log_u, tokens, order, budget, delta, most = world
    counts, _ = greedy_counts(log_u, tokens, order, budget, delta=delta, most=most)
    used = int((counts * tokens).sum())
    assert budget - int(tokens.max()) < used <= budget
    for a, b in itertools.permutations(range(len(log_u)), 2):
        if log_u[a] > log_u[b]:
            assert counts[a] >= counts[b]
    shuffled = np.random.default_rng(0).permutation(len(log_u))
    again, _ = greedy_counts(
        log_u[shuffled], tokens[shuffled], order[shuffled], budget, delta=delta, most=most
    )
    assert again.tolist() == counts[shuffled].tolist()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equal_lengths_reach_the_brute_force_optimum(data):
    n, most, length = data.draw(st.integers(2, 5)), 3, 10
    u = np.array(data.draw(st.lists(st.floats(0.01, 1.0), min_size=n, max_size=n)))
    delta = data.draw(st.sampled_from([0.5, 0.8]))
    copies = data.draw(st.integers(1, most * n))
    tokens = np.full(n, length, np.int64)
    counts, _ = greedy_counts(
        np.log(u), tokens, np.arange(n) / n, copies * length, delta=delta, most=most
    )

    def value(chosen):
        return sum(u[d] * delta**k for d, c in enumerate(chosen) for k in range(c))

    best = max(value(c) for c in itertools.product(range(most + 1), repeat=n) if sum(c) == copies)
    assert counts.sum() == copies
    assert value(counts) == pytest.approx(best)


def test_without_quality_and_duplicates_it_is_uniform_epochs():
    rng = np.random.default_rng(1)
    tokens, order = np.full(50, 7, np.int64), rng.random(50)
    flat = log_value(rng.random(50), rng.integers(1, 9, 50), 0.0, 0.0)
    counts, _ = greedy_counts(flat, tokens, order, 7 * 50 * 3, delta=0.7, most=10)
    assert set(counts) == {3}
    counts, _ = greedy_counts(flat, tokens, order, 7 * 125, delta=0.7, most=10)
    assert sorted(set(counts)) == [2, 3]
    assert np.argsort(order)[:25].tolist() == sorted(
        np.flatnonzero(counts == 3), key=lambda i: order[i]
    )


def test_limits_of_gamma_and_delta():
    quality = np.array([0.9, 0.7, 0.5, 0.3])
    tokens, order = np.full(4, 10, np.int64), np.arange(4) / 4
    ones = np.ones(4, np.int64)
    top = log_value(quality, ones, 1e4, 0.0)
    counts, _ = greedy_counts(top, tokens, order, 60, delta=0.7, most=3)
    assert counts.tolist() == [3, 3, 0, 0]
    some = log_value(quality, ones, 2.0, 0.0)
    counts, _ = greedy_counts(some, tokens, order, 30, delta=1e-300, most=3)
    assert counts.tolist() == [1, 1, 1, 0]
    counts, _ = greedy_counts(some, tokens, order, 50, delta=1.0, most=3)
    assert counts.tolist() == [3, 2, 0, 0]


def test_budgets_out_of_reach_are_refused_with_the_reachable_one():
    tokens, order = np.array([10, 20], np.int64), np.array([0.1, 0.2])
    with pytest.raises(ConfigError, match="90; that is the largest reachable budget"):
        greedy_counts(np.zeros(2), tokens, order, 91, delta=0.5, most=3)
    counts, _ = greedy_counts(np.zeros(2), tokens, order, 90, delta=0.5, most=3)
    assert counts.tolist() == [3, 3]
    with pytest.raises(ConfigError, match="smallest document has 10"):
        greedy_counts(np.zeros(2), tokens, order, 9, delta=0.5, most=3)


@settings(max_examples=300, deadline=None)
@given(worlds(), st.floats(0.05, 1.0))
def test_a_floor_of_unique_tokens_is_met_at_the_price_of_repeats(world, share):
    log_u, tokens, order, budget, delta, most = world
    free, _ = greedy_counts(log_u, tokens, order, budget, delta=delta, most=most)
    unique = max(int(min(budget, tokens.sum()) * share), int(tokens.min()))
    counts, _ = greedy_with_floor(log_u, tokens, order, budget, unique, delta=delta, most=most)
    longest, used = int(tokens.max()), int((counts * tokens).sum())
    assert int(tokens[counts > 0].sum()) > unique - longest
    assert budget - longest < used <= budget
    assert counts.max() <= most
    if int(tokens[free > 0].sum()) >= unique:
        assert counts.tolist() == free.tolist()
    for a, b in itertools.permutations(range(len(log_u)), 2):
        if log_u[a] > log_u[b]:
            assert counts[a] >= counts[b]


def test_floors_out_of_reach_are_refused():
    tokens, order = np.array([10, 20], np.int64), np.array([0.1, 0.2])
    with pytest.raises(ConfigError, match="a floor must be reachable"):
        greedy_with_floor(np.zeros(2), tokens, order, 60, 31, delta=0.5, most=3)
    with pytest.raises(ConfigError, match="delta below 1"):
        greedy_with_floor(np.array([9.0, 0.0]), tokens, order, 20, 20, delta=1.0, most=3)
