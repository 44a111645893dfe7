"""WebDataset tars, plain or reinforced, to a store."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.config import check_choice
from understudy.core.errors import DataError
from understudy.core.progress import Bar, bar
from understudy.data.card import Card
from understudy.data.importers.common import (
    BATCH_ROWS,
    Late,
    Marks,
    Pool,
    Skips,
    Unusable,
    check_mode,
    encode_column,
    import_facts,
    write_store,
)
from understudy.data.importers.ids import SeenIds
from understudy.data.importers.join import ImageIndex
from understudy.data.importers.layout import read_layout
from understudy.data.importers.reinforced_columns import columns_of, plan_columns
from understudy.data.importers.replay import Checksums
from understudy.data.importers.samples import (
    NO_IMAGE,
    Plan,
    Row,
    first_knowledge,
    make_plan,
    parse_sample,
    same_shapes,
)
from understudy.data.importers.shards import Counted, Sample, find_shards
from understudy.data.view_config import ViewConfig

if TYPE_CHECKING:
    from understudy.data.store import Store

log = logging.getLogger(__name__)

PEEK = 64
IDS = ("auto", "key", "shard-key")


def import_webdataset(
    source: str | Path,
    store: str | Path,
    *,
    teachers: Mapping[str, int] | None = None,
    images: str | Path | None = None,
    views: ViewConfig | Mapping[str, Any] | None = None,
    view_set: str = "main",
    captioner: str = "syn",
    parts: Sequence[str] | None = None,
    dtype: str = "",
    normalize: bool = False,
    ids: str = "auto",
    split: str | None = None,
    on_missing: str | None = None,
    check_images: str = "decode",
    threads: int = 2,
    overwrite: bool = False,
    rows_per_fragment: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> Store:
    """Make a store of WebDataset tars, reinforced or not.

    Args:
        source: a tar or a folder of tars (`.tar`, `.tar.gz`, `.tar.zst`), read in sorted order; an
            `info.json` or a pattern with braces that lists some; the same of reinforced JSON lines.
        store: where the store is written.
        teachers: the teachers whose embeddings are concatenated, in order, with their widths;
            default: what an export of ours says, else one teacher `ensemble` of full width.
        images: a folder of image tars to join by uid, when the reinforced tars hold none.
        views: the transforms of the stored views; default: `config.json` beside the tars, else
            DataCompDR's.
        view_set: name of the view set.
        captioner: name of the captioner behind `syn_text`.
        parts: which of `captions`, `views`, `embeddings` the reinforced tars hold; default all.
        dtype: how embeddings are stored: float16, bfloat16 or float32; default as they came.
        normalize: scale embeddings to norm 1 instead of refusing others.
        ids: `auto` takes `uid` of a sample's `json`, else its key; `key`; `shard-key`.
        split: written into every row's `split`.
        on_missing: `error` or `skip` for samples that miss a part or whose image is damaged; joined
            images that are not found are skipped and counted unless it is `error`.
        check_images: `decode` every image, read its `header`, or `none`.
        threads: threads that unpack and decode.
        overwrite: replace a store that is there.
        rows_per_fragment: rows that the store keeps together.
        storage_options: for object stores.

    Returns:
        The store; `meta["import"]` says what was skipped.

    Raises:
        DataError: a file is damaged, a sample misses a part or does not fit; both are named.
    """
    check_choice(ids, IDS, "ids")
    check_mode(check_images)
    source = Path(source)
    shards = find_shards(source)
    home = source if source.is_dir() else shards[0].parent
    counted = Counted(source)
    index = ImageIndex(Path(images)) if images is not None else None
    # Links die: images that are not found are no error unless they are said to be one.
    skips = Skips(on_missing or "error", "" if on_missing == "error" else NO_IMAGE)
    layout, described = read_layout(
        home, teachers, views, view_set, captioner, parts, dtype, normalize
    )
    peeked = list(itertools.islice(_all(counted, shards), PEEK))
    plan = make_plan(peeked, layout, described, index, ids, check_images)
    types, cards = {}, {c: layout.cards[c] for c in plan.facts if c in layout.cards}
    if plan.layout is not None:
        types, found = plan_columns(*first_knowledge(peeked, plan))
        cards.update(found)
    plan.types.update(types)
    if split is not None:
        plan.types["split"] = pa.string()
    if described is not None:  # the order of columns is part of a store's content
        order = {name: i for i, name in enumerate(described["columns"])}
        plan.types = dict(sorted(plan.types.items(), key=lambda t: order.get(t[0], len(order))))
    run = _Run(counted, shards, plan, cards, split, skips)

    def late() -> Late:
        meta = {"import": import_facts("webdataset", source, skips)}
        if described and described.get("meta"):
            meta = {**described["meta"], **meta}
        return Late(meta, run.facts(), run.marks.filled())

    total = sum(p.stat().st_size for p in shards) / 1e6
    try:
        with bar("import", total, "MB") as progress, Pool(threads) as pool:
            return write_store(
                store,
                run.batches(progress, pool),
                pa.schema(list(plan.types.items())),
                cards=cards,
                late=late,
                overwrite=overwrite,
                rows_per_fragment=rows_per_fragment,
                storage_options=storage_options,
            )
    finally:
        if index is not None:
            index.close()


def _all(counted: Counted, shards: list[Path]) -> Iterator[Sample]:
    for shard in shards:
        yield from counted.read(shard)


class _Run:
    """Streams the shards' samples as the store's batches."""

    def __init__(
        self,
        counted: Counted,
        shards: list[Path],
        plan: Plan,
        cards: Mapping[str, Card],
        split: str | None,
        skips: Skips,
    ) -> None:
        self.plan, self.cards, self.skips = plan, cards, skips
        self.marks = Marks(cards)
        self.sums: Checksums | None = None
        if plan.layout is not None:
            self.sums = Checksums(plan.layout.views, plan.layout.view_set)
        self._counted, self._shards, self._split = counted, shards, split
        self._rows = 0

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return view checksums for the cards; those that came with cards count if rows stayed."""
        fresh = self.sums.facts if self.sums is not None else {}
        facts = {}
        for column, card in self.cards.items():
            if "crc" not in card.facts:
                facts[column] = fresh.get(column, {})
            elif self.skips.counts:
                facts[column] = fresh.get(column, {"crc": {}, "thumb": {}})
        return facts

    def batches(self, progress: Bar, pool: Pool) -> Iterator[pa.RecordBatch]:
        """Yield the store's batches.

        Raises:
            DataError: a sample cannot be used, an id comes again, or no sample is left.
        """
        seen = SeenIds()
        shapes: dict[str, Any] | None = None
        for shard in self._shards:
            samples = self._counted.read(shard)
            while group := list(itertools.islice(samples, BATCH_ROWS)):
                rows: list[Row] = []
                for row in pool.map(lambda sample: parse_sample(sample, self.plan), group):
                    if isinstance(row, Unusable):
                        self.skips.add(row)
                    else:
                        rows.append(row)
                seen.add([row.uid for row in rows], [row.place for row in rows])
                for row in rows:
                    shapes = same_shapes(row, shapes)
                if rows:
                    batch = self._assemble(rows)
                    self.marks.add(batch)
                    yield batch
                self._rows += len(rows)
            progress.advance(shard.stat().st_size / 1e6)
        self._check_end()

    def _assemble(self, rows: list[Row]) -> pa.RecordBatch:
        plan = self.plan
        columns: dict[str, pa.Array] = {}
        if plan.layout is not None:
            known = [row.known for row in rows if row.known is not None]
            columns = columns_of(known, plan.layout, self.cards)
        for name, kind in plan.types.items():
            if name == "split" and self._split is not None:
                columns[name] = pa.array([self._split] * len(rows), kind)
            elif name not in columns:
                columns[name] = encode_column([row.payload.get(name) for row in rows], kind, name)
        for i, row in enumerate(rows):
            image = row.payload.get("image")
            if self.sums and image and row.known is not None and row.known.params is not None:
                self.sums.add(self._rows + i, row.uid, image, row.known.params)
        return pa.record_batch([columns[n] for n in plan.types], names=list(plan.types))

    def _check_end(self) -> None:
        skipped = sum(self.skips.counts.values())
        if not self._rows:
            first = next(iter(self.skips.first.values()), "")
            raise DataError(f"none of {skipped} samples can be used; the first: {first}")
        if skipped and self.plan.layout is not None and self.plan.layout.views.mixes:
            raise DataError(
                f"{skipped} samples were skipped, but the views mix in rows by number (id2), which "
                "skipping shifts; import every sample, or without the views (parts=)."
            )
