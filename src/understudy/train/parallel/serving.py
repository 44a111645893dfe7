"""The parameter server of a run: rank 0 keeps it, all ranks work for it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from understudy.train.distributed import Ranks
from understudy.train.optim import keep_below, make_optimizer, trainable
from understudy.train.parallel.averaging import share_first
from understudy.train.parallel.server import ParameterServer, masters
from understudy.train.parallel.wire import TOKEN_BYTES, Client, Host, Own
from understudy.train.schedule import learning_rate
from understudy.train.stepper import Stepper

_LOCAL = ("127.0.0.1", "localhost", "::1")


def meet(
    ranks: Ranks, server: ParameterServer | None, like: list[nn.Parameter]
) -> tuple[Own | Client, Host | None]:
    """Connect all ranks with the server of rank 0; collective.

    Args:
        ranks: who takes part.
        server: on rank 0.
        like: parameters with the server's shapes.

    Returns:
        (this rank's side, on rank 0 also what answers the others).
    """
    address = os.environ.get("MASTER_ADDR", "127.0.0.1")
    facts = torch.zeros(TOKEN_BYTES + 1, dtype=torch.int64)
    host = None
    if server is not None:
        token = secrets.token_bytes(TOKEN_BYTES)
        # Only a run over several machines listens beyond this one.
        host = Host(server, token, "127.0.0.1" if address in _LOCAL else _own(address))
        facts = torch.tensor([host.port, *token], dtype=torch.int64)
    facts = facts.to(ranks.device)
    if ranks.world > 1:
        dist.broadcast(facts, src=0)
    port, *token_values = facts.tolist()
    if server is not None:
        return Own(server), host
    where = "127.0.0.1" if address in _LOCAL else address
    return Client(where, port, bytes(token_values), ranks.rank, like), None


def _own(address: str) -> str:
    """Return the address of this machine behind a name that workers use."""
    return str(socket.getaddrinfo(address, None)[0][4][0])


class ServerStepper(Stepper):
    """Reads weights, computes a gradient of them, sends it; see `ParameterServer`.

    At steps where the run logs, evaluates or saves, `settle` lets all ranks meet, and each has the
    weights that every gradient so far has moved.
    """

    _worker: Own | Client | None = None
    _host: Host | None = None
    _server: ParameterServer | None = None

    def step(self, batches: Iterator[Mapping[str, Any]]) -> None:
        """Take a step; see `Stepper.step`.

        Raises:
            UnderstudyError: the server or another worker is gone.
        """
        if self._worker is None:
            self._open()
        with self.state.ledger.time("wait"):
            self._take()
        super().step(batches)

    def _open(self) -> None:
        state, config = self.state, self.config
        share_first(state)
        if self.ranks.rank == 0:
            own = trainable(state.model)
            copies = masters(own)
            scales = [c for n, c in copies.items() if n.rsplit(".", 1)[-1] == "logit_scale"]
            optimizer = make_optimizer(copies, config)
            for name, copy in copies.items():  # a resumed run's moments
                if own[name] in state.optimizer.state:
                    optimizer.state[copy] = state.optimizer.state[own[name]]
            self._server = ParameterServer(
                list(copies.values()),
                optimizer,
                self.ranks.world,
                config.staleness,
                rate=lambda clock: learning_rate(clock, config),
                clip_norm=config.clip_norm,
                after=lambda: keep_below(scales, self.scale_limit),
                clock=state.step,
            )
        self._worker, self._host = meet(self.ranks, self._server, self.parameters)

    @torch.no_grad()
    def _take(self) -> None:
        assert self._worker is not None
        found = self._worker.read()
        assert found is not None  # this server has no limit
        for parameter, value in zip(self.parameters, found.weights, strict=True):
            parameter.copy_(value)

    def _update(self) -> None:
        assert self._worker is not None
        self._worker.push([parameter.grad for parameter in self.parameters])
        self.state.optimizer.zero_grad(set_to_none=True)
        if self.state.ema is not None:
            self.state.ema.update(self.state.step)
        self.guard.forget()

    def settle(self) -> None:
        """Meet the other ranks and take the weights with everything in them; collective."""
        self.ranks.barrier()
        self._take()
        if self._server is not None:
            own = self.state.optimizer
            for parameter, copy in zip(self.parameters, self._server.parameters, strict=True):
                own.state[parameter] = self._server.optimizer.state[copy]
        self.ranks.barrier()  # else a fast rank's next gradient would be in some ranks' weights

    def close(self) -> None:
        """Leave the server."""
        if self._worker is not None:
            self._worker.close()
        if self._host is not None:
            self._host.close()
