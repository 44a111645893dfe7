"""How a folder of reinforced tars is to be read: what is asked for, described, or usual."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.files import read_json
from understudy.data.card import Card
from understudy.data.importers.reinforced import PARTS, Layout
from understudy.data.interchange import AUGMENTATION, read_description, views_from_reference
from understudy.data.knowledge import DTYPES
from understudy.data.view_config import ViewConfig
from understudy.data.view_reference import DATACOMPDR

log = logging.getLogger(__name__)


def read_layout(
    source: Path,
    teachers: Mapping[str, int] | None,
    views: ViewConfig | Mapping[str, Any] | None,
    view_set: str,
    captioner: str,
    parts: Sequence[str] | None,
    dtype: str,
    normalize: bool,
) -> tuple[Layout, dict[str, Any] | None]:
    """Return how reinforced samples are read, and the export's description if there is one."""
    folder = source if source.is_dir() else source.parent
    described = read_description(folder)
    if dtype:
        check_choice(dtype, DTYPES, "dtype")
    for part in parts or ():
        check_choice(part, tuple(PARTS), "parts")
    for name, width in (teachers or {}).items():
        if not isinstance(width, int) or width < 1:
            raise ConfigError(f"teachers: the width of '{name}' must be at least 1, got {width!r}.")
    if isinstance(views, Mapping):
        views = ViewConfig.from_dict(views)
    layout = Layout(
        teachers=dict(teachers or {}),
        views=views or DATACOMPDR,
        view_set=view_set,
        captioner=captioner,
        parts=frozenset(parts or PARTS),
        dtype=dtype,
        normalize=normalize,
    )
    if described is not None and described.get("format") == "webdataset":
        layout.cards = {c: Card.from_json(json.dumps(d)) for c, d in described["cards"].items()}
        layout.captioners = dict(described["captioners"])
        if described.get("view_set"):
            layout.view_set = described["view_set"]
        if described.get("views") and views is None:
            layout.views = ViewConfig.from_dict(described["views"])
        layout.teachers = layout.teachers or dict(described["teachers"])
        layout.parts = frozenset(parts or described["parts"])
        return layout, described
    config = folder / AUGMENTATION
    if views is None and config.is_file():
        layout.views, ignored = views_from_reference(read_json(config), str(config))
        if ignored:
            log.warning("%s: unknown transforms passed over: %s", config, ", ".join(ignored))
    return layout, None
