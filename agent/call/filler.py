"""What a caller hears while a tool takes long: words once, then a soft tone, never nothing.

Decides only: told since when the ear has been quiet, answers what it should hear.
"""

from collections.abc import Iterable
from typing import Literal

Fill = Literal["nothing", "phrase", "tone"]


class Filler:
    """The waiting of one conversation, from tool to tool."""

    def __init__(self, after_ms: int, phrase: str) -> None:
        """Fill a silence longer than `after_ms` (0: none), with words if there are any."""
        self._after_ms = after_ms
        self._phrase = phrase
        self._asked_ms: int | None = None

    def look(self, quiet_since_ms: int | None, now_ms: int) -> Fill:
        """Tell what to fill the ear with now.

        Args:
            quiet_since_ms: When the agent was last heard or the tool began, whichever
                is later; None while the caller waits for no tool.
            now_ms: Milliseconds since the answer.

        Returns:
            `phrase` once for each time of waiting; `tone` for as long as it should sound.
        """
        if quiet_since_ms is None:
            self._asked_ms = None
            return "nothing"
        since_ms = max(quiet_since_ms, self._asked_ms or 0)
        if self._after_ms == 0 or now_ms - since_ms < self._after_ms:
            return "nothing"
        if self._phrase and self._asked_ms is None:
            self._asked_ms = now_ms
            return "phrase"
        return "tone"


def heard_ms(runs: Iterable[tuple[int, int]], from_ms: int, to_ms: int) -> int:
    """Sum up how much of a stretch of time these runs cover; they do not overlap."""
    return sum(max(0, min(end, to_ms) - max(start, from_ms)) for start, end in runs)
