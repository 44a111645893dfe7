"""A store as WebDataset tars in the released reinforced layout (arXiv 2311.17049, 2508.20691)."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.files import write_json
from understudy.core.hashing import hash_data
from understudy.data.exporters.common import prepare, store_uid, write_shards
from understudy.data.exporters.selection import Selection, select
from understudy.data.interchange import (
    AUGMENTATION,
    caption_key,
    image_type,
    views_to_reference,
)
from understudy.data.knowledge import (
    caption_column,
    captions_column,
    decode_embeddings,
    decode_topk,
    image_column,
    text_column,
    topk_column,
    view_column,
)
from understudy.data.store import Store
from understudy.data.view_params import unpack
from understudy.data.view_reference import to_reference_list

log = logging.getLogger(__name__)

EMBEDDINGS = ("npz", "pth.gz")
NAMES = ("number", "content")
BATCH_ROWS = 128
_KEY = re.compile(r"[A-Za-z0-9_\-]+")


def export_webdataset(
    store: Store,
    destination: str | Path,
    *,
    embeddings: str = "npz",
    view_set: str | None = None,
    teachers: Sequence[str] | None = None,
    captioners: Sequence[str] | None = None,
    image: str = "image",
    rows_per_shard: int = 10_000,
    names: str = "number",
    overwrite: bool = False,
) -> list[Path]:
    """Write tars that trainers of released reinforced data read; plain ones without knowledge.

    A group of files a row: the image, `txt`, `url.txt`, `cls`, `syn.json`, `paug.json`, embeddings
    of all teachers concatenated, and `json` with `uid` and every scalar column. Beside the tars lie
    `understudy.json` (what the layout has no place for: names, widths, cards), `config.json` (the
    augmentation in the released form) and `manifest.jsonl` (count, size, CRC32 of each tar).

    Args:
        store: the store.
        destination: the folder.
        embeddings: `npz`, float32, or `pth.gz`, bfloat16 in torch's format, compressed.
        view_set: the view set, when the store has several.
        teachers: teachers in the order of concatenation; default all.
        captioners: default all; several get a key each in `syn.json`.
        image: the column with the encoded images.
        rows_per_shard: rows a tar.
        names: `number` calls tars 00000000.tar and so on; `content` adds a hash of the store's
            content and the options, so that no other export has the same names.
        overwrite: replace another export in the folder.

    Returns:
        The tars in order.

    Raises:
        DataError: something chosen is not in the store or not filled, or another export is there.
    """
    check_choice(embeddings, EMBEDDINGS, "embeddings")
    check_choice(names, NAMES, "names")
    folder = Path(destination)
    chosen = select(store, view_set, teachers, captioners)
    if chosen.left_out:
        log.warning("no place in WebDataset tars for: %s", ", ".join(chosen.left_out))
    keys = {c: caption_key(c, len(chosen.captioners) > 1) for c in chosen.captioners}
    plan = _Plan(store, chosen, embeddings, image, keys)
    description = _description(store, plan, rows_per_shard)
    done = prepare(folder, description, overwrite)
    if chosen.views is not None:
        augmentation = {"image_augmentation": views_to_reference(chosen.views)}
        data = {"num_samples": chosen.count, "reinforce": augmentation}
        write_json(folder / AUGMENTATION, data)
    tail = ".tar" if names == "number" else f"-{_content(store, description)}.tar"
    return write_shards(folder, store, rows_per_shard, "{:08d}" + tail, done, plan.write)


def _content(store: Store, description: Mapping[str, Any]) -> str:
    """Return a hash of what decides a tar's bytes: not of where, when or how fast it was made."""
    left_out = ("store", "cards", "meta")
    options = {k: v for k, v in description.items() if k not in left_out}
    return hash_data([store.content_hash(), options])[:16]


def _description(store: Store, plan: _Plan, rows_per_shard: int) -> dict[str, Any]:
    chosen = plan.chosen
    return {
        "format": "webdataset",
        "rows": store.num_rows,
        "columns": [c for c in store.columns if c not in chosen.left_out],
        "store": [store_uid(store), store.version],
        "rows_per_shard": rows_per_shard,
        "embeddings": plan.embeddings,
        "parts": chosen.parts,
        "teachers": chosen.teachers,
        "view_set": chosen.view_set,
        "views": chosen.views.to_dict() if chosen.views is not None else None,
        "captioners": {key: name for name, key in plan.keys.items()},
        "facts": chosen.facts,
        "json": store.has("json"),
        "left_out": chosen.left_out,
        "meta": store.meta,
        "cards": {c: card.to_dict() for c, card in chosen.cards.items()},
    }


