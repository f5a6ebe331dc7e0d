"""The embedded Realtime server: HTTP in front of the calls.

    POST /v1/realtime/client_secrets     session -> 200, ek_... to open it with
    POST /v1/realtime/calls              offer -> 201, Location, answer
    POST /v1/realtime/calls/{id}/hangup  -> 200
    WS   /v1/realtime?model=             a session with the audio in its events
    WS   /v1/realtime?call_id=           a sideband of a call

Bodies and status codes as in section 1 of the protocol reference. The process
says one JSON line on stdout when it can be used, and nothing else there.
"""

import asyncio
import contextlib
import gc
import importlib.util
import json
import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message
from starlette.websockets import WebSocket

from agent.embedded.access import Access, bearer, life_of
from agent.embedded.call import InvalidOffer, RealtimeCall
from agent.embedded.doorstep import Doorstep
from agent.embedded.engines import Engines
from agent.embedded.media import Pacer
from agent.embedded.protocol import (
    MAX_EVENT_BYTES,
    JsonObject,
    Refused,
    new_id,
    only_known,
    read_json,
)
from agent.embedded.replies import (
    HttpError,
    broken_reply,
    error_reply,
    http_exception_reply,
    refusal,
)
from agent.embedded.script import Script
from agent.embedded.session_object import (
    default_session,
    is_transcription,
    merge_session,
    transcribing,
)
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.stage import ScriptedEngines
from agent.embedded.trace import Note, SessionTrace, writing
from agent.embedded.websocket import Sideband, SocketSession
from agent.realtime.rtp_path import gather_loopback_when_alone, notice_lost_peers_sooner

log = structlog.get_logger()

_MOST_BODY_BYTES = 512 * 1024
_OFFER_TYPES = frozenset({"", "application/sdp", "text/plain", "multipart/form-data"})
_SUBPROTOCOL = "realtime"
# How a browser, which cannot set headers, brings its key.
_KEY_SUBPROTOCOL = "openai-insecure-api-key."
_PARENT_CHECK_S = 0.5
_STOP_TIMEOUT_S = 5


