"""Python files as corpora: whole sources, and the prose in their docstrings.

Files are read and parsed, never imported: importing runs what they hold.
"""

from __future__ import annotations

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from understudy.data.corpora.document import Document, host, read_text
from understudy.data.corpora.prose import rst_text

SKIPPED = frozenset(
    "test tests testing _vendor _vendored vendor vendored third_party thirdparty extern externals "
    "__pycache__ site-packages dist-packages idle_test lib2to3".split()
)
"""Folders left out: tests, and copies of other packages (they would leak across groups)."""

MIN_WORDS = 50
"""A document of docstrings has at least this many words: the heuristics' lower limit for a page."""

_MIN_DOCSTRING_WORDS = 8
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_MAX_BYTES = 3_000_000  # larger sources are generated tables


def stdlib_folder() -> Path:
    """Return the folder of this Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def python_files(root: Path, skipped: frozenset[str] = SKIPPED) -> list[Path]:
    """Return the `.py` files under a folder, sorted, without those in `skipped` folders."""
    out = []
    for path in root.rglob("*.py"):
        inner = path.relative_to(root)
        if not skipped.intersection(inner.parts[:-1]) and not inner.name.startswith("test_"):
            out.append(path)
    return sorted(out, key=lambda path: path.relative_to(root).as_posix())


def module_name(inner: Path) -> str:
    """Return the dotted name of a module, given its path from the folder of packages."""
    parts = inner.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def stdlib_group(inner: Path) -> str:
    """Return the group of a standard-library file: its top-level module or package."""
    return f"stdlib/{inner.parts[0].removesuffix('.py')}"


def stdlib_sources(*, tests: bool = False) -> Iterator[Document]:
    """Yield the source files of the standard library, one document a file, in path order.

    Args:
        tests: also the test suite, which is more than half of the text.
    """
    root = stdlib_folder()
    skipped = frozenset({"__pycache__", "site-packages", "dist-packages"}) if tests else SKIPPED
    for path in _stdlib_files(root, skipped, tests):
        inner = path.relative_to(root)
        document = source_document(path, inner, stdlib_group(inner), "stdlib")
        if document:
            yield document


def _stdlib_files(root: Path, skipped: frozenset[str], tests: bool) -> list[Path]:
    if not tests:
        return python_files(root, skipped)
    found = (path for path in root.rglob("*.py"))
    kept = [path for path in found if not skipped.intersection(path.relative_to(root).parts)]
    return sorted(kept, key=lambda path: path.relative_to(root).as_posix())


def source_document(path: Path, inner: Path, group: str, source: str) -> Document | None:
    """Return a source file as a document; None if it is empty or can't be read."""
    text = read_text(path)
    if not text.strip():
        return None
    name = inner.as_posix()
    return Document(
        id=f"{source}/{group.removeprefix('stdlib/')}/{name}" if source != "stdlib" else name,
        text=text,
        source=source,
        url=f"https://source.{host(group)}/{name}",
        group=group,
        facts={"module": module_name(inner)},
    )


def parse(text: str) -> ast.Module | None:
    """Parse Python; None where it is another Python's, a template, or too deeply nested."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strings with odd escapes
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def module_docstrings(text: str) -> list[str]:
    """Return the docstrings of a module, its classes and functions in the order of the source.

    Indentation is removed; nothing else is changed. What doesn't parse has none.
    """
    tree = parse(text)
    if tree is None:
        return []
    found: list[tuple[int, str]] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                found.append((getattr(node, "lineno", 0), inspect.cleandoc(docstring)))
        for name in _BLOCKS:  # definitions stand in blocks only: expressions needn't be walked
            block = getattr(node, name, None)
            if isinstance(block, list):
                waiting.extend(block)
    return [docstring for _, docstring in sorted(found, key=lambda pair: pair[0])]


def docstring_prose(text: str) -> str:
    """Return the prose of a module's docstrings; docstrings of less than 8 words are left out."""
    out: dict[str, None] = {}
    for docstring in module_docstrings(text):
        prose = rst_text(docstring)
        if len(prose.split()) >= _MIN_DOCSTRING_WORDS:
            out[prose] = None  # inherited docstrings are often copied: each once
    return "\n\n".join(out)


def docstring_document(path: Path, inner: Path, group: str) -> Document | None:
    """Return the docstrings of a file as a document; None if they have less than 50 words."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
    except OSError:
        return None
    prose = docstring_prose(read_text(path))
    if len(prose.split()) < MIN_WORDS:
        return None
    module = module_name(inner)
    return Document(
        id=f"docstrings/{group}/{module}",
        text=prose,
        source="docstrings",
        url=f"https://docs.{host(group)}/{inner.with_suffix('.html').as_posix()}",
        group=group,
        facts={"module": module},
    )


def docstrings(packages: Sequence[str] = ()) -> Iterator[Document]:
    """Yield one document a module, its docstrings' prose, for modules with 50 words or more.

    Args:
        packages: names of installed distributions, and `stdlib`; by default all of them. The
            standard library comes first, then the distributions by name.

    Raises:
        ConfigError: a name isn't installed.
    """
    from understudy.data.corpora.installed import distribution_files, distributions

    if not packages or "stdlib" in packages:
        root = stdlib_folder()
        for path in python_files(root):
            inner = path.relative_to(root)
            document = docstring_document(path, inner, stdlib_group(inner))
            if document:
                yield document
    wanted = [name for name in packages if name != "stdlib"]
    if packages and not wanted:
        return
    for name in distributions(wanted):
        for path, inner in distribution_files(name):
            if inner.suffix == ".py" and not skip_file(inner):
                document = docstring_document(path, inner, name)
                if document:
                    yield document


def skip_file(inner: Path) -> bool:
    """Say whether a package's file is a test or part of a vendored copy."""
    return bool(SKIPPED.intersection(inner.parts[:-1])) or inner.name.startswith("test_")
