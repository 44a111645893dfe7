"""FastVLM: the input resolution is the token budget of a vision-language model.

"FastVLM: Efficient Vision Encoding for Vision Language Models" (CVPR 2025, arXiv 2412.13303). A
five-stage tower of stride 64 (FastViTHD) turns R x R pixels into (R / 64)^2 tokens of 3,072
channels; `mlp2x_gelu` projects them; a causal language model reads them in the place of `<image>`.
Nothing is pruned. Encoder, resolution and language model are one design space, compared by accuracy
over the time to the first token.

    understudy data import llava.json chats.store --kind conversations --images photos/
    understudy run fastvlm STORE --languages nano --resolutions 256 512 --out runs/fastvlm
    understudy model ttft fastvlm-nano --resolutions 256,512,1024
    understudy verify fastvlm --jobs 2
    understudy plan fastvlm --scale paper

The paper: at 1,024 px and with Qwen2-0.5B the first token comes after 166 ms, 85 times sooner than
LLaVA-OneVision's, at better scores. The claim here (latency of towers of 1.1 M parameters, and four
small models on questions about canvases of digits, 3 seeds) takes about an hour on two cores.

The algorithm, as `run` goes through it, for each language model and resolution:

1. put the parts together: tower, projector, language model and its tokenizer;
2. S1: train the projector alone at the tower's pretraining resolution; S2 (and S1.5, S3): train
   everything at the target resolution; the loss counts what the assistant says and nothing else;
3. ask the questions of the split `test`, one by one; time the first token;
4. write `result.json` with the sweep: a setting is kept if no other is faster and better.

With a tower that knows nothing yet, S1 has nothing to project: `--stages one` (the default) trains
everything at once, which is what small models from scratch want.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import Plan
from understudy.recipes.fastvlm_claim import CLAIM
from understudy.recipes.fastvlm_plan import plan as PLAN
from understudy.train.config import TrainConfig
from understudy.train.vlm_config import VLMStage, scaled, two_stage

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run", "stages_of"]


def _base() -> TrainConfig:
    return TrainConfig(steps=1, log_every=20, checkpoint_every=200)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Say which parts are put together and how they are trained.

    Attributes:
        store: conversations with images, of `understudy data import --kind conversations`.
        out: folder of the runs and of `result.json`.
        vision: vision tower: a key of `understudy.models.MODELS`, or a run or weights file whose
            tower is taken (a CLIP's).
        languages: language models: `tiny`, `nano` or `small` (own, from scratch), a folder of a
            Transformers model, a file of llama2.c, or `asset:stories15m`.
        resolutions: sides of the images in pixels, multiples of the tower's stride.
        pretrained: resolution of S1; 0 takes the smallest of `resolutions`.
        stages: `one` (everything at once), `two-stage` or `scaled`, as in the paper.
        lr: of stages that train everything; 0 takes the stage's own.
        batch_size: conversations a step; 0 takes the stage's own.
        steps: of each stage; 0 is one pass over the rows.
        projector: `mlp2x_gelu` or `linear`.
        features: `last`, `average` or `depthwise`; see `VisionTower`.
        pinpoints: (width, height) of grids of tiles; none is the paper's static resolution.
        context: tokens of a sequence at most; 0 for the language model's.
        template: of conversations; empty chooses by language model.
        rows: SQL filter of the rows to train on.
        ttft_samples: rounds of the timing; fewer than 5 give no ratios.
        train: where logging, checkpoints, precision and device come from.
        seed: of fresh weights and order.
    """

    store: Path
    out: Path = Path("runs/fastvlm")
    vision: str = "mci-nano5"
    languages: tuple[str, ...] = ("nano",)
    resolutions: tuple[int, ...] = (256, 512)
    pretrained: int = 0
    stages: Literal["one", "two-stage", "scaled"] = "one"
    lr: float = 0.0
    batch_size: int = 0
    steps: int = 0
    projector: str = "mlp2x_gelu"
    features: str = "last"
    pinpoints: tuple[tuple[int, int], ...] = ()
    context: int = 0
    template: str = ""
    rows: str = ""
    ttft_samples: int = 15
    train: TrainConfig = field(default_factory=_base)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.languages or not self.resolutions:
            raise ConfigError("fastvlm: name at least one language model and one resolution.")


def stages_of(config: Config, resolution: int) -> tuple[VLMStage, ...]:
    """Return the stages of one model.

    Args:
        config: which recipe, and what of it is replaced.
        resolution: target, in pixels.
    """
    first = config.pretrained or min(config.resolutions)
    if config.stages == "one":
        found = (VLMStage(name="all", lr=1e-3, batch_size=16, resolution=resolution, warmup=0.1),)
    else:
        found = (two_stage if config.stages == "two-stage" else scaled)(first, resolution)
    out = []
    for stage in found:
        changes: dict[str, Any] = {"rows": config.rows}
        if config.lr and stage.trainable == "all":
            changes["lr"] = config.lr
        if config.batch_size:
            changes["batch_size"] = config.batch_size
        if config.steps:
            changes["steps"] = config.steps
        out.append(replace(stage, precision=config.train.precision, **changes))
    return tuple(out)


