"""What the agent still has to say, 20 ms at a time.

Pure: speech is put in as it is made, the pacer takes one frame per tick, and
each frame tells what it began or ended. Time is counted in frames really taken,
which is what `audio_end_ms` must say when the caller interrupts.
"""

from collections import deque
from dataclasses import dataclass, field

from agent.audio.frame import FRAME_BYTES, SILENCE, Frame

_BYTES_PER_MS = 16


@dataclass(frozen=True, slots=True)
class Started:
    """The first audio of a response is in this frame."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """All audio of a response has been taken."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A response was thrown away after `sent_ms` of it."""

    response_id: str
    item_id: str
    sent_ms: int


@dataclass(slots=True)
class _Speech:
    response_id: str
    item_id: str
    pcm: bytearray = field(default_factory=bytearray)
    taken: int = 0
    is_complete: bool = False


class Mouth:
    """A queue of responses being spoken. Whoever adds to it looks at `waiting_ms` first."""

    def __init__(self) -> None:
        self._speeches: deque[_Speech] = deque()

    @property
    def speaking(self) -> bool:
        """Whether anything is still to be said."""
        return bool(self._speeches)

    @property
    def waiting_ms(self) -> int:
        """How much there is still to be said."""
        return sum(len(speech.pcm) - speech.taken for speech in self._speeches) // _BYTES_PER_MS

    def is_about_to_begin(self, response_id: str) -> bool:
        """Whether the next frame is the first of this response."""
        if not self._speeches:
            return False
        next_up = self._speeches[0]
        has_frame = len(next_up.pcm) >= FRAME_BYTES
        return next_up.response_id == response_id and has_frame and not next_up.taken

    def begin(self, response_id: str, item_id: str) -> None:
        """Open a response's speech, once a response; it waits for the one before it."""
        self._speeches.append(_Speech(response_id, item_id))

    def add(self, response_id: str, pcm: bytes) -> None:
        """Add speech to a response; 8 kHz PCM of any length. No effect once it was cut."""
        for speech in self._speeches:
            if speech.response_id == response_id:
                speech.pcm += pcm

    def complete(self, response_id: str) -> None:
        """No more speech comes for this response. No effect once it was cut."""
        for speech in self._speeches:
            if speech.response_id == response_id:
                speech.is_complete = True
                speech.pcm += bytes(-len(speech.pcm) % FRAME_BYTES)

    def next_frame(self) -> tuple[Frame, list[Started | Stopped]]:
        """Take the next 20 ms: speech, or silence when none is ready."""
        facts: list[Started | Stopped] = []
        while self._speeches:
            speech = self._speeches[0]
            if speech.taken + FRAME_BYTES <= len(speech.pcm):
                if speech.taken == 0:
                    facts.append(Started(speech.response_id))
                frame = bytes(speech.pcm[speech.taken : speech.taken + FRAME_BYTES])
                speech.taken += FRAME_BYTES
                return frame, facts
            if not speech.is_complete:
                break
            if speech.taken:
                facts.append(Stopped(speech.response_id))
            self._speeches.popleft()
        return SILENCE, facts

    def clear(self) -> list[Cut]:
        """Throw everything away; returns what was cut, in order."""
        cuts = [
            Cut(speech.response_id, speech.item_id, speech.taken // _BYTES_PER_MS)
            for speech in self._speeches
        ]
        self._speeches.clear()
        return cuts
