"""What the metadata of installed packages tells: which there are, their files, READMEs, licences.

Only metadata and files are read; no package is imported.
"""

from __future__ import annotations

import difflib
import email
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from understudy.core.errors import ConfigError
from understudy.data.corpora.document import Document, clean_text, host, read_text
from understudy.data.corpora.prose import markdown_text, rst_text

COMMON_LICENCES = Path("/usr/share/common-licenses")
DOC = Path("/usr/share/doc")
OWN = "understudy"
"""Left out everywhere: a corpus that held this package would change with every commit."""

LICENCE_NAME = re.compile(
    r"^(licen[cs]e|copying|copyright|notice|unlicense|authors)", re.IGNORECASE
)


def canonical(name: str) -> str:
    """Return a distribution's name as it is compared: lower case, runs of `-_.` as one `-`."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def _found() -> dict[str, metadata.Distribution]:
    out: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"] if distribution.metadata else None
        if name and canonical(name) != OWN:
            out.setdefault(canonical(name), distribution)
    return dict(sorted(out.items()))


def distributions(packages: Sequence[str] = ()) -> list[str]:
    """Return the canonical names of installed distributions, sorted.

    Args:
        packages: only these.

    Raises:
        ConfigError: one of them isn't installed; the message lists near matches.
    """
    known = _found()
    if not packages:
        return list(known)
    wanted = sorted({canonical(name) for name in packages})
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else "See 'pip list'."
            raise ConfigError(f"corpora: the package '{name}' isn't installed. {hint}")
    return wanted


def version(name: str) -> str:
    """Return the version of an installed distribution."""
    return _found()[name].version


def distribution_files(name: str) -> Iterator[tuple[Path, Path]]:
    """Yield (path, path inside the folder of packages) of a distribution's files, sorted."""
    listed = _found()[name].files or []
    for file in sorted(listed, key=str):
        inner = Path(str(file))
        if ".." not in inner.parts and not inner.is_absolute():
            yield Path(str(file.locate())), inner


def readme_text(name: str, raw: str) -> Document | None:
    """Return the README in the text of a METADATA file as a document; None if there is none."""
    message = email.message_from_string(raw)
    body = message.get_payload()
    text = body if isinstance(body, str) and body.strip() else message.get("Description", "")
    # In old metadata the description is a header: its lines are indented with bars or blanks.
    text = re.sub(r"^(?: {7}\||        )", "", str(text), flags=re.MULTILINE)
    kind = str(message.get("Description-Content-Type", "text/x-rst")).lower()
    text = clean_text(text)
    prose = markdown_text(text) if "markdown" in kind else rst_text(text)
    if len(prose.split()) < 20:
        return None
    return Document(
        id=f"readme/{name}",
        text=prose,
        source="readme",
        url=f"https://{host(name)}/readme.html",
        group=name,
        facts={"version": str(message.get("Version", ""))},
    )


def readmes(packages: Sequence[str] = ()) -> Iterator[Document]:
    """Yield the README of every installed package as prose, by name.

    Args:
        packages: only these distributions.

    Raises:
        ConfigError: a name isn't installed.
    """
    for name in distributions(packages):
        document = readme_text(name, _found()[name].read_text("METADATA") or "")
        if document:
            yield document


def licences(packages: Sequence[str] = ()) -> Iterator[Document]:
    """Yield licence texts: those in installed packages, then the system's common licences.

    Args:
        packages: only these distributions, and not the system's.
    """
    for name in distributions(packages):
        for path, inner in distribution_files(name):
            if LICENCE_NAME.match(inner.name) and inner.suffix in ("", ".txt", ".md", ".rst"):
                yield from _licence(path, name, inner.as_posix())
    if packages:
        return
    for path in sorted(COMMON_LICENCES.glob("*")):
        if not path.is_symlink():
            yield from _licence(path, "common-licenses", path.name)
    for path in sorted(DOC.glob("*/copyright")):
        yield from _licence(path, f"debian/{path.parent.name}", "copyright")


def _licence(path: Path, group: str, inner: str) -> Iterator[Document]:
    text = read_text(path)
    if text:
        url = f"https://{host(group)}/legal/{inner}"
        yield Document(
            id=f"licence/{group}/{inner}", text=text, source="licence", url=url, group=group
        )
