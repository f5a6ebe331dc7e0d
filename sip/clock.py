"""The phone's clock: 20 ms ticks and PJSIP's events, both on our event loop.

    every 5 ms   poll()  signalling: callbacks run here, and nowhere else
    every 20 ms  tick()  the bridge: every caller hears and speaks one frame

uvloop's timers are whole milliseconds, so the schedule is kept apart from
them: a timer only says when to look. No exception may leave a turn, or every
call on this machine would fall silent.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from agent.audio.frame import FRAME_MS

log = structlog.get_logger()

POLL_S = 0.005
"""How often PJSIP is asked for events: 5 ms of signalling delay for about 0.5 % of a core."""

MAX_CATCH_UP = 5
"""Ticks made good after the loop was blocked. Jitter buffers of callers swallow 100 ms;
more would only be thrown away there."""


class TickSchedule:
    """Decides how many ticks are due; knows no clock but what it is told.

    Attributes:
        late: Ticks that began a whole tick or more after their time.
        skipped: Ticks given up because the loop was blocked for too long.
    """

    def __init__(self, now_s: float, period_s: float = FRAME_MS / 1000) -> None:
        self._period_s = period_s
        self.next_s = now_s + period_s
        self.late = 0
        self.skipped = 0

    def due(self, now_s: float) -> int:
        """Return how many ticks to run now, and move on by as many."""
        if now_s < self.next_s:
            return 0
        owed = int((now_s - self.next_s) / self._period_s) + 1
        self.late += owed - 1
        self.next_s += owed * self._period_s
        if owed > MAX_CATCH_UP:
            self.skipped += owed - MAX_CATCH_UP
            return MAX_CATCH_UP
        return owed


class PhoneClock:
    """Runs `poll` and `tick` on the running loop until stopped."""

    def __init__(self, poll: Callable[[], None], tick: Callable[[], None]) -> None:
        self._poll = poll
        self._tick = tick
        self._loop = asyncio.get_running_loop()
        self._schedule = TickSchedule(time.monotonic())
        self._failed: set[str] = set()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(POLL_S, self._turn)

    @property
    def late_ticks(self) -> int:
        """Ticks that began 20 ms or more after their time, since the start."""
        return self._schedule.late

    @property
    def skipped_ticks(self) -> int:
        """Ticks given up because the loop was blocked for more than 100 ms."""
        return self._schedule.skipped

    def stop(self) -> None:
        """Stop turning. Harmless when stopped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self._guarded(self._poll)
        for _ in range(self._schedule.due(time.monotonic())):
            self._guarded(self._tick)
        if self._timer is not None:
            wait_s = max(0.0, min(POLL_S, self._schedule.next_s - time.monotonic()))
            self._timer = self._loop.call_later(wait_s, self._turn)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            # The same fault 50 times a second would fill the disk, not help anybody.
            if repr(error) not in self._failed and len(self._failed) < 16:
                self._failed.add(repr(error))
                log.exception("! the phone's clock goes on after a fault")
