"""What the caller said and no session has understood yet.

A session that is lost takes with it what it heard and did not write down. So the caller's
sound is kept until the words of it came, and said again to the next session, in its own
pace, with the pauses shortened until it has caught up::

    frame -> kept -> written down: forgotten
                  -> session lost: said again to the next

Decides only; told frames, and when the far end heard and understood.
"""

from collections import deque

from agent.audio.frame import FRAME_MS, Frame
from agent.audio.voice import is_voiced

_MOST_KEPT = 20_000 // FRAME_MS
_ONSET_FRAMES = 800 // FRAME_MS
"""A far end hears a voice only some time after it began."""

_PAUSE_FRAMES = 200 // FRAME_MS


class Uplink:
    """The caller's sound on its way to one session after the other."""

    def __init__(self) -> None:
        self._kept: deque[Frame] = deque(maxlen=_MOST_KEPT)
        self._open: set[str] = set()
        self._waiting: deque[Frame] = deque(maxlen=_MOST_KEPT)
        self._quiet_frames = 0

    @property
    def is_behind(self) -> bool:
        """The caller's words are said again to a new session, or wait for one."""
        return bool(self._waiting)

    def heard(self, item_id: str) -> None:
        """The far end hears the caller begin a turn."""
        self._open.add(item_id)

    def understood(self, item_id: str) -> None:
        """This turn is written down, or never will be."""
        self._open.discard(item_id)
        if not self._open:
            self._kept.clear()

    def lost(self) -> None:
        """The session is gone: what it had not written down waits for the next."""
        if self._open or any(map(is_voiced, self._kept)):
            self._waiting.extend(self._kept)
        self._kept.clear()
        self._open.clear()

    def wait(self, frame: Frame) -> None:
        """Keep a frame that no session could be given."""
        if self._waiting or is_voiced(frame):
            self._waiting.append(frame)

    def send(self, frame: Frame) -> Frame:
        """Take the newest frame; give the one the session is to be sent now."""
        if self._waiting:
            self._waiting.append(frame)
            frame = self._next_waiting()
        self._kept.append(frame)
        if not self._open and len(self._kept) > _ONSET_FRAMES:
            self._kept.popleft()
        return frame

    def _next_waiting(self) -> Frame:
        while True:
            frame = self._waiting.popleft()
            self._quiet_frames = 0 if is_voiced(frame) else self._quiet_frames + 1
            if self._quiet_frames <= _PAUSE_FRAMES or not self._waiting:
                return frame
