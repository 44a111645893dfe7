"""Pages that steps dropped, kept with the reason for those who want to look."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

from understudy.core.files import atomic_path
from understudy.curate.engine.pages import Page, pages_of
from understudy.curate.engine.stage import origin
from understudy.curate.engine.units import read_pages

FOLDER = "dropped"
"""Where, in a task's output folder, its dropped pages are: one file a step."""


def step_folder(number: int, name: str) -> str:
    """Return a file name for a step."""
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    return f"{number:02d}-{safe}"


class DroppedWriter:
    """Writes dropped pages as JSON lines, compressed, one file a step; equal pages, equal bytes.

    Args:
        out: folder of the task.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER
        self._raw: dict[str, BinaryIO] = {}
        self._files: dict[str, gzip.GzipFile] = {}

    def write(self, number: int, name: str, page: Page, reason: str) -> None:
        """Write a page.

        Args:
            number: of the step in the pipeline.
            name: of the step.
            page: as the step left it.
            reason: why it was dropped.
        """
        key = step_folder(number, name)
        if key not in self._files:
            self.folder.mkdir(exist_ok=True)
            raw = self._raw[key] = open(self.folder / f"{key}.jsonl.gz", "wb")
            # no name and no time in its head, so that equal pages give equal bytes
            self._files[key] = gzip.GzipFile("", "wb", 6, raw, 0)
        record = {
            "id": page.id,
            "text": page.text,
            "url": page.url,
            "source": page.source,
            "metadata": page.facts(),
            **page.data,
            "dropped_by": name,
            "reason": reason,
        }
        line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
        self._files[key].write(line.encode("utf-8", "replace"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for key, file in self._files.items():
            file.close()
            self._raw[key].close()


def dropped_between(
    *, out: Path, before: str, before_hash: str, after: str, after_hash: str, number: int, name: str
) -> dict[str, int]:
    """Write the pages of one unit that another lacks: a task after a step over all units.

    Args:
        out: where to.
        before: folder of the unit that went in.
        before_hash: its content, part of the task's identity.
        after: folder of the unit that came out.
        after_hash: its content.
        number: of the step.
        name: of the step.
    """
    kept: set[str] = set()
    for batch in read_pages(after):
        kept |= {origin(id) for id in batch.column("id").to_pylist()}
    pages = 0
    with DroppedWriter(Path(out)) as writer:
        for batch in read_pages(before):
            for page in pages_of(batch):
                if origin(page.id) not in kept:
                    writer.write(number, name, page, name)
                    pages += 1
    return {"pages": pages}


def collect(folders: Iterable[tuple[str, Path]], target: Path) -> int:
    """Copy the dropped pages of tasks to `target/<step>/<unit>.jsonl.gz`.

    Args:
        folders: (name of the unit's files, output folder of its task).
        target: where to.

    Returns:
        How many files there are.
    """
    for stale in target.glob("*/.*.jsonl.gz.*.tmp"):  # of a copy that was killed
        stale.unlink(missing_ok=True)
    number = 0
    for unit, folder in folders:
        for file in sorted((folder / FOLDER).glob("*.jsonl.gz")):
            step = file.name.removesuffix(".jsonl.gz")
            with atomic_path(target / step / f"{unit}.jsonl.gz") as path:
                shutil.copyfile(file, path)
            number += 1
    return number
