"""The admin's HTTP application: the API, the page and the health checks.

::

    request ──► headers ──► access ──► routes ──► agent.store (reads only)
                                          └─ any error ──► problems

It is handed what it needs and owns nothing: no database is opened here, no
port is listened on, no call is touched.
"""

from collections.abc import Callable

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent import __version__
from agent.admin.access import RequireToken
from agent.admin.metrics import Measure, registry
from agent.admin.problems import add_problem_handlers
from agent.admin.routes import calls, health, page, realtime
from agent.admin.routes.realtime import Keys
from agent.store.calls import CallLog
from agent.store.tokens import Tokens

_HEADERS = {
    # Nothing from other hosts, nothing inline, no foreign frame around us.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with that, a browser sends `Origin: null` with our own sign-in form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # What was said on the telephone stays out of caches.
    "Cache-Control": "no-store",
}


def create_app(
    log: CallLog,
    tokens: Tokens,
    *,
    is_ready: Callable[[], bool],
    measure: Measure = dict,
    keys: Keys | None = None,
) -> FastAPI:
    """Build the application.

    Args:
        log: The call log, for reading.
        tokens: Who may read it.
        is_ready: Whether calls can be taken now, for `/readyz`.
        measure: What the process carries now, for `/metrics`.
        keys: Makes keys for browsers; without it, there is no such route.
    """
    app = FastAPI(
        title="Trunkline",
        summary="A self-hosted voice agent that answers the telephone.",
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        # Their pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
    )
    app.state.log = log
    app.state.tokens = tokens
    app.state.is_ready = is_ready
    app.state.metrics = registry(measure)
    app.include_router(health.router)
    app.include_router(calls.router)
    if keys is not None:
        app.state.keys = keys
        app.include_router(realtime.router)
    app.include_router(page.router)
    app.mount("/page", StaticFiles(directory=page.PAGE_FOLDER))
    add_problem_handlers(app)

    # The last one added is the first to see a request.
    app.add_middleware(RequireToken, tokens=tokens)
    app.add_middleware(AddHeaders)
    return app


class AddHeaders:
    """Puts the headers above on every reply that has not its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and the reply back with headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
