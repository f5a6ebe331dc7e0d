"""A transcript that grows while the caller speaks, without taking a word back.

    the turn so far, transcribed again and again -> hear() -> the words that are sure
    the final transcript                         -> finish() -> the rest

A word is sure once two transcripts in a row agree on it and on all before it.
Pure.
"""

EVERY_MS = 800
"""How much more speech makes another partial transcript worth its 70 ms of CPU."""


class Partials:
    """The deltas of one turn."""

    def __init__(self) -> None:
        self._last: list[str] = []
        self._told: list[str] = []

    def hear(self, text: str) -> str:
        """Take a transcript of the turn so far; returns what can be told now, maybe ""."""
        words = text.split()
        agreed = _common(words, self._last)
        self._last = words
        # The last word may be half a word.
        return self._tell(words[: min(agreed, len(words) - 1)])

    def finish(self, text: str) -> str:
        """Take the final transcript; returns what was not told yet.

        "" also when the end contradicts what was told: the completed event corrects it.
        """
        return self._tell(text.split())

    def _tell(self, words: list[str]) -> str:
        told = len(self._told)
        if len(words) <= told or words[:told] != self._told:
            return ""
        self._told = words
        return (" " if told else "") + " ".join(words[told:])


def _common(one: list[str], other: list[str]) -> int:
    for number, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return number
    return min(len(one), len(other))
