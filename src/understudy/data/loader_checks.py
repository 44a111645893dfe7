"""Whether stored targets are of the captions and views that a batch is made of."""

from __future__ import annotations

from typing import Any

from understudy.core.errors import CardError
from understudy.data.card import Card
from understudy.data.loader_plan import Binding
from understudy.data.views import ViewPipeline


def check_caption(
    column: str, config: dict[str, Any], captioner: str, s: int, before: dict[str, Any]
) -> None:
    """Refuse embeddings of another captioner or place, or of other captions than those before.

    Cards say `captioner`, `place` and `captions`, the hash of the captions' card; released data
    have no `captions`.
    """
    for name, wanted in (("captioner", captioner), ("place", s)):
        found = config.get(name, wanted)
        if found != wanted:
            raise CardError(
                f"column '{column}' is about {name} {found!r}, expected {wanted!r}: the column was "
                "renamed by hand; reinforce again."
            )
    for name in ("shape", "dtype", "captions"):
        if before and config.get(name) != before.get(name):
            raise CardError(
                f"column '{column}' differs in config.{name} ({config.get(name)!r}) from the "
                f"captions before it ({before.get(name)!r}): embed the captions of '{captioner}' "
                "again with overwrite."
            )


def check_alike(column: str, config: dict[str, Any], first: dict[str, Any]) -> None:
    """Refuse embeddings of another shape or storage than those of the pool's other captioners."""
    for name in ("shape", "dtype"):
        if first and config.get(name) != first.get(name):
            raise CardError(
                f"column '{column}' differs in config.{name} ({config.get(name)!r}) from the "
                f"captions of the pool before it ({first.get(name)!r}): embed them again alike."
            )


def check_view(binding: Binding, card: Card, view_set: str, k: int) -> None:
    """Refuse targets of another view set, view, view configuration or draw than is replayed.

    Cards say `set`, the view (`view`, or `k` where that is not the K of top-K), and `views`, the
    hash of the view configuration; released data have no `views`.
    """
    column, config = card.column, card.config
    view = config.get("view", config.get("k"))
    for name, found, wanted in (("set", config.get("set"), view_set), ("view", view, k)):
        if found is not None and found != wanted:
            raise CardError(
                f"column '{column}' is about {name} {found!r}, expected {wanted!r}: the column was "
                "renamed by hand; reinforce again."
            )
    views = binding.view_cards.get(k)
    if views is None or "views" not in config:
        return
    wanted = ViewPipeline.from_card(views).config.hash
    if (config["views"], card.seed) != (wanted, views.seed):
        raise CardError(
            f"column '{column}' was computed on other views than 'view.{view_set}.{k}' holds now "
            f"(configuration {config['views']}, seed {card.seed}; stored {wanted}, seed "
            f"{views.seed}): reinforce that teacher again."
        )
