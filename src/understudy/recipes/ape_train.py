"""The last steps of `ape` on a user's store: train the arm, score it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from understudy.core.config import to_dict
from understudy.core.errors import DataError
from understudy.core.files import write_json, write_text
from understudy.data.sampler_distinct import group_ids
from understudy.evaluate.retrieval import retrieval_metrics
from understudy.evaluate.zeroshot import average_prompts, zeroshot_metrics
from understudy.models.multimodal.aligner import Aligner, load_aligner, save_aligner
from understudy.recipes.ape_arm_config import CLOSED
from understudy.recipes.ape_budget import budget_plan, flop_facts
from understudy.recipes.ape_steps import Steps


def train(steps: Steps) -> dict[str, Any]:
    """Train the arm and write `aligner.safetensors`; go on where an earlier call stopped."""
    config, pairing, rows = steps.config, steps.pairing, steps.training_rows()
    start = time.perf_counter()
    facts: dict[str, Any] = {
        "arm": config.arm,
        "pairs": len(rows),
        "seen_names": list(steps.seen_names(rows)),
    }
    if config.arm in CLOSED:
        steps.model = pairing.closed_form(rows)
    else:
        plan = budget_plan(steps, rows)
        write_text(config.out / "budget.txt", plan.text() + "\n")
        write_json(config.out / "budget.json", plan.to_dict())
        facts["flop"] = flop_facts(plan)
        steps.model, done = pairing.train(
            rows,
            config.train.seeded(config.seed),
            config.out / "run",
            held_out=steps.rows["val"],
            patience=config.patience,
            duplicates=config.duplicates,
            chunk=config.chunk,
            resume=not config.fresh,
        )
        batch = min(config.train.batch_size or len(rows), len(rows))
        facts |= {
            "trainable": done.trainable,
            "steps": done.steps,
            "pairs_seen": done.steps * batch,
            "best_recall@1": done.best,
            "best_step": done.best_step,
            "stopped_early": done.stopped_early,
            "curve": [{"step": step, **found} for step, found in done.curve],
        }
    if pairing.fresh is not None:
        facts["towers"] = pairing.fresh.facts
    facts["seconds"] = round(time.perf_counter() - start, 2)
    _save(steps, facts)
    return facts


def _save(steps: Steps, facts: dict[str, Any]) -> None:
    config, model = steps.config, steps.model
    aligner = model if isinstance(model, Aligner) else model.aligner
    lines = {"image": config.image_encoders, "text": config.text_encoders}
    manifest = {
        "inputs": "features",
        "arm": config.arm,
        "curation": steps.curation,
        "training": {k: v for k, v in facts.items() if k != "curve"},
        "encoders": {side: list(some)[steps.chosen[side]] for side, some in lines.items()},
    }
    save_aligner(aligner, config.out / "aligner.safetensors", manifest)
    if aligner is not model:
        save_file(model.state_dict(), config.out / "towers.safetensors")


def _load(steps: Steps) -> Any:
    out = steps.config.out
    if steps.config.arm in ("lit", "scratch"):
        model = steps.pairing.model()
        model.load_state_dict(load_file(out / "towers.safetensors"))
        return model.eval()
    return load_aligner(out / "aligner.safetensors")


def evaluate(steps: Steps) -> dict[str, Any]:
    """Score retrieval on `test`, and zero-shot where there are classes and labels.

    Calibration is measured at the temperature that the aligner learned; closed-form arms learn
    none and are measured at the one that training starts from.
    """
    config, rows = steps.config, steps.rows["test"]
    if not len(rows):
        raise DataError(f"{steps.store.path}: no test pairs; give --test-rows, an SQL filter.")
    model = steps.model if steps.model is not None else _load(steps)
    pairing = steps.pairing
    sides = {m: pairing.side(m, rows) for m in ("image", "text")}
    images, texts = (pairing.embed(model, m, s) for m, s in sides.items())
    ids = group_ids(pairing.captions(rows))
    found: dict[str, Any] = {"pairs": len(rows)}
    found |= retrieval_metrics(images, texts, ids, image_ids=ids)
    trained = steps.training_rows()
    few = trained[: len(rows)]
    found["recall_gap"] = pairing.recall(model, few) - pairing.recall(model, rows[: len(few)])
    if steps.classes and steps.store.has(config.labels):
        prompts, owner = steps.prompts()
        vectors = pairing.embed(model, "text", pairing.text_side(prompts))
        weights = average_prompts(vectors, np.bincount(owner).tolist())
        labels = steps.store.array(config.labels, rows)
        known = (labels >= 0) & (labels < len(steps.classes))
        if known.any():
            scale = float(getattr(model, "aligner", model).scale().detach())
            found["zeroshot"] = {
                **zeroshot_metrics(
                    images[np.flatnonzero(known)], labels[known], weights, scale=scale
                ),
                "scale": scale,
                "seen_names": list(steps.seen_names(trained)),
            }
    return to_dict(found)
