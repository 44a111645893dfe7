"""A model card: what a model is, takes, costs and came from, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from understudy.core.provenance import versions
from understudy.models.base import Model
from understudy.models.build import config_to_dict
from understudy.models.count import count_towers
from understudy.models.io import weights_hash

UNSTATED = "not stated"


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """What only people know about a model.

    Attributes:
        title: heading; the model's name if empty.
        data: what it was trained on.
        weights_licence: of the weights.
        data_licence: of the training data.
        intended_use: in one or two sentences.
        limits: known limits.
        metrics: name to value, with where they were measured in `measured_on`.
        measured_on: the data behind `metrics`.
        provenance: JSON-like facts: steps, recipe, run folder, teachers, ...
    """

    title: str = ""
    data: str = ""
    weights_licence: str = ""
    data_licence: str = ""
    intended_use: str = ""
    limits: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    measured_on: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


def model_card(
    model: Model, facts: CardFacts | None = None, files: Mapping[str, str] | None = None
) -> str:
    """Return a model card in Markdown.

    Sizes and multiply-accumulates are counted from the configuration; they need no run. What is not
    stated is said to be not stated.

    Args:
        model: what the card describes, in the form in which it is handed over.
        facts: what only people know.
        files: file name to what it is, for the table of files.
    """
    facts = facts or CardFacts()
    config = model.config
    counts = count_towers(config, model.fold_state)
    size = model.preprocess
    rows = [(tower, f"{count.parameters:,}", f"{count.macs:,}") for tower, count in counts.items()]
    folded = {"no": "not folded", "branches": "branches folded", "all": "folded completely"}
    lines = [
        f"# {facts.title or config.name}",
        "",
        facts.intended_use or "Intended use: not stated.",
        "",
        "## Size",
        "",
        f"Form: {folded[model.fold_state]}. Multiply-accumulates are of one sample.",
        "",
        *_table(("tower", "parameters", "multiply-accumulates"), rows),
        "",
        "## Input and output",
        "",
        f"- Images: RGB, {size.size} x {size.size}; resize {size.resize} to "
        f"{int(size.size / size.crop)} ({size.interpolation}), "
        f"centre crop, scale to [0, 1], mean {list(size.mean)}, std {list(size.std)}.",
        *_outputs(model),
        "",
        "## Metrics",
        "",
        *_metrics(facts),
        "",
        "## Data and licences",
        "",
        f"- Training data: {facts.data or UNSTATED}",
        f"- Licence of the weights: {facts.weights_licence or UNSTATED}",
        f"- Licence of the data: {facts.data_licence or UNSTATED}",
        f"- Limits: {facts.limits or UNSTATED}",
        "",
        "## Provenance",
        "",
        f"- Architecture: {config.name}",
        f"- Weights from: {config.weights or 'own training'}",
        f"- Weights hash: {weights_hash(model)}",
        *[f"- {key}: {_plain(value)}" for key, value in facts.provenance.items()],
        "- Versions: " + ", ".join(f"{k} {v}" for k, v in versions().items()),
    ]
    if files:
        lines += ["", "## Files", "", *_table(("file", "what"), list(files.items()))]
    return "\n".join(lines) + "\n"


def _outputs(model: Any) -> list[str]:
    config = model.config
    if config_to_dict(config)["kind"] == "clip":
        length = config.text.context_length
        return [
            f"- Texts: {length} token ids (int64), {config.text.vocab_size:,} in the vocabulary; "
            "the position of the largest id (end of text) is pooled."
            + ("" if model.tokenizer else " No tokenizer travels along; CLIP's vocabulary fits."),
            f"- Output: unit vectors of {config.embed_dim}; logits are their dot products times "
            f"{float(model.scale().detach()):.4g}.",
        ]
    classes = config.classes
    names = f": {', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}" if classes else ""
    return [f"- Output: {config.num_classes} logits{names}."]


def _metrics(facts: CardFacts) -> list[str]:
    if not facts.metrics:
        return ["Not stated."]
    where = f"Measured on: {facts.measured_on or UNSTATED}."
    rows = [(name, f"{value:.4g}") for name, value in facts.metrics.items()]
    return [where, "", *_table(("metric", "value"), rows)]


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    rule = "| " + " | ".join("---" for _ in header) + " |"
    return [
        "| " + " | ".join(header) + " |",
        rule,
        *["| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows],
    ]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) or "nothing"
    return str(value)
