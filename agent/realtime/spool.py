"""Speech that arrives faster than anyone can listen, until the caller's ear has had it.

    response.output_audio.delta -> add -> (seconds ahead) -> read, 20 ms at a time -> the ear

The far end made it and knows nothing more of it: when its voice is at the ear, when it is
over, and how much of it was heard when it was cut is all decided here. Counted in bytes of
G.711, which are samples.

Decides only: no I/O, no clock; what it decided lies in `facts` until it is taken.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.audio.frame import FRAME_SAMPLES, SAMPLE_RATE_HZ
from agent.call.events import AgentInterrupted, AgentSpeaking, AgentSpoke, CallEvent
from agent.realtime.protocol import AudioPiece

_BYTES_PER_MS = SAMPLE_RATE_HZ // 1000
_MOST_WAITING_BYTES = 600 * SAMPLE_RATE_HZ
"""Ten minutes: no far end says as much in one answer."""

_MOST_PIECES = 30_000
_MOST_MUTED = 64


@dataclass(slots=True)
class _Item:
    """One item's audio: how much came, and how much of it the ear was given."""

    item_id: str
    content_index: int
    came_bytes: int = 0
    read_bytes: int = 0
    is_complete: bool = False


@dataclass(slots=True)
class _Response:
    """One response, from its first audio until all of it was heard or cut."""

    response_id: str
    items: list[_Item] = field(default_factory=list)
    is_complete: bool = False

    @property
    def waits(self) -> bool:
        return any(item.read_bytes < item.came_bytes for item in self.items)


class _Chunk(NamedTuple):
    response: _Response
    item: _Item
    payload: bytes
    arrival_s: float


class Cut(NamedTuple):
    """An item that was not heard to its end."""

    item_id: str
    content_index: int
    heard_ms: int


class Spool:
    """The agent's voice, waiting for its time.

    Attributes:
        facts: What became known and was not taken yet, in order.
        read_arrival_s: When what was read last had come.
        overflowed_bytes: What did not fit in any more.
    """

    def __init__(self) -> None:
        self.facts: list[CallEvent] = []
        self.read_arrival_s = 0.0
        self.overflowed_bytes = 0
        self._chunks: deque[_Chunk] = deque()
        self._first_read_bytes = 0
        """What of the first chunk was read."""
        self._waiting_bytes = 0
        self._responses: dict[str, _Response] = {}
        self._speaking: _Response | None = None
        self._muted: dict[str, None] = {}

    @property
    def waiting_ms(self) -> int:
        """How much speech waits to be read."""
        return -(-self._waiting_bytes // _BYTES_PER_MS)

    @property
    def is_mid_speech(self) -> bool:
        """More of what the ear is being given must come."""
        response = self._speaking
        return response is not None and not response.items[-1].is_complete

    def add(self, piece: AudioPiece, arrival_s: float) -> None:
        """Take some speech, or the end of an item's, as it arrived, at whatever speed."""
        if piece.response_id in self._muted:
            return
        is_full = self._waiting_bytes + len(piece.payload) > _MOST_WAITING_BYTES
        if is_full or len(self._chunks) >= _MOST_PIECES:
            self.overflowed_bytes += len(piece.payload)
            return
        response = self._responses.get(piece.response_id)
        if not piece.payload:
            for item in response.items if response else ():
                item.is_complete = item.is_complete or item.item_id == piece.item_id
            return
        if response is None:
            response = self._responses[piece.response_id] = _Response(piece.response_id)
        if not response.items or response.items[-1].item_id != piece.item_id:
            response.items.append(_Item(piece.item_id, piece.content_index))
        item = response.items[-1]
        item.came_bytes += len(piece.payload)
        self._waiting_bytes += len(piece.payload)
        if self._speaking is None:
            self._begin(response)
        self._chunks.append(_Chunk(response, item, piece.payload, arrival_s))

    def complete(self, response_id: str) -> None:
        """Learn that no more audio of this response will come."""
        self._muted.pop(response_id, None)
        response = self._responses.get(response_id)
        if response is not None:
            response.is_complete = response.items[-1].is_complete = True
            self._end_if_heard(response)

    def read(self) -> bytes:
        """Give the next 20 ms, less at the very end of a response, or nothing.

        Less than 20 ms of what is still being made waits until there is more.
        """
        if self._waiting_bytes < FRAME_SAMPLES and self.is_mid_speech:
            return b""
        parts: list[bytes] = []
        missing = FRAME_SAMPLES
        while missing and self._chunks:
            response, item, payload, self.read_arrival_s = self._chunks[0]
            if response is not self._speaking:
                if parts:
                    break  # the next response begins with a frame of its own
                self._begin(response)
            start = self._first_read_bytes
            part = payload[start : start + missing]
            parts.append(part)
            missing -= len(part)
            item.read_bytes += len(part)
            self._waiting_bytes -= len(part)
            self._first_read_bytes += len(part)
            if self._first_read_bytes == len(payload):
                self._chunks.popleft()
                self._first_read_bytes = 0
        if self._speaking is not None:
            self._end_if_heard(self._speaking)
        return b"".join(parts)

    def flush(self) -> list[Cut]:
        """Drop everything, and the rest of it as it arrives.

        Returns:
            What the far end must be told, in order: it takes all it made for heard.
        """
        cuts = []
        for response in self._responses.values():
            for item in response.items:
                if item.read_bytes < item.came_bytes or not item.is_complete:
                    heard_ms = item.read_bytes // _BYTES_PER_MS
                    cuts.append(Cut(item.item_id, item.content_index, heard_ms))
            self.facts.append(AgentInterrupted(response.response_id))
            if not response.is_complete:
                self._mute(response.response_id)
        self._responses.clear()
        self._chunks.clear()
        self._first_read_bytes = self._waiting_bytes = 0
        self._speaking = None
        return cuts

    def _begin(self, response: _Response) -> None:
        """This one is at the ear now; whatever was before it is over."""
        if self._speaking is not None:
            self._end(self._speaking)
        self._speaking = response
        self.facts.append(AgentSpeaking(response.response_id))

    def _end_if_heard(self, response: _Response) -> None:
        if response.is_complete and not response.waits:
            self._end(response)

    def _end(self, response: _Response) -> None:
        if self._responses.pop(response.response_id, None) is None:
            return
        if self._speaking is response:
            self._speaking = None
        self.facts.append(AgentSpoke(response.response_id))

    def _mute(self, response_id: str) -> None:
        self._muted[response_id] = None
        if len(self._muted) > _MOST_MUTED:
            del self._muted[next(iter(self._muted))]
