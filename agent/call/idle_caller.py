"""A caller who says nothing: asked whether they are still there, and at last said goodbye to.

Decides only: told events, `now_ms` and whether anything else is going on.
"""

from typing import Literal

from agent.call.events import CallerSpeechStarted, CallEvent
from agent.call.settings import IdleSettings

Wish = Literal["nothing", "ask", "goodbye"]


class IdleCaller:
    """The silences of one call."""

    def __init__(self, settings: IdleSettings) -> None:
        """Begin to listen with the first `check`."""
        self._after_ms = int(settings.after_s * 1000)
        self._times = settings.times
        self._asked = 0
        self._quiet_since_ms: int | None = None

    def receive(self, event: CallEvent) -> None:
        """A caller who speaks is there."""
        if isinstance(event, CallerSpeechStarted):
            self.stir()

    def stir(self) -> None:
        """The caller has shown that they are there, by voice or by key."""
        self._asked = 0
        self._quiet_since_ms = None

    def check(self, now_ms: int, *, is_occupied: bool) -> Wish:
        """Tell what to do about the silence.

        Args:
            now_ms: Milliseconds since the answer.
            is_occupied: Somebody speaks or is about to, a tool runs, or keys are waited for.
        """
        if self._after_ms == 0:
            return "nothing"
        if is_occupied or self._quiet_since_ms is None:
            self._quiet_since_ms = now_ms
            return "nothing"
        if now_ms - self._quiet_since_ms < self._after_ms:
            return "nothing"
        self._quiet_since_ms = now_ms
        if self._asked >= self._times:
            return "goodbye"
        self._asked += 1
        return "ask"
