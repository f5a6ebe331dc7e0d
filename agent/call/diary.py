"""The diary of one call: its clock, and its way into the log.

Everything that is measured or recorded of a call counts in milliseconds since the
answer; this is the one place that knows when that was.
"""

import time
from datetime import UTC, datetime

from agent.call.ports import Journal
from agent.call.records import CallEventRecord, Record


class Diary:
    """What one call tells the log, and when, as the call counts.

    Attributes:
        call_id: Whose diary this is.
    """

    def __init__(self, call_id: str, journal: Journal) -> None:
        """Begin before the answer: offsets are 0 until `start`."""
        self.call_id = call_id
        self._journal = journal
        self._answered_s: float | None = None

    @property
    def is_started(self) -> bool:
        """The call was answered."""
        return self._answered_s is not None

    def start(self) -> None:
        """The 200 was sent: offsets count from now."""
        self._answered_s = time.monotonic()

    def now_ms(self) -> int:
        """Milliseconds since the answer; 0 before it."""
        if self._answered_s is None:
            return 0
        return int((time.monotonic() - self._answered_s) * 1000)

    def tell(self, record: Record) -> None:
        """Put a record on its way to the log."""
        self._journal(record)

    def note(self, kind: str, **detail: object) -> None:
        """Put something worth an admin's attention into the log, as of now."""
        self._journal(CallEventRecord(self.call_id, datetime.now(UTC), self.now_ms(), kind, detail))
