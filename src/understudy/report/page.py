"""A report page: sections of text, tables, figures and pictures in one self-contained HTML file.

Everything is inside the file: styles, the plotting library, figures as JSON, pictures as data URIs.
Text is escaped; nothing in a caption or a file name can become markup.

    >>> page = Page("Two students", "What reinforcement brought.")
    >>> page.section("Scores")
    >>> page.table(("arm", "R@1"), [("plain", 0.11), ("reinforced", 0.69)])
    >>> path = page.write("/tmp/two-students.html")             # doctest: +SKIP
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.errors import DataError
from understudy.core.files import write_text
from understudy.core.lazy import require

if TYPE_CHECKING:
    import numpy as np


def _part(name: str) -> str:
    """Return a file that lies beside this one."""
    return resources.files(__package__).joinpath(name).read_text()


def cell_text(value: Any) -> str:
    """Return a table cell's text: numbers to four digits, whole numbers with separators."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "not finite"
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def picture_uri(pixels: np.ndarray) -> str:
    """Return `uint8 [H, W, 3]` as a PNG data URI."""
    import numpy as np
    from PIL import Image

    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(f"picture: expected [H, W, 3], got {list(pixels.shape)}.")
    buffer = io.BytesIO()
    clipped = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(clipped)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _script_json(data: Any) -> str:
    """Return JSON that cannot end the script element that holds it."""
    text = json.dumps(_finite(data), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return value


class Page:
    """Collect blocks, then write the file.

    Args:
        title: of the page.
        lead: one sentence under the title.
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self.title, self.lead = title, lead
        self.blocks: list[dict[str, Any]] = []
        self._figures = 0

    def section(self, name: str) -> None:
        """Begin a section."""
        self.blocks.append({"kind": "section", "name": name, "id": f"s{len(self.blocks)}"})

    def text(self, text: str, tone: str = "") -> None:
        """Add a paragraph; `tone` is empty, "note", "good" or "bad"."""
        self.blocks.append({"kind": "text", "text": text, "tone": tone})

    def code(self, text: str) -> None:
        """Add preformatted text."""
        self.blocks.append({"kind": "code", "text": text})

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        caption: str = "",
        strong: Sequence[int] = (),
    ) -> None:
        """Add a table.

        Args:
            header: names of the columns.
            rows: cells; numbers are formatted and right-aligned.
            caption: a line above it.
            strong: numbers of rows to stress.
        """
        cells = [
            [
                {
                    "text": cell_text(value),
                    "number": isinstance(value, int | float) and not isinstance(value, bool),
                }
                for value in row
            ]
            for row in rows
        ]
        block = {"kind": "table", "header": list(header), "rows": cells, "caption": caption}
        self.blocks.append({**block, "strong": set(strong)})

    def figure(self, figure: dict[str, Any], *, caption: str = "", height: int = 360) -> None:
        """Add a plot: a Plotly figure as plain data, see `understudy.report.figures`."""
        self._figures += 1
        self.blocks.append(
            {
                "kind": "figure",
                "id": f"plot{self._figures}",
                "json": _script_json(figure),
                "caption": caption,
                "height": int(height),
            }
        )

    def pictures(self, rows: Sequence[Sequence[tuple[np.ndarray, str]]], width: int = 112) -> None:
        """Add strips of pictures: each item is (`uint8 [H, W, 3]`, text under it)."""
        strips = [[{"src": picture_uri(p), "text": text} for p, text in row] for row in rows]
        self.blocks.append({"kind": "pictures", "rows": strips, "width": int(width)})

    def html(self) -> str:
        """Return the page.

        Raises:
            MissingExtraError: Jinja or Plotly is missing.
        """
        jinja2 = require("jinja2", "report", "A report")
        library = ""
        if self._figures:
            library = require("plotly.offline", "report", "A report").get_plotlyjs()
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        return environment.from_string(_part("page.html")).render(
            title=self.title,
            lead=self.lead,
            blocks=self.blocks,
            contents=[(b["id"], b["name"]) for b in self.blocks if b["kind"] == "section"],
            has_figures=bool(self._figures),
            style=_part("page.css"),
            library=library,
            draw=_part("page.js"),
        )

    def write(self, path: str | Path) -> Path:
        """Write the page atomically and return its path."""
        return write_text(path, self.html())