def preview(config: Config) -> Plan:
    """Put every combination together and count what `run` would train; train and write nothing.

    Raises:
        UnderstudyError: whatever `run` would refuse before its first step.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import held_out_rows
    from understudy.models.count import parameters
    from understudy.train.student_batches import train_rows

    store = Store.open(config.store)
    made = Plan(recipe="fastvlm", scale="this run")
    made.add("conversations to learn from", len(train_rows(store, config.rows)), "rows")
    made.add("questions to answer", len(held_out_rows(store)), "rows")
    for language in config.languages:
        for resolution in config.resolutions:
            name = f"{Path(language).name} at {resolution}"
            model = make(config, store, language, resolution)
            made.add(f"{name}: parameters", parameters(model), "")
            made.add(f"{name}: visual tokens at most", model.config.most_tokens, "tokens")
            for stage in stages_of(config, resolution):
                rows = len(train_rows(store, stage.rows))
                steps = stage.train_config(rows, config.train).steps
                made.add(
                    f"{name}: stage {stage.name}", steps * stage.batch_size, "conversations",
                    formula=f"{steps:,} steps of {stage.batch_size}, {stage.trainable} trained",
                )  # fmt: skip
    return made


def run(config: Config) -> Path:
    """Train every combination, score and time it, and write the sweep.

    Returns:
        the folder, with a folder a model and `result.json`.

    Raises:
        ConfigError: a resolution that is no multiple of the stride, or an unknown part.
        DataError: no conversations, or no rows of split `test`.
    """
    from understudy.core.files import write_json
    from understudy.data.store import Store
    from understudy.evaluate.held_out import held_out_rows
    from understudy.evaluate.pareto import Point, table

    store = Store.open(config.store)
    test = held_out_rows(store)
    points, runs = [], {}
    for language in config.languages:
        for resolution in config.resolutions:
            name = f"{Path(language).name.replace(':', '-')}-{resolution}"
            facts = _one(config, store, test, language, resolution, config.out / name)
            runs[name] = facts
            points.append(
                Point(
                    name=name,
                    cost=facts["ttft"]["end_to_end_ms"],
                    score=facts["scores"]["accuracy"],
                    facts={
                        "language": Path(language).name,
                        "resolution": resolution,
                        "visual tokens": facts["ttft"]["visual_tokens"],
                        "paper TTFT ms": facts["ttft"]["paper_ms"],
                    },
                )
            )
    result = {
        "recipe": "fastvlm",
        "config": to_dict(config),
        "runs": runs,
        "sweep": table(points),
    }
    return write_json(config.out / "result.json", result).parent


def _one(
    config: Config, store: Any, test: Any, language: str, resolution: int, out: Path
) -> dict[str, Any]:
    """Train, score and time one model; return its facts."""
    from understudy.compress.ttft import TTFTConfig, bench_ttft
    from understudy.evaluate.vlm import answer_rows, scores
    from understudy.models import io
    from understudy.train.vlm import train_vlm

    model = make(config, store, language, resolution)
    stages = stages_of(config, resolution)
    train_vlm(store, model, stages, out, seed=config.seed, base=config.train)
    io.save(model, out / "model.safetensors")
    answers = answer_rows(model, store, test)
    prompt = max(1, min(16, model.context - model.config.most_tokens))
    ttft = bench_ttft(
        model,
        config=TTFTConfig(samples=config.ttft_samples, prompt_tokens=prompt),
        name=out.name,
    )
    return {
        "model": str(out / "model.safetensors"),
        "stages": [to_dict(stage) for stage in stages],
        "scores": scores(answers),
        "ttft": ttft.to_dict(),
        "examples": answers[:20],
    }


def make(config: Config, store: Any, language: str, resolution: int) -> Any:
    """Put one model together."""
    import json

    from understudy.models.language.decoder import DecoderConfig
    from understudy.models.multimodal.vlm_config import VLMConfig, square
    from understudy.models.multimodal.vlm_parts import assemble, load_language, load_tower

    if language.startswith("asset:"):
        from understudy.data.fetch import fetch

        language = str(fetch(language.removeprefix("asset:")))
    rows = range(min(store.num_rows, 2000))
    chats = store.take(list(rows), ["conversations"]).column(0).to_pylist()
    texts = (t["value"].replace("<image>", " ") for chat in chats for t in json.loads(chat))
    lm, tokenizer = load_language(language, texts, seed=config.seed)
    image, weights = load_tower(config.vision)
    template = config.template or ("words" if isinstance(lm.config, DecoderConfig) else "qwen2")
    whole = VLMConfig(
        name=f"fastvlm-{Path(language).name}",
        image=image,
        language=lm.config,
        preprocess=square(resolution),
        projector=config.projector,
        features=config.features,
        pinpoints=config.pinpoints,
        template=template,
        context=config.context,
    )
    return assemble(whole, lm, tokenizer, weights, seed=config.seed)