class RealtimeServer:
    """The calls of one process, and the ASGI application that opens them.

    Args:
        settings: `[embedded]`.
        engines: Loaded; the caller closes them afterwards.
        note: Told all that is said in all sessions; see `trace.py`.
    """

    def __init__(
        self, settings: EmbeddedSettings, engines: Engines, note: Note | None = None
    ) -> None:
        self._note = note
        self._settings = settings
        self._engines = engines
        self._access = Access(settings.api_key)
        self._pacer = Pacer()
        self._calls: dict[str, RealtimeCall] = {}
        self._sockets: set[SocketSession] = set()
        self._answering = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.app = Starlette(
            routes=[
                Route("/v1/realtime/client_secrets", self._mint, methods=["POST"]),
                Route("/v1/realtime/calls", self._open, methods=["POST"]),
                Route("/v1/realtime/calls/{call_id}/hangup", self._hang_up, methods=["POST"]),
                WebSocketRoute("/v1/realtime", self._open_socket),
            ],
            exception_handlers={
                HttpError: error_reply,
                HTTPException: http_exception_reply,
                Exception: broken_reply,
            },
            # As the service: a page may open a call and read where it is.
            middleware=[
                Middleware(
                    CORSMiddleware,
                    allow_origins=["*"],
                    allow_methods=["POST"],
                    allow_headers=["*"],
                    expose_headers=["Location"],
                )
            ],
        )

    @property
    def call_count(self) -> int:
        """How many sessions are open or being opened, over WebRTC and WebSocket."""
        return len(self._calls) + len(self._sockets) + self._answering

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the clock of all calls ticking; end every call on leaving."""
        pacing = asyncio.create_task(self._pacer.run())
        try:
            yield
        finally:
            for call in list(self._calls.values()):
                call.end("the server stops")
            for session in tuple(self._sockets):
                session.end("the server stops")
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_STOP_TIMEOUT_S)
            for task in (*self._tasks, pacing):
                task.cancel()
            await asyncio.gather(*self._tasks, pacing, return_exceptions=True)

    async def _mint(self, request: Request) -> Response:
        self._access.demand_key(_key(request))
        asked = await _read_object(request)
        try:
            only_known(asked, frozenset({"expires_after", "session"}))
            life_s = life_of(asked.get("expires_after"))
            config = default_session(new_id("sess_"), 0)
            if asked.get("session") is not None:
                config = merge_session(config, asked["session"], is_new=True)
        except Refused as refused:
            raise HttpError.of(refused) from refused
        value, expires_at = self._access.mint(config, life_s, time.time())
        return JSONResponse({"value": value, "expires_at": expires_at, "session": config})

    async def _open(self, request: Request) -> Response:
        granted = self._access.admit(_key(request), time.time())
        sdp, session = await _read_offer(request)
        self._demand_room()
        suffix = new_id("u0_")
        config = self._new_session(granted, f"sess_{suffix}")
        if session is not None:
            try:
                config = merge_session(config, session, is_new=True)
            except Refused as refused:
                raise HttpError.of(refused) from refused
        call = RealtimeCall(
            f"rtc_{suffix}",
            config,
            self._engines,
            self._pacer,
            limit_s=self._settings.session_limit_s,
            trace=self._trace(f"rtc_{suffix}"),
        )
        self._answering += 1
        try:
            answer = await call.accept(sdp)
        except InvalidOffer as error:
            raise HttpError(400, "invalid_offer", str(error)) from error
        finally:
            self._answering -= 1
        self._calls[call.call_id] = call
        task = asyncio.create_task(self._run(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        location = f"/v1/realtime/calls/{call.call_id}"
        return Response(answer, 201, headers={"Location": location}, media_type="application/sdp")

    async def _run(self, call: RealtimeCall) -> None:
        try:
            await call.run()
        finally:
            self._calls.pop(call.call_id, None)
            if not self._calls:
                # Peer connections are full of cycles; nobody is speaking now.
                gc.collect()

    def _demand_room(self) -> None:
        if self.call_count >= self._settings.max_sessions:
            raise HttpError(429, "rate_limit_exceeded", "All sessions of this server are in use.")

    def _new_session(self, granted: JsonObject | None, session_id: str) -> JsonObject:
        """The session as it begins: the secret's, or the one that asks for nothing."""
        expires_at = int(time.time() + self._settings.session_limit_s)
        if granted is None:
            return default_session(session_id, expires_at)
        return {**granted, "id": session_id, "expires_at": expires_at}

    async def _open_socket(self, websocket: WebSocket) -> None:
        offered = websocket.scope.get("subprotocols", [])
        try:
            carried = self._admit_socket(websocket, _socket_key(websocket, offered))
        except HttpError as error:
            # Before the upgrade, as a plain HTTP reply.
            await websocket.send_denial_response(refusal(error))
            return
        if isinstance(carried, SocketSession):
            self._sockets.add(carried)
        try:
            await websocket.accept(_SUBPROTOCOL if _SUBPROTOCOL in offered else None)
            await carried.run()
        finally:
            if isinstance(carried, SocketSession):
                self._sockets.discard(carried)

    def _admit_socket(self, websocket: WebSocket, key: str) -> SocketSession | Sideband:
        query = websocket.query_params
        if "call_id" in query:
            self._access.demand_key(key)
            call = self._calls.get(query["call_id"])
            if call is None:
                raise HttpError(404, "call_id_not_found", "No call of that id.")
            return Sideband(websocket, call)
        granted = self._access.admit(key, time.time())
        intent = query.get("intent", "realtime")
        if intent not in ("realtime", "transcription"):
            message = "Expected 'realtime' or 'transcription'."
            raise HttpError(400, "invalid_value", message, param="intent")
        self._demand_room()
        config = self._new_session(granted, new_id("sess_"))
        if intent == "transcription" and not is_transcription(config):
            config = transcribing(config)
        if query.get("model") and not is_transcription(config):
            config["model"] = query["model"]
        return SocketSession(
            websocket,
            config,
            self._engines,
            limit_s=self._settings.session_limit_s,
            trace=self._trace(config["id"]),
        )

    def _trace(self, session_id: str) -> SessionTrace | None:
        return SessionTrace(self._note, session_id) if self._note else None

    async def _hang_up(self, request: Request) -> Response:
        self._access.admit(_key(request), time.time())
        call = self._calls.get(request.path_params["call_id"])
        if call is None:
            raise HttpError(404, "call_id_not_found", "No call of that id.")
        call.end("hangup by client")
        return Response(status_code=200)


def _key(connection: HTTPConnection) -> str:
    return bearer(connection.headers.get("authorization", ""))


def _socket_key(websocket: WebSocket, offered: Sequence[str]) -> str:
    for protocol in offered:
        if protocol.startswith(_KEY_SUBPROTOCOL):
            return protocol.removeprefix(_KEY_SUBPROTOCOL)
    return _key(websocket)


