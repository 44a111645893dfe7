"""`understudy recipes|run|verify|plan`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from understudy.cli import on
from understudy.cli.common import (
    note,
    parse,
    parse_config,
    positional_store,
    table,
    take_flag,
    take_name,
    take_option,
)
from understudy.cli.common import show as show_data
from understudy.core.errors import ConfigError, MissingExtraError
from understudy.core.files import read_json


def _summary(text: str | None) -> str:
    return (text or "").strip().splitlines()[0] if text else ""


def recipes(argv: Sequence[str], prog: str) -> None:
    """Parse and run `recipes`."""

    def command() -> None:
        """List the recipes: name, paper, arXiv number; `--json` prints JSON."""
        from understudy.recipes import PAPERS, RECIPES

        rows = [(name, *PAPERS[name]) for name in RECIPES]
        if as_json:
            print(json.dumps([{"name": n, "paper": t, "arxiv": a} for n, t, a in rows], indent=2))
        else:
            print(table(rows, ("recipe", "paper", "arXiv")))

    as_json, rest = take_flag(argv, "--json")
    parse(command, rest, prog)


def show(argv: Sequence[str], prog: str) -> None:
    """Parse and run `recipes show NAME`."""
    from understudy.recipes import RECIPES

    name, _ = take_name(argv, prog, "recipe")
    module = RECIPES.load(name)
    print(inspect.getdoc(module) or "")
    print("\nSettings (understudy run", name, "--help):\n")
    print(inspect.getdoc(module.Config) or "")
    print("\nClaim:\n")
    print(module.CLAIM.describe())


def run(argv: Sequence[str], prog: str) -> int:
    """Run a recipe: `understudy run NAME [STORE] [--config F] [--field value ...]`.

    `--dry-run` checks everything and counts what would be asked, stored and trained; `--json`
    prints JSON; `--on local-job|ray|ray://HOST:PORT|slurm` runs the command there as a job.
    """
    from understudy.recipes import RECIPES

    place, typed = on.take(argv)
    name, rest = take_name(typed, prog, "recipe")
    module = RECIPES.load(name)
    dry, rest = take_flag(rest, "--dry-run")
    as_json, rest = take_flag(rest, "--json")
    usage = f"{prog} {name} STORE [--dry-run] [--json]"
    config = parse_config(module.Config, positional_store(rest), usage)
    if dry:
        if not hasattr(module, "preview"):
            raise ConfigError(f"{prog} {name}: this recipe cannot tell beforehand (--dry-run).")
        made = module.preview(config)
        print(json.dumps(made.to_dict(), indent=2) if as_json else made.text())
        return 0
    if not place.here:
        return on.run(place, ["run", *typed])
    folder = Path(module.run(config))
    found = read_json(folder / "result.json")
    page = _report(name, folder, found, config)
    if as_json:
        facts = {"path": str(folder), "report": None if page is None else str(page)}
        print(json.dumps({**facts, "result": found}, indent=2))
        return 0
    if found.get("stored"):
        note(_stored_text(found["stored"]))
    print(f"written: {folder}")
    if page is not None:
        print(f"report:  {page}")
    return 0


def _stored_text(facts: Mapping[str, Any]) -> str:
    """Return in a line what the students' views and targets are, as the cards say."""
    kept = "".join(f", top-{k} of {teacher}" for teacher, k in facts["kept"].items())
    transforms = ", ".join(facts["views"]["transforms"])
    return (
        f"stored: {facts['num_views']} views ({transforms}) of set '{facts['view_set']}'{kept}; "
        f"{facts['total_seconds']:,.1f} s of generation"
    )


