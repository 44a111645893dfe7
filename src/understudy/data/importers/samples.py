"""One WebDataset sample to one row: what every sample must have, and how it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data.importers.common import Unusable, check_image
from understudy.data.importers.join import ImageIndex
from understudy.data.importers.reinforced import (
    Knowledge,
    Layout,
    has_parts,
    read_knowledge,
)
from understudy.data.importers.replay import check_boxes
from understudy.data.importers.shards import Sample
from understudy.data.interchange import IMAGE_SUFFIXES

_URL = ("url.txt", "url")
NO_IMAGE = "no image to join"


@dataclass(slots=True)
class Row:
    """One sample, parsed."""

    uid: str
    place: str
    payload: dict[str, Any]
    known: Knowledge | None
    size: tuple[int, int] | None = None


@dataclass(slots=True)
class Plan:
    """What every sample must have and what the store's columns are."""

    image: bool
    text: bool
    types: dict[str, pa.DataType]
    facts: dict[str, pa.DataType] = field(default_factory=dict)
    layout: Layout | None = None
    ids: str = "auto"
    check_images: str = "decode"
    join: ImageIndex | None = None


def make_plan(
    peeked: list[Sample],
    layout: Layout,
    described: dict[str, Any] | None,
    index: ImageIndex | None,
    ids: str,
    check_images: str,
) -> Plan:
    """Decide from the first samples what all of them must have."""
    if not peeked:
        raise DataError("the tars hold no samples.")
    seen = {part for sample in peeked for part in sample.parts}
    reinforced = layout.parts and any(has_parts(sample) for sample in peeked)
    image = index is not None or bool(seen & set(IMAGE_SUFFIXES))
    if not image and not reinforced and "txt" not in seen:
        raise DataError(
            f"{peeked[0].place}: neither an image ({', '.join(IMAGE_SUFFIXES)}) nor txt, only "
            f"{', '.join(sorted(seen))}."
        )
    types: dict[str, pa.DataType] = {"id": pa.string()}
    if image:
        types["image"] = pa.binary()
    if "txt" in seen:
        types["text"] = pa.string()
    if seen & set(_URL):
        types["url"] = pa.string()
    if "cls" in seen:
        types["label"] = pa.int64()
    facts = {n: pa.type_for_alias(t) for n, t in (described or {}).get("facts", {}).items()}
    types.update(facts)
    if described["json"] if described is not None else "json" in seen:
        types["json"] = pa.string()
    return Plan(
        image=image,
        text="txt" in seen,
        types=types,
        facts=facts,
        layout=layout if reinforced else None,
        ids=ids,
        check_images=check_images,
        join=index,
    )


def first_knowledge(peeked: list[Sample], plan: Plan) -> tuple[Knowledge, Layout, bool]:
    """Return the first complete sample's knowledge, from which the columns are planned."""
    assert plan.layout is not None
    error: Unusable | None = None
    for sample in peeked:
        try:
            known = read_knowledge(sample, plan.layout, _uid(sample, plan, _facts(sample)))
            return known, plan.layout, "pth.gz" in sample.parts
        except Unusable as found:
            error = error or found
    assert error is not None
    raise error


def _facts(sample: Sample) -> dict[str, Any]:
    if "json" not in sample.parts:
        return {}
    try:
        found = json.loads(sample.parts["json"])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{sample.place}: json does not parse ({error}).") from None
    if not isinstance(found, dict):
        raise DataError(f"{sample.place}: json is not an object.")
    return found


def _uid(sample: Sample, plan: Plan, facts: Mapping[str, Any]) -> str:
    if plan.ids == "shard-key":
        return f"{sample.shard.name.split('.')[0]}/{sample.key}"
    uid = facts.get("uid") if plan.ids == "auto" else None
    return str(uid) if isinstance(uid, str | int) and uid != "" else sample.key


def _text(sample: Sample, part: str) -> str:
    try:
        return sample.parts[part].decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{sample.place}: {part} is not UTF-8 text ({error}).") from None


def parse_sample(sample: Sample, plan: Plan) -> Row | Unusable:
    """Read one sample; what can be skipped is returned, what cannot is raised."""
    facts = _facts(sample)
    uid = _uid(sample, plan, facts)
    payload: dict[str, Any] = {name: facts.pop(name, None) for name in plan.facts}
    try:
        image = next((sample.parts[s] for s in IMAGE_SUFFIXES if s in sample.parts), None)
        if image is None and plan.join is not None:
            image = plan.join.get(uid)
            if image is None:
                raise Unusable(NO_IMAGE, f"{sample.place}: no image has the uid '{uid}'.")
        if plan.image and not image:
            raise Unusable("missing image", f"{sample.place}: uid '{uid}' has no image.")
        if plan.text and "txt" not in sample.parts:
            raise Unusable("missing txt", f"{sample.place}: uid '{uid}' has no txt.")
        known = read_knowledge(sample, plan.layout, uid) if plan.layout is not None else None
        size = check_image(image, sample.place, plan.check_images) if image else None
        if known is not None and known.params is not None:
            check_boxes(known.params, size, f"{sample.shard}, uid '{uid}'")
    except Unusable as error:
        return error
    payload["id"], payload["image"] = uid, image
    if plan.text:
        payload["text"] = _text(sample, "txt")
    if "url" in plan.types:
        part = next((p for p in _URL if p in sample.parts), None)
        payload["url"] = _text(sample, part).strip() if part else None
    if "label" in plan.types and "label" not in plan.facts:
        payload["label"] = _label(sample)
    if "json" in plan.types:
        facts.pop("uid", None) if plan.ids == "auto" else None
        payload["json"] = json.dumps(facts, sort_keys=True) if facts else None
    return Row(uid, str(sample.shard), payload, known, size)


def _label(sample: Sample) -> int | None:
    if "cls" not in sample.parts:
        return None
    try:
        return int(sample.parts["cls"])
    except ValueError:
        raise DataError(f"{sample.place}: cls is not a whole number.") from None


def same_shapes(row: Row, shapes: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a sample's shapes after checking that they are those of the samples before it."""
    if row.known is None:
        return shapes
    mine = row.known.shapes()
    if shapes is not None and mine != shapes:
        name = next(k for k in {**shapes, **mine} if shapes.get(k) != mine.get(k))
        raise DataError(
            f"{row.place}, uid '{row.uid}': {name} is {mine.get(name)}, in the samples before it "
            f"{shapes.get(name)}: a set has the same number of views and captions everywhere."
        )
    return mine
