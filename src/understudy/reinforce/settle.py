"""Decide a recipe's views: what is asked for, what is stored already, what is usual."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from understudy.data.view_config import ViewConfig
from understudy.reinforce.stored import stored

if TYPE_CHECKING:
    from understudy.data.store import Store

Make = Callable[[str, int], ViewConfig]
"""A kind of view and a side in pixels to the views' configuration."""


def settle_views(
    store: Store,
    view_set: str,
    make: Make,
    *,
    kind: str,
    size: int,
    num_views: int,
    usual: tuple[str, int],
    student_size: Callable[[], int],
    grows: bool,
) -> tuple[ViewConfig, int]:
    """Return the views, and how many a sample.

    What the store holds of the view set decides what is left open; what is asked for must be there,
    since a student replays exactly what is stored.

    Args:
        store: may hold views of the set.
        view_set: its name.
        make: makes a kind of view.
        kind: asked for; empty leaves it open.
        size: side in pixels; 0 leaves it open.
        num_views: views a sample; 0 leaves it open.
        usual: kind and number where neither the caller nor the store says anything.
        student_size: side of the student's input, called where nothing else decides.
        grows: teachers will be asked, so that views may be added.

    Raises:
        CardError: the stored views are of another kind or size than is asked for.
        ConfigError: more views than are stored, and nobody to ask.
    """
    known = stored(store, view_set)
    if known is None:
        views = make(kind or usual[0], size or student_size())
        return views, num_views or usual[1]
    transforms = make(kind, known.views.size).transforms if kind else known.views.transforms
    asked = ViewConfig(size=size or known.views.size, transforms=transforms)
    known.require(views=asked, num_views=num_views, grows=grows)
    return known.views, num_views or known.num_views
