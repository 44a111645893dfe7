"""The released reinforced layouts: `syn.json`, `paug.json` and `npz` or `pth.gz` to knowledge.

Embeddings of all teachers are concatenated, `image_emb [J, W]`, `text_emb [1 + S, W]` with the real
caption first (arXiv 2311.17049); newer writers keep one array a text key, `text_emb [1, W]` and
`syn_text_emb [S, W]` (arXiv 2508.20691). Every teacher's part has norm 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.data.card import Card
from understudy.data.importers.common import Unusable
from understudy.data.importers.safe_arrays import load_npz, load_torch
from understudy.data.importers.safe_pickle import as_array
from understudy.data.importers.shards import Sample
from understudy.data.interchange import CAPTIONS
from understudy.data.view_config import ViewConfig
from understudy.data.view_reference import from_reference_lists

NORM_TOLERANCE = 0.02
"""Largest deviation of a norm from 1: rounding a unit vector to bfloat16 stays below 0.004."""
PARTS = {"captions": "syn.json", "views": "paug.json", "embeddings": "npz or pth.gz"}
DEFAULT_TEACHER = "ensemble"
_MEMBER_LIMIT = 1 << 28


def has_parts(sample: Sample) -> set[str]:
    """Return which of `PARTS` a sample has."""
    found = {name for name, part in PARTS.items() if part in sample.parts}
    packed = sample.arrays or {"npz", "pth.gz"} & set(sample.parts)
    return found | ({"embeddings"} if packed else set())


@dataclass(slots=True)
class Knowledge:
    """What one sample's files say.

    Attributes:
        captions: strings by captioner.
        params: structured view records `[J]`.
        image: `[J, W]`; text: `[W]`; caption: `[S, W]` by captioner; all float32.
        topk: (probabilities `[J, K]`, class ids `[J, K]`) by teacher.
    """

    captions: dict[str, list[str]] = field(default_factory=dict)
    params: np.ndarray | None = None
    image: np.ndarray | None = None
    text: np.ndarray | None = None
    caption: dict[str, np.ndarray] = field(default_factory=dict)
    topk: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def shapes(self) -> dict[str, Any]:
        """Return what must agree between all samples of a set."""
        shapes: dict[str, Any] = {"captioners": sorted(self.captions)}
        if self.params is not None:
            shapes["views"] = len(self.params)
        if self.image is not None:
            shapes["image_emb"] = list(self.image.shape)
        if self.text is not None:
            shapes["text_emb"] = list(self.text.shape)
        for name, values in self.caption.items():
            shapes[f"embeddings of captions '{name}'"] = list(values.shape)
        for name, (values, _) in self.topk.items():
            shapes[f"top-K of '{name}'"] = list(values.shape)
        return shapes


@dataclass(slots=True)
class Layout:
    """How to read a set.

    Attributes:
        teachers: widths of the concatenated embeddings, in order; empty for one teacher
            `ensemble` of full width.
        views: the view set's transforms.
        view_set: its name.
        captioner: name of the captioner whose key in `syn.json` is `syn_text`.
        captioners: names by key of `syn.json`, where an export's description gives them.
        parts: which of `PARTS` every sample must have.
        dtype: how embeddings are stored; empty: bfloat16 from `pth.gz`, float16 from `npz`.
        normalize: scale embeddings to norm 1 instead of refusing others.
        cards: cards by column, where an export's description gives them.
    """

    teachers: dict[str, int]
    views: ViewConfig
    view_set: str = "main"
    captioner: str = "syn"
    captioners: dict[str, str] = field(default_factory=dict)
    parts: frozenset[str] = frozenset(PARTS)
    dtype: str = ""
    normalize: bool = False
    cards: dict[str, Card] = field(default_factory=dict)

    def captioner_of(self, key: str) -> str:
        """Return the captioner of a key of `syn.json`."""
        if key in self.captioners:
            return self.captioners[key]
        suffix = key[len(CAPTIONS) :].strip("_.-")
        return suffix or self.captioner

    def widths(self, total: int) -> dict[str, int]:
        """Return the teachers' widths for embeddings of a total width."""
        return self.teachers or {DEFAULT_TEACHER: total}


