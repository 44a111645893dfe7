"""Captions of scenes of two or three digits: one canonical sentence and many paraphrases."""

from __future__ import annotations

import numpy as np

from understudy.data.scenes.words import (
    COLOURS,
    DIGIT_WORDS,
    SIZE_SYNONYMS,
    SIZES,
    with_article,
)

RELATIONS = ("left of", "above")
"""How the second digit lies to the first; `right of` and `below` say it from the other side."""

_INVERSE = ("right of", "below")
_THIRD = (("above", "below"), ("left of", "right of"))
_SENTENCES = (
    "{a} {relation} {b}",
    "{b} {inverse} {a}",
    "a picture of {a} {relation} {b}",
    "{a} and {b}",
    "there is {a}, and {b} is {inverse} it",
    "handwritten: {a} {relation} {b}",
    "some numbers, {a} {relation} {b}",
    "we see {b} {inverse} {a}",
)
_THIRDS = ("with {c} {third} them", "and {c} {third} both", "plus {c} {third} these")
_NUM_DRAWS = 12


def third_word(relation: int, third: int) -> str:
    """Return where the third digit is: 0 is above (or left of) the pair, 1 is below (right of)."""
    return _THIRD[relation][third]


def canonical(digits: np.ndarray, sizes: np.ndarray, relation: int, third: int, count: int) -> str:
    """Return the plain sentence, such as "a large 3 left of a small 7"."""
    things = [with_article(f"{SIZES[sizes[j]]} {digits[j]}") for j in range(count)]
    text = f"{things[0]} {RELATIONS[relation]} {things[1]}"
    if count > 2:
        text += f" with {things[2]} {third_word(relation, third)} them"
    return text


def paraphrase(
    digits: np.ndarray,
    sizes: np.ndarray,
    colours: np.ndarray,
    relation: int,
    third: int,
    count: int,
    draws: np.ndarray,
) -> str:
    """Return a true sentence in other words.

    Args:
        digits: the digits, int [M].
        sizes: number of the size word of each, int [M].
        colours: number of the colour word of each, int [M].
        relation: index into `RELATIONS`.
        third: which side of the pair the third digit is on.
        count: how many digits there are, 2 or 3.
        draws: uniform numbers, float [12]: sentence, number style, then what each digit's
            description mentions.
    """
    style = draws[0] < 0.5
    things = []
    for j in range(count):
        size_draw, colour_draw, size_pick = draws[3 + 3 * j : 6 + 3 * j]
        words = []
        if size_draw < 0.7:
            options = SIZE_SYNONYMS[sizes[j]]
            words.append(options[int(size_pick * len(options))])
        if colour_draw < 0.5:
            words.append(COLOURS[colours[j]])
        words.append(DIGIT_WORDS[digits[j]] if style else str(digits[j]))
        things.append(with_article(" ".join(words)))
    sentence = _SENTENCES[int(draws[1] * len(_SENTENCES))]
    text = sentence.format(
        a=things[0], b=things[1], relation=RELATIONS[relation], inverse=_INVERSE[relation]
    )
    if count > 2:
        tail = _THIRDS[int(draws[2] * len(_THIRDS))]
        text += " " + tail.format(c=things[2], third=third_word(relation, third))
    return text


def captions(
    digits: np.ndarray,
    sizes: np.ndarray,
    colours: np.ndarray,
    relation: np.ndarray,
    third: np.ndarray,
    counts: np.ndarray,
    num_captions: int,
    draw: np.random.Generator,
) -> list[list[str]]:
    """Return `num_captions` clean captions of each scene, the canonical one first."""
    draws = draw.random((len(counts), max(num_captions - 1, 0), _NUM_DRAWS))
    out = []
    for i in range(len(counts)):
        facts = (int(relation[i]), int(third[i]), int(counts[i]))
        mine = [canonical(digits[i], sizes[i], *facts)]
        mine += [paraphrase(digits[i], sizes[i], colours[i], *facts, d) for d in draws[i]]
        out.append(mine[:num_captions])
    return out


CLASSES = tuple((a, b) for a in range(10) for b in range(a, 10))
"""The 55 unordered pairs of digits."""

_PROMPTS = ("{a} and {b}", "{b} and {a}", "a picture of {a} and {b}", "some numbers, {a} and {b}")


def class_prompts() -> list[list[str]]:
    """Return the zero-shot prompts of each of the 55 classes, with figures and with words."""
    out = []
    for a, b in CLASSES:
        figures = (with_article(str(a)), with_article(str(b)))
        words = (with_article(DIGIT_WORDS[a]), with_article(DIGIT_WORDS[b]))
        out.append([p.format(a=x, b=y) for x, y in (figures, words) for p in _PROMPTS])
    return out


def class_of(digits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the class of each scene, int64 [N]; -1 where there are not exactly two digits."""
    table = np.full((10, 10), -1, np.int64)
    for k, (a, b) in enumerate(CLASSES):
        table[a, b] = table[b, a] = k
    return np.where(counts == 2, table[digits[:, 0], digits[:, 1]], -1)
