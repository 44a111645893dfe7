"""Captions of scenes on photographs: every object with its size, colour, name and place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from understudy.data.scenes.words import COLOURS, DIGIT_WORDS, SIZE_SYNONYMS, SIZES, with_article

PLACES = ("top left", "top right", "bottom left", "bottom right")
_FRAMES = ("{} on {}", "{}, on {}", "{} before {}", "a picture of {} on {}")


def _thing(facts: Mapping[str, np.ndarray], i: int, j: int, d: np.ndarray | None) -> str:
    """Describe one object; `d` are four uniform numbers for a paraphrase, None is canonical."""
    digit, size = int(facts["digits"][i, j]), int(facts["sizes"][i, j])
    colour, place = COLOURS[facts["colours"][i, j]], PLACES[facts["places"][i, j]]
    if d is None:
        return f"a {SIZES[size]} {colour} {DIGIT_WORDS[digit]} in the {place}"
    names = SIZE_SYNONYMS[size]
    words = [names[int(d[0] / 0.7 * len(names))]] if d[0] < 0.7 else []
    words += [colour] if d[1] < 0.7 else []
    words.append(DIGIT_WORDS[digit] if d[2] < 0.6 else str(digit))
    where = ("in the {}", "at the {}", "{}")[int(d[3] * 3)].format(place)
    return f"{with_article(' '.join(words))} {where}"


def captions(
    facts: Mapping[str, np.ndarray], grounds: Sequence[str], number: int, draw: np.random.Generator
) -> list[list[str]]:
    """Return `number` clean captions of each scene, the canonical one first.

    Args:
        facts: counts, digits, sizes, colours, places and background of the scenes.
        grounds: what each background is called.
        number: captions per scene.
        draw: where the paraphrases come from.
    """
    counts, background = facts["counts"], facts["background"]
    num = facts["digits"].shape[1]
    draws = draw.random((len(counts), max(number - 1, 0), num, 4))
    style = draw.random((len(counts), max(number - 1, 0)))
    out = []
    for i in range(len(counts)):
        n, ground = int(counts[i]), grounds[background[i]]
        plain = " and ".join(_thing(facts, i, j, None) for j in range(n))
        mine = [f"{plain} on {ground}"]
        for k in range(number - 1):
            things = " and ".join(_thing(facts, i, j, draws[i, k, j]) for j in range(n))
            mine.append(_FRAMES[int(style[i, k] * len(_FRAMES))].format(things, ground))
        out.append(mine)
    return out
