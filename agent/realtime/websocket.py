"""A session over one WebSocket: its voices inside its events.

    write_frame -> G.711 -> input_audio_buffer.append       (20 ms each)
    response.output_audio.delta -> Spool -> read_frame      (seconds ahead of the ear)
    every event -> receive_text

The audio is coded by the law of the caller's line and passes as it is. The far end makes
speech faster than it is heard and takes all of it for heard: the playout clock is the
phone's, and what a barge-in cuts off is told to the far end to the sample.

There is no way back into a session whose connection was lost: the call opens another.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote

import httpx
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)

from agent.audio import g711
from agent.audio.frame import FRAME_BYTES, SILENCE, Frame
from agent.call.clean import clean
from agent.call.events import ResponseEnded
from agent.call.ports import AgentProfile, AgentUnavailable
from agent.realtime.access import key_headers, secret_headers
from agent.realtime.calls_api import CallsApi
from agent.realtime.codec import CodecError, G711Codec
from agent.realtime.exchange import refusal
from agent.realtime.leg import RealtimeLeg
from agent.realtime.protocol import append_of
from agent.realtime.settings import RealtimeSettings
from agent.realtime.sideband import socket_url
from agent.realtime.spool import Spool

log = structlog.get_logger()

_MOST_EVENT_BYTES = 4 * 1024 * 1024
_MOST_UNSENT_TEXTS = 1_000
_MOST_UNSENT_FRAMES = 100
"""Two seconds: of a connection that stalled longer, the far end hears the newest."""

_MOST_CONCEALED = 3
_PING_EVERY_S = 2
_PING_TIMEOUT_S = 3
"""A far end that is gone without a word is noticed within five seconds, as over WebRTC."""

_CLOSE_TIMEOUT_S = 1
_RETRY_PAUSE_S = 0.25
_LEAST_LEFT_S = 1.0
_BUSY = 429


@asynccontextmanager
async def open_websocket(
    settings: RealtimeSettings,
    profile: AgentProfile,
    call_id: str,
    law: g711.Law,
    api: CallsApi,
    safety_identifier: str,
) -> AsyncIterator["WebSocketLeg"]:
    """Connect one session; entered, it can hear and speak.

    Args:
        settings: As they hold for this agent.
        profile: Who answers.
        call_id: Whose log lines they are.
        law: Of the caller's line.
        api: Mints the secret, where each session has one.
        safety_identifier: Stands for the caller.

    Raises:
        AgentUnavailable: It could not be opened within `connect_timeout_s`.
    """
    leg = WebSocketLeg(settings, call_id, law)
    timeout_s = settings.connect_timeout_s
    connection: ClientConnection | None = None
    tasks: list[asyncio.Task[None]] = []
    waiting_for = "the Realtime API did not answer"
    try:
        try:
            async with asyncio.timeout(timeout_s):
                if settings.auth == "ephemeral":
                    headers = secret_headers(await api.admit())
                else:
                    headers = key_headers(settings, safety_identifier)
                connection = await _connect(settings, headers)
                tasks += [
                    asyncio.create_task(leg.receive_all(connection)),
                    asyncio.create_task(leg.send_all(connection)),
                ]
                waiting_for = "the session settings were not acknowledged"
                await leg.configured(profile)
        except TimeoutError as error:
            raise AgentUnavailable(f"{waiting_for} within {timeout_s:g} s") from error
        yield leg
    finally:
        leg.close()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("! a WebSocket session broke", call_id=call_id, exc_info=result)
        if connection is not None:
            await connection.close()


async def _connect(settings: RealtimeSettings, headers: Mapping[str, str]) -> ClientConnection:
    """Open the connection; once more after a busy, failing or unreachable far end."""
    url = f"{socket_url(settings.base_url)}?model={quote(settings.model, safe='')}"
    loop = asyncio.get_running_loop()
    retry_until_s = loop.time() + settings.connect_timeout_s - _RETRY_PAUSE_S - _LEAST_LEFT_S
    may_retry = True
    while True:
        try:
            return await connect(
                url,
                additional_headers=headers,
                max_size=_MOST_EVENT_BYTES,
                open_timeout=None,
                close_timeout=_CLOSE_TIMEOUT_S,
                ping_interval=_PING_EVERY_S,
                ping_timeout=_PING_TIMEOUT_S,
                compression=None,
                proxy=None if settings.provider == "embedded" else True,
            )
        except InvalidStatus as refused:
            status = refused.response.status_code
            failure = _refused(refused)
            is_passing = status == _BUSY or status >= httpx.codes.INTERNAL_SERVER_ERROR
        except (OSError, EOFError, InvalidHandshake, InvalidURI) as error:
            reason = clean(str(error), 120) or type(error).__name__
            failure = AgentUnavailable(f"the Realtime API is unreachable: {reason}")
            is_passing = True
        if not (may_retry and is_passing) or loop.time() > retry_until_s:
            raise failure
        may_retry = False
        await asyncio.sleep(_RETRY_PAUSE_S)


def _refused(refused: InvalidStatus) -> AgentUnavailable:
    """Put the status of a refused handshake into the words of any other request."""
    told = refused.response
    headers = {"Retry-After": told.headers.get("Retry-After", "")}
    body = bytes(told.body or b"")
    return refusal(httpx.Response(told.status_code, headers=headers, content=body))


class WebSocketLeg(RealtimeLeg):
    """The `RealtimeLeg` whose audio is in its events. Made by `open_websocket`."""

    def __init__(self, settings: RealtimeSettings, call_id: str, law: g711.Law) -> None:
        """Prepare codec and spool; nothing is connected yet."""
        super().__init__(settings, call_id)
        self._law = law
        self._codec = G711Codec(law)
        self._spool = Spool()
        self._is_held = False
        self._concealed_in_row = 0
        self._texts: deque[str] = deque()
        self._voice: deque[bytes] = deque(maxlen=_MOST_UNSENT_FRAMES)
        self._has_something = asyncio.Event()
        self._is_open = False
        self._frames_sent = 0
        self._frames_unsent = 0
        self._texts_unsent = 0
        self._unreadable = 0
        self._concealed = 0
        self._underruns = 0

    def write_frame(self, frame: Frame) -> None:
        """Send the caller's next 20 ms up. Never blocks, never raises."""
        if not self._is_open:
            return
        try:
            payload = self._codec.encode(frame)
        except CodecError:
            self._frames_refused += 1
            return
        if len(self._voice) == _MOST_UNSENT_FRAMES:
            self._frames_unsent += 1
        self._voice.append(payload)
        self._has_something.set()

    def read_frame(self) -> Frame:
        """Give the next 20 ms for the caller's ear; silence when nothing is due."""
        if self._is_held:
            return SILENCE
        was_mid_speech = self._spool.is_mid_speech
        payload = self._spool.read()
        if not payload:
            return self._bridge() if was_mid_speech else SILENCE
        self._concealed_in_row = 0
        if self._spool.facts:
            self._tell_facts()
        frame = self._codec.decode(payload)
        return frame if len(frame) == FRAME_BYTES else frame.ljust(FRAME_BYTES, b"\0")

    def flush(self) -> int:
        """Drop what has arrived and the rest of it, and tell the far end what was heard."""
        dropped_ms = self._spool.waiting_ms
        self._flushed_ms += dropped_ms
        self._is_held = False
        self._codec = G711Codec(self._law)  # what comes next joins on to nothing
        for cut in self._spool.flush():
            self._protocol.truncate(*cut)
        self._send_outgoing()
        self._tell_facts()
        return dropped_ms

    def interrupt(self) -> int:
        """Stop the response and drop what has arrived of it; return how many ms that was."""
        self._protocol.interrupt()
        return self.flush()

    def hold(self, is_held: bool) -> None:
        """Let the agent's voice wait, or go on where it stopped."""
        self._is_held = is_held

    def buffered_ms(self) -> int:
        """How much speech has arrived and was not read yet."""
        return self._spool.waiting_ms

    def waited_ms(self) -> int:
        """How long the frame read last had waited for its read."""
        return max(0, int((self._loop.time() - self._spool.read_arrival_s) * 1000))

    def quality(self) -> Mapping[str, object]:
        """How audio and messages fared so far, both directions."""
        return {
            "codec": self._law,
            "frames_sent": self._frames_sent,
            "frames_unsent": self._frames_unsent,
            "concealed": self._concealed,
            "underruns": self._underruns,
            "overflowed_bytes": self._spool.overflowed_bytes,
            "flushed_ms": self._flushed_ms,
            "events_dropped": self._events_dropped,
            "messages_refused": self._protocol.garbage + self._unreadable,
            "messages_unsent": self._texts_unsent,
        }

    # --- connecting

    async def configured(self, profile: AgentProfile) -> None:
        """Send the session settings and wait until they are acknowledged.

        Raises:
            AgentUnavailable: They were refused, or the connection was lost.
        """
        self._is_open = True
        self._protocol.configure(profile, self._settings, f"audio/{self._law}")
        self._send_outgoing()
        await self._acknowledged()

    async def receive_all(self, connection: ClientConnection) -> None:
        """Take events until the connection is closed, and say why it was."""
        try:
            while True:
                # As bytes: a text that is not UTF-8 is one bad event, no reason to hang up.
                message = await connection.recv(decode=False)
                try:
                    text = message.decode()
                except UnicodeDecodeError:
                    self._unreadable += 1
                    continue
                self.receive_text(text)
        except ConnectionClosed as closed:
            told = closed.rcvd
            if told is not None:
                reason = clean(f"{told.code}: {told.reason}", 120).rstrip(": ")
                self.lose(f"the connection to the Realtime API was closed ({reason})")
        finally:
            # Whatever ended this, nobody shall wait for events that will not come.
            self.lose("the connection to the Realtime API was lost")

    async def send_all(self, connection: ClientConnection) -> None:
        """Send events and the caller's voice; what piled up meanwhile goes as one."""
        try:
            while True:
                while self._texts:
                    await connection.send(self._texts.popleft())
                if self._voice:
                    self._frames_sent += len(self._voice)
                    payload = b"".join(self._voice)
                    self._voice.clear()
                    await connection.send(append_of(payload))
                    continue
                self._has_something.clear()
                await self._has_something.wait()
        except ConnectionClosed:
            return  # `receive_all` tells

    def _free(self) -> None:
        self._is_open = False

    # --- the far end's side

    def receive_text(self, text: str) -> None:
        """Take one event."""
        events = self._protocol.receive(text)
        for piece in self._protocol.take_audio():
            self._spool.add(piece, self._loop.time())
        for event in events:
            self._tell(event)
            if isinstance(event, ResponseEnded):
                self._spool.complete(event.response_id)
        self._tell_facts()
        self.realtime_call_id = self._protocol.session_id
        self._send_outgoing()
        self._settled.set()

    def _send_text(self, text: str) -> None:
        if not self._is_open:
            return
        if len(self._texts) >= _MOST_UNSENT_TEXTS:
            self._texts_unsent += 1
            return
        self._texts.append(text)
        self._has_something.set()

    def _tell_facts(self) -> None:
        facts, self._spool.facts = self._spool.facts, []
        for fact in facts:
            self._tell(fact)

    def _bridge(self) -> Frame:
        """The far end is slower than its own voice: stand in for a moment, then wait."""
        if self._concealed_in_row == 0:
            self._underruns += 1
        if self._concealed_in_row >= _MOST_CONCEALED:
            return SILENCE
        self._concealed_in_row += 1
        self._concealed += 1
        return self._codec.conceal()
