"""What users said, kept for clients that want to hear it again.

The latest two minutes of a session and no more: the oldest give way. Pure.
"""

from collections import OrderedDict

from agent.audio.frame import SAMPLE_RATE_HZ

MOST_KEPT_MS = 120_000
_MOST_BYTES = MOST_KEPT_MS * SAMPLE_RATE_HZ * 2 // 1000


class Recordings:
    """The audio of one session's user items: 8 kHz PCM by item and content index."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0

    def keep(self, item_id: str, content_index: int, pcm: bytes) -> None:
        """Keep a part's audio as long as there is room for it."""
        self._kept[item_id, content_index] = pcm
        self._bytes += len(pcm)
        while self._bytes > _MOST_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)

    def find(self, item_id: str, content_index: int) -> bytes | None:
        """Give a part's audio, if it is still there."""
        return self._kept.get((item_id, content_index))

    def forget(self, item_id: str) -> None:
        """Drop all of an item."""
        for place in [place for place in self._kept if place[0] == item_id]:
            self._bytes -= len(self._kept.pop(place))
