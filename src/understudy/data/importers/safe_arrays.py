"""Read torch files and `.npz` archives of numbers, within limits, running no pickled code."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.data.importers.safe_pickle import LIMIT_BYTES, STORAGES, load_plain, unpack
from understudy.data.knowledge import from_bfloat16

_LEGACY_TORCH = 0x1950A86A20F9469CFC6C


def load_torch(data: bytes, name: str, *, limit: int = LIMIT_BYTES) -> Any:
    """Read what `torch.save` wrote (tensors become arrays, bfloat16 becomes float32), or a pickle.

    Args:
        data: the file's bytes; gzip and zlib are undone first.
        name: what to call it in errors.
        limit: largest unpacked size in bytes.

    Raises:
        DataError: it holds anything but plain data and tensors, is damaged, too large, or of the
            format before torch 1.6.
    """
    if data[:2] == b"\x1f\x8b" or data[:1] == b"\x78":
        data = unpack(data, name, limit=limit)
    if data[:4] != b"PK\x03\x04":
        found = load_plain(data, name)
        if found == _LEGACY_TORCH:
            raise DataError(
                f"{name}: a torch file of the format before 1.6; load it with the torch that wrote "
                "it and save it again."
            )
        return found
    with open_zip(data, name, limit=limit) as archive:
        names = archive.namelist()
        index = next((n for n in names if n.rsplit("/", 1)[-1] == "data.pkl"), None)
        if index is None:
            raise DataError(f"{name}: a zip archive, but not one that torch.save wrote.")
        root = index[: -len("data.pkl")]
        order = ">" if _member(archive, root + "byteorder", name, b"little") == b"big" else "<"
        cache: dict[str, np.ndarray] = {}

        def storage(pid: Any) -> np.ndarray:
            if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
                raise pickle.UnpicklingError("an unknown kind of storage")
            kind, key = pid[1], str(pid[2])
            if kind not in STORAGES.values():
                raise pickle.UnpicklingError("an unknown kind of storage")
            if key not in cache:
                raw = _member(archive, f"{root}data/{key}", name)
                code = order + ("u2" if kind == "bf16" else kind)
                flat = np.frombuffer(raw, code).astype(np.dtype(code).newbyteorder("="))
                cache[key] = from_bfloat16(flat) if kind == "bf16" else flat
            return cache[key]

        return load_plain(_member(archive, index, name), name, storage)


def open_zip(data: bytes, name: str, *, limit: int = LIMIT_BYTES) -> zipfile.ZipFile:
    """Open a zip archive in memory after checking what it will unpack to.

    Raises:
        DataError: it is damaged, or its members add up to more than `limit` bytes.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise DataError(f"{name}: damaged or cut off ({error}); fetch the file again.") from None
    total = sum(info.file_size for info in archive.infolist())
    if total > limit:
        raise DataError(
            f"{name}: unpacks to {total:,} bytes, more than the limit of {limit:,}; it looks like "
            "an archive bomb."
        )
    return archive


def _member(
    archive: zipfile.ZipFile, member: str, name: str, default: bytes | None = None
) -> bytes:
    try:
        return archive.read(member)
    except KeyError:
        if default is not None:
            return default
        raise DataError(
            f"{name}: the member '{member}' is missing; fetch the file again."
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{name}: '{member}' is damaged ({error}).") from None


def load_npz(data: bytes, name: str, *, limit: int = LIMIT_BYTES) -> dict[str, np.ndarray]:
    """Read the numeric arrays of an `.npz` file; object arrays are refused.

    Raises:
        DataError: it is damaged, too large, or holds something else than numbers.
    """
    arrays = {}
    with open_zip(data, name, limit=limit) as archive:
        for member in archive.namelist():
            raw = io.BytesIO(_member(archive, member, name))
            try:
                array = np.lib.format.read_array(raw, allow_pickle=False)
            except (ValueError, EOFError, SyntaxError, TypeError) as error:
                raise DataError(f"{name}: '{member}' is not an array ({error}).") from None
            arrays[member.removesuffix(".npy")] = array
    return arrays