class _Plan:
    """Writes rows of one store as tars."""

    def __init__(
        self, store: Store, chosen: Selection, embeddings: str, image: str, keys: dict[str, str]
    ) -> None:
        self.store, self.chosen, self.embeddings, self.keys = store, chosen, embeddings, keys
        self._image = image if store.has(image) else None
        payload = [self._image, *(c for c in ("text", "url", "json") if store.has(c))]
        self._payload = ["id", *(c for c in payload if c), *chosen.facts]
        # A key must not hold dots or slashes; if one id does, row numbers take their place.
        self._by_id = all(
            _KEY.fullmatch(uid)
            for batch in store.scan(["id"], batch_size=8192)
            for uid in batch.column(0).to_pylist()
        )
        # The released layout has one array for all texts; several captioners have one each.
        self._joined = chosen.text and list(chosen.embedded) == chosen.captioners and len(keys) == 1

    def write(self, path: Path, rows: range) -> None:
        """Write one tar."""
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for start in range(rows.start, rows.stop, BATCH_ROWS):
                part = np.arange(start, min(start + BATCH_ROWS, rows.stop))
                payload = self.store.take(part, self._payload).to_pylist()
                known = self._knowledge(part)
                for i, (row, values) in enumerate(zip(part.tolist(), payload, strict=True)):
                    key = values["id"] if self._by_id else f"{row:09d}"
                    for suffix, data in self._files(i, values, known):
                        info = tarfile.TarInfo(f"{key}.{suffix}")
                        info.size, info.mode = len(data), 0o444
                        archive.addfile(info, io.BytesIO(data))

    def _knowledge(self, rows: np.ndarray) -> dict[str, Any]:
        """Read a batch's knowledge: arrays with a row each, concatenated over teachers."""
        chosen, store = self.chosen, self.store
        known: dict[str, Any] = {}
        if chosen.views is not None:
            columns = [view_column(chosen.view_set, k) for k in range(chosen.count)]
            known["params"] = [unpack(store.array(c, rows), chosen.views) for c in columns]
        if chosen.image:
            views = [
                self._embeddings(rows, lambda t, k=k: image_column(t, chosen.view_set, k))
                for k in range(chosen.count)
            ]
            known["image_emb"] = np.stack(views, axis=1)
        if chosen.text:
            known["text_emb"] = self._embeddings(rows, text_column)[:, None]
        for captioner in chosen.captioners:
            column = captions_column(captioner)
            known[column] = store.take(rows, [column]).column(0).to_pylist()
        for captioner, count in chosen.embedded.items():
            each = [
                self._embeddings(rows, lambda t, c=captioner, s=s: caption_column(t, c, s))
                for s in range(count)
            ]
            known[f"{self.keys[captioner]}_emb"] = np.stack(each, axis=1)
        if self._joined:
            own = f"{next(iter(self.keys.values()))}_emb"
            known["text_emb"] = np.concatenate([known["text_emb"], known.pop(own)], axis=1)
        for teacher in chosen.topk:
            columns = [topk_column(teacher, chosen.view_set, k) for k in range(chosen.count)]
            pairs = [decode_topk(store.array(c, rows)) for c in columns]
            for name, arrays in zip(("prob", "id"), zip(*pairs, strict=True), strict=True):
                known[f"topk.{teacher}.{name}"] = np.stack(arrays, axis=1)
        return known

    def _embeddings(self, rows: np.ndarray, column: Any) -> np.ndarray:
        parts = []
        for teacher in self.chosen.teachers:
            name = column(teacher)
            stored = self.store.array(name, rows)
            parts.append(decode_embeddings(stored, self.store.card(name).config))
        return np.concatenate(parts, axis=-1)

    def _files(
        self, i: int, values: Mapping[str, Any], known: Mapping[str, Any]
    ) -> list[tuple[str, bytes]]:
        """Return one row's files, by suffix, in the released order."""
        files: list[tuple[str, bytes]] = []
        if values.get("url") is not None:
            files.append(("url.txt", values["url"].encode()))
        image = values.get(self._image) if self._image else None
        if image:
            files.append((image_type(image), image))
        if values.get("text") is not None:
            files.append(("txt", values["text"].encode()))
        if isinstance(values.get("label"), int):
            files.append(("cls", str(values["label"]).encode()))
        if self.keys:
            captions = {key: known[captions_column(c)][i] for c, key in self.keys.items()}
            files.append(("syn.json", _json(captions)))
        if self.chosen.views is not None:
            lists = [to_reference_list(p[i], self.chosen.views) for p in known["params"]]
            files.append(("paug.json", _json({"param_aug": lists})))
        arrays = {k: v[i] for k, v in known.items() if k.endswith("_emb") or k.startswith("topk.")}
        if arrays:
            pack = npz_bytes if self.embeddings == "npz" else pth_bytes
            files.append((self.embeddings, pack(arrays)))
        facts = json.loads(values["json"]) if values.get("json") else {}
        facts.update({name: values[name] for name in self.chosen.facts})
        files.append(("json", _json({**facts, "uid": values["id"]})))
        return files


def _json(data: Any) -> bytes:
    return json.dumps(data).encode()


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays as an uncompressed `.npz`; equal arrays give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, values in arrays.items():
            raw = io.BytesIO()
            np.lib.format.write_array(raw, np.ascontiguousarray(values), allow_pickle=False)
            # A fixed date: zip archives hold one, and shards must not depend on the time of day.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), raw.getvalue())
    return out.getvalue()


def pth_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return float arrays as gzipped bfloat16 tensors; top-K arrays keep float16 and int64."""
    import torch

    tensors = {}
    for name, values in arrays.items():
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if tensor.is_floating_point():
            kind = torch.float16 if name.startswith("topk.") else torch.bfloat16
            tensor = tensor.to(kind)
        tensors[name] = tensor
    out = io.BytesIO()
    torch.save(tensors, out)
    return gzip.compress(out.getvalue(), 1, mtime=0)
