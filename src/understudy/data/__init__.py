"""What is at rest (the store) and what is in flight (views, samplers, batches).

`Store` and `Card` are here for short; everything else is imported from its own module. Nothing is
imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.data.card import Card
    from understudy.data.store import Store

__all__ = ["Card", "Store"]


def __getattr__(name: str) -> Any:
    if name == "Store":
        from understudy.data.store import Store

        return Store
    if name == "Card":
        from understudy.data.card import Card

        return Card
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
