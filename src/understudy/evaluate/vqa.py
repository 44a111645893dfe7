"""Scores of answers to questions about images: pure functions of texts.

Accuracies and scores are fractions in [0, 1]; every function refuses empty input and lists of
different lengths.

References:
    arXiv 1505.00468, sec. 3 (VQA accuracy); arXiv 1905.13648, sec. 4 (ANLS); arXiv 2305.10355
    (POPE); arXiv 2203.10244, sec. 5 (relaxed accuracy).
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from understudy.core.errors import DataError

HUMANS = 10
AGREEING = 3
THRESHOLD = 0.5
TOLERANCE = 0.05
_ARTICLES = {"a", "an", "the"}
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_INSIDE = {".": "\x00", ",": "", ":": "\x01"}
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation.replace("'", ""), " "))


def _pairs(answers: Sequence[str], truths: Sequence[object], what: str) -> None:
    if len(answers) != len(truths) or not answers:
        raise DataError(
            f"{what}: {len(answers)} answers for {len(truths)} questions; expected one each, at "
            "least one."
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def clean_answer(text: str) -> str:
    """Return an answer as VQA compares it: lower case, no articles, digits for number words.

    `2.5` and `9:30` keep their marks, `1,000` becomes `1000`; elsewhere punctuation is a space.
    """
    text = re.sub(r"(?<=\d)[.,:](?=\d)", lambda found: _INSIDE[found[0]], text.lower().strip())
    words = text.translate(_PUNCTUATION).replace("\x00", ".").replace("\x01", ":").split()
    return " ".join(_NUMBERS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answers: Sequence[str], humans: Sequence[Sequence[str]]) -> float:
    """Return the mean VQA accuracy: min(1, matches / 3), averaged over all but one of the humans.

    Args:
        answers: one a question.
        humans: each question's answers, usually ten; leaving one out needs at least two, a single
            one is compared exactly.
    """
    _pairs(answers, humans, "vqa_accuracy")
    return _mean([_vqa(a, list(h)) for a, h in zip(answers, humans, strict=True)])


def _vqa(answer: str, humans: list[str]) -> float:
    if not humans:
        raise DataError("vqa_accuracy: a question without any human answer.")
    cleaned = clean_answer(answer)
    hits = [clean_answer(h) == cleaned for h in humans]
    if len(hits) == 1:
        return float(hits[0])
    total = sum(hits)
    return _mean([min(1.0, (total - hit) / AGREEING) for hit in hits])


def edit_distance(a: str, b: str) -> int:
    """Return the Levenshtein distance: insertions, deletions and substitutions of characters."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def anls(
    answers: Sequence[str], truths: Sequence[Sequence[str]], threshold: float = THRESHOLD
) -> float:
    """Return the average normalised Levenshtein similarity.

    1 - d if the edit distance d, divided by the longer text's length, is below the threshold, else
    0; the best over a question's accepted answers. Case and outer spaces do not count.

    Args:
        answers: one a question.
        truths: each question's accepted answers.
        threshold: of the normalised distance.
    """
    _pairs(answers, truths, "anls")
    scores = []
    for answer, accepted in zip(answers, truths, strict=True):
        if not accepted:
            raise DataError("anls: a question without any accepted answer.")
        scores.append(max(_similarity(answer, truth, threshold) for truth in accepted))
    return _mean(scores)


def _similarity(answer: str, truth: str, threshold: float) -> float:
    a, b = (" ".join(text.lower().split()) for text in (answer, truth))
    longest = max(len(a), len(b))
    distance = edit_distance(a, b) / longest if longest else 0.0
    return 1.0 - distance if distance < threshold else 0.0


def says_yes(text: str) -> bool:
    """Return whether an answer means yes: as POPE reads it, no word of its first sentence denies.

    An answer counts as no if `no` or `not` is among the words of its first sentence.
    """
    words = text.split(".")[0].replace(",", " ").lower().split()
    return not {"no", "not"} & set(words)


