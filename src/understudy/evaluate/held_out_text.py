"""Held-out losses of a language model on several files of documents, as flat metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.evaluate.perplexity import held_out_loss
from understudy.evaluate.perplexity_documents import read_jsonl


def file_losses(model: Any, files: Mapping[str, str | Path], tokenizer: Any) -> dict[str, float]:
    """Return `<name>_nll` (nats a token) and `<name>_bits_per_byte` of each file's documents.

    Every token of a document counts, its end included; documents are read one by one with as much
    context as the model has.

    Args:
        model: in eval mode.
        files: JSON lines with a field `text`, by name.
        tokenizer: the model's.
    """
    found: dict[str, float] = {}
    for name, path in files.items():
        documents = read_jsonl(path, tokenizer, lead="end", close=True)
        summary = held_out_loss(model, documents, label=f"{name} documents").summary()
        found |= {f"{name}_nll": summary.loss, f"{name}_bits_per_byte": summary.bits_per_byte}
    return found
