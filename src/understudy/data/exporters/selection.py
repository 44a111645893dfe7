"""Which knowledge of a store goes into an export, and whether it is complete enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data.card import Card
from understudy.data.knowledge import (
    caption_column,
    caption_columns,
    captions_column,
    image_column,
    text_column,
    topk_column,
    view_column,
)
from understudy.data.store import Store
from understudy.data.view_config import ViewConfig
from understudy.data.views import ViewPipeline

_VIEW = re.compile(r"view\.(?P<set>[^.]+)\.(?P<k>\d+)")
_IMAGE = re.compile(r"(?P<name>.+)\.image\.(?P<set>[^.]+)\.(?P<k>\d+)")
_TOPK = re.compile(r"(?P<name>.+)\.topk\.(?P<set>[^.]+)\.(?P<k>\d+)")
_TEXT = re.compile(r"(?P<name>.+)\.text")
_CAPTION = re.compile(r"caption\.(?P<name>.+)")
_CAPTION_EMB = re.compile(r"(?P<name>.+)\.caption\.(?P<captioner>.+)\.(?P<s>\d+)")
PAYLOAD = ("id", "image", "text", "url", "json")


@dataclass(slots=True)
class Selection:
    """What is exported beside the payload.

    Attributes:
        view_set: name of the view set; empty for none.
        views: its transforms.
        count: number of stored views.
        teachers: width by teacher, in the order of concatenation.
        image, text: whether the teachers embedded the views, the texts.
        captioners: all captioners.
        embedded: captions a row, by captioner whose captions the teachers embedded.
        topk: teachers with top-K probabilities of every view.
        facts: Arrow type by scalar column.
        cards: cards of everything that is exported.
        left_out: columns that this format has no place for.
    """

    view_set: str = ""
    views: ViewConfig | None = None
    count: int = 0
    teachers: dict[str, int] = field(default_factory=dict)
    image: bool = False
    text: bool = False
    captioners: list[str] = field(default_factory=list)
    embedded: dict[str, int] = field(default_factory=dict)
    topk: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    cards: dict[str, Card] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[str]:
        """Names of the parts that every sample gets, as the importer calls them."""
        parts = ["captions"] if self.captioners else []
        parts += ["views"] if self.views is not None else []
        return parts + (["embeddings"] if self.teachers or self.topk else [])


def _scalar(kind: pa.DataType) -> str | None:
    """Return the name of a type that JSON can carry, else `None`."""
    if pa.types.is_large_string(kind):
        return "string"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind):
        return str(kind)
    return str(kind) if pa.types.is_floating(kind) and kind != pa.float16() else None


def _pick(wanted: Sequence[str] | None, there: list[str], what: str) -> list[str]:
    if wanted is None:
        return there
    for name in wanted:
        if name not in there:
            raise DataError(f"{what}: '{name}' is not in the store; it has: {', '.join(there)}.")
    return list(wanted)


def _names(cards: dict[str, Card], pattern: re.Pattern[str], group: str = "name") -> list[str]:
    found = (pattern.fullmatch(column) for column in cards)
    return list(dict.fromkeys(m[group] for m in found if m))


def select(
    store: Store,
    view_set: str | None,
    teachers: Sequence[str] | None,
    captioners: Sequence[str] | None,
) -> Selection:
    """Choose what the released layout can hold.

    Args:
        store: the store.
        view_set: the view set; needed when there are several.
        teachers: teachers in the order of concatenation; default all, in column order.
        captioners: default all.

    Raises:
        DataError: something chosen is missing, or a teacher lacks a part that another has.
    """
    cards = store.cards
    chosen = Selection()
    sets = list(dict.fromkeys(m["set"] for c in cards if (m := _VIEW.fullmatch(c))))
    if view_set is None and len(sets) > 1:
        raise DataError(f"the store has several view sets ({', '.join(sets)}): choose view_set=.")
    _pick([view_set] if view_set else None, sets, "view_set")
    if sets:
        chosen.view_set = view_set or sets[0]
        while view_column(chosen.view_set, chosen.count) in cards:
            chosen.count += 1
        columns = [view_column(chosen.view_set, k) for k in range(chosen.count)]
        chosen.views = ViewPipeline.from_card(cards[columns[0]]).config
        _keep(chosen, cards, columns)
    chosen.captioners = _pick(captioners, _names(cards, _CAPTION), "captioners")
    _keep(chosen, cards, [captions_column(c) for c in chosen.captioners])
    _teachers(chosen, cards, teachers)
    _facts(chosen, store, cards)
    return chosen


def _keep(chosen: Selection, cards: dict[str, Card], columns: list[str]) -> None:
    for column in columns:
        chosen.cards[column] = cards[column]


def _teachers(chosen: Selection, cards: dict[str, Card], wanted: Sequence[str] | None) -> None:
    by_set = {c: m for c in cards if (m := _IMAGE.fullmatch(c)) and m["set"] == chosen.view_set}
    embedders = list(dict.fromkeys(m["name"] for m in by_set.values()))
    embedders += [n for n in _names(cards, _TEXT) if n not in embedders]
    embedders += [n for n in _names(cards, _CAPTION_EMB) if n not in embedders]
    judges = [n for n in _names(cards, _TOPK) if topk_column(n, chosen.view_set, 0) in cards]
    both = list(dict.fromkeys([*embedders, *judges]))
    names = _pick(wanted, both, "teachers")
    chosen.topk = [n for n in names if n in judges]
    names = [n for n in names if n in embedders]
    chosen.image = any(image_column(n, chosen.view_set, 0) in cards for n in names)
    chosen.text = any(text_column(n) in cards for n in names)
    for captioner in chosen.captioners:
        count = max((len(caption_columns(cards, n, captioner)) for n in names), default=0)
        if count:
            chosen.embedded[captioner] = count
    for name in names:
        columns = [image_column(name, chosen.view_set, k) for k in range(chosen.count)]
        columns = columns if chosen.image else []
        columns += [text_column(name)] if chosen.text else []
        for captioner, count in chosen.embedded.items():
            columns += [caption_column(name, captioner, s) for s in range(count)]
        for column in columns:
            if column not in cards:
                raise DataError(
                    f"teacher '{name}' has no column '{column}', which other teachers have: choose "
                    "teachers= that are complete, or finish reinforcing."
                )
        chosen.teachers[name] = int(cards[columns[0]].config["shape"][-1])
        _keep(chosen, cards, columns)
    for name in chosen.topk:
        columns = [topk_column(name, chosen.view_set, k) for k in range(chosen.count)]
        lacks = next((c for c in columns if c not in cards), None)
        if lacks is not None:
            raise DataError(f"teacher '{name}' has no column '{lacks}': finish reinforcing.")
        _keep(chosen, cards, columns)


def _facts(chosen: Selection, store: Store, cards: dict[str, Card]) -> None:
    """Take scalar columns along; note what has no place."""
    for name, kind in zip(store.schema.names, store.schema.types, strict=True):
        if name in PAYLOAD or name in chosen.cards:
            continue
        alias = _scalar(kind)
        if alias is None:
            chosen.left_out.append(name)
            continue
        chosen.facts[name] = alias
        if name in cards:
            chosen.cards[name] = cards[name]
