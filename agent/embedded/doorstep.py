"""How a scripted server receives offers, in front of the one that answers them.

    POST /v1/realtime/calls -> delayed, refused or left without reply -> the real application

Every other path goes straight through. Nothing of a session is decided here.
"""

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
            await self._app(scope, receive, _Altering(send, manners))


class _Altering:
    """Passes the answer on as the script wants it."""

    def __init__(self, send: Send, manners: OfferManners) -> None:
        self._send = send
        self._manners = manners
        self._start: Message = {}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # Goes out with the body, whose length it tells.
            self._start = message
            return
        body = message.get("body", b"")
        headers = MutableHeaders(scope=self._start)
        if self._start["status"] == 201:
            sdp = body.decode()
            for replacement in self._manners.alter:
                sdp = replacement.applied(sdp)
            body = sdp.encode()
            headers["Content-Length"] = str(len(body))
            if not self._manners.location:
                del headers["Location"]
        headers.update(_headers(self._manners))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})


def _headers(manners: OfferManners) -> dict[str, str]:
    return {name: str(value) for name, value in manners.headers.items()}


async def _until_gone(receive: Receive) -> None:
    """Take whatever the client sends, until it loses patience."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _reply(manners: OfferManners) -> Response:
    if manners.status == 201:
        location = {"Location": "/v1/realtime/calls/rtc_u0_scripted"} if manners.location else {}
        headers = {**location, **_headers(manners)}
        return Response(manners.answer, 201, headers=headers, media_type="application/sdp")
    error = {
        "message": "The script says no.",
        "type": "server_error" if manners.status >= 500 else "invalid_request_error",
        "param": None,
        "code": "scripted_refusal",
        **manners.error,
    }
    return JSONResponse({"error": error}, manners.status, headers=_headers(manners))
