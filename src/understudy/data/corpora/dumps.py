"""Data dumps and minified code: files of installed packages that nobody wrote to be read.

Dumps are JSON, CSV, TSV, XML and source-map files, and the `RECORD` of every package (a CSV of
paths, hashes and sizes). Minified code is what packages ship minified (`.min.js`, `.min.css`), and
Python sources minified here, since a bare installation has none of the former.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from understudy.data.corpora.document import Document, host, read_text
from understudy.data.corpora.installed import distribution_files, distributions
from understudy.data.corpora.python_files import parse

DUMP_SUFFIXES = frozenset({".json", ".csv", ".tsv", ".xml", ".geojson", ".map", ".ndjson"})
SYSTEM_FOLDERS = tuple(
    Path(name) for name in ("/usr/share", "/usr/lib/node_modules", "/usr/lib/python3")
)
"""Where a system keeps more of them; absent folders are passed over."""

_MINIFIED = re.compile(r"[.-]min\.(?:js|css)$")
_MAX_BYTES = 8_000_000
_LEAST_BYTES = 400


def is_dump(inner: Path) -> bool:
    """Say whether a path is that of a data dump."""
    named = inner.suffix.lower() in DUMP_SUFFIXES
    return named or (inner.name == "RECORD" and inner.parent.suffix == ".dist-info")


def is_minified(inner: Path) -> bool:
    """Say whether a path is that of a file that ships minified."""
    return bool(_MINIFIED.search(inner.name))


def _fits(path: Path) -> bool:
    try:
        return path.is_file() and _LEAST_BYTES <= path.stat().st_size <= _MAX_BYTES
    except OSError:
        return False


def file_document(path: Path, inner: str, group: str, source: str) -> Document | None:
    """Return a file as a document; None if it is empty or mostly not text."""
    text = read_text(path)
    if len(text) < _LEAST_BYTES or text.count("\ufffd") > len(text) // 50:
        return None
    return Document(
        id=f"{source}/{group}/{inner}",
        text=text,
        source=source,
        url=f"https://{host(group)}/files/{inner}",
        group=group,
    )


def package_paths(packages: Sequence[str] = ()) -> Iterator[tuple[Path, str, str]]:
    """Yield (path, inner path, package) of the dumps and minified files in installed packages."""
    for name in distributions(packages):
        for path, inner in distribution_files(name):
            if (is_dump(inner) or is_minified(inner)) and _fits(path):
                yield path, inner.as_posix(), name


def system_paths(folders: Sequence[Path]) -> Iterator[tuple[Path, str, str]]:
    """Yield (path, inner path, group) of the same kinds of file in system folders, sorted.

    The group is the first two parts of the path, in other words the package as a rule.

    Args:
        folders: where to look; absent ones are passed over.
    """
    for root in folders:
        found = (
            (p for p in root.rglob("*") if is_dump(p) or is_minified(p)) if root.is_dir() else ()
        )
        for path in sorted(found):
            if not path.is_symlink() and _fits(path):
                inner = path.relative_to(root)
                yield path, inner.as_posix(), "/".join(inner.parts[:2][: len(inner.parts) - 1])


class _Bare(ast.NodeTransformer):
    """Drop docstrings, annotations of variables without a value, and type hints of arguments."""

    def _body(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        body: list[ast.stmt] = getattr(node, "body")  # noqa: B009
        first = body[0] if body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            body[:] = body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = _body

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._body(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self._body(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node


def minify_python(text: str) -> str:
    """Return Python source without comments, docstrings, hints and blank lines.

    Blocks are indented by one space; simple statements of one block share a line. Empty where the
    source doesn't parse.
    """
    tree = parse(text)
    if tree is None:
        return ""
    try:
        plain = ast.unparse(_Bare().visit(tree))
    except (RecursionError, ValueError):
        return ""
    out: list[str] = []
    joined = -1  # indentation of the line that may be added to
    for line in plain.split("\n"):
        body = line.lstrip(" ")
        if not body:
            continue
        depth = (len(line) - len(body)) // 4
        block = re.match(
            r"(?:async |def|class|if|elif|else|for|while|with|try|except|finally|@|match|case)\b|@",
            body,
        )
        tight = re.sub(r"(?<=[\w)\]]) ?([=+*/<>,:-]{1,2}) ?(?=[\w(\[])", r"\1", body)
        tight = body if any(quote in body for quote in "\"'") else tight
        if depth == joined and not block:
            out[-1] += ";" + tight
        else:
            out.append(" " * depth + tight)
        joined = -1 if block else depth
    return "\n".join(out)


def minified_python(path: Path, inner: Path, group: str) -> Document | None:
    """Return a Python file, minified, as a document; None if little is left of it."""
    text = minify_python(read_text(path))
    if len(text) < _LEAST_BYTES:
        return None
    return Document(
        id=f"minified/{group}/{inner.as_posix()}",
        text=text,
        source="minified",
        url=f"https://{host(group)}/dist/{inner.with_suffix('.min.py').as_posix()}",
        group=group,
    )
