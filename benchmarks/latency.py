"""The latency table: models by resolutions by precisions, on this machine's processor.

float32 and bfloat16 in torch, int8 in ONNX Runtime with that runtime's float32 beside it, by the
protocol of `understudy model latency`; int8's loss of accuracy is measured by the claims, not here.

    .venv/bin/python benchmarks/latency.py [--quick]
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from typing import Any

from common import write_result

MODELS = {
    "mobileclip-s0": (256, 384),
    "mobileclip2-s3": (256, 512),
    "mobileclip-nano": (48, 96),
}
PRECISIONS = ("fp32", "bf16", "int8")


def main() -> None:
    import torch

    from understudy import models
    from understudy.compress.latency_grid import measure_grid
    from understudy.compress.timing import LatencyConfig

    torch.set_num_threads(1)
    quick = "--quick" in sys.argv
    base = LatencyConfig(rounds=2 if quick else 5, inferences=10, discard=2, trim=2)
    rows: list[dict[str, Any]] = []
    for name, sides in MODELS.items():
        model = models.create(name, seed=0).eval()
        config = replace(base, inferences=50) if name.endswith("nano") else base
        for found in measure_grid(
            model, config, precisions=PRECISIONS, resolutions=sides, towers=("image",), name=name
        ):
            rows.append(asdict(found))
            print(f"{found.name} {found.tower} {found.size} {found.dtype} {found.runtime}: "
                  f"{found.mean_ms:.1f} ms")  # fmt: skip
    write_result("latency", {"rows": rows, "threads": 1, "batch": 1})


if __name__ == "__main__":
    main()
