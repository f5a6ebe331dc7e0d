"""One Realtime session as the call sees it, however its audio travels.

    far end -> RealtimeProtocol -> events (a bounded queue) -> the call
    greet, speak, note, ... -> RealtimeProtocol -> far end

What both transports share is here: facts and wishes. How the voices travel is theirs:
`webrtc` (RTP beside a data channel) and `websocket` (audio inside the events).
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog

from agent.audio.frame import Frame
from agent.call.events import AgentGone, CallEvent
from agent.call.history import Past
from agent.call.ports import AgentUnavailable
from agent.realtime.protocol import RealtimeProtocol
from agent.realtime.settings import RealtimeSettings

_MOST_EVENTS = 1_000


class RealtimeLeg(ABC):
    """One session: the `AgentLeg` of this room.

    The phone's clock drives both directions; nothing here has a clock of its own.
    Neither `write_frame` nor `read_frame` may block, log or raise.

    Attributes:
        realtime_call_id: The far end's name of the call; "" until it told one.
    """

    def __init__(self, settings: RealtimeSettings, call_id: str) -> None:
        """Prepare the queue; nothing is connected yet."""
        self.realtime_call_id = ""
        self._settings = settings
        self._log = structlog.get_logger().bind(call_id=call_id)
        self._loop = asyncio.get_running_loop()
        self._protocol = RealtimeProtocol()
        self._events: asyncio.Queue[CallEvent] = asyncio.Queue(_MOST_EVENTS)
        self._settled = asyncio.Event()
        self._gone_reason = ""
        self._is_closed = False
        self._events_dropped = 0
        self._frames_refused = 0
        self._flushed_ms = 0

    # --- voices

    @abstractmethod
    def write_frame(self, frame: Frame) -> None:
        """Send the caller's next 20 ms up. Never blocks, never raises."""

    @abstractmethod
    def read_frame(self) -> Frame:
        """Give the next 20 ms for the caller's ear; silence when nothing is due."""

    @abstractmethod
    def flush(self) -> int:
        """Drop what has arrived, and the rest of this response as it arrives.

        Returns:
            How many ms were dropped now.
        """

    @abstractmethod
    def interrupt(self) -> int:
        """Stop the response and drop what has arrived of it; return how many ms that was."""

    @abstractmethod
    def hold(self, is_held: bool) -> None:
        """Let the agent's voice wait, or go on where it stopped."""

    @abstractmethod
    def buffered_ms(self) -> int:
        """How much speech has arrived and was not read yet."""

    @abstractmethod
    def waited_ms(self) -> int:
        """How long the frame read last had waited for its read."""

    @abstractmethod
    def quality(self) -> Mapping[str, object]:
        """How audio and messages fared so far, both directions."""

    # --- facts and wishes

    async def events(self) -> AsyncIterator[CallEvent]:
        """Facts as they arrive; ends after `AgentGone`."""
        while True:
            event = await self._events.get()
            yield event
            if isinstance(event, AgentGone):
                return

    def greet(self, greeting: str) -> None:
        """Let the agent open the conversation with these words, now."""
        self._protocol.greet(greeting)
        self._send_outgoing()

    def speak(self, instructions: str) -> None:
        """Let the agent say something in its own words, as soon as it is free."""
        self._protocol.speak(instructions)
        self._send_outgoing()

    def answer(self) -> None:
        """Let the agent answer what was said, as soon as it is free."""
        self._protocol.answer()
        self._send_outgoing()

    def note(self, text: str) -> None:
        """Tell the agent a fact that nobody said."""
        self._protocol.note(text)
        self._send_outgoing()

    @property
    def lasts_s(self) -> float | None:
        """How much longer the far end will keep this session; None if it did not say."""
        expires_at = self._protocol.expires_at
        return None if expires_at is None else max(0.0, expires_at - time.time())

    def recall(self, past: Sequence[Past]) -> None:
        """Let a fresh session know what was said and done before it."""
        self._protocol.recall(past)
        self._send_outgoing()

    def give_tool_output(self, tool_call_id: str, output: str, *, reply: bool = True) -> None:
        """Hand back a tool's output."""
        self._protocol.give_tool_output(tool_call_id, output, reply=reply)
        self._send_outgoing()

    # --- the far end's side

    @abstractmethod
    def receive_text(self, text: str) -> None:
        """Take one event."""

    @abstractmethod
    def _send_text(self, text: str) -> None:
        """Send one event. Never blocks, never raises."""

    def lose(self, reason: str) -> None:
        """The connection ended by itself."""
        self._tell(AgentGone(reason))
        self._settled.set()

    def _tell(self, event: CallEvent) -> None:
        if self._gone_reason or self._is_closed:
            return
        if isinstance(event, AgentGone):
            self._gone_reason = event.reason
            if self._events.full():
                self._events.get_nowait()
                self._events_dropped += 1
        elif self._events.full():
            self._events_dropped += 1
            return
        self._events.put_nowait(event)

    def _send_outgoing(self) -> None:
        for text in self._protocol.take_outgoing():
            self._send_text(text)

    # --- opening and closing

    async def _acknowledged(self) -> None:
        while not self._protocol.is_ready:
            if self._protocol.refusal:
                raise AgentUnavailable(f"the session was refused: {self._protocol.refusal}", 60)
            if self._gone_reason:
                raise AgentUnavailable(self._gone_reason)
            self._settled.clear()
            await self._settled.wait()

    def close(self) -> None:
        """Free what was allocated. Harmless when repeated."""
        if self._is_closed:
            return
        self._is_closed = True
        self._log.debug("x Realtime leg", **self.quality())
        self._free()

    @abstractmethod
    def _free(self) -> None:
        """Let go of codecs and connection, once."""
