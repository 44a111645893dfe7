r"""APE: align two frozen encoders with small heads on few, well-chosen pairs.

"APE: Aligning Pretrained Encoders to Quickly Learn Aligned Multimodal Representations" (NeurIPS
2022 workshop "Has it Trained Yet?", arXiv 2210.03927). An image encoder and a text encoder that
never met stay frozen; MLPs of 4 to 6 layers on top learn one space from a few thousand pairs. What
comes out is a CLIP-like model: a teacher, where no CLIP is to be had.

    understudy run ape STORE --image-encoders lite0=asset:efficientnet-lite0 \
        --text-encoders minilm=asset:minilm --classes cat dog --total 2000
    understudy run ape STORE --mode rank      # which encoders would fit, before training
    understudy run ape emoji --preset emoji   # EfficientNet-Lite and MiniLM on emoji names
    understudy verify ape --jobs 2

The store needs images, captions and rows of split `test` (or `--test-rows FILTER`). Once features
are cached the default heads take 0.1 to 0.2 s a step on one core; the claim takes about a quarter
of an hour on two.

The algorithm, as `run` goes through it:

1. cache: every encoder looks at every row once; features become columns with cards;
2. rank: linear CKA and common neighbours of all encoder pairs; the best pair goes on;
3. curate: pairs near the class names, balanced, without repeats or test samples;
4. train: u = norm(f_I(X)), v = norm(f_T(W)), the symmetric contrastive loss, only f and the
   temperature learn; the weights with the best held-out recall@1 are kept;
5. score retrieval (and zero-shot where there are classes) on `test`, write `aligner.safetensors`
   and `result.json`.

Killed at any moment, the same command goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from understudy.core.errors import ConfigError
from understudy.models.multimodal.heads import HeadConfig
from understudy.recipes.ape_arm_config import TEMPLATES
from understudy.recipes.ape_budget import preview
from understudy.recipes.ape_claim import CLAIM
from understudy.recipes.ape_plan import plan as PLAN
from understudy.train.config import TrainConfig

__all__ = ["CLAIM", "PLAN", "Config", "preset", "preview", "run"]


def _budget() -> TrainConfig:
    return TrainConfig(
        steps=1000,
        batch_size=512,
        lr=1e-3,
        warmup_steps=30,
        weight_decay=1e-4,
        betas=(0.9, 0.999),
        clip_norm=1.0,
        eval_every=50,
        checkpoint_every=100,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Say which encoders are aligned, on which pairs, and how.

    Attributes:
        store: pairs of images and captions.
        out: folder of `aligner.safetensors`, `result.json` and the run.
        mode: run (everything), cache, rank, curate, train or evaluate.
        preset: `emoji` fills in encoders and heads for the emoji store, and makes the store if it
            is not there; `sharelock` and `freeze-align` fill in those works' heads and schedules;
            empty for none.
        image_encoders: lines `NAME=KIND[:MODEL][@PATH][?OPTION=VALUE]`, see
            `reinforce.encoder_specs`; with several the ranking chooses.
        text_encoders: likewise.
        image_column: payload column of images.
        text_column: payload column of captions.
        train_rows: SQL filter of the pool; empty takes split `train`, or all but `test`.
        val_rows: SQL filter of pairs that choose the weights; empty takes split `val`, or a tenth
            of the training pairs.
        test_rows: SQL filter of test pairs; empty takes split `test`.
        arm: ape, ape-tokens, linear, lit, scratch, ridge, cca or procrustes.
        dim: width of the shared space; 0: the width of the identity side, else 256.
        image_head: the image side's head; by default its features stay as they are (LiT).
        text_head: the text side's head.
        l2: penalty of ridge and cca.
        scratch_model: CLIP of this package whose towers the arm scratch trains, with a tokenizer
            of its own.
        scratch_size: side of its images in pixels; 0 takes the model's. All pixels are kept in
            memory: 12 bytes each and pair.
        vocab_size: ids of that tokenizer.
        duplicates: equal captions in a batch: positives, refuse (never drawn together) or
            negatives (plain CLIP).
        patience: evaluations without a better recall@1 before training ends; 0 never ends it.
        chunk: rows of logits at a time; 0 takes all.
        classes: target class names for curation and zero-shot scores; empty takes the store's.
        templates: prompt templates with `{}`; without these and `classes` the store's own prompts
            are used, if it has some.
        labels: integer column of the class of each row, for zero-shot scores.
        captions_from_labels: give labelled rows without a caption one made of a template and the
            name of their label. Target names among these are seen, and reported so.
        total: pairs to choose by relevance; 0 trains on the whole pool.
        relevance: by captions (`text`) or by the images of the rows `target_rows` (`image`).
        target_rows: SQL filter of unlabelled target images for `relevance` image.
        selection: name of the chosen set's columns (`select.<selection>`).
        min_score: least similarity to be chosen.
        assign: a pair can be chosen for its nearest class only (`best`), or classes take turns,
            each taking its best pair that is still free (`any`).
        balance: every class gets its share; otherwise the best pairs over all classes.
        leaks_by: what makes a pair one of the test set's: an equal `image`, an equal `caption`, or
            either (`both`). Where captions are names or templates, `image`.
        near_repeats: cosine of image features from which a picture repeats another one, or is a
            test image; 0 compares exactly.
        seen_names: further target names that training captions contain; reported, they are not
            zero-shot.
        sources: shares of a mixed set by value of column `source`; needs `total`.
        temperature: of the shares: weight^(1 / temperature).
        dtype: how features are cached.
        batch_size: items an encoder sees at once.
        overwrite: replace caches and selections that were made otherwise.
        fresh: train anew where `out` holds a run.
        train: budget of the heads.
        seed: of weights, order and draws.
    """

    store: Path
    out: Path = Path("runs/ape")
    mode: Literal["run", "cache", "rank", "curate", "train", "evaluate"] = "run"
    preset: Literal["", "emoji", "sharelock", "freeze-align"] = ""
    image_encoders: tuple[str, ...] = ("random-conv",)
    text_encoders: tuple[str, ...] = ("tfidf-svd",)
    image_column: str = "image"
    text_column: str = "text"
    train_rows: str = ""
    val_rows: str = ""
    test_rows: str = ""
    arm: Literal["ape", "ape-tokens", "linear", "lit", "scratch", "ridge", "cca", "procrustes"] = (
        "ape"
    )
    dim: int = 0
    image_head: HeadConfig = field(default_factory=lambda: HeadConfig(kind="identity"))
    text_head: HeadConfig = field(default_factory=lambda: HeadConfig(dropout=0.2))
    l2: float = 1e-2
    scratch_model: str = "clip-conv-nano"
    scratch_size: int = 0
    vocab_size: int = 1024
    duplicates: Literal["positives", "refuse", "negatives"] = "positives"
    patience: int = 10
    chunk: int = 0
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = TEMPLATES
    labels: str = "label"
    captions_from_labels: bool = False
    total: int = 0
    relevance: Literal["text", "image"] = "text"
    target_rows: str = ""
    selection: str = "align"
    min_score: float = -1.0
    assign: Literal["best", "any"] = "best"
    balance: bool = True
    leaks_by: Literal["both", "image", "caption"] = "both"
    near_repeats: float = 0.0
    seen_names: tuple[str, ...] = ()
    sources: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    batch_size: int = 64
    overwrite: bool = False
    fresh: bool = False
    train: TrainConfig = field(default_factory=_budget)
    seed: int = 0


