"""Decontamination: report what pages share with test sets, and remove questions with answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError
from understudy.core.files import read_json, write_json, write_text
from understudy.curate.engine.stage import Count
from understudy.curate.engine.tasks import Task
from understudy.curate.engine.units import GlobalStep, RunTasks, Unit, read_pages, write_pages
from understudy.curate.quality.columns import text_bytes
from understudy.curate.quality.eval_sets import check_sets, read_set
from understudy.curate.quality.overlap import GramIndex
from understudy.curate.quality.overlap_words import Vocabulary, words_of
from understudy.curate.quality.questions import QuestionIndex, without

REPORT = "decontamination.json"
TABLE = "decontamination.txt"
_NAME = "decontaminate"


@dataclass(frozen=True, kw_only=True)
class Decontaminate(GlobalStep):
    """Compare pages with test sets.

    Two things are done. Every set is reported with the words that lie in runs of at least `n` words
    which pages and set share. And, for sets with a rule, a question that a page holds together with
    one of its answers is cut out of the page.

    Attributes:
        sets: test sets, each `{"path": JSON lines, "name":, "rule": "whole", "last-sentence" or
            "none", "question": field, "options": field}`.
        n: words of a shared run.
        min_words: questions whose sought part has fewer words are not looked for; "Why?" would be
            found, with a "no", nearly everywhere.
        remove: cut the questions out; otherwise they are only counted.
        report: where to write the report as JSON too, beside the work folder's.

    References:
        DataComp-LM, arXiv 2406.11794: the rule for MMLU (last sentence) and HellaSwag (whole), and
        the report of shared runs of 10 tokens. Tokens are words here (`overlap_words`).
    """

    name = _NAME
    sets: Sequence[Mapping[str, Any]]
    n: int = 10
    min_words: int = 1
    remove: bool = True
    report: str = ""
    _checked: list[dict[str, Any]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or self.n < 2:
            raise ConfigError(f"decontaminate: n: expected 2 words or more, got {self.n}.")
        if self.min_words < 1:
            raise ConfigError(
                f"decontaminate: min_words: expected 1 or more, got {self.min_words}."
            )
        object.__setattr__(self, "_checked", check_sets(self.sets))

    def describe(self) -> dict[str, Any]:
        """Return the settings; of the sets their names, rules and contents."""
        sets = [{k: v for k, v in one.items() if k != "path"} for one in self._checked]
        return {
            "name": self.name,
            "sets": sets,
            "n": self.n,
            "min_words": self.min_words,
            "remove": self.remove,
        }

    def run(self, units: Sequence[Unit], work: Path, run: RunTasks) -> list[Unit]:
        """Scan and clean each unit, then add up the report."""
        tasks = [
            Task(
                key=f"{self.name}: {unit.key}",
                call=f"{__name__}:clean_unit",
                args={
                    "folder": str(unit.folder),
                    "hash": unit.hash,
                    "sets": self._checked,
                    "n": self.n,
                    "min_words": self.min_words,
                    "remove": self.remove,
                },
                out=work / f"unit-{number:05d}",
            )
            for number, unit in enumerate(units)
        ]
        records = run(tasks, self.name) if tasks else []
        found = summary([task.out for task in tasks], self._checked, self.n, self.min_words)
        write_json(work / REPORT, found)
        write_text(work / TABLE, report_table(found) + "\n")
        if self.report:
            write_json(self.report, found)
        triples = zip(units, tasks, records, strict=True)
        return [Unit.of(task, record, unit.key) for unit, task, record in triples]


@functools.lru_cache(maxsize=1)
def _indices(text: str, n: int, min_words: int) -> tuple[Vocabulary, GramIndex, QuestionIndex]:
    """Return the indices of test sets; a process builds them once."""
    sets = [read_set(description) for description in json.loads(text)]
    vocabulary = Vocabulary()
    return vocabulary, GramIndex(sets, n, vocabulary), QuestionIndex(sets, vocabulary, min_words)


def clean_unit(
    out: Path,
    folder: str,
    hash: str,
    sets: Sequence[Mapping[str, Any]],
    n: int,
    min_words: int,
    remove: bool,
) -> dict[str, Any]:
    """Write a unit's pages without test questions, and what it shares with the sets (a task)."""
    vocabulary, grams, questions = _indices(json.dumps(list(sets)), n, min_words)
    count, seen = Count(), np.zeros(grams.size, bool)
    per_set = [
        {"pages_shared": 0, "words_inside": 0, "pages_flagged": 0, "questions": 0} for _ in sets
    ]
    totals = {"pages": 0, "words": 0}
    examples: list[set[int]] = [set() for _ in sets]
    schema = Unit(key="", folder=Path(folder), hash="", rows=0).schema

    def cleaned() -> Iterator[pa.RecordBatch]:
        for batch in read_pages(folder):
            texts = [text or "" for text in batch.column("text").to_pylist()]
            pages = [vocabulary.numbers(words_of(text)) for text in texts]
            shared = grams.scan(pages)
            seen[shared.grams] = True
            totals["pages"] += len(pages)
            totals["words"] += int(shared.words.sum())
            for number, facts in enumerate(per_set):
                facts["pages_shared"] += int((shared.inside[:, number] > 0).sum())
                facts["words_inside"] += int(shared.inside[:, number].sum())
            matches = questions.scan(pages)
            for found in matches:
                for number in {match.set for match in found}:
                    per_set[number]["pages_flagged"] += 1
                for match in found:
                    examples[match.set].add(match.example)
            left = batch
            if remove and any(matches):
                left = _cut(batch, texts, matches)
            count.pages_in += batch.num_rows
            count.bytes_in += text_bytes(batch)
            count.bytes_out += text_bytes(left)
            count.reasons["only test text"] += batch.num_rows - left.num_rows
            yield left

    count.pages_out = write_pages(out, cleaned(), schema)
    count.reasons = +count.reasons
    for facts, known in zip(per_set, examples, strict=True):
        facts["questions"] = len(known)
    np.save(out / "grams.npy", np.packbits(seen))
    write_json(out / "examples.json", [sorted(known) for known in examples])
    stats = {"rows": count.pages_out, "count": count.to_plain(), **totals}
    write_json(out / "shared.json", {**totals, "sets": per_set})
    return stats


