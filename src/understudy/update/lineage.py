"""Chains of maps: v1 -> v2 -> v3 for items that only have a vector of v1."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from understudy import __version__
from understudy.data.spaces import Space, SpaceError
from understudy.models.embedding.chain import ChainTransform
from understudy.update.maps import CompatibleMap


def chain_maps(maps: Sequence[CompatibleMap]) -> CompatibleMap:
    """Return one map that does what these do one after the other.

    A map that was trained from the oldest to the newest space directly is better where pairs of the
    two exist.

    Args:
        maps: two or more, the oldest first. Only the first may use side information.

    Raises:
        SpaceError: one map's target is not what the next one takes.
        ConfigError: a later map needs side information.
    """
    for first, then in itertools.pairwise(maps):
        if first.to_space.searched_from != then.from_space.searched_from:
            raise SpaceError(
                f"chain: a map leads to space {first.to_space}, the next one takes vectors of "
                f"space {then.from_space}; chain maps that meet in one space."
            )
    module = ChainTransform([m.module for m in maps])  # type: ignore[misc]
    first, last = maps[0], maps[-1]
    manifest = {
        "from_space": first.from_space.to_dict(),
        "to_space": last.to_space.to_dict(),
        "side_space": None if first.side_space is None else first.side_space.to_dict(),
        "dims": {"old": first.old_dim, "side": first.side_dim, "new": last.new_dim},
        "uncertainty": module.config.uncertainty,
        "columns": {
            "old": first.manifest.get("columns", {}).get("old", ""),
            "side": first.manifest.get("columns", {}).get("side", ""),
            "new": last.manifest.get("columns", {}).get("new", ""),
        },
        "norms": {
            name: maps[i].manifest.get("norms", {}).get(name)
            for name, i in (("old", 0), ("side", 0), ("new", -1))
        },
        "chain": [{"fingerprint": m.fingerprint, **m.manifest} for m in maps],
        # No pair has passed through all of them.
        "held_out_mse": None,
        "held_out_r2": None,
        "code_version": __version__,
    }
    return CompatibleMap(module, manifest)


def mapped_space(source: Space, compatible: CompatibleMap) -> Space:
    """Return the space of vectors of `source` after a map, with the spaces in between.

    Args:
        source: what the map is applied to: the space that it takes, or one mapped to that.
        compatible: the map.
    """
    found = source.mapped(compatible.fingerprint, compatible.to_space)
    between = [
        Space.from_dict(step["to_space"]).id for step in compatible.manifest.get("chain", [])[:-1]
    ]
    if not between:
        return found
    data = found.to_dict()
    data["lineage"] = [*data["lineage"], *between]
    return Space.from_dict(data)
