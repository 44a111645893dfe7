"""Train an aligner: the step that binds the alignment objective, and early stopping.

    step = AlignStep(modalities=("image", "text"), duplicates="positives")
    result = fit_aligner(aligner, step, batches, config, "runs/aligner", evaluate=recall)

Only what takes gradients is trained: heads and temperature, and tuned towers in the arms that have
any. Frozen encoders never enter the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.objectives.alignment import alignment
from understudy.objectives.checks import row_name
from understudy.objectives.gather import LOCAL, GatherGroup
from understudy.train.config import TrainConfig
from understudy.train.logs import read_metrics
from understudy.train.loop import LoaderFactory, fit

DUPLICATES = ("refuse", "positives", "negatives")
STOP_METRIC = "recall@1"


@dataclass(frozen=True, kw_only=True)
class AlignStep:
    """Minimise the contrastive loss between modalities.

    Attributes:
        modalities: which take part; more than two sum over pairs.
        duplicates: what rows of one group in a batch are to each other: `"positives"`
            (multi-positive labels), `"negatives"` (plain CLIP), or `"refuse"` to stop when a batch
            has any (use a `DistinctSampler`).
        chunk: rows of logits at a time; 0 takes all. Worth it above 8,000 rows.
        gather: compare with the samples of all ranks.
        check_every: look at every n-th batch for bad values; 0 never.
    """

    modalities: Sequence[str] = ("image", "text")
    duplicates: Literal["refuse", "positives", "negatives"] = "positives"
    chunk: int = 0
    gather: bool = True
    check_every: int = 1
    _group: list[GatherGroup] = field(default_factory=list, repr=False, compare=False)
    _seen: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice(self.duplicates, DUPLICATES, "AlignStep.duplicates")
        if len(self.modalities) < 2:
            raise ConfigError(
                f"AlignStep.modalities: expected two or more, got {list(self.modalities)}."
            )

    @property
    def group(self) -> GatherGroup:
        """The ranks that share a batch; found at the first step, when they have joined."""
        if not self.gather:
            return LOCAL
        if not self._group:
            self._group.append(GatherGroup())
        return self._group[0]

    def check(self, batch: Mapping[str, Any]) -> None:
        """Refuse batches that teach nothing or something wrong.

        Raises:
            DataError: one row; NaN; a feature vector of length zero; a text that is all padding; or
                equal captions that are neither avoided nor declared.
        """
        features = batch["features"]
        size = len(next(iter(features.values())))
        if size < 2:
            raise DataError(
                "alignment: a batch of 1 has a loss of 0 whatever the model does; use at least 2 "
                "pairs, better hundreds."
            )
        self._seen[0] += 1
        if not self.check_every or (self._seen[0] - 1) % self.check_every:
            return
        for name, values in features.items():
            check_values(
                name,
                values,
                (batch.get("masks") or {}).get(name),
                batch.get("rows"),
                (batch.get("present") or {}).get(name),
            )
        groups = batch.get("groups")
        if self.duplicates == "refuse" and groups is not None:
            found, counts = torch.unique(groups, return_counts=True)
            if len(found) < len(groups):
                odd = int((groups == found[counts > 1][0]).int().argmax())
                raise DataError(
                    f"alignment: {row_name(odd, batch.get('rows'))} has the caption of another "
                    "pair in its batch, which would be a false negative: draw batches with "
                    "DistinctSampler, or set duplicates to 'positives'."
                )

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run the heads and return the losses."""
        outputs = model(batch["features"], batch.get("masks"), batch.get("present"))
        found = alignment(
            outputs,
            batch,
            modalities=self.modalities,
            multi_positive=self.duplicates == "positives" and batch.get("groups") is not None,
            chunk=self.chunk,
            group=self.group,
        )
        found["logit_scale"] = outputs["logit_scale"].detach()
        return found


def check_values(
    name: str,
    values: Tensor,
    mask: Tensor | None = None,
    rows: Tensor | None = None,
    present: Tensor | None = None,
) -> None:
    """Refuse features that are not finite, of length zero, or all padding.

    Args:
        name: the modality, for the message.
        values: [B, D] or [B, T, D]; integers (ids, pixels) are not looked at.
        mask: valid tokens.
        rows: row numbers, for the message.
        present: rows that have this modality; others are not looked at.
    """
    use = torch.ones(len(values), dtype=torch.bool) if present is None else present
    if mask is not None:
        empty = ~mask.any(1) & use
        if bool(empty.any()):
            where = row_name(int(empty.int().argmax()), rows)
            raise DataError(
                f"{name} features: {where} is all padding; drop empty captions before caching."
            )
    if not values.is_floating_point():
        return
    flat = values if mask is None else values.masked_fill(~mask[..., None], 0)
    flat = flat.flatten(1).float()
    bad = ~torch.isfinite(flat).all(1) & use
    if bool(bad.any()):
        where = row_name(int(bad.int().argmax()), rows)
        raise DataError(
            f"{name} features: {where} holds NaN or infinity; check the encoder's input, or cache "
            "in float32 if float16 overflowed."
        )
    zero = (flat.norm(dim=1) == 0) & use
    if bool(zero.any()):
        where = row_name(int(zero.int().argmax()), rows)
        raise DataError(f"{name} features: {where} has length 0, which has no direction; drop it.")


