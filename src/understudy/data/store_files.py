"""Small whole files beside a store's data, on a local disk or an object store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.files import write_bytes
from understudy.data.store_lance import is_url, one_line

if TYPE_CHECKING:
    from pyarrow import fs as pafs

_S3 = {
    "access_key": ("access_key_id",),
    "secret_key": ("secret_access_key",),
    "session_token": ("session_token", "token"),
    "region": ("region", "default_region"),
    "endpoint_override": ("endpoint_url", "endpoint", "endpoint_url_s3"),
}
"""Arguments of Arrow's S3 client, and what Lance and the environment call them after `aws_`."""


def s3_arguments(
    options: Mapping[str, str], environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Return arguments of Arrow's S3 client that mean what Lance's options mean.

    Args:
        options: as Lance takes them, with or without `aws_`; they come before the environment.
        environment: variables such as `AWS_ACCESS_KEY_ID` and `AWS_ENDPOINT_URL`.
    """
    given = {k.lower().removeprefix("aws_"): v for k, v in options.items()}
    known = {k[4:].lower(): v for k, v in environment.items() if k.startswith("AWS_")}
    found: dict[str, Any] = {}
    for argument, names in _S3.items():
        values = [source[name] for source in (given, known) for name in names if source.get(name)]
        if values:
            found[argument] = values[0]
    scheme, mark, rest = str(found.get("endpoint_override", "")).partition("://")
    if mark:
        found |= {"scheme": scheme, "endpoint_override": rest.rstrip("/")}
    if "access_key" not in found or "secret_key" not in found:  # Arrow takes both or none
        for name in ("access_key", "secret_key", "session_token"):
            found.pop(name, None)
    return found


def _open(url: str, options: Mapping[str, str]) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a URL and the path in it."""
    from pyarrow import fs

    scheme, _, rest = url.partition("://")
    if scheme not in ("s3", "s3a"):
        return fs.FileSystem.from_uri(url)
    arguments = s3_arguments(options)
    # without a region Arrow asks Amazon where the bucket is, also for buckets of other servers
    arguments.setdefault("region", "us-east-1" if "endpoint_override" in arguments else None)
    try:  # a small file is put in one request, not as parts that are joined
        return fs.S3FileSystem(**arguments, allow_delayed_open=True), rest
    except TypeError:  # an older Arrow
        return fs.S3FileSystem(**arguments), rest


class Files:
    """Small whole files under one root, local or on an object store.

    Args:
        root: local path or URL of the store.
        filesystem: for tests and special set-ups; found from `root` when absent.
        options: of an object store (credentials, end point), as Lance takes them.
    """

    def __init__(
        self,
        root: str | Path,
        filesystem: pafs.FileSystem | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        from pyarrow import fs

        if filesystem is not None:
            self._fs, base = filesystem, str(root)
        elif is_url(root):
            try:
                self._fs, base = _open(str(root), options or {})
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{root}: this URL cannot be opened ({one_line(error)}).") from None
        else:
            self._fs, base = fs.LocalFileSystem(), str(Path(root).absolute())
        self.base = base.rstrip("/")
        self._local = self._fs.type_name == "local"

    def _at(self, name: str) -> str:
        return f"{self.base}/{name}" if name else self.base

    def _list(self, folder: str) -> list[pafs.FileInfo]:
        from pyarrow import fs

        selector = fs.FileSelector(self._at(folder), allow_not_found=True)
        return sorted(self._fs.get_file_info(selector), key=lambda info: info.base_name)

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in `folder`, sorted."""
        return [info.base_name for info in self._list(folder) if info.is_file]

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly in `folder`, sorted."""
        return [info.base_name for info in self._list(folder) if not info.is_file]

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or `None` if there is no such file."""
        info = self._fs.get_file_info(self._at(name))
        return info.size if info.is_file else None

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        with self._fs.open_input_stream(self._at(name)) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that it is whole or absent.

        Raises:
            DataError: the disk is full or the place is not writable; nothing is left behind.
        """
        target = self._at(name)
        try:
            if self._local:
                try:
                    write_bytes(target, data)
                except FileNotFoundError:  # another process tidied the folder away just now
                    write_bytes(target, data)
                return
            self._fs.create_dir(target.rsplit("/", 1)[0], recursive=True)
            with self._fs.open_output_stream(target) as stream:
                stream.write(data)
        except OSError as error:
            raise DataError(
                f"{target}: could not be written ({error.strerror or one_line(error)}); finished "
                "units are kept, so mend it and run the same command again."
            ) from error

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        try:
            self._fs.delete_file(self._at(name))
        except FileNotFoundError:
            pass

    def delete_empty_folder(self, name: str) -> None:
        """Delete a folder if there is nothing in it (object stores have no folders to delete)."""
        if self._local:
            with contextlib.suppress(OSError):
                Path(self._at(name)).rmdir()

    def delete_folder(self, name: str) -> None:
        """Delete a folder with all that is in it, if it is there."""
        try:
            self._fs.delete_dir(self._at(name))
        except FileNotFoundError:
            pass
