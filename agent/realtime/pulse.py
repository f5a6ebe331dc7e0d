"""Notices within seconds that the far end is gone, though nobody said so.

Consent to send is asked for every five seconds, and may stay unanswered three times:
somebody on the telephone would hear nothing for a quarter of a minute. So when a voice
that flowed without a gap falls silent, the far end is asked at once. One that pauses
between its sentences answers, and is asked once in each pause.

Source: RFC 7675, 5.1 (consent and its pace), RFC 8489, 6.2.1 (retransmissions).
"""

import asyncio
from collections.abc import Awaitable, Callable

_LOOK_EVERY_S = 0.25
_FLOWING_S = 0.5
_SILENT_S = 1.0
"""Longer than any jitter worth bridging."""


class Pulse:
    """Decides when to ask. Told the time and the packets received so far; no clock, no I/O."""

    def __init__(self) -> None:
        self._packets = 0
        self._began_s = 0.0
        self._last_s = float("-inf")
        self._has_asked = False

    def look(self, now_s: float, packets: int) -> bool:
        """Say whether the far end is to be asked now, once for each silence."""
        if packets != self._packets:
            if now_s - self._last_s >= _SILENT_S:
                self._began_s = now_s
            self._packets, self._last_s, self._has_asked = packets, now_s, False
            return False
        has_flowed = self._last_s - self._began_s >= _FLOWING_S
        if self._has_asked or not has_flowed or now_s - self._last_s < _SILENT_S:
            return False
        self._has_asked = True
        return True


async def until_gone(packets: Callable[[], int], ask: Callable[[], Awaitable[bool]]) -> None:
    """Return once the far end was silent, was asked, did not answer and is silent still.

    Args:
        packets: How many have been received.
        ask: Asks the far end; false if it did not answer.
    """
    loop, pulse = asyncio.get_running_loop(), Pulse()
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        before = packets()
        if pulse.look(loop.time(), before) and not await ask() and packets() == before:
            return
