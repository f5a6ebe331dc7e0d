"""The caller's keys: whose they are.

A tool may ask for a number of keys; while it waits, every key is its own. Any other
key goes to `on_key`: it may interrupt the agent, or be told to it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from agent.call.ports import DigitsKeyed, DigitsWanted

_MOST_WAITING = 32


class Keypad:
    """The keys of one call."""

    def __init__(self, on_key: Callable[[str], None]) -> None:
        """Take keys that nobody asked for to `on_key`, one character each."""
        self._on_key = on_key
        self._queue: asyncio.Queue[str] | None = None
        self._free = asyncio.Lock()

    @property
    def is_collecting(self) -> bool:
        """A tool waits for the caller's keys."""
        return self._queue is not None

    async def listen(self, digits: AsyncIterator[str]) -> None:
        """Hand every key on, until there are no more."""
        async for digit in digits:
            if self._queue is None:
                self._on_key(digit)
            elif not self._queue.full():
                self._queue.put_nowait(digit)

    async def collect(self, wanted: DigitsWanted) -> DigitsKeyed:
        """Wait for keys; whoever asks second waits until the first has them."""
        async with self._free:
            self._queue = queue = asyncio.Queue[str](_MOST_WAITING)
            try:
                return await _collect(queue, wanted)
            finally:
                self._queue = None


async def _collect(queue: asyncio.Queue[str], wanted: DigitsWanted) -> DigitsKeyed:
    digits = ""
    while len(digits) < wanted.count:
        try:
            async with asyncio.timeout(wanted.timeout_s):
                digit = await queue.get()
        except TimeoutError:
            return DigitsKeyed(digits, "timeout")
        if digit in wanted.terminator:
            return DigitsKeyed(digits, "terminator")
        digits += digit
    return DigitsKeyed(digits, "count")