def _cut(batch: pa.RecordBatch, texts: list[str], matches: Sequence[Any]) -> pa.RecordBatch:
    keep = np.ones(len(texts), bool)
    for i, found in enumerate(matches):
        if found:
            texts[i] = without(texts[i], [span for match in found for span in match.spans])
            keep[i] = bool(words_of(texts[i]))
    columns = {name: batch.column(name) for name in batch.schema.names}
    columns["text"] = pa.array(texts, batch.schema.field("text").type)
    full = pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)
    return full.filter(pa.array(keep))


def summary(
    folders: Sequence[Path], sets: Sequence[Mapping[str, Any]], n: int, min_words: int = 1
) -> dict[str, Any]:
    """Add up what the units share with the sets.

    Returns:
        `pages`, `words`, `n`, and for each set under `sets`: `words`, `words_shared` (in runs that
        any page holds), `examples`, `examples_shared`, `pages_shared`, `words_inside` (of pages, in
        runs that the set holds), `pages_flagged` and `questions_flagged` by the set's rule.
    """
    _, grams, questions = _indices(json.dumps(list(sets)), n, min_words)
    seen = np.zeros(grams.size, bool)
    totals = {"pages": 0, "words": 0}
    added = [{"pages_shared": 0, "words_inside": 0, "pages_flagged": 0} for _ in sets]
    flagged: list[set[int]] = [set() for _ in sets]
    for folder in folders:
        seen |= np.unpackbits(np.load(folder / "grams.npy"), count=grams.size).astype(bool)
        found = read_json(folder / "shared.json")
        for name in totals:
            totals[name] += found[name]
        for facts, own in zip(added, found["sets"], strict=True):
            for name in facts:
                facts[name] += own[name]
        for known, own in zip(flagged, read_json(folder / "examples.json"), strict=True):
            known.update(own)
    rows = [
        {
            "name": one["name"],
            "rule": one["rule"],
            **covered,
            **facts,
            "questions_flagged": len(known),
        }
        for one, covered, facts, known in zip(
            sets, grams.coverage(seen), added, flagged, strict=True
        )
    ]
    return {**totals, "n": n, "unmatchable": questions.unmatchable, "sets": rows}


def report_table(found: Mapping[str, Any]) -> str:
    """Return the report as a plain table."""
    header = [
        "set",
        "rule",
        "words",
        "shared %",
        "examples",
        "with run",
        "flagged",
        "pages flagged",
    ]
    rows = []
    for one in found["sets"]:
        share = 100 * one["words_shared"] / max(one["words"], 1)
        numbers = (one["examples"], one["examples_shared"], one["questions_flagged"])
        rows.append(
            [one["name"], one["rule"], f"{one['words']:,}", f"{share:.2f}"]
            + [f"{number:,}" for number in (*numbers, one["pages_flagged"])]
        )
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    ]
    pages = (
        f"{found['pages']:,} pages, {found['words']:,} words, runs of {found['n']} words or more"
    )
    return "\n".join([pages, *lines])
