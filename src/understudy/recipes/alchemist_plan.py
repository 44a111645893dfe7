"""What synchronous training on many workers counts up to: steps, rings, checkpoints, money."""

from __future__ import annotations

from understudy.evaluate.plans import Plan, add_cost, training_flop
from understudy.launch.cost import best_interval_s, overhead
from understudy.train.parallel.step_model import StepModel
from understudy.update.paper_size import IMAGES, PEAK_FLOP_PER_S, UTILISATION, backbone

WORKERS = (1, 8, 16, 64)
EPOCHS = 90
BATCH = 256
"""Samples of a worker in a step."""
BANDWIDTH = 3.125e9
"""Bytes a second between machines: 25 Gbit/s."""
LATENCY_S = 20e-6
WRITE = 500e6
"""Bytes a second that a checkpoint is written with."""
FAILURES_PER_WORKER_S = 30 * 86_400.0
"""Mean time between failures of one worker: a month, an assumption."""
RESTART_S = 60.0


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "resnet50-128") -> Plan:
    """Count the paper's contrast, one worker and many, with a model of public size.

    Args:
        scale: `"paper"`.
        price_per_hour: money per device hour.
        model: an image classifier; the paper's own detectors are not published.

    Raises:
        ConfigError: an unknown scale, or a model that is no image classifier.
    """
    tower, _ = backbone(model, scale, "alchemist")
    made = Plan(recipe="alchemist", scale=scale)
    gradient = 4.0 * tower.parameters
    compute = training_flop(tower.macs, BATCH) / (PEAK_FLOP_PER_S * UTILISATION)
    step = StepModel(compute_s=compute, bytes=gradient, bandwidth=BANDWIDTH, latency_s=LATENCY_S)
    save_s = 3 * gradient / WRITE  # weights and two moments
    made.add("parameters", tower.parameters, "", formula=model)
    made.add("gradient of a step", gradient, "B", formula="float32")
    made.add("computing of a step", compute, "s", formula=f"6 x MACs x {BATCH} samples")
    made.add(
        "a checkpoint", save_s, "s", formula=f"weights and two moments at {WRITE / 1e6:g} MB/s"
    )
    hours: dict[str, float] = {}
    alone = 0.0
    for n in WORKERS:
        between = FAILURES_PER_WORKER_S / n
        pause = best_interval_s(save_s, between)
        lost = overhead(pause, save_s, between) + RESTART_S / between
        seconds = EPOCHS * IMAGES / (BATCH * n) * step.seconds(n) / (1 - lost)
        alone = alone or seconds
        who = f"{n} workers" if n > 1 else "1 worker"
        made.add(f"{who}: sent by each in a step", step.sent(n), "B", formula="2 (n-1)/n x bytes")
        made.add(f"{who}: a step, T(n)", step.seconds(n), "s",
                 formula="computing + 2(n-1)/n bytes/bandwidth + 2(n-1) latency")  # fmt: skip
        made.add(f"{who}: efficiency, E(n)", step.efficiency(n), "", formula="T(1) / T(n)")
        made.add(f"{who}: between checkpoints", pause, "s", formula="Young: sqrt(2 c M)")
        made.add(f"{who}: lost to failures", lost, "", formula="c/tau + tau/(2M) + restart/M")
        made.add(f"{who}: training", seconds, "s", formula=f"{EPOCHS} passes over ImageNet-1k")
        made.add(f"{who}: times faster", alone / seconds, "")
        hours[who] = seconds * n / 3600
    add_cost(made, {f"{WORKERS[-1]} workers": hours[f"{WORKERS[-1]} workers"]}, price_per_hour)
    made.notes += [
        f"device hours assume {UTILISATION:.0%} of an A100's 312 TFLOP/s; nothing overlaps, so "
        "E(n) is a lower bound for trainers that send gradients while they compute.",
        f"a worker fails once in {FAILURES_PER_WORKER_S / 86_400:g} days and takes {RESTART_S:g} s "
        "to come back; both are assumptions.",
        "the paper says that training times were reduced by 10x; its tables are not public here.",
    ]
    return made
