"""What the published streams count up to: steps, iterations, pairs, multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import Plan, add_cost, hours_for, training_flop

if TYPE_CHECKING:
    from understudy.recipes.tic_clip_config import Config

PAPER = "2310.16226"
PEAK_FLOP_PER_S = 312e12
"""Of an A100 in 16 bits."""
UTILISATION = 0.3
"""Share of the peak that is reached: an assumption."""
STEPS = 7
UNKNOWN_STAR = "cumulative-all-star"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    pool: int
    batch: int
    iterations: int
    lr: float
    warmup: int


SCALES = {
    "medium": _Scale(pool=128_000_000, batch=4_096, iterations=4_500, lr=5e-4, warmup=500),
    "large": _Scale(pool=1_280_000_000, batch=8_192, iterations=22_500, lr=5e-4, warmup=500),
    "xlarge": _Scale(pool=12_800_000_000, batch=90_112, iterations=20_500, lr=1e-3, warmup=10_000),
}
"""TiC-DataComp: settings of the released parameter files."""
PUBLISHED_MACS = {("large", "oracle"): 1.4e20, ("large", UNKNOWN_STAR): 0.525e20}
"""Read off the figure of compute against quality."""


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "mobileclip-b") -> Plan:
    """Count TiC-DataComp at one scale; run nothing.

    Args:
        scale: `"paper"` (all three), `"medium"`, `"large"` or `"xlarge"`.
        price_per_hour: money per device hour.
        model: a CLIP; `mobileclip-b` has the published towers (ViT-B/16 at 224 px and the base text
            transformer).

    Raises:
        ConfigError: an unknown scale, or a model that is no CLIP.
    """
    from understudy import models
    from understudy.models.count import count_towers
    from understudy.update.continual_methods import compute_table

    check_choice(scale, ("paper", *SCALES), "plan of tic-clip, scale")
    config: Any = models.config(model)
    counted = count_towers(config)
    if "text" not in counted:
        raise ConfigError(f"plan of tic-clip: '{model}' is no CLIP; give mobileclip-b, say.")
    macs = counted["image"].macs + counted["text"].macs
    made = Plan(recipe="tic-clip", scale=scale)
    parameters = counted["image"].parameters + counted["text"].parameters
    made.add("parameters of both towers", parameters, "", formula=model)
    made.add("forward pass of a pair", macs, "MAC")
    rows = compute_table(STEPS)
    for row in rows:
        spent = " + ".join(f"{share:g}" for share in row.steps)
        made.add(f"{row.method}, {STEPS} steps", row.total, "C", formula=spent)
    for row in rows:
        if row.method in ("cumulative-all", UNKNOWN_STAR):
            made.add(f"oracle over {row.method}", row.saving, "times", source=f"{PAPER}, abstract",
                     published=4.0 if row.method == "cumulative-all" else 2.7)  # fmt: skip
    hours: dict[str, float] = {}
    for name in SCALES if scale == "paper" else (scale,):
        hours |= _scale(made, name, macs)
    add_cost(made, hours, price_per_hour)
    _quadratic(made)
    made.notes += [
        f"device hours assume {UTILISATION:.0%} of an A100's 312 TFLOP/s.",
        "MAC counts forward passes of both towers; the published totals are read off a figure and "
        "are a third above this product of pairs seen and MAC, which is not explained there.",
        "the released entry of the medium scale names ViT-B/32, the text ViT-B/16.",
        "memory of cumulative-exp and -equal is read as 2 D of old pairs beside D new ones.",
    ]
    return made


def _scale(made: Plan, name: str, macs: int) -> dict[str, float]:
    """Add the rows of one scale; return device hours by method."""
    from understudy.update.continual_methods import compute_table

    one = SCALES[name]
    seen = one.batch * one.iterations
    made.add(f"{name}: pool", one.pool, "pairs")
    made.add(
        f"{name}: pairs seen in one C",
        seen,
        "pairs",
        formula=f"{one.iterations:,} x {one.batch:,}; lr {one.lr:g}, warm-up {one.warmup:,}",
        source=f"{PAPER}, released parameters",
    )
    hours = {}
    for row in compute_table(STEPS, ("cumulative-all", UNKNOWN_STAR, "oracle")):
        made.add(
            f"{name}: {row.method}",
            row.total * seen * macs,
            "MAC",
            formula=f"{row.total:g} C x MAC",
            published=PUBLISHED_MACS.get((name, row.method)),
        )
        hours[f"{name}, {row.method}"] = hours_for(
            training_flop(macs, row.total * seen),
            peak_flop_per_s=PEAK_FLOP_PER_S,
            utilisation=UTILISATION,
        )
    return hours


def _quadratic(made: Plan) -> None:
    """Add how the oracle's price grows with the number of steps."""
    from understudy.update.continual_methods import total_compute

    for total in (4, STEPS, 12, 50):
        made.add(
            f"oracle at {total} steps",
            total_compute("oracle", total),
            "C",
            formula=f"{total} x {total + 1} / 2; going on costs {total} C",
        )


def preview(config: Config) -> Plan:
    """Count what `run` would train on the user's data; train and write nothing.

    Raises:
        UnderstudyError: whatever `run` would refuse before its first step.
    """
    from understudy.data.periods_stream import Stream
    from understudy.data.store import Store
    from understudy.models.count import count_towers, parameters
    from understudy.recipes.tic_clip_config import continual, preset
    from understudy.update.continual import mix_of
    from understudy.update.continual_methods import compute_table
    from understudy.update.continual_start import fresh_model

    config = preset(config)
    store = Store.open(config.store)
    stream = Stream.of(store, config.stream)
    stream.check_steps(config.train.batch_size)
    first = continual(config, config.methods[0], config.seeds[0])
    model: Any = fresh_model(store, first.student, stream[0].rows)
    towers = count_towers(model.config)
    macs = towers["image"].macs + towers["text"].macs
    made = Plan(recipe="tic-clip", scale="this run")
    made.add("parameters", parameters(model), "", formula=model.config.name)
    made.add("forward pass of a pair", macs, "MAC")
    for step in stream:
        made.add(
            f"time step {step.name}",
            len(step.rows),
            "rows",
            formula=f"{len(step.eval_rows):,} for the test, {len(step.held_rows):,} held",
        )
    seen = config.train.steps * config.train.batch_size
    made.add(
        "one C", seen, "pairs", formula=f"{config.train.steps:,} x {config.train.batch_size:,}"
    )
    for row in compute_table(len(stream), config.methods):
        last = mix_of(continual(config, row.method, config.seeds[0]), stream.steps)
        made.add(
            f"{row.method}: training",
            len(config.seeds) * training_flop(macs, row.total * seen),
            "FLOP",
            formula=f"{row.total:g} C x {len(config.seeds)} seeds",
        )
        made.add(f"{row.method}: rows of the last step", len(last.rows), "rows",
                 formula=f"{len(last.current):,} new")  # fmt: skip
    if stream.periods is not None and stream.periods.note():
        made.notes.append(stream.periods.note())
    made.notes.append(f"everything goes to {config.out}; nothing has been written.")
    return made
