"""What all pages share: the configuration, templates, refusals."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from understudy.core.errors import UnderstudyError
from understudy.core.lazy import require
from understudy.ui.access import Access
from understudy.ui.config import UiConfig

MENU = (
    ("/jobs", "Jobs"),
    ("/stores", "Stores"),
    ("/claims", "Claims"),
    ("/recipes", "Recipes"),
)


FORM_BYTES = 16_384


class RefusedError(UnderstudyError):
    """A request that gets a status and a sentence.

    Args:
        status: of HTTP.
        text: the sentence.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def clock(t: float | None) -> str:
    """Return a time of day of this machine."""
    return "-" if t is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))


def lasted(seconds: float | None) -> str:
    """Return a length of time in its two largest units."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{n} {unit}" for n, unit in parts if n]
    return " ".join(shown[:2])


def sized(count: float | None) -> str:
    """Return a number of bytes in a unit that fits."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def shown(value: Any) -> str:
    """Return any plain value as a table's cell."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(slots=True)
class Site:
    """The pages' common ground.

    Attributes:
        config: what is shown.
        access: who may ask.
        stopping: set when the server ends; streams end then.
    """

    config: UiConfig
    access: Access
    stopping: threading.Event = field(default_factory=threading.Event)
    _templates: Any = None

    def render(self, request: Request, template: str, code: int = 200, **values: Any) -> Response:
        """Return a page.

        Args:
            request: that asked for it.
            template: name without `.html`.
            code: status of HTTP.
            **values: for the template.
        """
        if self._templates is None:
            jinja2 = require("jinja2", "ui", "The web page")
            self._templates = jinja2.Environment(
                loader=jinja2.PackageLoader("understudy.ui"),
                autoescape=True,
                undefined=jinja2.StrictUndefined,
                trim_blocks=True,
                lstrip_blocks=True,
            )
            self._templates.filters |= {
                "clock": clock, "lasted": lasted, "sized": sized, "shown": shown
            }  # fmt: skip
        html = self._templates.get_template(f"{template}.html").render(
            menu=MENU,
            here=request.url.path,
            form=self.access.form,
            refresh_ms=round(1e3 * self.config.refresh_s),
            **values,
        )
        return HTMLResponse(html, code)

    def message(self, request: Request, status: int, text: str) -> Response:
        """Return a page that says one thing."""
        return self.render(request, "message", status, text=text)


def site_of(request: Request) -> Site:
    """Return the site that a request is for."""
    return request.app.state.site


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form of ours.

    Raises:
        RefusedError: it is long, not a form, or its hidden token is missing or wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise RefusedError(415, "expected a form.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES:
            raise RefusedError(413, f"a form has at most {FORM_BYTES} bytes.")
    try:
        found = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=16))
    except ValueError:
        raise RefusedError(400, "this form was not understood.") from None
    if not site_of(request).access.form_is_ours(found.get("form", "")):
        raise RefusedError(403, "this form is not (or no longer) ours; open the page again.")
    return found


def whole(request: Request, name: str, default: int, least: int, most: int) -> int:
    """Return a whole number of the query.

    Raises:
        RefusedError: it is none, or out of range.
    """
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise RefusedError(400, f"{name}: expected a number from {least} to {most}.")
    return int(text)
