"""Exact and near copies of documents, as mirrors of web pages make them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from understudy.core.seeds import rng
from understudy.data.corpora.document import Document, paragraphs

_FURNITURE = (
    "Home | About | Contact", "Mirrored from the original site", "Share this page", "Print version",
    "Last updated: {n} days ago", "Page {n} of {m}", "Cookies help us deliver our services",
)  # fmt: skip


def exact_copy(original: Document, number: int) -> Document:
    """Return the document under the address of mirror `number`."""
    path = original.url.split("://", 1)[-1].partition("/")[2]
    return replace(
        original,
        id=f"{original.id}#copy{number}",
        url=f"https://mirror{number}.example/{path}",
    )


def near_copy(original: Document, number: int, rate: float, seed: int) -> Document:
    """Return a copy in which about `rate` of the words differ.

    Of the words drawn a third is dropped, a third replaced by another word of the document and a
    third swapped with the next word; a line of page furniture is added above or below. White space
    stays, so that lines and paragraphs are those of the original.

    Args:
        original: what to copy.
        number: which copy this is; another number perturbs other words.
        rate: chance of each word to be changed.
        seed: of the run.
    """
    random = rng("near-copy", seed, original.id, number)
    parts = re.split(r"(\s+)", original.text)  # words at even places, white space at odd ones
    words = [i for i in range(0, len(parts), 2) if parts[i]]
    hit = random.random(len(words)) < rate
    if not hit.any() and words:
        hit[int(random.integers(len(words)))] = True
    for j in np.flatnonzero(hit):
        i, how = words[j], int(random.integers(3))
        if how == 0:
            parts[i] = ""
        elif how == 1:
            parts[i] = parts[words[int(random.integers(len(words)))]]
        elif j + 1 < len(words):
            k = words[j + 1]
            parts[i], parts[k] = parts[k], parts[i]
    line = str(random.choice(_FURNITURE))
    line = line.format(n=int(random.integers(1, 90)), m=int(random.integers(90, 200)))
    text = "".join(parts).strip("\n")
    text = f"{line}\n\n{text}" if random.random() < 0.5 else f"{text}\n\n{line}"
    return replace(exact_copy(original, number), text=text)


def shared_share(text: str, known: set[str], least_words: int = 13) -> float:
    """Return the share of a text's paragraphs of at least `least_words` words that are in `known`.

    Args:
        text: the text.
        known: `paragraph_keys` of other texts.
        least_words: shorter paragraphs ("Returns:") say nothing about copying.
    """
    keys = paragraph_keys(text, least_words)
    return sum(key in known for key in keys) / len(keys) if keys else 0.0


def paragraph_keys(text: str, least_words: int = 13) -> list[str]:
    """Return the paragraphs of at least `least_words` words, case and white space normalised."""
    found = (" ".join(block.lower().split()) for block in paragraphs(text))
    return [block for block in found if block.count(" ") + 1 >= least_words]
