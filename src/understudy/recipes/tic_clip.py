r"""TiC-CLIP: continual training of CLIP models.

"TiC-CLIP: Continual Training of CLIP Models" (arXiv 2310.16226). Vision-language models age.
Instead of training them anew on everything, go on from the last checkpoint with the new data and
replayed old data: with equal compute a step, this keeps up with an oracle that is trained from
scratch on everything at each step and costs several times as much.

    understudy run tic-clip PAIRS --stream.periods.column time --methods sequential cumulative-all \
        --train.steps 500 --out runs/tic-clip
    understudy data fetch emoji --store emoji.store
    understudy run tic-clip emoji.store --preset emoji
    understudy verify tic-clip --jobs 2
    understudy plan tic-clip --scale paper
    understudy update continue runs/tic-clip/seed-0/cumulative-exp/step-03-2018 PAIRS --period 2019

`PAIRS` needs images, texts and a column of dates, years or versions. Expect `cumulative-all` close
to `oracle` at a fraction of its compute, and `sequential` behind on old data (the paper, 7 steps:
2.7x less compute at equal quality). The claim (10 arms, 5 seeds) takes about two core-hours.

The algorithm, as `run` goes through it:

1. divide the rows into time steps; of each some are for the test, so that every model can be scored
   on every step;
2. for each method and seed, step by step: put the step's data and a bounded buffer of old data
   together, train with a fixed budget C from the last weights (or fresh ones), score on all steps;
3. report the transfer matrices with in-domain, backward and forward performance, and compute
   against quality.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import to_dict
from understudy.core.files import write_json
from understudy.recipes.tic_clip_claim import CLAIM
from understudy.recipes.tic_clip_config import Config, continual, preset
from understudy.recipes.tic_clip_plan import plan as PLAN
from understudy.recipes.tic_clip_plan import preview

if TYPE_CHECKING:
    from understudy.data.periods_stream import Stream
    from understudy.data.store import Store
    from understudy.update.continual import StreamResult

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run"]


def run(config: Config) -> Path:
    """Go through the stream with every method and seed, score every model on every step.

    Returns:
        the folder, with a run of every step and `result.json`.

    Raises:
        ConfigError: methods, seeds or options that do not fit each other.
        DataError: no times, a step that is empty or smaller than a batch, evaluation ids inside the
            training split.
    """
    from understudy.data.periods_stream import Stream, describe_stream
    from understudy.data.store import Store
    from understudy.update.continual_methods import compute_table

    config = preset(config)
    store = Store.open(config.store)
    stream = Stream.of(store, config.stream)
    found: dict[str, list[StreamResult]] = {name: [] for name in config.methods}
    for seed in config.seeds:
        for method in config.methods:
            found[method].append(_stream(config, store, stream, method, seed))
    periods = stream.periods
    result = {
        "recipe": "tic-clip",
        "config": to_dict(config),
        "stream": describe_stream(stream),
        "unknown_times": periods.note() if periods is not None else "",
        "matrices": {name: _plain(runs, config.tasks) for name, runs in found.items()},
        "compute": [to_dict(row) for row in compute_table(len(stream), config.methods)],
    }
    write_json(config.out / "result.json", result)
    return config.out


def _stream(config: Config, store: Store, stream: Stream, method: str, seed: int) -> StreamResult:
    from understudy.evaluate.transfer_tasks import step_scores
    from understudy.evaluate.zeroshot import TEMPLATES
    from understudy.update.continual import run_stream

    def score(model: Any, sets: Any) -> Any:
        return step_scores(
            model,
            store,
            sets,
            tasks=config.tasks,
            prompts=config.prompts or TEMPLATES,
            text=config.text_column,
        )

    folder = config.out / f"seed-{seed}" / method
    return run_stream(store, stream, continual(config, method, seed), folder, score)


def _plain(runs: list[StreamResult], tasks: tuple[str, ...]) -> dict[str, Any]:
    """Return one method's matrices and means as plain data."""
    matrices = {task: [run.matrix(task) for run in runs] for task in tasks}
    means: dict[str, dict[str, float | None]] = {}
    for task, made in matrices.items():
        per_seed = [matrix.summary() for matrix in made]
        means[task] = {}
        for key in per_seed[0]:
            values = [v for summary in per_seed if (v := summary[key]) is not None]
            means[task][key] = sum(values) / len(values) if values else None
    return {
        "tasks": {task: [m.to_dict() for m in made] for task, made in matrices.items()},
        "summary": means,
        "compute": runs[0].compute,
        "seconds": sum(step.seconds for run in runs for step in run.steps) / len(runs),
        "replayed": [step.replayed for step in runs[0].steps],
        "alphas": [step.alpha for step in runs[0].steps],
        "runs": [step.run for step in runs[0].steps],
    }
