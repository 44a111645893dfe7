"""`understudy model ttft`: time to the first token of vision-language models, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from understudy.cli.common import note, parse, show, table
from understudy.core.errors import ConfigError

Positional = tyro.conf.Positional


def _sizes(words: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words.replace(",", " ").split())
    except ValueError:
        raise ConfigError(
            f"--resolutions {words}: expected whole numbers of pixels, such as 256,512,1024."
        ) from None


def ttft(argv: Sequence[str], prog: str) -> None:
    """Parse and run `model ttft`."""

    def command(
        models: Positional[tuple[str, ...]],
        resolutions: str = "",
        samples: int = 15,
        warmup: int = 3,
        prompt_tokens: int = 16,
        threads: int = 1,
        fold: bool = True,
        image_side: int = 0,
        report: Path | None = None,
        json: bool = False,
    ) -> None:
        """Time the first token: decode, preprocess, vision, project, prefill, first token.

        Args:
            models: names, runs' folders or weights files of vision-language models.
            resolutions: sides of the images in pixels, with commas; each model's own by default.
            samples: rounds that count; ratios need at least 5.
            warmup: rounds before them; ratios need at least 1.
            prompt_tokens: text tokens of the prompt.
            threads: of the processor.
            fold: time the folded tower.
            image_side: side of the timed picture; the model's resolution by default.
            report: write a page with the table and a plot.
            json: print everything as JSON.
        """
        from understudy.compress.ttft import TTFTConfig, bench_many
        from understudy.models.multimodal.vlm import VLM
        from understudy.models.runs import find_model

        if not models:
            raise ConfigError(f"{prog}: name a model, for example '{prog} fastvlm-nano'.")
        config = TTFTConfig(
            samples=samples,
            warmup=warmup,
            prompt_tokens=prompt_tokens,
            threads=threads,
            fold=fold,
            image_side=image_side,
        )
        found: dict[str, Any] = {}
        for name in models:
            found[name] = find_model(name)
            if not isinstance(found[name], VLM):
                raise ConfigError(
                    f"{name}: is a {type(found[name]).__name__}, not a vision-language model."
                )
        results = []
        for side in _sizes(resolutions) or (0,):
            note(f"timing {', '.join(models)} at {side or 'their own'} pixels")
            results += bench_many(found, side, config)
        if report is not None:
            from understudy.report.vlm import write_ttft_page

            note(f"report: {write_ttft_page(results, report)}")
        show([r.to_dict() for r in results], json, _text)

    parse(command, argv, prog)


def _text(results: list[dict[str, Any]]) -> str:
    from understudy.compress.ttft import LEAST_SAMPLES, PARTS

    header = ("model", "px", "tokens", *PARTS, "end to end", "paper TTFT")
    rows = [
        (
            r["name"],
            r["resolution"],
            r["visual_tokens"],
            *(round(r["parts_ms"][part], 3) for part in PARTS),
            round(r["end_to_end_ms"], 3),
            round(r["paper_ms"], 3),
        )
        for r in results
    ]
    first = results[0]
    lines = [
        table(rows, header),
        "",
        f"milliseconds, medians of {first['samples']} after {first['warmup']} warm-up rounds; "
        f"{first['prompt_tokens']} text tokens; {first['device']}, threads {first['threads']}",
        "end to end is the full TTFT; paper TTFT is vision + prefill of the visual tokens alone",
        "parts add up to the whole within "
        f"{max(r['gap'] for r in results):.2%} (at most 2% is allowed)",
    ]
    if any(not r["consistent"] for r in results):
        lines.append("WARNING: they do not; the machine was disturbed, time again")
    if len(results) > 1:
        if first["samples"] < LEAST_SAMPLES or first["warmup"] < 1:
            lines.append(
                f"no ratios: they need at least {LEAST_SAMPLES} samples and one warm-up round"
            )
        else:
            lines += ["", "over the first row, end to end:"]
            lines += [
                f"  {r['name']} at {r['resolution']}: "
                f"{r['end_to_end_ms'] / first['end_to_end_ms']:.2f}"
                for r in results[1:]
            ]
    return "\n".join(lines)
