r"""CLIP with quality captions: what captions are worth for segmentation, depth and detection.

"CLIP with Quality Captions: A Strong Pretraining for Vision Tasks" (arXiv 2405.08911). The same
contrastive pretraining, on better aligned captions, is a stronger start for dense tasks than
supervised, masked or weakly supervised pretraining, also for mobile towers, and needs about ten
times fewer labels. Arms differ in captions alone, or in captions and distillation; both causes are
told apart.

    understudy run quality-captions PAIRS --labelled MASKS --arms alt=text syn=caption.coca \
        --scorer runs/other-clip --out runs/quality
    understudy verify quality-captions --jobs 2
    understudy plan quality-captions --scale paper

`PAIRS` needs images, texts and captions of a captioner (`understudy reinforce` writes them);
`MASKS` images with index masks (or depth maps) and rows of split `test`. Expect the better aligned
captions ahead with few labels (the paper, ViT-B/16 against MAE: mIoU +12.1%, RMSE -11.5%
relative). The claim (9 arms, 5 seeds) takes about an hour on two cores.

The algorithm, as `run` goes through it:

1. score each arm's captions by a CLIP that teaches nobody (CLIP score, rank among 1,000, grounded
   nouns): this orders the arms before anything is trained;
2. pretrain a CLIP for each arm, seed and cause: same tower, start, tokenizer, steps and samples;
   with `distil`, a second time with the teachers' embeddings in the store;
3. leave the text tower behind, put a head on the image tower's pyramid and fine-tune end to end on
   nested label subsets, a fixed number of steps each, the learning rate chosen for each arm on
   held-back labelled rows of the training set;
4. report means, paired differences, label efficiency, the effect of captions, the effect of
   distillation and their interaction.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.config import to_dict
from understudy.core.files import write_json
from understudy.recipes.quality_captions_claim import CLAIM
from understudy.recipes.quality_captions_config import (
    DISTILLED,
    Config,
    arms_of,
    pretraining,
    start,
    transfer_of,
)
from understudy.recipes.quality_captions_plan import plan as PLAN
from understudy.recipes.quality_captions_plan import preview
from understudy.train.caption_arm import CaptionArm

if TYPE_CHECKING:
    from understudy.core.transfer_rows import TransferRow
    from understudy.data.store import Store

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run"]


def run(config: Config) -> Path:
    """Score captions, pretrain every arm, fine-tune it on every label count, compare.

    Returns:
        the folder, with `transfer_report.json`, `curves.csv` and `result.json`.

    Raises:
        ConfigError: arms, seeds or options that do not fit each other.
        CardError: distillation without teachers' columns.
        DataError: no rows to train or to test on, labels that do not fit.
    """
    from understudy.core.transfer_rows import write_transfer
    from understudy.data.store import Store
    from understudy.evaluate.compare import compare, to_plain

    arms = arms_of(config)
    store, labelled = Store.open(config.store), Store.open(config.labelled)
    scored = _score(config, store, arms)
    rows: list[TransferRow] = []
    for seed in config.seeds:
        for distils in (False, True) if config.distil else (False,):
            for arm in arms:
                rows += _arm(config, store, labelled, arm, distils, seed)
    facts = {"recipe": "quality-captions", "config": to_dict(config)}
    write_transfer(config.out, rows, facts)
    result = {
        **facts,
        "captions": scored,
        "comparison": to_plain(compare(rows, arms[0].name)),
        "effects": _effects(config, arms, rows),
    }
    write_json(config.out / "result.json", result)
    return config.out


def _score(config: Config, store: Store, arms: tuple[CaptionArm, ...]) -> dict[str, Any]:
    from understudy.evaluate.captions import check_held_out, score_captions
    from understudy.models.runs import load_run
    from understudy.reinforce.held_out import fingerprints
    from understudy.train.student_batches import train_rows

    if not config.scorer:
        return {}
    scorer = load_run(config.scorer)
    check_held_out(fingerprints(scorer), store)
    rows = train_rows(store, config.rows)
    sources = {arm.name: arm.odds for arm in arms}
    return score_captions(scorer, store, sources, rows=rows)


def _arm(
    config: Config, store: Store, labelled: Store, arm: CaptionArm, distils: bool, seed: int
) -> list[TransferRow]:
    """Pretrain one arm with one seed and fine-tune it on every label count."""
    from understudy.evaluate.dense import dense_scorer
    from understudy.evaluate.rows import select_rows
    from understudy.models.runs import load_run
    from understudy.train.student import make_student, train_clip
    from understudy.train.transfer import transfer

    name = arm.name + (DISTILLED if distils else "")
    folder = config.out / f"seed-{seed}" / name
    model = make_student(store, start(config, seed))
    trained = train_clip(store, model, pretraining(config, arm, distils, seed), folder / "clip")
    tune = transfer_of(config, labelled, seed)
    scorer = dense_scorer(
        labelled, select_rows(labelled, "test"), masks=tune.tune.masks, depth=tune.tune.depth
    )
    return transfer(
        labelled,
        load_run(folder / "clip", "final", folded=False),
        tune,
        folder / "transfer",
        scorer,
        arm=name,
        samples_seen=int(trained.facts["samples_seen"]),
    )


def _effects(
    config: Config, arms: tuple[CaptionArm, ...], rows: list[TransferRow]
) -> dict[str, dict[str, Any]]:
    """Return, for each arm after the baseline and each label count, both effects."""
    from understudy.core.transfer_rows import METRICS
    from understudy.evaluate.effects import effects, to_plain

    metric = METRICS[config.task][0]
    found: dict[str, dict[str, Any]] = {}
    for labels in sorted({row.labels for row in rows}):
        cells: dict[tuple[str, bool], list[float]] = {}
        order = np.argsort([row.seed for row in rows], kind="stable")
        for row in (rows[i] for i in order):
            if row.labels == labels and row.metric == metric:
                distils = row.arm.endswith(DISTILLED)
                cells.setdefault((row.arm.removesuffix(DISTILLED), distils), []).append(row.value)
        for arm in arms[1:]:
            own = effects(cells, arms[0].name, arm.name)
            found[f"{arm.name} over {arms[0].name}, {metric}@{labels}"] = to_plain(own)
    return found