def pope(answers: Sequence[str], truths: Sequence[str]) -> dict[str, float]:
    """Return POPE's scores: `accuracy`, `precision`, `recall`, `f1` and `yes_ratio`.

    Args:
        answers: free texts.
        truths: `"yes"` or `"no"` each. Without any yes said, precision and F1 are 0.

    Raises:
        DataError: a truth is neither.
    """
    _pairs(answers, truths, "pope")
    for truth in truths:
        if truth not in ("yes", "no"):
            raise DataError(f"pope: the truth is {truth!r}; expected yes or no.")
    said = [says_yes(answer) for answer in answers]
    real = [truth == "yes" for truth in truths]
    hits = sum(s and r for s, r in zip(said, real, strict=True))
    precision = hits / sum(said) if any(said) else 0.0
    recall = hits / sum(real) if any(real) else 0.0
    both = precision + recall
    return {
        "accuracy": _mean([float(s == r) for s, r in zip(said, real, strict=True)]),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
        "yes_ratio": _mean([float(s) for s in said]),
    }


def _number(text: str) -> float | None:
    cleaned = text.strip().replace(",", "")
    share = cleaned.endswith("%")
    try:
        value = float(cleaned.rstrip("%"))
    except ValueError:
        return None
    return value / 100 if share else value


def relaxed_match(answer: str, truth: str, tolerance: float = TOLERANCE) -> bool:
    """Return whether an answer is right up to 5 %: numbers by value, texts exactly but for case.

    A truth of 0 has no relative error: the answer must be 0.
    """
    given, wanted = _number(answer), _number(truth)
    if given is None or wanted is None:
        return answer.strip().lower() == truth.strip().lower()
    if wanted == 0:
        return given == 0
    # equal texts stay equal whatever rounding does to their quotient
    return abs(given - wanted) <= tolerance * abs(wanted) * (1 + 1e-12)


def relaxed_accuracy(
    answers: Sequence[str], truths: Sequence[str], tolerance: float = TOLERANCE
) -> float:
    """Return the share of answers that are right up to a tolerance, see `relaxed_match`."""
    _pairs(answers, truths, "relaxed_accuracy")
    pairs = zip(answers, truths, strict=True)
    return _mean([float(relaxed_match(a, t, tolerance)) for a, t in pairs])


def choice_of(answer: str, choices: Sequence[str]) -> int | None:
    """Return the number of the choice that an answer names: its letter first, or its whole text.

    `B`, `(b)`, `B.`, `B: the dog` and `the dog` all name the second of (the cat, the dog). A letter
    that begins a word does not count.
    """
    text = " ".join(answer.split())
    for i, choice in enumerate(choices):
        if clean_answer(text) == clean_answer(choice):
            return i
    found = re.match(r"^\(?([A-Za-z])(?:[).:,](?=\s|$)|$)", text)
    if found:
        place = ord(found[1].upper()) - ord("A")
        return place if place < len(choices) else None
    return None


def choice_accuracy(
    answers: Sequence[str], truths: Sequence[int], choices: Sequence[Sequence[str]]
) -> float:
    """Return the share of answers that name the right choice; see `choice_of`.

    Args:
        answers: one a question.
        truths: number of the right choice, from 0.
        choices: each question's choices.
    """
    _pairs(answers, truths, "choice_accuracy")
    _pairs(answers, choices, "choice_accuracy")
    for truth, offered in zip(truths, choices, strict=True):
        if not 0 <= truth < len(offered):
            raise DataError(f"choice_accuracy: no choice {truth} among {len(offered)}.")
    found = [choice_of(a, c) for a, c in zip(answers, choices, strict=True)]
    return _mean([float(f == t) for f, t in zip(found, truths, strict=True)])


def exact_accuracy(answers: Sequence[str], truths: Sequence[str]) -> float:
    """Return the share of answers that equal the truth, cleaned as `clean_answer` does."""
    _pairs(answers, truths, "exact_accuracy")
    pairs = zip(answers, truths, strict=True)
    return _mean([float(clean_answer(a) == clean_answer(t)) for a, t in pairs])


def avg5(gqa: float, textvqa: float, pope_f1: float, docvqa: float, seed_image: float) -> float:
    """Return Avg-5, the mean of five benchmarks (arXiv 2412.13303), all in one unit."""
    return (gqa + textvqa + pope_f1 + docvqa + seed_image) / 5
