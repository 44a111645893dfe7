"""Latency of the folded MCi0 against timm's reparameterised `fastvit_mci0`, on equal weights.

Batch 1, 256 px, float32, one thread. Rounds are interleaved, so that a slow minute of the machine
meets every arm; the ratio is the median over rounds. Needs timm, hence the environment of
`make parity`:

    .venv-parity/bin/python benchmarks/fold_latency.py

Without timm it still compares folded with unfolded and says what is missing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

ROUNDS, INFERENCES, WARMUP = 20, 12, 3
SIZE = 256


def peer_and_ours() -> tuple[torch.nn.Module | None, torch.nn.Module]:
    """Return (timm's tower or None, our tower with the same weights), both in eval mode."""
    from understudy import models
    from understudy.models.convert import load_timm

    try:
        # torchvision's PyPI build needs its operators declared on a CPU-only torch
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import timm
    except ModuleNotFoundError:
        return None, models.create("mci0", num_classes=512, seed=0).eval()
    torch.manual_seed(0)
    peer = timm.create_model("fastvit_mci0", num_classes=512).eval()
    return peer, load_timm(peer.state_dict(), "mci0")


def arms() -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    peer, ours = peer_and_ours()
    images = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    last = images.contiguous(memory_format=torch.channels_last)
    folded, published = ours.fold(), ours.fold("branches")
    nhwc = ours.fold().to(memory_format=torch.channels_last)
    found: dict[str, Callable[[], object]] = {
        "ours-folded": lambda: folded(images),
        "ours-folded-branches": lambda: published(images),
        "ours-folded-channels-last": lambda: nhwc(last),
        "ours-unfolded": lambda: ours(images),
    }
    if peer is not None:
        from timm.utils.model import reparameterize_model

        theirs = reparameterize_model(peer)
        difference = (theirs(images) - folded(images)["logits"]).abs().max()
        if difference > 1e-5 * theirs(images).abs().max():
            raise SystemExit(f"the arms compute different things: {difference:.2e}")
        found["timm-reparameterised"] = lambda: theirs(images)
    return found


def measure(found: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return each arm's median seconds an inference, per round."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for run in found.values():
        for _ in range(WARMUP):
            run()
    for number in range(ROUNDS):
        # turn the order around every round: no arm is always first
        order = list(found) if number % 2 == 0 else list(reversed(found))
        for name in order:
            times = []
            for _ in range(INFERENCES):
                start = time.perf_counter()
                found[name]()
                times.append(time.perf_counter() - start)
            seconds[name].append(statistics.median(times))
    return seconds


def ratios(seconds: dict[str, list[float]], over: str) -> dict[str, float]:
    """Return, per arm, the median over rounds of `over`'s time divided by the arm's."""
    return {
        name: round(statistics.median(a / b for a, b in zip(seconds[over], times, strict=True)), 4)
        for name, times in seconds.items()
    }


def main() -> None:
    torch.set_num_threads(1)
    with torch.inference_mode():
        seconds = measure(arms())
    timm_here = "timm-reparameterised" in seconds
    against = ratios(seconds, "timm-reparameterised" if timm_here else "ours-unfolded")
    result = {
        "batch": 1,
        "image_size": SIZE,
        "dtype": "float32",
        "threads": 1,
        "rounds": ROUNDS,
        "median_ms": {k: round(statistics.median(v) * 1e3, 3) for k, v in seconds.items()},
        "min_ms": {k: round(min(v) * 1e3, 3) for k, v in seconds.items()},
    }
    for name, value in against.items():
        print(f"{name}: {result['median_ms'][name]:.2f} ms, ratio {value:.3f}")  # type: ignore[index]
    if not timm_here:
        sys.exit("timm is not installed here: run this in the environment of `make parity`.")
    from common import write_result

    result["timm_over_arm"] = against
    result["timm_over_ours"] = against["ours-folded"]
    result["goal"] = "timm_over_ours >= 1.0"
    write_result("fold_latency", result)
    print(f"timm / ours: {against['ours-folded']:.3f} (goal: at least 1.0)")
    sys.exit(0 if against["ours-folded"] >= 1.0 else 1)


if __name__ == "__main__":
    main()
