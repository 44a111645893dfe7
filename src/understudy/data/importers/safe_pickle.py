"""Read foreign pickles without running anything that they hold.

Pickle is a program for a small machine that can call any function. Released reinforcements are
pickles of plain lists, numbers and arrays, so this reader knows nothing else: every name that a
file asks for is either one of a dozen rebuilt here in plain Python or refused. Not even numpy's own
reconstruction functions are reachable, because their arguments decide how much memory they take.
"""

from __future__ import annotations

import io
import pickle
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from understudy.core.errors import DataError

LIMIT_BYTES = 1 << 30
"""Largest unpacked size of one file, unless the caller says otherwise."""

STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""Torch's storage classes and the NumPy codes of their numbers."""


class _Dtype:
    """A numeric NumPy dtype in the making: a code, then (through BUILD) a byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        name = code.decode("ascii", "replace") if isinstance(code, bytes) else str(code)
        if name.lstrip("<>|=")[:1] not in tuple("?biuf"):
            raise pickle.UnpicklingError(f"arrays of kind '{name}' are not read")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


def _numbers(raw: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    """Return an array over bytes that are already in memory; sizes must agree."""
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("a damaged array")
    data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    count = 1
    for side in shape:
        if not isinstance(side, int) or side < 0:
            raise pickle.UnpicklingError(f"an array of shape {shape}")
        count *= side
    if count * dtype.dtype.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of shape {shape} over {len(data)} bytes")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


class _Array:
    """An array in the making, as `_reconstruct` starts it and BUILD fills it."""

    array: np.ndarray | None = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _numbers(raw, dtype, shape, "F" if fortran else "C")


def _scalar(dtype: Any, raw: Any) -> Any:
    return _numbers(raw, dtype, ())[()].item()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    return _numbers(raw, dtype, shape, order)


def _encode(text: Any, encoding: str = "latin1") -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise pickle.UnpicklingError(f"text in '{encoding}'")
    return text.encode("latin1")


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """Return the elements of a tensor over its storage; never more of them than are stored."""
    if not isinstance(storage, np.ndarray):
        raise pickle.UnpicklingError("a tensor without storage")
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    count = 1
    for side in size:
        count *= side
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    bad = min((0, offset, *size, *stride)) < 0 or count > storage.size
    if bad or (count and last >= storage.size):
        raise pickle.UnpicklingError(f"a tensor of shape {list(size)} outside of its storage")
    if not count:
        return np.zeros(size, storage.dtype)
    strides = [s * storage.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


class _Ndarray:
    """Stands for the class `numpy.ndarray`, which only ever appears as an argument."""

    def __init__(self, *_: Any) -> None:
        raise pickle.UnpicklingError("an array without data")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Array
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, storage: Callable[[Any], np.ndarray] | None = None) -> None:
        super().__init__(io.BytesIO(data))
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not plain data")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None:
            raise pickle.UnpicklingError("it refers to storage outside of itself")
        return self._storage(pid)


def as_array(value: Any, name: str = "value") -> np.ndarray:
    """Return a numeric array that this module read, or plain numbers, as an ndarray.

    Raises:
        DataError: it is neither.
    """
    if isinstance(value, _Array):
        value = value.array
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected an array of numbers, got {type(value).__name__}.")
    return array


def load_plain(data: bytes, name: str, storage: Callable[[Any], np.ndarray] | None = None) -> Any:
    """Read a pickle of plain data; `storage` finds what torch keeps outside of it.

    Raises:
        DataError: it holds anything else, or is damaged.
    """
    try:
        return _Unpickler(data, storage).load()
    except DataError:
        raise
    except RecursionError:
        raise DataError(f"{name}: nested too deeply to be plain data.") from None
    except Exception as error:
        # A hostile or damaged stream can fail in any way; none of it ran foreign code.
        raise DataError(f"{name}: refused or damaged pickle ({error}).") from None


def load_pickle(data: bytes, name: str, *, limit: int = LIMIT_BYTES) -> Any:
    """Read a pickle of plain data; zlib or gzip around it is undone first.

    Args:
        data: the file's bytes.
        name: what to call it in errors.
        limit: largest unpacked size in bytes.

    Returns:
        Lists, tuples, dicts, sets, strings and numbers; arrays through `as_array`.

    Raises:
        DataError: it holds anything else, is damaged, or unpacks to more than `limit`.
    """
    if data[:2] == b"\x1f\x8b" or data[:1] == b"\x78":
        data = unpack(data, name, limit=limit)
    return load_plain(data, name)


def unpack(data: bytes, name: str, *, limit: int = LIMIT_BYTES) -> bytes:
    """Undo gzip or zlib, up to a limit.

    Raises:
        DataError: the stream is damaged, cut off or unpacks to more than `limit` bytes.
    """
    out, rest, size = [], data, 0
    try:
        while rest:
            stream = zlib.decompressobj(47)  # 32 + 15: either header
            out.append(stream.decompress(rest, limit - size + 1))
            size += len(out[-1])
            if size > limit:
                raise DataError(
                    f"{name}: unpacks to more than {limit:,} bytes; it looks like an archive bomb."
                )
            if not stream.eof:
                raise DataError(f"{name}: the compressed data are cut off; fetch the file again.")
            rest = stream.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise DataError(f"{name}: the compressed data are damaged ({error}).") from None
    return b"".join(out)
