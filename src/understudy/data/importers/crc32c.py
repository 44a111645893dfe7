"""CRC-32C (Castagnoli) of long byte strings, without a library: lanes side by side in NumPy.

A CRC's register is linear over GF(2): running on over L zero bytes is a matrix. So the bytes are
cut into lanes of L, all lanes run at once, and their registers are joined with the matrix of L.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_POLYNOMIAL = 0x82F63B78  # RFC 3720, appendix B.4, reflected
_SHORT = 256


def _table() -> np.ndarray:
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, (values >> 1) ^ np.uint32(_POLYNOMIAL), values >> 1)
    return values.astype(np.uint32)


_TABLE = _table()
_PLAIN: list[int] = _TABLE.tolist()


def _run(state: int, data: bytes) -> int:
    for byte in data:
        state = _PLAIN[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state


@lru_cache(maxsize=32)
def _over_zeros(length: int) -> list[list[int]]:
    """Return four tables that bring a register over `length` zero bytes, one a byte of it."""
    states = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    for _ in range(length):
        states = _TABLE[states & 0xFF] ^ (states >> np.uint32(8))
    tables = []
    for byte in range(4):
        found = np.zeros(256, np.uint32)
        for bit in range(8):
            there = (np.arange(256) >> bit) & 1 == 1
            found[there] ^= states[8 * byte + bit]
        tables.append(found.tolist())
    return tables


def crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C of bytes."""
    data = bytes(data)
    state = 0xFFFFFFFF
    if len(data) > _SHORT:
        length = 1 << (len(data).bit_length() // 2)
        lanes = len(data) // length
        columns = np.frombuffer(data, np.uint8, lanes * length).reshape(lanes, length).T
        states = np.zeros(lanes, np.uint32)
        for column in np.ascontiguousarray(columns):
            states = _TABLE[(states ^ column) & 0xFF] ^ (states >> np.uint32(8))
        a, b, c, d = _over_zeros(length)
        for lane in states.tolist():
            moved = a[state & 0xFF] ^ b[state >> 8 & 0xFF] ^ c[state >> 16 & 0xFF] ^ d[state >> 24]
            state = moved ^ lane
        data = data[lanes * length :]
    return _run(state, data) ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """Return a CRC as TFRecord files store it: rotated right by 15 bits, plus a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
