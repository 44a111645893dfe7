"""`understudy update encode STORE`: items to vectors whose card names their space."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from understudy.cli.common import note, parse_config, positional_store, show
from understudy.cli.update_maps import facts_table


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeOptions:
    """Encode items with a model into the column `embed.<name>`, whose card names the space.

    Attributes:
        store: the store; also the first word of the command.
        model: a run's folder or weights file, something that 'understudy data fetch' brings
            (efficientnet-lite0, minilm), module:function, or KIND[:MODEL][@PATH][?OPTIONS].
        name: of the column, with or without 'embed.'.
        column: payload column of the items.
        modality: what the column holds; by default image for 'image', else text.
        normalise: make vectors of length 1; that is another space.
        where: SQL filter of the rows to encode.
        sample: encode this many of them, drawn by chance; 0 encodes all. Enough to fit a map on.
        dtype: float32, or float16 at half the bytes.
        version: of a function: change it when what the function calls changes.
        batch_size: items that the model sees at once.
        unit_rows: rows that are kept together; what a kill can cost.
        overwrite: replace what another model wrote there.
        seed: of the sample.
        threads: of the processor.
        dry_run: print rows, parameters, FLOPs and bytes; write nothing.
        json: print JSON.
    """

    store: Path
    model: str
    name: str
    column: str = "image"
    modality: Literal["", "image", "text"] = ""
    normalise: bool = False
    where: str = ""
    sample: int = 0
    dtype: Literal["float32", "float16"] = "float32"
    version: str = ""
    batch_size: int = 64
    unit_rows: int = 512
    overwrite: bool = False
    seed: int = 0
    threads: int = 1
    dry_run: bool = False
    json: bool = False


def encode(argv: Sequence[str], prog: str) -> int:
    """Parse and run `update encode STORE`."""
    options = parse_config(EncodeOptions, positional_store(argv), prog)

    import torch

    from understudy.core.seeds import rng
    from understudy.data.store import Store
    from understudy.update.embedders import open_embedder, sample_inputs
    from understudy.update.encode import encode_card, encode_column, select_rows, usable_rows

    torch.set_num_threads(options.threads)
    store = Store.open(options.store)
    modality = options.modality or ("image" if options.column == "image" else "text")
    rows, empty = usable_rows(store, options.column, modality, select_rows(store, options.where))
    embedder = open_embedder(
        options.model,
        modality,
        normalise=options.normalise,
        version=options.version,
        inputs=sample_inputs(store, options.column, modality, rows),
    )
    if options.sample:
        chosen = rng("encode-sample", options.seed).permutation(len(rows))[: options.sample]
        rows = rows[chosen]
    if options.dry_run:
        card = encode_card(store, embedder, options.name, options.column, options.dtype)
        done = int(store.filled(card.column)[rows].sum()) if store.has(card.column) else 0
        size = 4 if options.dtype == "float32" else 2
        facts = {
            "writes": card.column,
            "rows": len(rows),
            "rows_done": done,
            "empty": empty,
            "space": embedder.space.id,
            "dim": embedder.dim,
            **_model_facts(embedder, len(rows) - done),
            "bytes_written": (len(rows) - done) * embedder.dim * size,
        }
        show(facts, options.json, lambda f: facts_table(f, "encode"))
        return 0
    report = encode_column(
        store,
        embedder,
        options.name,
        column=options.column,
        rows=rows,
        dtype=options.dtype,
        batch_size=options.batch_size,
        unit_rows=options.unit_rows,
        overwrite=options.overwrite,
    )
    facts = {
        **dataclasses.asdict(report),
        "space": embedder.space.id,
        "items_per_second": round(report.items_per_second, 1),
        "store": str(options.store),
    }
    show(facts, options.json, lambda f: facts_table(f, "encode"))
    note(f"wrote column '{report.column}' of {options.store}, in space {embedder.space}")
    return 0


def _model_facts(embedder: Any, rows: int) -> dict[str, Any]:
    """Return parameters and FLOPs of a model, where there is a network to count."""
    from understudy.models.count import macs, parameters

    module = getattr(embedder.encoder, "module", None)
    if module is None or not hasattr(module, "parameters"):
        return {}
    found: dict[str, Any] = {"parameters": parameters(module)}
    if embedder.modality == "image":
        import numpy as np

        size = embedder.encoder.preprocess.get("input", {})
        side = size.get("size", 64) if isinstance(size, dict) else 64
        picture = np.full((1, side, side, 3), 127, np.uint8)
        each = 2 * macs(embedder, picture)
    else:
        each = 2 * macs(embedder, ["a text of some ten words, as most of them have"])
    return {**found, "flops_per_row": each, "flops": each * rows}
