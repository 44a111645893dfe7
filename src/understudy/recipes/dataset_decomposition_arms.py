"""The arms of the dataset-decomposition claim: how documents become sequences, and when."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.files import write_json, write_text
from understudy.core.seeds import seed_for
from understudy.curate.tokens.jobs import TokenRun
from understudy.curate.tokens.pack import pack_documents
from understudy.curate.tokens.pack_config import PackConfig
from understudy.curate.tokens.tokenise import TokeniseConfig, tokenise
from understudy.data.tokens import TokenStore
from understudy.evaluate.claims import Context

if TYPE_CHECKING:
    from understudy.train.lm_config import LMConfig

POINTS = 10
"""Times that held-out documents are read during a run."""
HELD_OUT = 20
"""One document in so many is held out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How one arm trains.

    Attributes:
        store: which sequences: `chunks` (concat-and-chunk at the longest length), `short` (at the
            mixture's token-weighted mean length) or `buckets`.
        curriculum: of buckets.
        mask: documents in a row do not see each other.
        hot: three times the learning rate, gradients not clipped.
    """

    store: str
    curriculum: str = "grow-p2"
    mask: bool = False
    hot: bool = False


ARMS: dict[str, tuple[Recipe, str]] = {
    "chunks": (Recipe(store="chunks"), "concat-and-chunk at the longest length"),
    "chunks-mask": (Recipe(store="chunks", mask=True), "the same, documents masked"),
    "short": (Recipe(store="short"), "concat-and-chunk at the mixture's mean length"),
    "natural": (Recipe(store="buckets", curriculum="natural"), "buckets, no curriculum"),
    "uniform": (Recipe(store="buckets", curriculum="uniform"), "buckets, equal odds, 8 cycles"),
    "grow-p2": (Recipe(store="buckets"), "buckets, short to long, 8 cycles"),
    "uniform-hot": (Recipe(store="buckets", curriculum="uniform", hot=True), "at 3 x lr, no clip"),
    "grow-p2-hot": (Recipe(store="buckets", hot=True), "at 3 x lr, no clipping"),
}


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Write the seed's documents, hold some out, tokenise and pack them in every way."""
    from understudy.curate.tokens.stats import weighted_length

    settings, folder = context.settings, context.seed_dir
    write_documents(folder, seed, settings["packages"])
    documents = tokenise(
        folder / "train.jsonl",
        folder / "documents",
        TokeniseConfig(tokenizer=str(_tokenizer(folder, settings["vocab_size"])), strict=False),
        TokenRun(workers=1),
    )
    low, high = settings["min_log2"], settings["max_log2"]
    shared = {"seed": seed, "memory": 1 << 28}
    buckets = pack_documents(
        documents.path,
        folder / "buckets",
        PackConfig(kind="buckets", min_log2=low, max_log2=high, **shared),
        TokenRun(workers=1),
    )
    held = {k: len(rows) << k for k, rows in buckets.buckets.items()}
    short = max(round(weighted_length(held)) // 16 * 16, 1 << low)
    for name, length in (("chunks", 1 << high), ("short", short)):
        pack_documents(
            documents.path,
            folder / name,
            PackConfig(kind="concat", context=length, **shared),
            TokenRun(workers=1),
        )
    facts = {"documents": documents.num_rows, "tokens": documents.info.num_tokens}
    return {"folder": str(folder), "short": short, "buckets": held, **facts}


def write_documents(folder: Path, seed: int, packages: int) -> None:
    """Write Python sources and prose of docstrings, one file a document; hold some out by hash.

    Args:
        folder: gets `train.jsonl` and `held_out.jsonl`.
        seed: of what is held out.
        packages: installed packages whose docstrings join; 0 takes all.
    """
    from understudy.data.corpora import docstrings, stdlib_sources
    from understudy.data.corpora.installed import distributions

    if (folder / "held_out.jsonl").is_file():
        return
    chosen = distributions()[: packages or None]
    parts: dict[bool, list[str]] = {False: [], True: []}
    for source in (stdlib_sources(tests=True), docstrings(chosen)):
        for document in source:
            line = json.dumps({"id": document.id, "text": document.text, "source": document.source})
            parts[seed_for("held-out", seed, document.id) % HELD_OUT == 0].append(line)
    for held, name in ((False, "train"), (True, "held_out")):
        write_text(folder / f"{name}.jsonl", "\n".join(parts[held]) + "\n")


def _tokenizer(folder: Path, vocab_size: int) -> Path:
    from understudy.models.text.train_tokenizer import train_byte_bpe

    path = folder / "tokenizer.json"
    if not path.is_file():
        lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()[::10]
        texts = (json.loads(line)["text"] for line in lines)
        write_text(path, train_byte_bpe(texts, vocab_size).to_json())
    return path


def lm_config(recipe: Recipe, seed: int, settings: Mapping[str, Any], length: int) -> LMConfig:
    """Return an arm's training: equal tokens, steps and schedule for all.

    Args:
        recipe: of the arm.
        seed: of weights and order.
        settings: of the claim.
        length: of a chunk; what does not divide the tokens of a step is left out of each step.
    """
    from understudy.train.lm_config import LMConfig, lm_train_config

    per_step = settings["tokens_per_step"]
    steps = settings["budget"] // per_step
    lr = settings["lr"] * (3 if recipe.hot else 1)
    return LMConfig(
        model=settings["model"],
        changes={"decoder.context": 1 << settings["max_log2"]},
        tokens_per_step=per_step // length * length if recipe.store != "buckets" else per_step,
        mask_documents=recipe.mask,
        curriculum=recipe.curriculum,
        tokens=settings["budget"] if recipe.store == "buckets" else 0,
        repeat=True,
        train=lm_train_config(
            steps,
            warmup_steps=max(steps // 20, 1),
            lr=lr,
            min_lr=lr / 100,
            clip_norm=None if recipe.hot else 1.0,
            precision=settings["precision"],
            log_every=1,
            eval_every=max(steps // POINTS, 1),
            checkpoint_every=max(steps // 3, 1),
            keep_checkpoints=1,
        ),
        seed=seed,
        workers=0,
    )


@dataclass
class Watch:
    """Held-out losses on the way, with the processor seconds of training alone.

    Attributes:
        read: gives the loss of a model.
        curve: (seconds, loss) of each reading.
    """

    read: Callable[[Any], float]
    curve: list[tuple[float, float]] = field(default_factory=list)
    start: float = field(default_factory=time.process_time)
    _reading: float = 0.0

    def __call__(self, model: Any) -> dict[str, float]:
        """Read the documents; what that takes does not count."""
        begun = time.process_time()
        spent = begun - self.start - self._reading
        self.curve.append((spent, self.read(model)))
        self._reading += time.process_time() - begun
        return {"held_out": self.curve[-1][1]}


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Train one arm, reading held-out documents on the way, each with its full context."""
    from understudy.evaluate.perplexity import held_out_loss
    from understudy.evaluate.perplexity_documents import read_jsonl
    from understudy.evaluate.stats import spikes
    from understudy.models.language.coder import read_coder
    from understudy.train.lm import make_language_model, train_lm
    from understudy.train.logs import read_metrics

    settings, (recipe, _) = context.settings, ARMS[arm]
    folder = Path(context.prepared["folder"])
    coder = read_coder((folder / "tokenizer.json").read_text(encoding="utf-8"))
    documents = read_jsonl(folder / "held_out.jsonl", coder, lead="end", close=True)
    some = documents[:: max(len(documents) // settings["watched"], 1)]

    def loss(model: Any) -> float:
        return held_out_loss(model, some, label="held-out documents").summary().loss

    tokens, watch = TokenStore.open(folder / recipe.store), Watch(loss)
    length = {"chunks": 1 << settings["max_log2"], "short": context.prepared["short"]}
    config = lm_config(recipe, seed, settings, length.get(recipe.store, 1))
    model = make_language_model(config, tokens, coder)
    run = train_lm(tokens, model, config, context.arm_dir, evaluate=watch, resume=False)
    summary = held_out_loss(model, documents, label="held-out documents").summary()
    write_json(context.arm_dir / "curve.json", watch.curve)
    found = {"held_out_nll": summary.loss, "bits_per_byte": summary.bits_per_byte}
    found["seconds"] = watch.curve[-1][0]
    losses = [line["loss"] for line in read_metrics(context.arm_dir) if "loss" in line]
    found["spikes"] = float(spikes(losses))
    found["steps"] = float(run.steps)
    for number, (seconds, value) in enumerate(watch.curve[:POINTS]):
        found |= {f"seconds@{number}": seconds, f"watched@{number}": value}
    return found
