"""Sessions and sidebands over WebSocket: one JSON event a text frame.

    WS /v1/realtime?model=    -> SocketSession: events, with the audio in them
    WS /v1/realtime?call_id=  -> Sideband: another pair of hands on a WebRTC call

Frames come in and go out in order; what they mean is the session's affair. A
client that reads nothing is let go before its unread events fill the memory.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from agent.embedded.call import RealtimeCall, local_time
from agent.embedded.engines import Engines
from agent.embedded.protocol import JsonObject
from agent.embedded.session import Session
from agent.embedded.trace import SessionTrace

log = structlog.get_logger()

# Two minutes of 24 kHz audio in base64 are 8 MB, and are made in seconds.
_MOST_UNREAD_CHARS = 24 * 1024 * 1024
_CLOSE_TIMEOUT_S = 2
_NORMAL, _GOING_AWAY, _POLICY, _INTERNAL_ERROR = 1000, 1001, 1008, 1011
_MOST_REASON_CHARS = 120  # RFC 6455, 5.5: a control frame holds 125 bytes

Receive = Callable[[str], Awaitable[None]]


class EventSocket:
    """One accepted WebSocket, until somebody ends it."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._unread: deque[str] = deque()
        self._unread_chars = 0
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._ended = asyncio.Event()
        self._code = _NORMAL
        self.why = ""

    def send(self, text: str) -> None:
        """Queue one event. Never blocks; a client that reads nothing is let go."""
        if self._ended.is_set():
            return
        self._unread.append(text)
        self._unread_chars += len(text)
        self._changed.set()
        if self._unread_chars > _MOST_UNREAD_CHARS:
            self._unread.clear()
            self.end("the client reads no events", _POLICY)

    def end(self, why: str, code: int = _NORMAL) -> None:
        """Send what is queued, then close. Harmless when repeated; the first reason stays."""
        if not self._ended.is_set():
            self.why, self._code = why, code
            self._ended.set()

    async def run(self, receive: Receive) -> None:
        """Carry events both ways until either side ends it.

        Args:
            receive: Takes each message, "" for a binary one, in order.
        """
        reading = asyncio.create_task(self._read(receive))
        writing = asyncio.create_task(self._write())
        ended = asyncio.create_task(self._ended.wait())
        tasks: tuple[asyncio.Task[Any], ...] = (reading, writing, ended)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, writing):
                if task.done():
                    task.result()
            await self._close(writing)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self, writing: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                if self._unread:
                    self._drained.clear()
                    drained = asyncio.create_task(self._drained.wait())
                    await asyncio.wait((drained, writing), return_when=asyncio.FIRST_COMPLETED)
                    drained.cancel()
                if self._websocket.client_state is WebSocketState.CONNECTED:
                    await self._websocket.close(self._code, self.why[:_MOST_REASON_CHARS])
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            log.debug("x a client did not wait for the close", reason=self.why)

    async def _read(self, receive: Receive) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                self.end("closed by the client")
                return
            await receive(message.get("text") or "")

    async def _write(self) -> None:
        try:
            while True:
                while self._unread:
                    # Taken off after it was sent: `_close` waits for an empty queue.
                    text = self._unread[0]
                    await self._websocket.send_text(text)
                    if self._unread:
                        self._unread.popleft()
                        self._unread_chars -= len(text)
                self._drained.set()
                self._changed.clear()
                await self._changed.wait()
        except (WebSocketDisconnect, RuntimeError):
            self.end("the client is gone")


class SocketSession:
    """A session of its own over one WebSocket.

    Args:
        websocket: Accepted.
        config: The session object.
        engines: Shared.
        limit_s: How long it may last.
        trace: Told what is said, and the end.
    """

    def __init__(
        self,
        websocket: WebSocket,
        config: JsonObject,
        engines: Engines,
        *,
        limit_s: float,
        trace: SessionTrace | None = None,
    ) -> None:
        self._limit_s = limit_s
        self._socket = EventSocket(websocket)
        self._trace = trace
        self._session = Session(
            engines, config, self._socket.send, local_time, audio_in_events=True, trace=trace
        )

    async def run(self) -> None:
        """Carry the session to its end. Raises nothing but cancellation."""
        running = asyncio.create_task(self._session.run())
        carrying = asyncio.create_task(self._socket.run(self._receive))
        running.add_done_callback(self._on_broken)
        expiry = asyncio.get_running_loop().call_later(self._limit_s, self._expire)
        try:
            self._session.opened()
            await carrying
        except Exception:
            log.exception("! a WebSocket session broke")
        finally:
            expiry.cancel()
            running.cancel()
            carrying.cancel()
            await asyncio.gather(running, carrying, return_exceptions=True)
            if self._trace is not None:
                self._trace.ended(self._socket.why)
            log.debug("x realtime session ended", reason=self._socket.why)

    def end(self, why: str) -> None:
        """End the session. Harmless when repeated."""
        self._socket.end(why, _GOING_AWAY)

    def _expire(self) -> None:
        self._socket.end(self._session.expire(self._limit_s), _GOING_AWAY)

    def _on_broken(self, running: asyncio.Task[None]) -> None:
        if not running.cancelled() and running.exception() is not None:
            log.error("! a WebSocket session broke", exc_info=running.exception())
            self._socket.end("internal error", _INTERNAL_ERROR)
        else:
            self._socket.end("the session ended", _GOING_AWAY)

    async def _receive(self, text: str) -> None:
        self._session.receive(text)
        await self._session.listen()


class Sideband:
    """Somebody who watches and steers a WebRTC call from elsewhere.

    Args:
        websocket: Accepted.
        call: It may not be connected yet; what is sent waits until it is.
    """

    def __init__(self, websocket: WebSocket, call: RealtimeCall) -> None:
        self._socket = EventSocket(websocket)
        self._call = call

    async def run(self) -> None:
        """Carry events until either the call or this connection ends."""
        session = self._call.session
        session.watch(self._socket.send)
        forget = self._call.on_end(self.end)
        try:
            await self._socket.run(self._receive)
        finally:
            forget()
            session.unwatch(self._socket.send)

    def end(self, why: str) -> None:
        """End this connection, not the call."""
        self._socket.end(why)

    async def _receive(self, text: str) -> None:
        self._call.session.receive(text)