def _bounded(request: Request) -> Request:
    """The same request, which is refused as soon as its body is longer than it may be."""
    refused = HttpError(413, "request_too_large", "The request is longer than 512 KiB.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > _MOST_BODY_BYTES:
        raise refused
    room_bytes = _MOST_BODY_BYTES

    async def receive() -> Message:
        nonlocal room_bytes
        message = await request.receive()
        room_bytes -= len(message.get("body", b""))
        if room_bytes < 0:
            raise refused
        return message

    return Request(request.scope, receive)


async def _read_object(request: Request) -> JsonObject:
    """Take a JSON object out of a request; an empty body is an empty object."""
    request = _bounded(request)
    try:
        body = read_json((await request.body() or b"{}").decode())
    except ValueError as error:
        raise HttpError(400, "invalid_value", "The body is not JSON.") from error
    if not isinstance(body, dict):
        raise HttpError(400, "invalid_value", "The body is not a JSON object.")
    return body


async def _read_offer(request: Request) -> tuple[str, JsonObject | None]:
    """Take the SDP and the session out of either request form (1.2, A and B)."""
    request = _bounded(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _OFFER_TYPES:
        message = (
            f"Unsupported content type: '{kind:.80}'. Send application/sdp or multipart/form-data."
        )
        raise HttpError(415, "unsupported_content_type", message)
    if kind != "multipart/form-data":
        return _text(await request.body(), "sdp"), None
    async with request.form(max_files=2, max_fields=4, max_part_size=_MOST_BODY_BYTES) as form:
        parts: dict[str, str] = {}
        for name in ("sdp", "session"):
            value = form.get(name)
            if isinstance(value, UploadFile):
                parts[name] = _text(await value.read(), name)
            elif value is not None:
                parts[name] = value
    if "sdp" not in parts:
        raise HttpError(400, "invalid_offer", "The part 'sdp' is missing.", param="sdp")
    if "session" not in parts:
        return parts["sdp"], None
    try:
        session = read_json(parts["session"])
    except ValueError as error:
        raise HttpError(
            400, "invalid_value", "The part 'session' is not JSON.", param="session"
        ) from error
    return parts["sdp"], session


def _text(body: bytes, name: str) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise HttpError(400, "invalid_offer", f"'{name}' is not UTF-8.", param=name) from error


def web_config(app: ASGIApp) -> uvicorn.Config:
    """Say how uvicorn serves the application, on whatever socket.

    Without `websockets` there is WebRTC only.
    """
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    has_websockets = importlib.util.find_spec("websockets") is not None
    if not has_websockets:
        log.info("= no WebSocket sessions: websockets is not installed")
    return uvicorn.Config(
        app,
        ws="websockets-sansio" if has_websockets else "none",
        ws_max_size=MAX_EVENT_BYTES,
        # Audio hardly shrinks, and deflate costs more CPU than the whole session.
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out what uvicorn says of an upgrade that was refused: that the refusal was an error."""
    return "without completing handshake" not in record.getMessage()


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its own signal handlers: `serve_forever` has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_server(
    settings: EmbeddedSettings,
    *,
    on_ready: Callable[[str], None],
    script: Script | None = None,
    note: Note | None = None,
) -> None:
    """Load the engines and serve until cancelled.

    Args:
        settings: `[embedded]`; port 0 takes any free port.
        script: What to play instead of being a receptionist.
        note: Told all that is said in all sessions.
        on_ready: Told the base URL, `http://127.0.0.1:41234/v1`, once calls can come.

    Raises:
        ValueError: The facts file is not what it should be.
        OSError: The address cannot be listened on, or the facts file not read.
    """
    listening = _listen(settings.listen)
    with contextlib.closing(listening):
        gather_loopback_when_alone()
        notice_lost_peers_sooner()
        engines = await asyncio.to_thread(Engines, settings)
        if script is not None:
            engines = ScriptedEngines(engines, script)
        # Models and modules live as long as the process; a collection that walks
        # them would make every call's packets 30 ms late.
        gc.collect()
        gc.freeze()
        server = RealtimeServer(settings, engines, note)
        app = server.app if script is None else Doorstep(server.app, script)
        web = _Uvicorn(web_config(app))
        host, port = listening.getsockname()[:2]
        try:
            async with server.running():
                serving = asyncio.create_task(web.serve(sockets=[listening]))
                try:
                    on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
                    await asyncio.shield(serving)
                finally:
                    web.should_exit = True
                    await asyncio.wait((serving,), timeout=_STOP_TIMEOUT_S)
                    serving.cancel()
        finally:
            engines.close()
            if engines.chat is not None:
                await engines.chat.close()


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, reuse_port=False)
    except (OSError, OverflowError) as error:
        raise OSError(f"cannot listen on {address}: {error}") from error


def serve_forever(
    settings: EmbeddedSettings, script: Script | None = None, trace: Path | None = None
) -> None:
    """Run the server as this process, until SIGTERM, SIGINT or the parent's end.

    Prints `{"url": "http://127.0.0.1:PORT/v1"}` on stdout when ready. When
    stdout is a pipe, whoever started us reads it, and we end when that process
    is gone: a killed `serve` leaves no orphan.

    Raises:
        SystemExit: 2 with a message when it cannot start.
    """
    try:
        with writing(trace) if trace else contextlib.nullcontext() as note:
            asyncio.run(_serve(settings, script, note))
    except (ValueError, OSError) as error:
        print(f"trunkline realtime: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from error


async def _serve(settings: EmbeddedSettings, script: Script | None, note: Note | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    parent = os.getppid()
    serving = asyncio.create_task(
        run_server(settings, on_ready=_say_ready, script=script, note=note)
    )
    stopping = asyncio.create_task(stop.wait())
    watching = asyncio.create_task(_parent_gone(parent) if _is_piped() else stop.wait())
    try:
        await asyncio.wait((serving, stopping, watching), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        for task in (serving, stopping, watching):
            task.cancel()
        await asyncio.gather(serving, stopping, watching, return_exceptions=True)


def _say_ready(url: str) -> None:
    print(json.dumps({"url": url}), flush=True)  # noqa: T201


def _is_piped() -> bool:
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


async def _parent_gone(parent: int) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells of a parent's end
        await asyncio.sleep(_PARENT_CHECK_S)