def _report(name: str, folder: Path, found: Mapping[str, Any], config: Any) -> Path | None:
    """Write the page of a recipe's result, if there is one; say so where the extra is missing."""
    from understudy.data.store import Store
    from understudy.report.alignment import write_alignment
    from understudy.report.latency import latency_rows
    from understudy.report.results import write_report

    title = f"Understudy: {name}"
    try:
        if found.get("search"):
            from understudy.report.scales import write_scales

            note(f"scales: {write_scales(folder / 'search')}")
        if "students" in found:
            last = list(found["students"])[-1]
            return write_report(
                folder,
                title=title,
                lead=str(config.store),
                store=Store.open(config.store),
                latency=latency_rows(found["students"][last]["run"], f"{last} student"),
            )
        if "sweep" in found:
            from understudy.report.vlm import write_sweep

            return write_sweep(folder, title=title)
        if "effects" in found:
            from understudy.report.transfer import write_transfer_page

            return write_transfer_page(folder, title=title)
        if "updates" in found:
            from understudy.report.update_pages import write_update_page

            return write_update_page(folder, title=title)
        if "arms" in found or "decays" in found:
            from understudy.report.text import write_text_page

            return write_text_page(folder, title=title)
        if "matrices" in found:
            from understudy.report.transfer_matrix import write_matrix_page

            return write_matrix_page(folder, title=title)
        if "job" in found:
            from understudy.report.jobs import write_job_page

            return write_job_page(folder, title=title)
        if name == "ape":
            return write_alignment(folder, title=title, lead=str(config.store))
    except MissingExtraError as error:
        note(f"no page: {error}")
    return None


def verify(argv: Sequence[str], prog: str) -> int:
    """Test a recipe's claim: `understudy verify NAME [--scale laptop] [--seeds 0 1 ...]`.

    `--on local-job|ray|ray://HOST:PORT|slurm` runs the command there as a job.
    """
    from understudy.recipes import RECIPES

    place, typed = on.take(argv)
    name, rest = take_name(typed, prog, "recipe")
    module = RECIPES.load(name)

    def command(
        scale: str = "laptop",
        seeds: tuple[int, ...] | None = None,
        jobs: int = 1,
        out: Path = Path("docs/claims"),
        workdir: Path = Path("runs/claims"),
        fresh: bool = False,
        json: bool = False,
    ) -> int:
        """Train the arms of a recipe's claim, pair them by seed and print the verdict.

        --on local-job|ray|ray://HOST:PORT|slurm runs the command there as a job.

        Args:
            scale: one that the claim has; `understudy recipes show NAME` lists them.
            seeds: run these seeds instead of the claim's own.
            jobs: processes that run arms side by side (one thread each).
            out: folder of the verdicts: `<out>/<scale>/<recipe>.json` and a page beside it.
            workdir: where finished arms are kept, so that a stopped run goes on.
            fresh: forget finished arms and start over.
            json: print the verdict as JSON.
        """
        if not place.here:
            module.CLAIM.settings(scale)  # an unknown one is refused before it waits
            return on.run(place, ["verify", *typed])
        from understudy.evaluate.claim_verify import verify as test
        from understudy.report.claims import write_page

        verdict = test(
            module.CLAIM,
            scale=scale,
            seeds=seeds,
            workdir=workdir,
            out=out,
            resume=not fresh,
            jobs=jobs,
        )
        show_data(verdict.to_dict(), json, lambda _: verdict.text())
        page = write_page(verdict, out / scale / f"{name}.html")
        note(f"verdict: {out / scale / f'{name}.json'}\npage:    {page}")
        return 0 if verdict.passed else 1

    return parse(command, rest, f"{prog} {name}")


def plan(argv: Sequence[str], prog: str) -> None:
    """Count a recipe's full size: `understudy plan NAME [--model M] [--scale paper] [--json]`."""
    from understudy.recipes import RECIPES

    name, rest = take_name(argv, prog, "recipe")
    module = RECIPES.load(name)
    as_json, rest = take_flag(rest, "--json")
    model, rest = take_option(rest, "--model")

    def command(scale: str = "paper", price_per_hour: float = 2.0) -> None:
        """Count parameters, operations, bytes, samples, device hours and money; run nothing.

        Args:
            scale: paper, or another size that the recipe plans.
            price_per_hour: money per device hour.
        """
        options = {} if model is None else {"model": model}
        made = module.PLAN(scale=scale, price_per_hour=price_per_hour, **options)
        print(json.dumps(made.to_dict(), indent=2) if as_json else made.text())

    tyro.cli(command, args=rest, prog=f"{prog} {name}")
