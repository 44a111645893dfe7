"""A score without a model: how much a page looks like running English prose.

Eight features are computed from characters and words; each is turned into a number f in [0, 1] by a
trapezoid that is nearly 1 over the range usual for prose and falls to 0 outside. It is highest in
the middle of that range, by 5 %: were it flat, most good pages would have one and the same score,
and no share of them could be chosen. The score is the geometric mean with a floor,
(prod max(f, 0.02))^(1/8), so that one bad feature counts and several count more. It orders pages;
its absolute size means nothing, so use it with a percentile or its rank in the pool
(`quality-threshold`, options `keep` and `rank`).

Words are what white space separates; a letter is a Latin letter or any character beyond ASCII; a
sentence ends at a word whose last character, quotes and brackets aside, is one of . ! ?
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from understudy.models.text.fasttext_lines import split_lines
from understudy.models.text.fasttext_runs import run_sums

FORMULA = 2
"""Version of the formula; part of what decides a score."""

TRAPEZOIDS: Mapping[str, tuple[float, float, float, float]] = {
    "letters": (0.60, 0.76, 1.0, 1.01),  # among characters that are no white space
    "capitals": (-1.0, 0.0, 0.10, 0.35),  # among ASCII letters
    "digits": (-1.0, 0.0, 0.04, 0.20),  # among characters that are no white space
    "word_length": (2.5, 3.8, 6.5, 9.0),  # letters a word
    "stop_words": (0.05, 0.25, 0.60, 0.75),  # among words
    "sentence_words": (3.0, 8.0, 35.0, 90.0),  # words a sentence
    "variety": (0.70, 0.82, 0.98, 1.20),  # log of different words over log of words
    "log_words": (1.0, 2.1, 6.0, 8.0),  # log10 of the number of words
}
"""Where each feature starts to count, is full, stops being full and no longer counts."""
_FLOOR = 0.02
DOME = 0.05
"""How much lower the ends of the usual range are than its middle."""
_STOP = frozenset(
    (
        b"the of and to in a is that for it as was with be by on not he his at this are or from "
        b"had have which but they their you were all we her she there been one who will more "
        b"when has would so if no what can its about into than them some could these do any my "
        b"other our your i me him"
    ).split()
)
_UPPER, _LOWER, _DIGIT, _SPACE, _BEYOND, _OTHER, _CONTINUES = range(7)
_NUM_CLASSES = 7


def _classes() -> np.ndarray:
    table = np.full(256, _OTHER, np.uint8)
    table[ord("A") : ord("Z") + 1] = _UPPER
    table[ord("a") : ord("z") + 1] = _LOWER
    table[ord("0") : ord("9") + 1] = _DIGIT
    table[list(b" \t\n\r\x0b\x0c")] = _SPACE
    table[0x80:0xC0] = _CONTINUES
    table[0xC0:] = _BEYOND
    return table


_CLASS = _classes()


def features(texts: pa.Array) -> dict[str, np.ndarray]:
    """Return each feature of `TRAPEZOIDS`, float64 [N]; a text without words has zeros."""
    characters = _character_counts(texts)
    lines = split_lines(texts)
    is_stop, ends, length = _word_facts(lines.words)
    counts = lines.counts - 1  # without the mark that closes each line
    words = np.maximum(counts, 1)
    letters = characters[:, [_UPPER, _LOWER, _BEYOND]].sum(1)
    visible = np.maximum(letters + characters[:, [_DIGIT, _OTHER]].sum(1), 1)
    ascii_letters = np.maximum(characters[:, [_UPPER, _LOWER]].sum(1), 1)
    sentences = run_sums(ends[lines.codes], lines.counts)
    different = _different(lines.codes, lines.counts, len(lines.words)) - 1
    return {
        "letters": letters / visible,
        "capitals": characters[:, _UPPER] / ascii_letters,
        "digits": characters[:, _DIGIT] / visible,
        "word_length": run_sums(length[lines.codes], lines.counts) / words,
        "stop_words": run_sums(is_stop[lines.codes], lines.counts) / words,
        "sentence_words": counts / np.maximum(sentences, 1),
        "variety": np.log(np.maximum(different, 1)) / np.log(np.maximum(counts, 2)),
        "log_words": np.log10(np.maximum(counts, 1)),
    }


def prose_scores(texts: pa.Array) -> np.ndarray:
    """Return the score of each text, float32 [N] in (0, 1]."""
    if len(texts) == 0:
        return np.zeros(0, np.float32)
    logs = np.zeros(len(texts))
    for name, values in features(texts).items():
        logs += np.log(np.maximum(trapezoid(values, *TRAPEZOIDS[name]), _FLOOR))
    return np.exp(logs / len(TRAPEZOIDS)).astype(np.float32)


def trapezoid(values: np.ndarray, a: float, b: float, c: float, d: float) -> np.ndarray:
    """Return 0 up to a, rising to 1 - DOME at b, 1 midway between b and c, falling to 0 at d."""
    sides = np.clip(np.minimum((values - a) / (b - a), (d - values) / (d - c)), 0, 1)
    middle = np.clip((values - b) / (c - b), 0, 1) * 2 - 1
    return sides * (1 - DOME * middle**2)


def _character_counts(texts: pa.Array) -> np.ndarray:
    """Return int64 [N, classes]: how many characters of each class a text has."""
    sizes = pc.call_function("binary_length", [texts]).to_numpy(zero_copy_only=False)
    data = np.frombuffer(b"".join(texts.cast(pa.large_binary()).to_pylist()), np.uint8)
    rows = np.repeat(np.arange(len(texts)) * _NUM_CLASSES, sizes)
    counts = np.bincount(rows + _CLASS[data], minlength=len(texts) * _NUM_CLASSES)
    return counts.reshape(len(texts), _NUM_CLASSES)


def _word_facts(words: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each different word: stop word or not, ends a sentence or not, letters."""
    is_stop, ends, length = (np.zeros(len(words), np.int64) for _ in range(3))
    for i, word in enumerate(words):
        if word == b"</s>":
            continue
        core = word.strip(b"\"'()[]*_`")
        ends[i] = core.endswith((b".", b"!", b"?"))
        is_stop[i] = core.rstrip(b".,;:!?").lower() in _STOP
        length[i] = _letters(word)
    return is_stop, ends, length


def _letters(word: bytes) -> int:
    if word.isalpha():
        return len(word)
    return sum(c >= 0xC0 or 65 <= c <= 90 or 97 <= c <= 122 for c in word)


def _different(codes: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    """Return int64 [N]: different words of each line."""
    rows = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    pairs = np.unique(rows * size + codes)
    return np.bincount(pairs // max(size, 1), minlength=len(counts))
