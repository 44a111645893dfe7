"""Speed of the page filters and line edits against datatrove's, on the same text.

Ours are the thirteen steps of the DCLM recipe between extraction and deduplication that need no
model. The peer's nearest equivalents are GopherRepetitionFilter, GopherQualityFilter and the line
rules of C4QualityFilter (words a line; its other rules have no counterpart and are off). Both get
all pages of the corpus and pass on what they keep; in the arms `every` each filter sees every page,
so that what is dropped early does not count. Ours are run as the engine runs them, Arrow batches in
and out; the peer's `filter` methods are called on ready documents.

The peer cuts words with spaCy's blank English pipeline (its default; there is no model to fetch).
`datatrove-split` is the same with white space instead, cheaper than anything that it offers.

The corpus: docstrings of the standard library and of installed packages, and documentation files of
the system, at least 10 MB of it. The goal is a ratio of 3 in processor seconds.

    pip install datatrove==0.10.1 spacy regex && PYTHONPATH=src python benchmarks/curate_filters.py
"""

from __future__ import annotations

import ast
import gzip
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from common import alternate, ratio, write_result

CORPUS_BYTES, ROUNDS, GOAL = 10_000_000, 3, 3.0


def docstrings() -> Iterator[str]:
    """Yield the docstrings of each module of the standard library and of installed packages."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, ValueError, OSError, RecursionError):
            continue
        found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        yield "\n\n".join(text for text in found if text)


def system_texts() -> Iterator[str]:
    """Yield the documentation files of the system."""
    for path in sorted(Path("/usr/share/doc").rglob("*")):
        if path.suffix in ("", ".gz", ".txt", ".md", ".rst") and path.is_file():
            try:
                data = path.read_bytes()
                yield (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
            except (OSError, ValueError, EOFError):
                continue


def corpus() -> list[str]:
    """Return different texts of 200 to 1,000,000 characters, half of the bytes from each source."""
    texts: dict[str, None] = {}
    size = 0
    for source, goal in ((system_texts, CORPUS_BYTES // 2), (docstrings, CORPUS_BYTES)):
        for text in source():
            if size >= goal:
                break
            if 200 <= len(text) <= 1_000_000 and text not in texts:
                texts[text] = None
                size += len(text.encode())
    return list(texts)


def our_stages() -> list:
    from understudy.curate.engine.stage import PageStage
    from understudy.curate.text import edits, filters, line_edits, repetition, urls

    stages: list[PageStage] = [
        urls.UrlDomainBan(),
        urls.UrlWordBan(),
        urls.UrlRemoval(),
        edits.Newlines(),
        filters.PageLength(),
        filters.WordLength(),
        filters.SymbolRatio(),
        filters.BulletLines(),
        filters.EllipsisLines(),
        filters.AlphabeticWords(),
        filters.StopWords(),
        repetition.Repetition(),
        line_edits.LineEdits(),
    ]
    return stages


def ours(texts: list[str]) -> tuple[Callable[[], int], Callable[[], int]]:
    """Return the run of the chain and the run of every stage on every page."""
    from understudy.curate.engine.pages import Page, batch_of
    from understudy.curate.engine.stage import chain

    url = "https://docs.example.org/page"
    stages = our_stages()
    batches = [
        batch_of(
            [Page(id=str(i), text=text, url=url) for i, text in enumerate(texts[at : at + 1024])],
            {},
        )
        for at in range(0, len(texts), 1024)
    ]

    def run() -> int:
        return sum(chain(stages, batch)[0].num_rows for batch in batches)

    def every() -> int:
        kept = 0
        for text in texts:
            page = Page(id="", text=text, url=url)
            for stage in stages:
                kept += bool(stage.pages(page))
        return kept

    return run, every


def peer(texts: list[str], *, split: bool) -> tuple[Callable[[], int], Callable[[], int]]:
    """Return the same of datatrove's filters."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )

    rules = C4QualityFilter(
        remove_citations=False,
        filter_no_terminal_punct=False,
        min_num_sentences=-1,
        min_words_per_line=2,
        filter_lorem_ipsum=False,
        filter_javascript=False,
        filter_curly_bracket=False,
        filter_policy=False,
    )
    stages = [GopherRepetitionFilter(), GopherQualityFilter(), rules]
    modules = (gopher_quality_filter, gopher_repetition_filter)
    own = gopher_quality_filter.split_into_words

    def pages() -> list:
        for module in modules:
            module.split_into_words = (lambda text, language: text.split()) if split else own
        return [Document(text=text, id=str(i)) for i, text in enumerate(texts)]

    def run() -> int:
        kept = pages()
        for stage in stages:
            kept = [page for page in kept if stage.filter(page) is True]
        return len(kept)

    def every() -> int:
        return sum(stage.filter(page) is True for page in pages() for stage in stages)

    return run, every


def main() -> int:
    try:
        import datatrove  # noqa: F401
        import spacy  # noqa: F401
    except ImportError as error:
        print(f"the peer is not installed ({error}); see the first lines of this file")
        return 0
    texts = corpus()
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} documents, {size:.1f} MB")
    runs = {"ours": ours(texts), "datatrove": peer(texts, split=False)}
    runs["datatrove-split"] = peer(texts, split=True)
    for make in (ours, lambda some: peer(some, split=False)):
        make(texts[:50])[0]()  # tables and tokenizers are made
    cpu: dict[str, list[float]] = {}
    kept: dict[str, int] = {}

    def measured(name: str, run: Callable[[], int]) -> Callable[[], None]:
        def go() -> None:
            start = time.process_time()
            kept[name] = run()
            cpu.setdefault(name, []).append(time.process_time() - start)

        return go

    wall = alternate({n: measured(n, run) for n, (run, _) in runs.items()}, ROUNDS, warmup=0)
    every = {f"{n}-every": measured(f"{n}-every", run) for n, (_, run) in runs.items()}
    wall |= alternate(every, 1, warmup=0)
    rate = {name: round(size / statistics.median(s), 3) for name, s in cpu.items()}
    ratios = {}
    for name in ("datatrove", "datatrove-split"):
        for end in ("", "-every"):
            ratios[f"over {name}{end}"] = round(ratio(cpu[name + end], cpu["ours" + end]), 2)
    result = {
        "documents": len(texts),
        "megabytes": round(size, 1),
        "mb_per_cpu_s": rate,
        "mb_per_wall_s": {n: round(size / statistics.median(s), 3) for n, s in wall.items()},
        "cpu_ratios": ratios,
        "wall_ratio": round(ratio(wall["datatrove"], wall["ours"]), 2),
        "kept": kept,
        "peer_versions": {name: version(name) for name in ("datatrove", "spacy")},
        "goal": f"over datatrove >= {GOAL:g}",
        "goal_met": ratios["over datatrove"] >= GOAL,
    }
    for name, value in rate.items():
        print(f"{name:24} {value:8.3f} MB per CPU s, kept {kept[name]:,}")
    print(ratios)
    print(write_result("curate_filters", result))
    return 0 if result["goal_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
