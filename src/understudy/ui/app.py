"""The application: routes, the guard before them, and what an error becomes."""

from __future__ import annotations

from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.core.errors import UnderstudyError
from understudy.ui import claims, curves, job, jobs, logs, recipes, stores
from understudy.ui.access import HEADERS, Access
from understudy.ui.site import RefusedError, Site, site_of

_KINDS = {"css": "text/css", "js": "text/javascript"}
_SIGNED_IN = """<!doctype html><html lang="en"><meta charset="utf-8">
<title>Understudy</title><link rel="icon" href="data:,"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url=/jobs"><p><a href="/jobs">Go on</a></p></html>"""


def _part(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text()


def _files() -> dict[str, str]:
    """Return all static files by name: nothing else can be asked for, whatever a path says."""
    names = ("live.js", "logs.js", "curves.js")
    files = {name: _part("understudy.ui", f"static/{name}") for name in names}
    style = _part("understudy.report", "page.css") + _part("understudy.ui", "static/ui.css")
    return {**files, "page.css": style}


class Guard:
    """Refuses what may not ask, and sends the protecting headers with everything.

    Args:
        app: behind it.
        access: who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        refusal = self.access.refusal(scope["method"], scope["path"], headers)
        if refusal is None:
            await self.app(scope, receive, protected)
        else:
            status, text = refusal
            await PlainTextResponse(f"Refused: {text}\n", status)(scope, receive, protected)


def _login(request: Request) -> Response:
    access = site_of(request).access
    if not access.sells(request.query_params.get("token", "")):
        raise HTTPException(401, "this is not the token of the running server.")
    # A page of ours leads on: a strict cookie is not sent along a redirect from elsewhere.
    return HTMLResponse(_SIGNED_IN, headers={"Set-Cookie": access.header()})


def _health(request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    found = request.app.state.files.get(name)
    if found is None:
        raise HTTPException(404)
    return Response(found, media_type=_KINDS[name.rpartition(".")[2]])


def _home(request: Request) -> Response:
    return RedirectResponse("/jobs", 303)


def _on_error(request: Request, error: Exception) -> Response:
    site = site_of(request)
    if isinstance(error, HTTPException):
        if error.status_code == 401:  # not signed in: no page, no style
            return PlainTextResponse(f"Refused: {error.detail}\n", 401)
        text = "there is nothing here." if error.status_code == 404 else error.detail
        return site.message(request, error.status_code, text)
    if isinstance(error, UnderstudyError):
        status = error.status if isinstance(error, RefusedError) else 400
        return site.message(request, status, str(error))
    return site.message(
        request, 500, f"internal error ({type(error).__name__}); the terminal says more."
    )


def make_app(site: Site) -> Guard:
    """Return the application.

    Args:
        site: what it shows and to whom.
    """
    routes = [
        Route("/", _home),
        Route("/login", _login),
        Route("/health", _health),
        Route("/static/{name}", _static),
        Route("/jobs", jobs.page),
        Route("/jobs/{job}", job.page),
        Route("/jobs/{job}/cancel", job.cancel, methods=["POST"]),
        Route("/jobs/{job}/retry", job.retry, methods=["POST"]),
        Route("/jobs/{job}/follow", logs.follow),
        Route("/jobs/{job}/earlier", logs.before),
        Route("/jobs/{job}/curves", curves.curves),
        Route("/stores", stores.page),
        Route("/stores/{name:path}", stores.one),
        Route("/claims", claims.page),
        Route("/claims/{scale}/{recipe}", claims.one),
        Route("/recipes", recipes.page),
        Route("/recipes/{name}", recipes.one),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _on_error,
            UnderstudyError: _on_error,
            Exception: _on_error,
        },
    )
    app.state.site, app.state.files = site, _files()
    return Guard(app, site.access)  # outermost: also what an error becomes is protected
