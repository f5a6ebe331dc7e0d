"""When another session takes over the call, and when there is no hope of one.

A session ends: its time runs out, it is lost, or it no longer does what it should.
Another is opened, beside it if it still speaks, and takes over where nobody is cut off::

    due   -> Open -> opened -> quiet, or no time left -> Switch
    lost  -> Open -> opened                           -> Switch
                  -> failed -> wait, Open again ...   -> GiveUp

Decides only: told what happened and `now_ms`, returns what to do.
"""

from dataclasses import dataclass

from agent.call.settings import RecoverySettings

_LAST_MOMENT_MS = 2_000
"""So long before a session's time is up it is left, whoever speaks."""

_STABLE_MS = 30_000
"""A session that lasted so long was a good one; what failed before no longer counts."""

_LONGEST_BACKOFF_MS = 10_000


@dataclass(frozen=True, slots=True)
class Open:
    """Open a session; `place` is the provider's in the order they are to be tried."""

    place: int


@dataclass(frozen=True, slots=True)
class Switch:
    """Let the session that was opened take over, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No session can be had; the reason of the last attempt."""

    reason: str


Step = Open | Switch | GiveUp


class Succession:
    """The sessions of one call, one after the other.

    Attributes:
        is_urgent: The session in use is gone or of no use; another is looked for.
    """

    def __init__(self, settings: RecoverySettings, places: int) -> None:
        """Choose among so many providers; the first is preferred."""
        self._settings = settings
        self._places = places
        self._has_begun = self._is_successor = False
        self._began_ms = 0
        self._due_ms = self._end_ms = 0
        self._lost_ms: int | None = None
        self.is_urgent = False
        self._reason = ""
        """Why another session is wanted; empty while none is."""
        self._urgent_ms = 0
        self._is_opening = False
        self._is_open = False
        self._failures = 0
        self._failure = ""
        self._retry_ms = 0

    def began(self, now_ms: int, lasts_s: float | None) -> None:
        """A session is in use from now on; `lasts_s` if the far end said how long it may be."""
        settings = self._settings
        self._is_successor = self._has_begun
        self._has_begun = True
        longest_ms = int(settings.session_max_s * 1000)
        self._end_ms = now_ms + longest_ms
        self._due_ms = self._end_ms
        if lasts_s is not None:
            lasts_ms = int(lasts_s * 1000)
            # A margin longer than the session would have us do nothing else.
            early_ms = max(lasts_ms - int(settings.session_margin_s * 1000), lasts_ms // 2)
            self._end_ms = now_ms + lasts_ms
            self._due_ms = min(self._due_ms, now_ms + early_ms)
        self._began_ms = now_ms
        self._lost_ms = None
        self._reason = ""
        self.is_urgent = self._is_opening = self._is_open = False

    def lost(self, reason: str, now_ms: int) -> None:
        """The session in use is gone."""
        if self._lost_ms is not None:
            return
        self._lost_ms = now_ms
        self._want(reason, now_ms)

    def restart(self, reason: str, now_ms: int) -> bool:
        """The session in use is of no use; False if another is not to be had."""
        if not self.is_urgent:
            self._want(reason, now_ms)
        return self._is_open or not self._is_exhausted

    def opened(self) -> None:
        """The session that was asked for is there."""
        self._is_opening, self._is_open = False, True

    def failed(self, reason: str, now_ms: int) -> None:
        """The session that was asked for is not to be had, or was lost before it was used."""
        self._is_opening = self._is_open = False
        self._failures += 1
        self._failure = reason
        self._retry_ms = now_ms + self._backoff_ms

    def look(self, now_ms: int, *, is_quiet: bool) -> Step | None:
        """Tell what to do now; call it every few frames.

        Args:
            now_ms: Milliseconds since the answer.
            is_quiet: Nobody speaks or is about to, and nothing runs that must be ended.
        """
        if self._lost_ms is None and now_ms - self._began_ms >= _STABLE_MS and not self._reason:
            self._failures = 0
        if not self._reason and now_ms >= self._due_ms:
            self._reason = "the session's time is nearly up"
            self._failures = self._retry_ms = 0
        if not self._reason:
            return None
        if self._is_open:
            is_last_moment = now_ms >= self._end_ms - _LAST_MOMENT_MS
            is_now = self.is_urgent or is_quiet or is_last_moment
            return Switch(self._reason) if is_now else None
        if self.is_urgent and (
            now_ms - self._urgent_ms >= self._settings.timeout_s * 1000
            or (self._is_exhausted and not self._is_opening)
        ):
            failure = self._failure
            return GiveUp(f"{self._reason}; {failure}" if failure else self._reason)
        if self._is_opening or now_ms < self._retry_ms:
            return None
        self._is_opening = True
        return Open(self._failures // max(1, self._settings.attempts) % self._places)

    def _want(self, reason: str, now_ms: int) -> None:
        """Another session is wanted at once; losing a new one is as bad as not getting one."""
        is_young = now_ms - self._began_ms < _STABLE_MS
        if is_young and self._is_successor:
            self._failures += 1
        else:
            self._failures = 0
        self._failure = ""
        self._reason = reason
        if not self.is_urgent:
            self._urgent_ms = now_ms
        self.is_urgent = True
        self._retry_ms = now_ms + self._backoff_ms if self._failures else now_ms

    @property
    def _is_exhausted(self) -> bool:
        return self._failures >= self._settings.attempts * self._places

    @property
    def _backoff_ms(self) -> int:
        backoff_ms = int(self._settings.backoff_s * 1000) << min(max(0, self._failures - 1), 8)
        return min(backoff_ms, _LONGEST_BACKOFF_MS)
