"""Time to the first token by resolution: the same language model behind two vision towers.

`fastvlm-nano` (five stages, stride 64) against the same decoder behind a ViT of patch 16 with as
many parameters, at equal resolution: the ViT gives 16 times the tokens, which the decoder must
read. Models take turns; the trace begins at the file and ends at the first token.

    .venv/bin/python benchmarks/ttft.py [--quick]
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from typing import Any

from common import write_result

SIDES = (256, 384, 512, 768)


def models_of() -> dict[str, Any]:
    """Return both models with fresh weights."""
    from understudy.models.build import create_from
    from understudy.models.image.vit_config import VIT_NANO16
    from understudy.models.multimodal.vlm_config import fastvlm_nano, square
    from understudy.models.text.train_tokenizer import train_words

    words = train_words(["how many digits are there? which digit is the largest? 0 1 2 3 4"])
    ours = fastvlm_nano()
    ours = replace(ours, language=replace(ours.language, context=4096))
    rival = replace(
        ours, name="vit-nano", image=replace(VIT_NANO16, image_size=512), preprocess=square(512)
    )
    return {c.name: create_from(c, tokenizer=words, seed=0).eval() for c in (ours, rival)}


def main() -> None:
    import torch

    from understudy.compress.ttft import TTFTConfig, bench_many, ttft_ratio

    torch.set_num_threads(1)
    quick = "--quick" in sys.argv
    config = TTFTConfig(samples=5 if quick else 15, warmup=2)
    models, found = models_of(), {}
    for side in SIDES:
        ours, rival = bench_many(models, side, config)
        found[side] = {
            "ratio": round(ttft_ratio(rival, ours), 3),
            "paper_ratio": round(ttft_ratio(rival, ours, "paper_ms"), 3),
            "end_to_end_ms": {r.name: round(r.end_to_end_ms, 2) for r in (ours, rival)},
            "parts_ms": {
                r.name: {k: round(v, 2) for k, v in r.parts_ms.items()} for r in (ours, rival)
            },
            "visual_tokens": {r.name: r.visual_tokens for r in (ours, rival)},
        }
        print(
            f"{side} px: {ours.visual_tokens} and {rival.visual_tokens} tokens, "
            f"{ours.end_to_end_ms:.1f} and {rival.end_to_end_ms:.1f} ms, ratio "
            f"{found[side]['ratio']:.2f} (paper's count {found[side]['paper_ratio']:.2f})"
        )
    ratios = [found[side]["ratio"] for side in SIDES]
    grows = all(a < b for a, b in itertools.pairwise(ratios))
    write_result("ttft", {"by_resolution": found, "grows": grows})
    print(f"the ratio grows with resolution: {'yes' if grows else 'no'}")
    sys.exit(0 if grows else 1)


if __name__ == "__main__":
    main()
