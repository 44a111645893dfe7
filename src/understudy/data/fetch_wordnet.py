"""WordNet's definitions as documents.

References:
    WordNet 3.0, wndb(5WN): the fields of a synset line; lexnames(5WN): the lexicographer files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from understudy.core.errors import DataError
from understudy.data.corpora.document import Document, read_text

LEXNAMES = (
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact",
    "noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event",
    "noun.feeling", "noun.food", "noun.group", "noun.location", "noun.motive", "noun.object",
    "noun.person", "noun.phenomenon", "noun.plant", "noun.possession", "noun.process",
    "noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time",
    "verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition",
    "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion",
    "verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl",
)  # fmt: skip
SYNSETS = 40
"""Definitions a document."""


def synset(line: str, where: str) -> tuple[str, list[str], str]:
    """Return lexicographer file, words and gloss of a line of a data file.

    Raises:
        DataError: not such a line.
    """
    fields, bar, gloss = line.partition(" | ")
    parts = fields.split()
    try:
        count = int(parts[3], 16)
        words = [word.split("(")[0].replace("_", " ") for word in parts[4 : 4 + 2 * count : 2]]
        lexname = LEXNAMES[int(parts[1])]
    except (IndexError, ValueError):
        count, words, lexname = 0, [], ""
    if not bar or not words or len(words) != count:
        raise DataError(f"{where}: not a synset: '{line[:60]}'.")
    return lexname, words, gloss.strip()


def wordnet(folder: Path) -> Iterator[Document]:
    """Yield documents of 40 definitions of one field of meaning, which is the group.

    Raises:
        DataError: a line isn't a synset; the message names file and line.
    """
    for part in ("noun", "verb", "adj", "adv"):
        waiting: dict[str, list[str]] = {}
        counts: dict[str, int] = {}
        path = folder / f"data.{part}"
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            if line[:1] in (" ", ""):
                continue  # the licence at the top; reading has removed trailing blanks
            lexname, words, gloss = synset(line, f"{path}, line {number}")
            lines = waiting.setdefault(lexname, [])
            lines.append(f"{', '.join(words)}: {gloss}.")
            if len(lines) == SYNSETS:
                yield _document(part, lexname, counts, waiting.pop(lexname))
        for lexname, lines in waiting.items():
            yield _document(part, lexname, counts, lines)


def _document(part: str, lexname: str, counts: dict[str, int], lines: list[str]) -> Document:
    number = counts[lexname] = counts.get(lexname, -1) + 1
    return Document(
        id=f"wordnet/{part}/{lexname}/{number:04d}",
        text="\n".join(lines),
        source="wordnet",
        url=f"https://wordnet.example/{lexname}/{number:04d}",
        group=f"wordnet/{lexname}",
    )
