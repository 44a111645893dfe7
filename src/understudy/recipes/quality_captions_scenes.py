"""The claim's world: digits on photographs, captions of facts, four levels of noise.

A clean caption lists the digits with their places ("seven top left, three bottom right"). Noise
leaves out each fact (a digit, a place) with probability 0.5, swaps the whole caption with another
picture's with probability 0.2 and puts in junk words; milder levels scale all three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from understudy.core.provenance import versions
from understudy.core.seeds import rng
from understudy.data import scenes
from understudy.data.card import Card
from understudy.data.dense import MaskSpec
from understudy.data.scenes.words import DIGIT_WORDS, Noise, corrupt
from understudy.data.store import Store

NOISE = Noise(drop=0.5, swap=0.0, mismatch=0.2, junk=1.0)
LEVELS = {"noisy": 1.0, "medium": 2 / 3, "mild": 1 / 3, "clean": 0.0}
"""Share of the noise in each arm's captions."""
SHUFFLED = {"noisy-shuffled": "noisy", "clean-shuffled": "clean"}
"""Controls: the captions of an arm, each given to another picture."""
CAPTIONER = "clean"
CLASSES = ("background", *DIGIT_WORDS)
MASKS = MaskSpec(objects="digits", classes=CLASSES)
LEXICON = {word: word for word in DIGIT_WORDS} | {str(d): w for d, w in enumerate(DIGIT_WORDS)}
"""Nouns of these captions: the digits, however they are written."""
_JOIN = "_"  # keeps the words of one fact together while facts are dropped


def facts_of(digits: Sequence[int], places: Sequence[str]) -> str:
    """Return the facts of a scene, one word each: digit, place, digit, place, ..."""
    pairs = zip(digits, places, strict=True)
    return " ".join(f"{DIGIT_WORDS[d]} {place.replace(' ', _JOIN)}" for d, place in pairs)


def captions_at(facts: Sequence[str], level: float, seed: int) -> list[str]:
    """Return the captions of scenes at a level of noise; all levels share their random draws."""
    noisy = corrupt(facts, NOISE.scaled(level), rng("quality captions", "noise", seed))
    return [text.replace(_JOIN, " ") for text in noisy]


def columns_of(store: Store, seed: int) -> dict[str, list[Any]]:
    """Return the caption columns of all arms: name -> a value a row.

    `caption.clean` holds a list with the clean caption; `text.<arm>` the texts of an arm.
    """
    table = store.take(range(store.num_rows), ["digits", "places"])
    pairs = zip(table["digits"].to_pylist(), table["places"].to_pylist(), strict=True)
    facts = [facts_of(digits, places) for digits, places in pairs]
    texts = {name: captions_at(facts, level, seed) for name, level in LEVELS.items()}
    order = rng("quality captions", "shuffle", seed).permutation(len(facts))
    texts |= {name: [texts[source][i] for i in order] for name, source in SHUFFLED.items()}
    found: dict[str, list[Any]] = {f"caption.{CAPTIONER}": [[text] for text in texts["clean"]]}
    return found | {f"text.{name}": values for name, values in texts.items()}


def make_store(path: Path, seed: int, settings: Mapping[str, Any], **splits: int) -> Store:
    """Make scenes with masks and the caption columns of all arms, or finish what is there.

    Args:
        path: of the store.
        seed: another seed is other scenes and other noise.
        settings: `size`, side of the canvas.
        **splits: scenes of `train`, `teacher` and `test`.
    """
    made: dict[str, Any] = {"train": 0, "teacher": 0, "test": 0, **splits}
    store = scenes.to_store(
        "photo-scenes", path, seed=seed, size=settings["size"], noise=None, num_captions=1, **made
    )
    missing = {n: v for n, v in columns_of(store, seed).items() if not store.has(n)}
    for column, values in missing.items():
        text = pa.string()
        kind = pa.list_(text) if column.startswith("caption.") else text
        card = Card(
            column=column,
            writer="scene facts",
            config={"noise": _rates(column)},
            versions=versions(),
            seed=seed,
            created_by="understudy verify quality-captions",
        )
        with store.job([card], {column: kind}) as job:
            for unit in job.todo():
                job.write(unit, {column: pa.array(values[unit.start : unit.stop], kind)})
    return Store.open(path)


def _rates(column: str) -> dict[str, Any]:
    name = column.partition(".")[2]
    own = NOISE.scaled(LEVELS[SHUFFLED.get(name, name)])
    rates = {field: getattr(own, field) for field in ("drop", "swap", "mismatch", "junk")}
    return {**rates, "shuffled": name in SHUFFLED}
