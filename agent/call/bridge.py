"""Two legs joined: the caller's mouth to the agent's ear, and back.

The phone's clock drives both directions in one tick every 20 ms::

    caller -> hear_caller     -> agent.write_frame    (encoded and sent at once)
    caller <- speak_to_caller <- agent.read_frame     (decoded when it is due)

Nothing is queued here, so nothing can lag here. What passes is only measured:
when either side was last heard decides turn latency and what was interrupted.
"""

from collections import deque
from collections.abc import Callable

from agent.audio.frame import FRAME_BYTES, SILENCE, Frame
from agent.audio.gain import Gain
from agent.audio.tones import soft_tone
from agent.audio.voice import VoiceTrack, is_voiced
from agent.call.ports import AgentLeg

_DUCKED_DB = -12
_ONSETS_KEPT = 64
_TAIL_FRAMES = 10
"""Silence after an announcement: what was given last is still on its way to the ear."""


class Bridge:
    """The `MediaPort` of one call.

    Attributes:
        onsets: When a stretch of the agent's sound began at the ear, and how long its
            first frame had waited for that; newest last.
    """

    def __init__(self, agent: AgentLeg, now_ms: Callable[[], int]) -> None:
        """Join the agent's leg.

        Args:
            agent: Where the caller's frames go and the ear's frames come from.
            now_ms: Milliseconds since the answer; the tracks are kept on this clock.
        """
        self._agent = agent
        self._now_ms = now_ms
        self.caller_track = VoiceTrack()
        self.agent_track = VoiceTrack()
        self.onsets: deque[tuple[int, int]] = deque(maxlen=_ONSETS_KEPT)
        self._gain = Gain()
        self._tone_position: int | None = None
        self._announcement: deque[Frame] = deque()

    def duck(self, *, is_ducked: bool) -> None:
        """Let the caller hear the agent 12 dB lower, or as it is."""
        self._gain.set_db(_DUCKED_DB if is_ducked else 0)

    def set_tone(self, *, is_on: bool) -> None:
        """Let the caller hear a soft tone wherever the agent is silent, or no longer.

        The agent's track knows nothing of it: a tone is not an answer.
        """
        if is_on != (self._tone_position is not None):
            self._tone_position = 0 if is_on else None

    @property
    def is_announcing(self) -> bool:
        """The caller hears an announcement."""
        return bool(self._announcement)

    def announce(self, pcm: bytes) -> None:
        """Let the caller hear this, 8 kHz PCM, in place of the agent."""
        padded = pcm + bytes(-len(pcm) % FRAME_BYTES) + SILENCE * _TAIL_FRAMES
        self._announcement = deque(
            padded[at : at + FRAME_BYTES] for at in range(0, len(padded), FRAME_BYTES)
        )

    def hear_caller(self, frame: Frame) -> None:
        """Pass 20 ms of the caller on, in the tick they came."""
        self.caller_track.note(frame, self._now_ms())
        self._agent.write_frame(frame)

    def speak_to_caller(self) -> Frame:
        """Fetch the 20 ms that are due at the caller's ear."""
        if self._announcement:
            return self._announcement.popleft()
        frame = self._gain.apply(self._agent.read_frame())
        now_ms = self._now_ms()
        if self.agent_track.note(frame, now_ms):
            self.onsets.append((now_ms, self._agent.waited_ms()))
        if self._tone_position is not None and not is_voiced(frame):
            frame = soft_tone(self._tone_position)
            self._tone_position += 1
        return frame
