"""Is the caller still there? Decides from packet counts, told the time."""

from enum import Enum, auto

_OTHER_PORT_S = 1.0
"""A caller whose RTP comes from the signalled port is heard at once; one second
of nothing means it sends from another."""


class Verdict(Enum):
    """What a look at the packet count says."""

    FINE = auto()
    OTHER_PORT = auto()
    """Nothing came yet: the caller may send from another port than it receives on."""
    GONE = auto()
    """Nothing came for the whole timeout."""


class RtpWatch:
    """Watches one call's received packets. Silence on hold does not count.

    Attributes:
        timeout_s: How long nothing may come.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._packets = 0
        self._since_s: float | None = None

    def begin(self, now_s: float) -> None:
        """Media is up; from now on packets are expected."""
        self._since_s = now_s

    def look(self, packets: int, now_s: float, *, on_hold: bool) -> Verdict:
        """Judge the number of packets received so far."""
        if self._since_s is None or on_hold or packets != self._packets:
            # A re-INVITE starts the count again, so any change is life.
            self._packets = packets
            self._since_s = now_s
            return Verdict.FINE
        silent_s = now_s - self._since_s
        if silent_s >= self.timeout_s:
            return Verdict.GONE
        if silent_s >= _OTHER_PORT_S and packets == 0:
            return Verdict.OTHER_PORT
        return Verdict.FINE
