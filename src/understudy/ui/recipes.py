"""The recipes: their papers, and what was found of their claims."""

from __future__ import annotations

import inspect

from starlette.requests import Request
from starlette.responses import Response

from understudy.recipes import PAPERS, RECIPES
from understudy.ui.claims import find_claims
from understudy.ui.site import RefusedError, site_of


def page(request: Request) -> Response:
    """Answer `/recipes`."""
    site = site_of(request)
    claims: dict[str, list[str]] = {}
    for scale, recipe in find_claims(site.config.claims):
        claims.setdefault(recipe, []).append(scale)
    rows = [(name, *PAPERS[name], claims.get(name, [])) for name in RECIPES]
    return site.render(request, "recipes", rows=rows)


def one(request: Request) -> Response:
    """Answer `/recipes/NAME` with what `recipes show` says."""
    site = site_of(request)
    name = request.path_params["name"]
    if name not in RECIPES:
        raise RefusedError(404, f"there is no recipe '{name[:80]}'.")
    module = RECIPES.load(name)
    return site.render(
        request,
        "recipe",
        name=name,
        paper=PAPERS[name],
        text=inspect.getdoc(module) or "",
        settings=inspect.getdoc(module.Config) or "",
        claim=module.CLAIM.describe(),
    )
