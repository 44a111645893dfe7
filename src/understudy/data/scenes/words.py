"""The words of scenes: names of digits, colours and sizes, and how alt texts go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from understudy.core.errors import ConfigError

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROMAN = ("nought", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
SIZES = ("small", "medium", "large")
SIZE_SYNONYMS = (("small", "little", "tiny"), ("medium", "mid-sized"), ("large", "big", "huge"))
COLOURS = ("black", "red", "blue", "green", "orange", "purple")
COLOUR_RGB = np.array(
    [(25, 25, 25), (200, 30, 30), (30, 60, 200), (20, 130, 50), (225, 125, 10), (130, 40, 150)],
    np.float32,
)
JUNK = (
    "photo", "image", "picture", "img", "jpg", "png", "download", "free", "click", "here", "hd",
    "wallpaper", "stock", "www", "copy", "thumbnail", "new", "best", "2019", "2021", "page",
    "home", "share", "view", "full", "banner", "buy", "now", "untitled", "scan", "final", "preview",
)  # fmt: skip


def number_word(digit: int, style: int) -> str:
    """Return one of five ways to write a digit: 7, seven, VII, number 7, the number after six."""
    near = f"after {DIGIT_WORDS[digit - 1]}" if digit else "before one"
    ways = (str(digit), DIGIT_WORDS[digit], ROMAN[digit], f"number {digit}", f"the number {near}")
    return ways[style]


def with_article(words: str) -> str:
    """Return "a seven", "an eight", "an 8", "a one"."""
    first = words.split()[0]
    vowel = (first[0] in "aeiou" and first != "one") or first in ("8", "11", "18")
    return f"{'an' if vowel else 'a'} {words}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """How a clean caption turns into alt text; every rate is a probability in [0, 1].

    Attributes:
        drop: a correct word is left out.
        swap: a correct word is replaced by one of another sample's caption (after `drop`, so
            `drop + swap <= 1`).
        mismatch: the whole caption is another sample's.
        junk: mean number of junk words put in at random places.
    """

    drop: float = 0.4
    swap: float = 0.2
    mismatch: float = 0.0
    junk: float = 1.5

    def __post_init__(self) -> None:
        for name in ("drop", "swap", "mismatch"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"caption noise: '{name}' must lie in [0, 1], got {value}.")
        if self.drop + self.swap > 1:
            raise ConfigError(
                f"caption noise: drop + swap must be at most 1, got {self.drop} + {self.swap}."
            )
        if self.junk < 0:
            raise ConfigError(f"caption noise: 'junk' must be >= 0, got {self.junk}.")

    @classmethod
    def none(cls) -> Noise:
        """Return no noise: captions stay as they are."""
        return cls(drop=0.0, swap=0.0, mismatch=0.0, junk=0.0)

    def scaled(self, level: float) -> Noise:
        """Return this noise with every rate times `level` (0 = clean, 1 = as it is)."""
        return Noise(
            drop=self.drop * level,
            swap=self.swap * level,
            mismatch=self.mismatch * level,
            junk=self.junk * level,
        )


def as_noise(noise: Noise | float | dict[str, float] | None) -> Noise:
    """Return a `Noise` from one, from its rates, from a level, or none.

    Raises:
        ConfigError: an unknown rate or a rate outside its range.
    """
    if isinstance(noise, Noise):
        return noise
    if noise is None:
        return Noise.none()
    if isinstance(noise, int | float):
        return Noise().scaled(float(noise))
    known = set(Noise.__slots__)  # type: ignore[attr-defined]
    for name in noise:
        if name not in known:
            raise ConfigError(
                f"caption noise: unknown rate '{name}'; expected {', '.join(sorted(known))}."
            )
    return Noise(**noise)


def corrupt(
    captions: Sequence[str],
    noise: Noise,
    draw: np.random.Generator,
    *,
    never_empty: bool = True,
) -> list[str]:
    """Return alt texts made of clean captions.

    Args:
        captions: the clean ones; "another sample" is one of these.
        noise: the rates.
        draw: where randomness comes from; its use depends on the captions alone, not on the rates,
            so that two noise levels differ as little as they can.
        never_empty: a text that lost all its words gets one junk word.
    """
    words = [caption.split() for caption in captions]
    count, longest = len(words), max((len(w) for w in words), default=0)
    fate = draw.random((count, longest))
    other = draw.integers(max(count, 1), size=(count, longest))
    pick = draw.random((count, longest))
    strangers = draw.integers(max(count, 1), size=count)
    wrong = draw.random(count) < noise.mismatch
    junk_count = _poisson(noise.junk, draw.random(count))
    junk_word = draw.integers(len(JUNK), size=(count, 8))
    junk_place = draw.random((count, 8))
    out = []
    for i in range(count):
        mine = words[int(strangers[i])] if wrong[i] else words[i]
        kept = []
        for j, word in enumerate(mine):
            if fate[i, j] < noise.drop:
                continue
            if fate[i, j] < noise.drop + noise.swap:
                foreign = words[int(other[i, j])]
                word = foreign[int(pick[i, j] * len(foreign))] if foreign else word
            kept.append(word)
        for k in range(int(junk_count[i])):
            kept.insert(int(junk_place[i, k] * (len(kept) + 1)), JUNK[int(junk_word[i, k])])
        if not kept and never_empty:
            kept = [JUNK[int(junk_word[i, 0])]]
        out.append(" ".join(kept))
    return out


def _poisson(mean: float, uniform: np.ndarray, limit: int = 8) -> np.ndarray:
    """Return Poisson numbers by inversion, cut at `limit`: monotone in `mean` for equal draws."""
    k = np.arange(limit)
    log_factorial = np.cumsum(np.log(np.maximum(k, 1)))
    mass = np.exp(k * np.log(mean) - mean - log_factorial) if mean > 0 else (k == 0) * 1.0
    return np.minimum((uniform[:, None] >= np.cumsum(mass)).sum(axis=1), limit)
