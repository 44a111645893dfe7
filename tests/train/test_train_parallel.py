"""The parameter server's bound and order, its wire, the step model, bad configurations."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from understudy.core.errors import ConfigError, UnderstudyError
from understudy.train.config import TrainConfig
from understudy.train.parallel.server import ParameterServer
from understudy.train.parallel.step_model import StepModel, fit_link
from understudy.train.parallel.wire import HEADER, Client, Host, from_bytes, to_bytes

TOKEN = bytes(range(32))


def server(workers: int, staleness: int | None, size: int = 3, **options) -> ParameterServer:
    weights = nn.Parameter(torch.zeros(size))
    return ParameterServer([weights], torch.optim.SGD([weights], lr=1.0), workers, staleness,
                           **options)  # fmt: skip


class Watch:
    """What an outsider sees: a count of the pushes that each worker has begun, before they count.

    These counts never lag behind the server's clocks, so a read that returns while somebody's
    count is more than s below the reader's own clock has broken the bound.
    """

    def __init__(self, workers: int) -> None:
        self.begun = [0] * workers
        self.worst = 0

    def read(self, worker: int, clock: int) -> None:
        others = [c for w, c in enumerate(self.begun) if w != worker]
        self.worst = max(self.worst, clock - min(others, default=clock))


def race(held: ParameterServer, delays: list[float], steps: int) -> Watch:
    watch, errors = Watch(len(delays)), []

    def work(worker: int) -> None:
        try:
            for t in range(steps):
                found = held.read(worker)
                assert found is not None
                assert found.clock == t
                watch.read(worker, t)
                time.sleep(delays[worker])
                watch.begun[worker] += 1
                assert held.push(worker, [torch.ones(3)]) == t + 1
            held.leave(worker)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(w,)) for w in range(len(delays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors, errors
    return watch


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_the_bound_is_reached_and_never_broken(staleness):
    held = server(3, staleness)
    watch = race(held, [0.0, 0.001, 0.006], 12)
    assert watch.worst == held.largest_gap == staleness
    assert held.clocks == [12, 12, 12]
    assert held.version == (12 if staleness == 0 else 36)
    # As far as synchronous steps: 12 steps of the mean gradient, which is 1.
    np.testing.assert_allclose(held.parameters[0].detach().numpy(), -12.0, rtol=1e-5)


def test_without_a_bound_a_fast_worker_runs_ahead():
    held = server(2, None)
    watch = race(held, [0.0, 0.01], 10)
    assert watch.worst > 4


@settings(max_examples=60, deadline=None)
@given(
    workers=st.integers(1, 4),
    staleness=st.integers(0, 3),
    order=st.lists(st.integers(0, 3), max_size=60),
)
def test_who_may_read_is_what_the_bound_says(workers, staleness, order):
    """Any order of workers, one thread: a worker may read iff the slowest is at t - s or later."""
    held, clocks = server(workers, staleness), [0] * workers
    for turn in order:
        worker = turn % workers
        expected = min(clocks) >= clocks[worker] - staleness
        assert held._may_read(worker) == expected
        if expected:
            found = held.read(worker)
            assert found is not None
            assert found.clock == clocks[worker]
            held.push(worker, [torch.zeros(3)])
            clocks[worker] += 1
    assert held.largest_gap <= staleness
    assert held.clocks == clocks


def test_no_staleness_is_the_synchronous_order_whoever_comes_first():
    """Updates that do not commute: bytes are equal for every order of arrival."""

    def train(orders: list[list[int]]) -> torch.Tensor:
        weights = nn.Parameter(torch.tensor([0.3, -1.0, 2.0]))
        optimizer = torch.optim.AdamW([weights], lr=0.05)
        held = ParameterServer([weights], optimizer, 3, 0)
        for order in orders:
            views = {w: held.read(w) for w in order}
            for w in order:
                seen = views[w].weights[0]  # type: ignore[union-attr]
                held.push(w, [torch.sin(seen * (w + 1)) / 3])
        return weights.detach().clone()

    expected = nn.Parameter(torch.tensor([0.3, -1.0, 2.0]))
    optimizer = torch.optim.AdamW([expected], lr=0.05)
    for _ in range(4):
        parts = [torch.sin(expected.detach() * (w + 1)) / 3 for w in range(3)]
        expected.grad = (parts[0] + parts[1] + parts[2]) / 3
        optimizer.step()
    a = train([[0, 1, 2]] * 4)
    b = train([[2, 0, 1], [1, 2, 0], [2, 1, 0], [0, 2, 1]])
    assert torch.equal(a, b)
    np.testing.assert_allclose(a.numpy(), expected.detach().numpy(), atol=1e-7)


def test_nobody_sees_half_a_step_without_staleness():
    held = server(2, 0)
    held.read(0)
    held.push(0, [torch.ones(3)])
    found = held.read(1)
    assert found is not None
    assert found.weights[0].tolist() == [0, 0, 0]
    assert found.version == 0


def test_a_limit_stops_all_workers():
    held = server(2, None, limit=3)
    for _ in range(3):
        assert held.read(0) is not None
        held.push(0, [torch.ones(3)])
    assert held.read(0) is None
    assert held.read(1) is None
    assert held.version == 3
    np.testing.assert_allclose(held.parameters[0].detach().numpy(), -1.5)


def test_gradients_that_are_missing_and_rates_and_clipping():
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))]
    optimizer = torch.optim.SGD(weights, lr=1.0, weight_decay=0.5)
    held = ParameterServer(weights, optimizer, 2, 0, rate=lambda t: 0.1 * (t + 1), clip_norm=1.0)
    for worker, gradient in ((0, torch.tensor([6.0, 8.0])), (1, torch.zeros(2))):
        held.read(worker)
        held.push(worker, [gradient, None])
    # Mean (3, 4), clipped to (0.6, 0.8), decay 0.5 x 1, rate 0.1; what had no gradient stays.
    np.testing.assert_allclose(weights[0].detach().numpy(), [1 - 0.11, 1 - 0.13], rtol=1e-5)
    assert weights[1].item() == 1.0


def test_a_worker_that_is_lost_frees_the_others():
    held = server(2, 0)
    held.read(0)
    held.push(0, [torch.ones(3)])
    threading.Timer(0.05, held.fail, ["worker 1 is gone"]).start()
    with pytest.raises(UnderstudyError, match="worker 1 is gone"):
        held.read(0)


def test_what_a_server_refuses():
    with pytest.raises(ConfigError, match="workers: expected at least 1, got 0"):
        server(0, 0)
    with pytest.raises(ConfigError, match="staleness: expected at least 0, got -1"):
        server(1, -1)
    held = server(2, 1)
    with pytest.raises(ConfigError, match="no worker 2; expected 0 to 1"):
        held.read(2)
    with pytest.raises(ConfigError, match="weights that it has not read"):
        held.push(0, [torch.ones(3)])
    with pytest.raises(ConfigError, match="sent 2 gradients, expected 1"):
        held.push(0, [None, None])


# -- the wire


@pytest.fixture
def hosted():
    held = server(2, 0)
    host = Host(held, TOKEN)
    yield held, host
    host.close()


def test_two_clients_train_over_a_socket(hosted):
    held, host = hosted
    like = list(held.parameters)
    clients = [Client("127.0.0.1", host.port, TOKEN, w, like) for w in range(2)]
    seen: list[list[float]] = [[], []]

    def work(worker: int) -> None:
        for _ in range(4):
            found = clients[worker].read()
            assert found is not None
            seen[worker].append(float(found.weights[0][0]))
            clients[worker].push([torch.full((3,), float(worker + 1))])
        clients[worker].close()

    threads = [threading.Thread(target=work, args=(w,)) for w in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [[0.0, -1.5, -3.0, -4.5]] * 2
    assert held.version == 4


def test_a_client_that_dies_is_noticed(hosted):
    held, host = hosted
    like = list(held.parameters)
    clients = [Client("127.0.0.1", host.port, TOKEN, w, like) for w in range(2)]
    clients[0].read()
    clients[0].push([torch.ones(3)])
    clients[1]._socket.close()
    with pytest.raises(UnderstudyError, match="worker 1 is gone"):
        clients[0].read()


def test_strangers_are_refused(hosted):
    held, host = hosted
    with pytest.raises(UnderstudyError, match="does not answer worker 0"):
        Client("127.0.0.1", host.port, bytes(32), 0, list(held.parameters))
    with socket.create_connection(("127.0.0.1", host.port)) as one:
        one.sendall(HEADER.pack(b"UPS1", 0, 0, 0, 1 << 40))
        assert one.recv(1) == b""  # not read, let alone kept
    with socket.create_connection(("127.0.0.1", host.port)) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(1) == b""
    host.close()
    with pytest.raises(UnderstudyError, match="does not answer worker 0"):
        Client("127.0.0.1", host.port, TOKEN, 0, list(held.parameters))


def test_tensors_survive_the_wire():
    like = [torch.randn(3, 2), torch.randn(()), torch.randn(4).bfloat16(), torch.zeros(0)]
    for there in ([1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]):
        sent = [t if flag else None for t, flag in zip(like, there, strict=True)]
        got = from_bytes(to_bytes(sent), like)
        for a, b in zip(sent, got, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)  # type: ignore[arg-type]
    for wrong in (like[:2], [*like, torch.ones(1)], [torch.randn(3, 3), *like[1:]]):
        with pytest.raises(ConfigError, match="different models"):
            from_bytes(to_bytes(wrong), like)


# -- the step model


def ring(n: int, pieces: list[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """All-reduce over a ring, in one process, message by message; also what each rank sent."""
    held = [np.array_split(p.copy(), n) for p in pieces]
    sent = [0] * n
    for hand_on in (False, True):
        for round_ in range(n - 1):
            moved = []
            for rank in range(n):
                which = (rank - round_ + int(hand_on)) % n
                moved.append(((rank + 1) % n, which, held[rank][which].copy()))
                sent[rank] += held[rank][which].nbytes
            for to, which, data in moved:
                held[to][which] = data if hand_on else held[to][which] + data
    return [np.concatenate(parts) for parts in held], sent


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_a_ring_is_what_the_model_counts(n):
    pieces = [np.random.default_rng(r).standard_normal(840) for r in range(n)]
    found, sent = ring(n, pieces)
    for one in found:
        assert np.abs(one / n - np.mean(pieces, axis=0)).max() < 1e-6
    model = StepModel(compute_s=1.0, bytes=840 * 8, bandwidth=1e6, latency_s=0.01)
    assert max(sent) == pytest.approx(model.sent(n))
    assert model.communicate_s(n) == pytest.approx(max(sent) / 1e6 + 2 * (n - 1) * 0.01)


def test_times_and_efficiency():
    model = StepModel(compute_s=0.5, bytes=100e6, bandwidth=1e9, latency_s=0.001)
    assert model.seconds(1) == 0.5
    assert model.ratio(1) == float("inf")
    # 2 x 3/4 x 0.1 s + 6 x 0.001 s
    assert model.seconds(4) == pytest.approx(0.5 + 0.156)
    assert model.efficiency(4) == pytest.approx(0.5 / 0.656)
    assert model.ratio(4) == pytest.approx(0.5 / 0.156)
    with pytest.raises(ConfigError, match="compute_s: expected more than 0, got 0"):
        StepModel(compute_s=0, bytes=1, bandwidth=1)
    with pytest.raises(ConfigError, match="bytes: expected at least 0"):
        StepModel(compute_s=1, bytes=-1, bandwidth=1)
    with pytest.raises(ConfigError, match="workers: expected at least 1, got 0"):
        model.seconds(0)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_a_link_is_found_again(n):
    true = StepModel(compute_s=1, bytes=1e6, bandwidth=3e8, latency_s=2e-4)
    times = [
        (size, StepModel(compute_s=1, bytes=size, bandwidth=3e8, latency_s=2e-4).communicate_s(n))
        for size in (1e3, 1e7)
    ]
    bandwidth, latency = fit_link(n, *times)
    assert bandwidth == pytest.approx(true.bandwidth)
    assert latency == pytest.approx(true.latency_s)
    with pytest.raises(ConfigError, match="2 workers or more and two sizes"):
        fit_link(1, *times)


# -- configurations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sync_every": 4}, "sync_every: 4 is for strategy 'local_sgd', got 'auto'"),
        ({"staleness": 2, "strategy": "ddp"}, "staleness: 2 is for strategy 'async_ps'"),
        ({"sync_every": 0, "strategy": "local_sgd"}, "sync_every: expected at least 1, got 0"),
        ({"staleness": -1, "strategy": "async_ps"}, "staleness: expected at least 0, got -1"),
        ({"sync_every": 4, "strategy": "local_sgd"}, "log_every: 10 is no multiple of sync_every"),
        (
            {"sync_every": 4, "strategy": "local_sgd", "log_every": 8, "checkpoint_every": 6},
            "checkpoint_every: 6 is no multiple of sync_every",
        ),
        ({"precision": "fp16", "strategy": "async_ps"}, "fp16 with strategy 'async_ps'"),
        ({"strategy": "local"}, "'local' is not one of auto, single, ddp, fsdp, local_sgd"),
    ],
)
def test_configurations_that_cannot_be(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(steps=10, **changes)


def test_a_mode_that_learns_something_else_is_part_of_a_run():
    plain = TrainConfig(steps=8)
    assert "strategy" not in plain.identity()
    assert "sync_every" not in plain.identity()  # runs from before these fields go on
    local = TrainConfig(steps=8, strategy="local_sgd", sync_every=2, log_every=2)
    assert local.identity()["strategy"] == "local_sgd"
    assert local.identity()["sync_every"] == 2
    assert TrainConfig(steps=8, strategy="ddp").identity() == plain.identity()
