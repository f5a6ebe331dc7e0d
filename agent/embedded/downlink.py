"""A bad network between a scripted server and its client: which RTP packets arrive, and when.

    packet, now -> Downlink.pass_on() -> [(when, packet), ...]

Pure: nothing here sends or waits. Packets stay in order unless a fault says
otherwise, so one that is late holds up those behind it, and they leave together.
"""

import random
from dataclasses import dataclass

from agent.embedded.script import ScriptFault


@dataclass(slots=True)
class _Running:
    """A fault that has struck, and how many packets it has seen since."""

    fault: ScriptFault
    seen: int = 0

    def hits(self) -> bool:
        number, self.seen = self.seen, self.seen + 1
        every = self.fault.every
        return number % every == every - 1 if every else number in self.fault.packets


class Downlink:
    """The way of one session's RTP to its client; good until a fault is added.

    Attributes:
        is_cut: Nothing passes any more.
    """

    def __init__(self) -> None:
        self.is_cut = False
        self._faults: list[_Running] = []
        self._held: list[bytes] = []
        self._not_before_s = 0.0
        # The same in every session, so that what is seen once is seen again.
        self._random = random.Random(1)  # noqa: S311

    def add(self, fault: ScriptFault) -> None:
        """Let a fault of RTP begin; it counts packets from the next one on."""
        self._faults.append(_Running(fault))

    def pass_on(self, packet: bytes, now_s: float) -> list[tuple[float, bytes]]:
        """Take one packet on its way out.

        Args:
            packet: Protected; it is not looked at.
            now_s: On any clock.

        Returns:
            What leaves because of it and when, on the same clock, in order.
        """
        if self.is_cut:
            return []
        struck = [running.fault for running in self._faults if running.hits()]
        kinds = {fault.do for fault in struck}
        if "reorder" in kinds and "lose" not in kinds:
            self._held.append(packet)
            return []
        for fault in struck:
            delay_s = fault.delay_ms / 1000
            if fault.do == "jitter":
                delay_s *= self._random.random()
            self._not_before_s = max(self._not_before_s, now_s + delay_s)
        copies = 0 if "lose" in kinds else 2 if "duplicate" in kinds else 1
        released, self._held = self._held, []
        leaves_s = max(now_s, self._not_before_s)
        return [(leaves_s, each) for each in [packet] * copies + released]