@dataclass(frozen=True, slots=True)
class AlignResult:
    """What `fit_aligner` gave.

    Attributes:
        path: the run's folder.
        steps: optimiser steps done.
        best: the best evaluation of the watched metric; NaN without one.
        best_step: when it was.
        curve: (step, metrics) of every evaluation, those before a resume included.
        stopped_early: whether patience ran out.
        trainable: parameters that learned.
    """

    path: Path
    steps: int
    best: float
    best_step: int
    curve: list[tuple[int, dict[str, float]]]
    stopped_early: bool
    trainable: int


def _identity(step: AlignStep, batches: LoaderFactory) -> dict[str, Any]:
    """Return what of batches and objective a resumed run must find unchanged."""
    describe = getattr(batches, "describe", dict)
    return {
        "batches": describe(),
        "modalities": list(step.modalities),
        "duplicates": step.duplicates,
    }


class _Curve:
    """The evaluations of a run, those that an earlier process logged included."""

    def __init__(self, out: Path, resume: bool) -> None:
        self.found: dict[int, dict[str, float]] = {}
        for line in read_metrics(out) if resume else ():
            scores = {k.removeprefix("eval/"): v for k, v in line.items() if k.startswith("eval/")}
            if STOP_METRIC in scores:
                raw = {k: v for k, v in scores.items() if not k.startswith("ema_")}
                self.found[line["step"]] = raw

    def until(self, step: int) -> list[tuple[int, dict[str, float]]]:
        """Return the evaluations up to a step, in order."""
        return [(at, self.found[at]) for at in sorted(self.found) if at <= step]

    def best(self, step: int) -> tuple[float, int, int]:
        """Return the best of them, its step, and how many have passed since without a better."""
        best, best_step, since = float("nan"), 0, 0
        for at, found in self.until(step):
            if not found[STOP_METRIC] <= best:
                best, best_step, since = found[STOP_METRIC], at, 0
            else:
                since += 1
        return best, best_step, since


def fit_aligner(
    model: nn.Module,
    step: AlignStep,
    batches: LoaderFactory,
    config: TrainConfig,
    out: str | Path,
    *,
    evaluate: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
    patience: int = 0,
    resume: bool = False,
    context: Mapping[str, Any] | None = None,
) -> AlignResult:
    """Train and keep the weights with the best held-out recall.

    Args:
        model: an `Aligner`, or `AlignedTowers`; has the best weights afterwards, in eval mode.
        step: the objective.
        batches: loader factory, such as `FeatureBatches`.
        config: of the loop; `best` is set to `"recall@1"` if there is an evaluation.
        out: the run's folder.
        evaluate: `evaluate(model, step)` returns metrics with `"recall@1"` of held-out pairs.
            Averaged weights, where there are some, are evaluated too; the others decide.
        patience: stop after this many evaluations without a new best; 0 never.
        resume: go on from a checkpoint in `out`, patience included, or take what is finished.
        context: facts for the run's record.

    Raises:
        ConfigError: patience without an evaluation; or the checkpoint is of another run.
    """
    from dataclasses import replace

    from safetensors.torch import load_file

    if patience and (evaluate is None or not config.eval_every):
        raise ConfigError("early stopping needs held-out pairs and eval_every above 0.")
    out = Path(out)
    curve = _Curve(out, resume)
    seen: set[int] = set()

    def watched(module: nn.Module, at: int) -> dict[str, float]:
        found = dict(evaluate(module, at))  # type: ignore[misc]
        if at not in seen:  # the second call of a step is about averaged weights
            seen.add(at)
            curve.found[at] = found
        return found

    def enough(at: int) -> bool:
        return bool(patience) and curve.best(at)[2] >= patience

    if evaluate is not None:
        config = replace(config, best=STOP_METRIC)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    run = fit(
        model,
        step,
        batches,
        config,
        out,
        evaluate=watched if evaluate is not None else None,
        stop=enough,
        resume=resume,
        context=context,
        data=_identity(step, batches),
    )
    kept = out / ("model-best.safetensors" if evaluate is not None else "model.safetensors")
    if kept.is_file():  # not before the first evaluation of a run that the time limit stopped
        model.load_state_dict(load_file(kept))
    model.eval()
    best, best_step, _ = curve.best(run.steps)
    return AlignResult(
        path=out,
        steps=run.steps,
        best=best,
        best_step=best_step,
        curve=curve.until(run.steps),
        stopped_early=enough(run.steps),
        trainable=trainable,
    )
