"""How a scripted server receives offers, in front of the one that answers them.

    POST /v1/realtime/calls -> delayed, refused or left without reply -> the real application

Every other path goes straight through. Nothing of a session is decided here.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.embedded.script import OfferManners, Script


class Doorstep:
    """An ASGI application around the server's own.

    Args:
        app: What answers offers that are let through.
        script: Whose `offers` say what happens to each.
    """

    def __init__(self, app: ASGIApp, script: Script) -> None:
        self._app = app
        self._offers = script.offers
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_offer = (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and scope["path"] == "/v1/realtime/calls"
        )
        if not is_offer or not self._offers:
            await self._app(scope, receive, send)
            return
        manners = self._offers[min(self._count, len(self._offers) - 1)]
        self._count += 1
        await asyncio.sleep(manners.delay_s)
        if manners.silent:
            await _until_gone(receive)
        elif manners.answer is not None or manners.status != 201:
            await Request(scope, receive).body()
            await _reply(manners)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _until_gone(receive: Receive) -> None:
    """Take whatever the client sends, until it loses patience."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _reply(manners: OfferManners) -> Response:
    if manners.status == 201:
        location = {"Location": "/v1/realtime/calls/rtc_u0_scripted"}
        return Response(manners.answer, 201, headers=location, media_type="application/sdp")
    headers = {}
    if manners.retry_after_s is not None:
        headers["Retry-After"] = str(manners.retry_after_s)
    error = {
        "message": manners.message,
        "type": "server_error" if manners.status >= 500 else "invalid_request_error",
        "param": None,
        "code": manners.code,
    }
    return JSONResponse({"error": error}, manners.status, headers=headers)
