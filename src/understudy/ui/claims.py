"""The claims: what was asked of each recipe, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from understudy.core.errors import UnderstudyError
from understudy.evaluate.stats import mean_and_spread
from understudy.evaluate.verdict import Verdict
from understudy.ui.site import RefusedError, site_of


def find_claims(folder: Path | None) -> dict[tuple[str, str], Path]:
    """Return the verdict files of a folder by (scale, recipe)."""
    if folder is None:
        return {}
    return {(path.parent.name, path.stem): path for path in sorted(folder.glob("*/*.json"))}


def _row(scale: str, recipe: str, path: Path) -> dict[str, Any]:
    try:
        verdict = Verdict.read(path)
    except (UnderstudyError, TypeError, KeyError) as error:
        return {"scale": scale, "recipe": recipe, "error": f"no verdict file ({error})"}
    checks = [check for check in verdict.checks if check.required]
    return {
        "scale": scale,
        "recipe": recipe,
        "error": "",
        "verdict": verdict,
        "passed": sum(check.passed for check in checks),
        "asked": len(checks),
    }


def page(request: Request) -> Response:
    """Answer `/claims`."""
    site = site_of(request)
    rows = [_row(*key, path) for key, path in find_claims(site.config.claims).items()]
    return site.render(request, "claims", rows=rows, folder=site.config.claims)


def _arms(verdict: Verdict) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the metrics, and of each arm the mean and spread of each over the seeds."""
    metrics = list(dict.fromkeys(name for values in verdict.arms.values() for name in values))
    rows = []
    for arm, values in verdict.arms.items():
        cells = []
        for metric in metrics:
            numbers = [v for v in values.get(metric) or () if v is not None]
            cells.append(mean_and_spread(numbers) if numbers else "-")
        rows.append((arm, cells))
    return metrics, rows


def one(request: Request) -> Response:
    """Answer `/claims/SCALE/RECIPE`; only files of the list are read."""
    site = site_of(request)
    key = (request.path_params["scale"], request.path_params["recipe"])
    path = find_claims(site.config.claims).get(key)
    if path is None:
        raise RefusedError(404, "there is no such claim.")
    verdict = Verdict.read(path)
    metrics, arms = _arms(verdict)
    return site.render(request, "claim", verdict=verdict, metrics=metrics, arms=arms)