def read_knowledge(sample: Sample, layout: Layout, uid: str) -> Knowledge:
    """Parse one sample's reinforcements.

    Raises:
        Unusable: a part is missing.
        DataError: a part is malformed or does not fit the others; the message names file and uid.
    """
    where = f"{sample.shard}, uid '{uid}'"
    missing = layout.parts - has_parts(sample)
    if missing:
        part = PARTS[sorted(missing)[0]]
        raise Unusable(
            f"missing {part}",
            f"{where}: {part} is missing; on_missing='skip' passes over such samples, "
            f"parts={sorted(layout.parts - missing)} imports a set that has none.",
        )
    known = Knowledge()
    keys: list[str] = []
    if "captions" in layout.parts:
        found = _json(sample, "syn.json", where)
        keys = [k for k in found if k.startswith(CAPTIONS)]
        for key in keys:
            known.captions[layout.captioner_of(key)] = _strings(found[key], f"{where}, {key}")
        if not keys:
            raise DataError(f"{where}: syn.json has no key '{CAPTIONS}', only {', '.join(found)}.")
    if "views" in layout.parts:
        lists = _json(sample, "paug.json", where).get("param_aug")
        if isinstance(lists, str):  # the hub's export holds JSON in JSON
            lists = _parse(lists, f"{where}, param_aug")
        if not isinstance(lists, list) or not lists:
            raise DataError(f"{where}: paug.json has no list 'param_aug'.")
        known.params = from_reference_lists(
            lists, layout.views, name=lambda i: f"{where}, param_aug[{i}]"
        )
    if "embeddings" in layout.parts:
        _read_embeddings(sample, layout, known, keys, where)
    return known


def _parse(text: bytes | str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error}).") from None


def _json(sample: Sample, part: str, where: str) -> dict[str, Any]:
    found = _parse(sample.parts[part], f"{where}, {part}")
    if not isinstance(found, dict):
        raise DataError(f"{where}: {part} is not a JSON object.")
    return found


def _strings(value: Any, where: str) -> list[str]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value) or not value:
        raise DataError(f"{where}: expected a list of strings, got {value!r}.")
    return value


def _read_embeddings(
    sample: Sample, layout: Layout, known: Knowledge, keys: list[str], where: str
) -> None:
    data: Any
    if sample.arrays is not None:
        data = sample.arrays
    elif "pth.gz" in sample.parts:
        data = load_torch(sample.parts["pth.gz"], f"{where}, pth.gz", limit=_MEMBER_LIMIT)
    else:
        data = load_npz(sample.parts["npz"], f"{where}, npz", limit=_MEMBER_LIMIT)
    if not isinstance(data, Mapping):
        raise DataError(f"{where}: the embeddings are not a dictionary of arrays.")
    arrays = {str(k): as_array(v, f"{where}, {k}") for k, v in data.items()}
    _read_topk(arrays, known, where)
    image = _pick(arrays, "image_emb")
    if image is not None:
        known.image = _checked(image, layout, f"{where}, image_emb")
    if known.params is not None:
        rows = [
            ("image_emb", known.image),
            *((f"top-K of '{t}'", v[0]) for t, v in known.topk.items()),
        ]
        for name, values in rows:
            if values is not None and len(values) != len(known.params):
                raise DataError(
                    f"{where}: {name} has {len(values)} rows for {len(known.params)} "
                    "augmentations in paug.json; the sample is damaged, or its writer was."
                )
    text = _pick(arrays, "text_emb", "texts_emb")
    own = {k: a for k in keys if (a := _pick(arrays, f"{k}_emb")) is not None}
    if text is not None:
        text = _checked(text, layout, f"{where}, text_emb")
    if own:
        parts = {k: _checked(a, layout, f"{where}, {k}_emb") for k, a in own.items()}
    else:
        parts, at = {}, 1
        total = 1 + sum(len(known.captions[layout.captioner_of(k)]) for k in keys)
        if text is not None and len(text) not in (1, total):
            raise DataError(
                f"{where}: text_emb has {len(text)} rows, expected {total} (the real caption "
                f"first, then {total - 1} synthetic ones)."
            )
        if text is not None and len(text) > 1:
            for key in keys:
                count = len(known.captions[layout.captioner_of(key)])
                parts[key] = text[at : at + count]
                at += count
    if text is not None:
        known.text = text[0]
    for key, values in parts.items():
        captioner = layout.captioner_of(key)
        if len(values) != len(known.captions[captioner]):
            raise DataError(
                f"{where}: {len(values)} embeddings for {len(known.captions[captioner])} captions "
                f"'{key}'."
            )
        known.caption[captioner] = values
    if known.image is None and known.text is None and not known.caption and not known.topk:
        raise Unusable("missing embeddings", f"{where}: no embeddings, only {', '.join(arrays)}.")