def preset(config: Config) -> Config:
    """Return the configuration with a preset filled in, where it was left as it is by default.

    `emoji`: google's art of concepts without skin tones (variants of one concept differ in nothing
    that the names of others could teach), whole subcategories held out for the test; the sentence
    encoder's space stays as it is and the image side learns to reach it.

    `sharelock`, `freeze-align`: heads, widths and schedules of two published relatives of APE, see
    `recipes.ape_presets`.
    """
    if not config.preset:
        return config
    if config.preset != "emoji":
        from understudy.recipes.ape_presets import SCHEDULES

        return _filled(config, SCHEDULES[config.preset]())
    rows = {
        f"{name}_rows": f"split = '{name}' AND skin_tone = ''" for name in ("train", "val", "test")
    }
    values: dict[str, Any] = {
        **rows,
        "image_encoders": ("lite0=asset:efficientnet-lite0?size=128",),
        "text_encoders": ("minilm=asset:minilm",),
        "image_head": HeadConfig(hidden=512, dropout=0.2),
        "text_head": HeadConfig(kind="identity"),
        "train": replace(
            _budget(), steps=400, batch_size=256, warmup_steps=20, weight_decay=1e-2, eval_every=25
        ),
    }
    return _filled(config, values)


def _filled(config: Config, values: dict[str, Any]) -> Config:
    default = Config(store=config.store)
    own = {k for k in values if getattr(config, k) != getattr(default, k)}
    return replace(config, **{k: v for k, v in values.items() if k not in own})


def run(config: Config) -> Path:
    """Align the encoders as the configuration says.

    Returns:
        the folder `config.out`.

    Raises:
        ConfigError: no such mode, an option that the arm does not have, or `out` holds another run.
        DataError: the store lacks rows or columns that are asked for.
        CardError: a cache was made by another checkpoint or preprocessing.
    """
    from understudy.core.files import write_json
    from understudy.recipes.ape_curate import curate
    from understudy.recipes.ape_steps import Steps
    from understudy.recipes.ape_train import evaluate, train

    config = preset(config)
    steps = Steps(config, open_store(config))
    found: dict[str, Any] = {"pairs": steps.counts(), "cache": steps.cache()}
    if config.mode in ("run", "rank"):
        found["ranking"] = steps.rank()
    if config.mode in ("run", "curate") and (config.total or config.mode == "curate"):
        found["curation"] = curate(steps)
    if config.mode in ("run", "train"):
        found["training"] = train(steps)
    if config.mode in ("run", "train", "evaluate"):
        found["scores"] = evaluate(steps)
    write_json(config.out / "result.json", found)
    return config.out


def open_store(config: Config) -> Any:
    """Open the store; with a preset, make it from the fetched data if it is not there."""
    from understudy.data.store import Store

    if config.preset == "emoji" and not config.store.exists():
        from understudy.data.fetch import to_store

        return to_store(config.preset, config.store)
    check_store(config)
    return Store.open(config.store)


def check_store(config: Config) -> None:
    """Refuse a store that is not there.

    Raises:
        ConfigError: the message says how to make one.
    """
    if not config.store.exists():
        raise ConfigError(
            f"{config.store}: no such store; make one with 'understudy data import SOURCE "
            f"{config.store}'."
        )
