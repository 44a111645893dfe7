"""What a reinforcement left in a store, read from the cards: views, K, teachers, and what it took.

>>> from understudy.reinforce.stored import stored
>>> found = stored(store, "main")                                      # doctest: +SKIP
>>> found.num_views, found.kept, found.total_seconds                   # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.errors import CardError, ConfigError
from understudy.data.card import Card
from understudy.data.knowledge import captions_column, image_column, topk_column
from understudy.data.view_config import ViewConfig
from understudy.data.view_verify import view_columns
from understudy.data.views import ViewPipeline

if TYPE_CHECKING:
    from understudy.data.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A stored view set and what belongs to it.

    Attributes:
        view_set: its name.
        card: of the first view.
        views: what a view is made of.
        num_views: stored views a sample.
        embedders: teachers with embeddings of the views.
        kept: K by teacher (or ensemble) with class probabilities of the views.
        seconds: wall seconds of generation that the cards add up to, over all calls and resumes:
            `captions`, `views` (with everybody who looked at them) and `texts`. Loading teachers
            and committing are not in them.
    """

    view_set: str
    card: Card
    views: ViewConfig
    num_views: int
    embedders: tuple[str, ...]
    kept: dict[str, int]
    seconds: dict[str, float]

    @property
    def total_seconds(self) -> float:
        """Wall seconds of generation in all."""
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with `total_seconds`."""
        return {
            "view_set": self.view_set,
            "views": self.views.to_dict(),
            "num_views": self.num_views,
            "embedders": list(self.embedders),
            "kept": dict(self.kept),
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "total_seconds": round(self.total_seconds, 3),
        }

    def text(self) -> str:
        """Return it in one line."""
        parts = [f"{self.num_views} stored views of set '{self.view_set}'"]
        parts.append(f"({', '.join(self.views.transforms)}; {self.views.size} px)")
        if self.embedders:
            parts.append(f"embedded by {', '.join(self.embedders)}")
        parts += [f"top-{k} of {name}" for name, k in self.kept.items()]
        return " ".join(parts)

    def require(
        self,
        *,
        views: ViewConfig | None = None,
        num_views: int = 0,
        kept: int = 0,
        teacher: str = "",
        grows: bool = False,
    ) -> None:
        """Refuse what is asked for where the store holds something else, or less.

        Args:
            views: configuration that the views must have; None takes any.
            num_views: views a sample that there must be at least.
            kept: K that must be kept of `teacher`'s probabilities at least.
            teacher: whose.
            grows: teachers will be asked: views may be added to the set, but not probabilities to
                those that are stored.

        Raises:
            CardError: the views are made otherwise.
            ConfigError: more views or probabilities than there are.
        """
        if views is not None:
            ViewPipeline(views).check_card(self.card)
        if num_views > self.num_views and not grows:
            raise ConfigError(
                f"num_views: {num_views} asked for, but view set '{self.view_set}' has "
                f"{self.num_views}; ask for fewer, or give teachers that add some."
            )
        found = self.kept.get(teacher, kept)
        if kept > found or (grows and kept and kept != found):
            raise ConfigError(
                f"kept: {kept} probabilities asked for, but {found} of '{teacher}' are stored with "
                f"view set '{self.view_set}'; leave kept out, or reinforce under another view_set."
            )


def stored(store: Store, view_set: str) -> Stored | None:
    """Return what a store holds of a view set; None if it has no such views."""
    try:
        columns = view_columns(store, view_set)
    except CardError:
        return None
    embedders, judges = (
        tuple(c.removesuffix(tail) for c in store.columns if c.endswith(tail))
        for tail in (image_column("", view_set, 0), topk_column("", view_set, 0))
    )
    card = store.card(columns[0])
    return Stored(
        view_set=view_set,
        card=card,
        views=ViewPipeline.from_card(card).config,
        num_views=len(columns),
        embedders=embedders,
        kept={name: _kept(store, topk_column(name, view_set, 0)) for name in judges},
        seconds=_seconds(store, view_set, embedders, judges),
    )


def _kept(store: Store, column: str) -> int:
    kind = store.schema.field(column).type
    return kind.list_size // 4 if pa.types.is_fixed_size_list(kind) else 0


def _seconds(
    store: Store, view_set: str, embedders: tuple[str, ...], judges: tuple[str, ...]
) -> dict[str, float]:
    """Add up the cards of the columns that were written for a view set, by phase.

    A job shares its seconds equally among its columns, so only sums over a phase mean something.
    """
    views = [f"view.{view_set}."]
    views += [f"{name}.image.{view_set}." for name in embedders]
    views += [f"{name}.topk.{view_set}." for name in judges]
    texts = [part for name in embedders for part in (f"{name}.text", f"{name}.caption.")]
    phases = {"captions": [captions_column("")] if embedders else [], "views": views}
    phases["texts"] = texts
    found = dict.fromkeys(phases, 0.0)
    for column, card in store.cards.items():
        for phase, prefixes in phases.items():
            if column.startswith(tuple(prefixes)):
                found[phase] += card.seconds
    return {phase: seconds for phase, seconds in found.items() if seconds}
