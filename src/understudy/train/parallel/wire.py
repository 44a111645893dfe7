"""A parameter server over TCP: the same `read` and `push`, from other processes and machines.

A message is a header (kind, clock, version, bytes) and the tensors' raw bytes; both sides know the
shapes. A worker shows a token that only the processes of a run share; nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import hmac
import socket
import struct
import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import ConfigError, UnderstudyError
from understudy.train.parallel.server import Gradients, ParameterServer, Reading

HEADER = struct.Struct("!4sBQQQ")
MAGIC = b"UPS1"
HELLO, READ, WEIGHTS, PUSH, TAKEN, DONE, LEAVE, FAILED = range(8)
TOKEN_BYTES = 32
CONNECT_S = 60.0
Message = tuple[int, int, int, bytes]
"""Kind, clock, version, data."""


def to_bytes(tensors: Sequence[Tensor | None]) -> bytes:
    """Return a byte for each tensor (whether it is there) and then the bytes of those that are."""
    parts = [bytes(int(t is not None) for t in tensors)]
    for tensor in tensors:
        if tensor is not None:
            flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
            parts.append(flat.numpy().tobytes())
    return b"".join(parts)


def from_bytes(data: bytes, like: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the tensors that `to_bytes` wrote, with the shapes and kinds of `like`.

    Raises:
        ConfigError: they do not fit, so the two sides have different models.
    """
    there, at = data[: len(like)], len(like)
    found: list[Tensor | None] = []
    for one, flag in zip(like, there, strict=False):
        size = one.numel() * one.element_size() if flag else 0
        if not flag:
            found.append(None)
        elif at + size > len(data):
            break
        else:
            made = torch.empty(one.shape, dtype=one.dtype)
            raw = torch.from_numpy(np.frombuffer(data, np.uint8, size, at).copy())
            if size:
                made.view(-1).view(torch.uint8).copy_(raw)
            found.append(made)
        at += size
    if len(found) != len(like) or at != len(data):
        raise ConfigError(
            f"parameter server: got {len(data)} bytes for {len(like)} tensors; the workers have "
            "different models."
        )
    return found


def _send(
    to: socket.socket, kind: int, clock: int = 0, version: int = 0, data: bytes = b""
) -> None:
    to.sendall(HEADER.pack(MAGIC, kind, clock, version, len(data)) + data)


def _exactly(of: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        got = of.recv_into(view[at:], size - at)
        if not got:
            raise ConnectionError("the other side closed the connection")
        at += got
    return bytes(data)


def _receive(of: socket.socket, most: int) -> Message:
    magic, kind, clock, version, size = HEADER.unpack(_exactly(of, HEADER.size))
    if magic != MAGIC or size > most:
        raise ConnectionError("what came is no message of a parameter server")
    return kind, clock, version, _exactly(of, size)


def _most(parameters: Sequence[Tensor]) -> int:
    size = sum(p.numel() * p.element_size() for p in parameters)
    return size + len(parameters) + 4096


class Host:
    """Answers workers of other processes; a thread for each.

    Args:
        server: what it gives access to.
        token: secret bytes that workers show.
        address: where to listen; loopback unless workers are on other machines.
    """

    def __init__(self, server: ParameterServer, token: bytes, address: str = "127.0.0.1") -> None:
        self._server, self._token = server, token
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=kind)
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._closed = False
        threading.Thread(target=self._accept, name="parameter-server", daemon=True).start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(one)
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        worker, left = -1, False
        try:
            one.settimeout(CONNECT_S)
            kind, number, _, token = _receive(one, TOKEN_BYTES)
            if kind != HELLO or not hmac.compare_digest(token, self._token):
                return
            one.settimeout(None)
            worker = int(number)
            _send(one, TAKEN)
            while not left:
                left = self._answer(one, worker)
        except (OSError, ConnectionError) as error:
            if worker >= 0 and not self._closed:
                self._server.fail(f"worker {worker} is gone ({error})")
        except UnderstudyError as error:
            self._server.fail(str(error))
            with contextlib.suppress(OSError):
                _send(one, FAILED, data=str(error).encode()[:4096])
        finally:
            one.close()

    def _answer(self, one: socket.socket, worker: int) -> bool:
        """Answer one message; say whether the worker has left."""
        server = self._server
        kind, _, _, data = _receive(one, _most(server.parameters))
        if kind == READ:
            found = server.read(worker)
            if found is None:
                _send(one, DONE)
            else:
                _send(one, WEIGHTS, found.clock, found.version, to_bytes(found.weights))
        elif kind == PUSH:
            clock = server.push(worker, from_bytes(data, server.parameters))
            _send(one, TAKEN, clock)
        else:
            server.leave(worker)
        return kind == LEAVE

    def close(self) -> None:
        """Stop answering."""
        self._closed = True
        for one in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes who waits on it; closing alone does not
            one.close()


