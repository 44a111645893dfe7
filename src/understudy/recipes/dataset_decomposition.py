r"""Dataset decomposition: documents cut into powers of two, drawn short to long.

"Dataset Decomposition: Faster LLM Training with Variable Sequence Length Curriculum" (NeurIPS 2024,
arXiv 2405.13226). No sequence mixes documents, none is padded; a step has the same number of
tokens whatever their length, so that long contexts are trained at the price of short ones.

    understudy run dataset-decomposition TEXTS/ --held-out held.jsonl --out runs/dd
    understudy verify dataset-decomposition
    understudy plan dataset-decomposition --scale paper

`TEXTS/` holds JSON lines, or is a store with texts. Expect a lower held-out loss than chunks at
equal tokens, in less time (the paper, 1B at 8k: 54.4 against 51.5 on its regular average, 20 %
less time). The claim (8 arms, 3 seeds) takes about an hour and a half on one core.

The algorithm, as `run` goes through it:

1. tokens of each document, its end included;
2. buckets: the longest power of two that fits, again and again; rests below 2^min are dropped;
3. a plan: tokens by bucket, mean lengths, operations beside chunks of the longest length;
4. training by the curriculum: odds times the bucket's batches at the start of each cycle, the same
   bucket on all ranks;
5. optionally the same budget on glued chunks;
6. held-out documents, each with its full context.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.core.files import write_json, write_text
from understudy.evaluate.plans import Plan
from understudy.recipes.dataset_decomposition_claim import CLAIM
from understudy.recipes.dataset_decomposition_plan import plan as PLAN
from understudy.train.lm_config import LMConfig

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Say what is cut how, and what is trained on it.

    Attributes:
        store: texts: a folder, a file or a store.
        held_out: JSON lines of documents to measure the loss on.
        out: folder of everything, and of `result.json`.
        tokenizer: `tokenizer.json` or a folder with one; empty trains a byte-level BPE.
        vocab_size: of that BPE.
        min_log2: exponent of the shortest bucket.
        max_log2: exponent of the longest one, and the context of the chunks.
        lm: model, tokens of a step, curriculum, schedule.
        baseline: also train on glued chunks: `none`, `concat`, `masked` or `packed`.
        workers: processes, 0 for one a core.
        seed: of cuts, order and weights.
    """

    store: Path
    held_out: Path
    out: Path = Path("runs/dataset-decomposition")
    tokenizer: str = ""
    vocab_size: int = 4_096
    min_log2: int = 5
    max_log2: int = 10
    lm: LMConfig = field(default_factory=LMConfig)
    baseline: str = "concat"
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.baseline not in ("none", "concat", "masked", "packed"):
            raise ConfigError(
                "dataset-decomposition: baseline: expected none, concat, masked or packed, got "
                f"'{self.baseline}'."
            )


def preview(config: Config) -> Plan:
    """Count what `run` would read and train; write nothing.

    Raises:
        DataError: no texts or held-out documents there.
        ConfigError: no such model.
    """
    from understudy.curate.tokens.encoders import load_coder
    from understudy.evaluate.plan_runs import add_inputs, add_language_training
    from understudy.train.lm import make_language_model

    made = Plan(recipe="dataset-decomposition", scale="this run")
    add_inputs(made, "texts", config.store)
    add_inputs(made, "held-out documents", config.held_out)
    lm, context = config.lm, 1 << config.max_log2
    changes: dict[str, Any] = {"decoder.context": context, **lm.changes}
    if not config.tokenizer:
        changes.setdefault("decoder.vocab_size", config.vocab_size)
    coder = load_coder(config.tokenizer) if config.tokenizer else None
    language = make_language_model(replace(lm, changes=changes), None, coder).config
    add_language_training(
        made,
        config=language,
        context=context,
        tokens=lm.tokens or lm.train.steps * lm.tokens_per_step,
        tokens_per_step=lm.tokens_per_step,
        arms=["buckets"] + ([] if config.baseline == "none" else [config.baseline]),
    )
    made.notes.append(
        "operations are those of the longest sequence; buckets of short ones cost less: "
        "'understudy curate buckets' prices them once there are tokens."
    )
    return made


def run(config: Config) -> Path:
    """Tokenise, cut, train on buckets and on the baseline, measure.

    Returns:
        the folder, with the token stores, the runs and `result.json`.

    Raises:
        ConfigError: tokens of a step that the longest bucket does not divide, and others.
        DataError: texts that cannot be read, or an empty bucket.
    """
    from understudy.curate.tokens.jobs import TokenRun
    from understudy.curate.tokens.tokenise import TokeniseConfig, tokenise

    documents = tokenise(
        config.store,
        config.out / "documents",
        TokeniseConfig(tokenizer=str(_tokenizer(config)), strict=False),
        TokenRun(workers=config.workers),
    )
    arms = {"buckets": _arm(config, documents.path, "buckets")}
    if config.baseline != "none":
        arms[config.baseline] = _arm(config, documents.path, config.baseline)
    result = {"recipe": "dataset-decomposition", "config": to_dict(config), "arms": arms}
    write_json(config.out / "result.json", result)
    return config.out


def _tokenizer(config: Config) -> Path:
    """Return the tokenizer's file; a byte-level BPE learns from the documents themselves."""
    from understudy.curate.text.sample import sample_texts
    from understudy.curate.tokens.encoders import load_coder
    from understudy.models.text.train_tokenizer import train_byte_bpe

    path = config.out / "tokenizer.json"
    if not path.is_file():
        coder = (
            load_coder(config.tokenizer)
            if config.tokenizer
            else train_byte_bpe(
                sample_texts([config.store], 4_000, config.seed, strict=False), config.vocab_size
            )
        )
        write_text(path, coder.to_json())
    return path


def _arm(config: Config, documents: str | Path, name: str) -> dict[str, Any]:
    """Pack, train and measure one way of making sequences."""
    from understudy.curate.tokens.encoders import load_coder
    from understudy.curate.tokens.jobs import TokenRun, made_by
    from understudy.curate.tokens.pack import pack_documents
    from understudy.curate.tokens.pack_config import PackConfig
    from understudy.evaluate.held_out_text import file_losses
    from understudy.train.lm import make_language_model, train_lm

    kind: Any = {"buckets": "buckets", "packed": "packed"}.get(name, "concat")
    pack = PackConfig(
        kind=kind,
        context=1 << config.max_log2,
        min_log2=config.min_log2,
        max_log2=config.max_log2,
        seed=config.seed,
    )
    tokens = pack_documents(documents, config.out / kind, pack, TokenRun(workers=config.workers))
    coder = load_coder(config.out / "tokenizer.json")
    chosen = replace(
        config.lm,
        changes={"decoder.context": 1 << config.max_log2, **config.lm.changes},
        mask_documents=name in ("masked", "packed"),
        repeat=True,
        seed=config.seed,
    )
    if kind == "buckets" and not chosen.tokens:
        steps = chosen.train.steps
        chosen = replace(chosen, tokens=steps * chosen.tokens_per_step)
    model = make_language_model(chosen, tokens, coder)
    done = train_lm(tokens, model, chosen, config.out / f"run-{name}")
    losses = file_losses(model, {"held_out": config.held_out}, coder)
    facts = {"run": f"run-{name}", "seconds": done.seconds, "steps": done.steps}
    return {"made": made_by(tokens), **facts, **losses}
