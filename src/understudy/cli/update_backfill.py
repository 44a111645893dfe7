"""`understudy update plan`, `update backfill` and `update curve`: from an order to its curve."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.cli.common import note, parse_config, positional_store, show, table


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """Plan which items of a gallery the new model encodes, and in which order.

    Attributes:
        store: the store; also the first word of the command.
        new: column of the new model's own vectors; need not be there yet.
        mapped: column of mapped vectors; found by its name when empty.
        policy: uncertainty, ascending, random, distance or class-mean.
        budget: fraction of the items that are left (0.2), percentage (20%) or count (5000items).
        seed: of policy random.
        labels: column of classes, for class-mean.
        oracle: column with the new model's vectors of all items, for distance.
        out: plan file to write.
        dry_run: print the plan's numbers, write nothing.
        json: print JSON.
    """

    store: Path
    new: str = "embed.new"
    mapped: str = ""
    policy: str = "uncertainty"
    budget: str = "1.0"
    seed: int = 0
    labels: str = ""
    oracle: str = ""
    out: Path = Path("plan.parquet")
    dry_run: bool = False
    json: bool = False


def plan(argv: Sequence[str], prog: str) -> int:
    """Parse and run `update plan STORE`."""
    options = parse_config(PlanOptions, positional_store(argv), prog)

    from understudy.data.store import Store
    from understudy.update.plan import PlanConfig, make_plan, write_plan

    config = PlanConfig(
        new=options.new,
        mapped=options.mapped,
        policy=options.policy,
        budget=options.budget,
        seed=options.seed,
        labels=options.labels,
        oracle=options.oracle,
    )
    made = make_plan(Store.open(options.store), config)
    facts = {**made.facts, "fingerprint": made.fingerprint}
    show(facts, options.json, _plan_text)
    if made.facts["unspent"]:
        note(f"{made.facts['unspent']:,} items of the budget are unspent: no more are left.")
    if made.facts["absent"]:
        note(
            f"{made.facts['absent']:,} rows have no vector at all and are outside of the plan: "
            "apply the map to them or encode them."
        )
    if not options.dry_run:
        note(f"wrote {write_plan(made, options.out)}")
    return 0


def _plan_text(facts: dict[str, Any]) -> str:
    names = {
        "policy": "policy",
        "budget": "budget",
        "rows": "rows of the store",
        "encoded": "encoded already",
        "absent": "without any vector",
        "remaining": "left to encode",
        "planned": "planned",
        "unspent": "budget unspent",
        "new": "new vectors",
        "mapped": "mapped vectors",
        "fingerprint": "fingerprint",
    }
    return table([(words, facts[key]) for key, words in names.items()], ("backfill plan", ""))


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillOptions:
    """Encode the next items of a plan; run it again to go on.

    Attributes:
        store: the store; also the first word of the command.
        plan: plan file.
        model: the new model, as for 'understudy update encode'.
        limit: items to encode in this run, at most; 0 for all that are left.
        input: column of raw items; by default the one the index column was encoded from.
        version: of a function, as for 'understudy update encode'.
        encode_rows: items encoded and kept at a time; what a kill can cost.
        commit_rows: items that become visible together; 0 for a twentieth of the store, at least
            1,024. A commit writes the column anew in every part of the store that it touches.
        check_items: items with new vectors that are encoded again first and must agree.
        dtype: float32, or float16 at half the bytes, of a column that is not there yet.
        threads: of the processor.
        dry_run: print items, seconds and bytes; write nothing.
        json: print JSON.
    """

    store: Path
    plan: Path
    model: str
    limit: int = 0
    input: str = ""
    version: str = ""
    encode_rows: int = 64
    commit_rows: int = 0
    check_items: int = 32
    dtype: str = "float32"
    threads: int = 1
    dry_run: bool = False
    json: bool = False


def backfill(argv: Sequence[str], prog: str) -> int:
    """Parse and run `update backfill STORE --plan FILE --model NAME`."""
    options = parse_config(BackfillOptions, positional_store(argv), prog)

    import torch

    from understudy.data.store import Store
    from understudy.update.backfill import BackfillConfig, dry_run
    from understudy.update.backfill import backfill as run
    from understudy.update.backfill_encoder import input_column, open_encoder
    from understudy.update.plan import check_plan, read_plan

    torch.set_num_threads(options.threads)
    store, found = Store.open(options.store), read_plan(options.plan)
    where = str(options.plan)
    check_plan(found, store, where)  # before a model is loaded
    encoder = open_encoder(
        store, found, options.model, column=options.input, version=options.version
    )
    config = BackfillConfig(
        limit=options.limit,
        input=input_column(store, found, options.input),
        encode_rows=options.encode_rows,
        commit_rows=options.commit_rows,
        check_items=options.check_items,
        dtype=options.dtype,
    )
    if options.dry_run:
        cost = dry_run(store, found, encoder, config, where=where)
        show(dataclasses.asdict(cost), options.json, _facts_text("backfill, not run"))
        return 0
    result = run(store, found, encoder, config, where=where)
    show(dataclasses.asdict(result), options.json, _facts_text("backfill"))
    if not result.checked and options.check_items:
        note("no item had a new vector before, so nothing could be compared with the encoder.")
    column = found.facts["new"]
    note(f"wrote column '{column}' of {options.store}, version {result.version}")
    if result.left:
        note(f"{result.left:,} items of the plan are left; run the same command to go on.")
    return 0


def _facts_text(title: str) -> Any:
    def text(facts: dict[str, Any]) -> str:
        return table([(k.replace("_", " "), v) for k, v in facts.items()], (title, ""))

    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveOptions:
    """Draw retrieval quality against the fraction that is encoded again.

    Attributes:
        store: the store; also the first word of the command.
        labels: column of classes; items of one class are relevant to each other.
        new: column of the new model's vectors, filled in all rows that are scored.
        mapped: column of mapped vectors; found by its name when empty.
        old: column of the old model's vectors, for the baseline.
        plan: plan file whose order is drawn too.
        where: SQL condition on the rows to score.
        points: of the grid, both ends included.
        orders: plan, uncertainty, ascending, random, distance, class-mean; all that can be drawn
            by default.
        permutations: random orders that the curve 'random' is the mean of.
        groups: column of groups, for a fairness curve.
        minority: group that it is about; the smallest by default.
        metric: l2 or cosine.
        seed: of the first random order.
        out: folder for curve.json, curve.csv, curve.png and curve.html.
        dry_run: print items and distances to compute; write nothing.
        json: print JSON.
    """

    store: Path
    labels: str
    new: str = "embed.new"
    mapped: str = ""
    old: str = ""
    plan: Path | None = None
    where: str = ""
    points: int = 11
    orders: tuple[str, ...] = ()
    permutations: int = 3
    groups: str = ""
    minority: str = ""
    metric: str = "l2"
    seed: int = 0
    out: Path = Path("curve")
    dry_run: bool = False
    json: bool = False


def curve(argv: Sequence[str], prog: str) -> int:
    """Parse and run `update curve STORE --labels COLUMN`."""
    options = parse_config(CurveOptions, positional_store(argv), prog)

    from understudy.core.lazy import installed
    from understudy.data.store import Store
    from understudy.update.curve_files import to_plain, write_curves
    from understudy.update.curve_store import CurveConfig, curve_cost, store_curves
    from understudy.update.plan import read_plan

    names = [field.name for field in dataclasses.fields(CurveConfig)]
    config = CurveConfig(**{name: getattr(options, name) for name in names})
    store = Store.open(options.store)
    found = None if options.plan is None else read_plan(options.plan)
    if options.dry_run:
        cost = curve_cost(store, config, found)
        show(cost, options.json, _facts_text("curve, not run"))
        return 0
    curves, facts = store_curves(store, config, found, where=str(options.plan))
    paths = write_curves(curves, options.out, facts)
    if installed("jinja2") and installed("plotly"):
        from understudy.report.updates import write_curve_page

        paths.append(write_curve_page(options.out, title=f"Backfilling {options.store.name}"))
    show(to_plain(curves, facts), options.json, _curve_text)
    for path in paths:
        note(f"wrote {path}")
    return 0


def _curve_text(data: dict[str, Any]) -> str:
    metrics = list(next(iter(data["orders"].values()))["metrics"])
    gap = any(curve["gap"] for curve in data["orders"].values())
    rows = [
        (
            name,
            *(curve["auc"][metric] for metric in metrics),
            curve["auc_trapezoid"]["map"],
            curve["beta_95"]["map"],
            curve["violations"]["map"],
            *((curve["gap_auc"],) if gap else ()),
        )
        for name, curve in data["orders"].items()
    ]
    header = ["order", *(f"AUC {metric}" for metric in metrics), "trapezoid map", "95% at", "falls"]
    lines = [table(rows, header + (["AUC gap"] if gap else []))]
    if data["spearman"] is not None:
        lines.append(f"Spearman(uncertainty, error) {data['spearman']:.3f}")
    if "old_old" in data:
        lines.append(
            f"mAP old/old {data['old_old']['map']:.4f}; new/mapped "
            f"{'beats' if data['compatible'] else 'does not beat'} it"
        )
    return "\n".join(lines)