def _pick(arrays: Mapping[str, np.ndarray], *names: str) -> np.ndarray | None:
    """Return the array of a name; the generator of arXiv 2508.20691 may add a suffix to it."""
    for name in names:
        if name in arrays:
            return arrays[name]
        close = [k for k in arrays if k.startswith(f"{name}{{")]
        if len(close) == 1:
            return arrays[close[0]]
    return None


def _read_topk(arrays: dict[str, np.ndarray], known: Knowledge, where: str) -> None:
    """Take the top-K arrays that our exporter adds, `topk.<teacher>.prob` and `.id`."""
    for name in [k for k in arrays if k.startswith("topk.") and k.endswith(".prob")]:
        teacher = name[len("topk.") : -len(".prob")]
        ids = arrays.pop(f"topk.{teacher}.id", None)
        values = arrays.pop(name)
        if ids is None or ids.shape != values.shape or values.ndim != 2:
            raise DataError(f"{where}: '{name}' needs class ids of the same shape [J, K].")
        known.topk[teacher] = (values.astype(np.float32), ids.astype(np.int64))


def _checked(values: np.ndarray, layout: Layout, where: str) -> np.ndarray:
    """Return embeddings `[n, W]` as float32 after checking width and norms."""
    if values.ndim != 2 or not len(values):
        raise DataError(f"{where}: expected [n, width], got {list(values.shape)}.")
    values = np.asarray(values, np.float32)
    widths = layout.widths(values.shape[1])
    if sum(widths.values()) != values.shape[1]:
        named = ", ".join(f"{t}={d}" for t, d in widths.items())
        raise DataError(
            f"{where}: embeddings {values.shape[1]} wide, but the teachers' widths add up to "
            f"{sum(widths.values())} ({named}); give every teacher that is concatenated there."
        )
    out, at = values, 0
    for teacher, width in widths.items():
        norms = np.linalg.norm(values[:, at : at + width].astype(np.float64), axis=1)
        if layout.normalize and (norms > 0).all() and np.isfinite(norms).all():
            out = out.copy() if out is values else out
            out[:, at : at + width] /= norms[:, None]
        else:
            # Without widths, the norm of n concatenated unit vectors is the square root of n.
            unit = norms if layout.teachers else norms / np.sqrt(np.maximum(np.rint(norms**2), 1))
            bad = ~(np.abs(unit - 1) <= NORM_TOLERANCE)
            if bad.any():
                i = int(np.argmax(bad))
                raise DataError(
                    f"{where}: row {i} of teacher '{teacher}' has norm {norms[i]:.4g}, expected 1; "
                    "normalize=True scales it, if the embeddings are right but for that."
                )
        at += width
    return out