class Client:
    """A worker's side: `read` and `push` as the server's own, for one worker.

    Args:
        address: of the host.
        port: of the host.
        token: what the host asks for.
        worker: number of this worker.
        like: tensors with the shapes of the parameters.

    Raises:
        UnderstudyError: nobody answers, or the token is refused.
    """

    def __init__(
        self, address: str, port: int, token: bytes, worker: int, like: Sequence[Tensor]
    ) -> None:
        self._like, self._worker = list(like), worker
        try:
            self._socket = socket.create_connection((address, port), timeout=CONNECT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _send(self._socket, HELLO, worker, data=token)
            self._ask(None, TAKEN)
            self._socket.settimeout(None)
        except OSError as error:
            raise UnderstudyError(
                f"parameter server at {address}:{port} does not answer worker {worker} ({error})."
            ) from None

    def _ask(
        self, kind: int | None, *wanted: int, data: bytes = b""
    ) -> tuple[int, int, int, bytes]:
        if kind is not None:
            _send(self._socket, kind, data=data)
        got = _receive(self._socket, _most(self._like))
        if got[0] == FAILED:
            raise UnderstudyError(got[3].decode())
        if got[0] not in wanted:
            raise ConnectionError("an answer out of turn")
        return got

    def read(self) -> Reading | None:
        """Wait until this worker may go on; see `ParameterServer.read`.

        Raises:
            UnderstudyError: the server or another worker is gone.
        """
        try:
            kind, clock, version, data = self._ask(READ, WEIGHTS, DONE)
        except OSError as error:
            raise UnderstudyError(f"parameter server: it is gone ({error}).") from None
        if kind == DONE:
            return None
        weights = [t for t in from_bytes(data, self._like) if t is not None]
        return Reading(clock=clock, version=version, weights=weights)

    def push(self, gradients: Gradients) -> int:
        """Send gradients and return the clock; see `ParameterServer.push`.

        Raises:
            UnderstudyError: the server or another worker is gone.
        """
        try:
            return self._ask(PUSH, TAKEN, data=to_bytes(gradients))[1]
        except OSError as error:
            raise UnderstudyError(f"parameter server: it is gone ({error}).") from None

    def close(self) -> None:
        """Tell the server that this worker is done."""
        with contextlib.suppress(OSError):
            _send(self._socket, LEAVE)
        self._socket.close()


class Own:
    """The worker in the server's own process; the same calls.

    Args:
        server: the server.
        worker: number of this worker.
    """

    def __init__(self, server: ParameterServer, worker: int = 0) -> None:
        self._server, self._worker = server, worker

    def read(self) -> Reading | None:
        """See `ParameterServer.read`."""
        return self._server.read(self._worker)

    def push(self, gradients: Gradients) -> int:
        """See `ParameterServer.push`."""
        return self._server.push(self._worker, gradients)

    def close(self) -> None:
        """See `ParameterServer.leave`."""
        self._server.leave(self._worker)
