"""Ask a vision-language model the questions of a store, one by one, and score its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from understudy.core.dialogue import MARK
from understudy.core.errors import DataError
from understudy.data.decode import decode
from understudy.evaluate.vqa import clean_answer
from understudy.models.language.generate import GenerateConfig, generate
from understudy.models.multimodal.chat import end_ids

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.models.multimodal.vlm import VLM

SHORT = 8
"""Tokens of an answer at most."""


@torch.no_grad()
def ask(
    model: VLM, image: np.ndarray, questions: Sequence[str], max_tokens: int = SHORT
) -> list[str]:
    """Return the answers to several questions about one image, each asked on its own.

    The image is encoded once.

    Args:
        model: in eval mode.
        image: uint8 [H, W, 3].
        questions: `<image>` in them says where the image stands, else it comes first.
        max_tokens: of an answer.
    """
    pixels = model.views(image).to(next(model.parameters()).device)
    features = model.image_features(pixels, [len(pixels)]) * len(questions)
    ids = [
        torch.tensor(model.prompt_ids(text, [len(pixels)], max_tokens), device=pixels.device)
        for text in questions
    ]
    ends = end_ids(model.coder, model.config.template)
    options = GenerateConfig(method="greedy", max_tokens=max_tokens, end_ids=ends)
    found = generate(model.step, model.prefill(model.join(ids, features)), options)
    return [model.coder.decode(row).strip() for row in found.rows()]


def answer_rows(
    model: VLM, store: Store, rows: Sequence[int] | np.ndarray, max_tokens: int = SHORT
) -> list[dict[str, Any]]:
    """Ask every question of some rows, each on its own, and return what was said.

    Args:
        model: in eval mode.
        store: with `image` and `conversations`, and `kinds` and `small` where questions have them.
        rows: row numbers.
        max_tokens: of an answer.

    Returns:
        one entry a question: `row`, `question`, `answer`, `truth`, `right`, `kind`, `small`.
    """
    if not len(rows):
        raise DataError(f"{store.path}: no row to ask about.")
    extra = [name for name in ("kinds", "small") if store.has(name)]
    found = []
    for start in range(0, len(rows), 64):
        part = np.asarray(rows[start : start + 64], np.int64)
        table = store.take(part, ["image", "conversations", *extra]).to_pylist()
        for row, entry in zip(part.tolist(), table, strict=True):
            turns = json.loads(entry["conversations"])
            texts = [t["value"].replace(MARK, "").strip() for t in turns[::2]]
            truths = [t["value"] for t in turns[1::2]]
            picture = decode(entry["image"], name=f"image of row {row}")
            answers = ask(model, picture, texts, max_tokens)
            kinds = entry.get("kinds") or [""] * len(texts)
            small = entry.get("small") or [False] * len(texts)
            for text, answer, truth, kind, flag in zip(
                texts, answers, truths, kinds, small, strict=True
            ):
                right = clean_answer(answer) == clean_answer(truth)
                found.append(
                    {"row": row, "question": text, "answer": answer, "truth": truth,
                     "right": right, "kind": kind, "small": flag}
                )  # fmt: skip
    return found


def scores(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return accuracies: over all questions, over those about small things, and by kind.

    Args:
        answers: what `answer_rows` returned.

    Returns:
        `accuracy`, `accuracy_small`, and `accuracy_<kind>` of every kind there is.
    """

    def share(entries: list[Mapping[str, Any]]) -> float:
        return sum(bool(e["right"]) for e in entries) / len(entries)

    everything = list(answers)
    if not everything:
        raise DataError("scores: no answers.")
    out = {"accuracy": share(everything)}
    small = [e for e in everything if e["small"]]
    if small:
        out["accuracy_small"] = share(small)
    for kind in sorted({str(e["kind"]) for e in everything} - {""}):
        out[f"accuracy_{kind}"] = share([e for e in everything if e["kind"] == kind])
    return out
