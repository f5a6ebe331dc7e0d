"""Where the time went between the caller's last sound and the agent's first.

Measured at the phone leg, in five parts that add up to the whole::

    last voiced frame  -> the far end knows that the turn is over   endpointing
                       -> it announces its answer's sound           model, without tools
                          tools ran meanwhile                       tool
                       -> the first packet of that sound arrives    network
                       -> the caller's ear is given it              buffer

Events and RTP travel apart: sound that overtakes its announcement took no network time.
Decides only: told events and `now_ms`.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from agent.call.events import (
    AgentSpeaking,
    AgentText,
    AgentTextDelta,
    CallerSpeechStopped,
    CallEvent,
)

_MOST_RESPONSES = 64
_MOST_TOOLS = 64


@dataclass(frozen=True, slots=True)
class Split:
    """One wait, in its parts."""

    endpointing_ms: int
    model_ms: int
    network_ms: int
    buffer_ms: int
    tool_ms: int


class Latency:
    """The waits of one call."""

    def __init__(self, onsets: Iterable[tuple[int, int]]) -> None:
        """Measure by these onsets of the agent's voice.

        Args:
            onsets: When a stretch of sound began at the ear, and how long its first
                frame had waited there; kept by the bridge, oldest first.
        """
        self._onsets = onsets
        self._stopped_ms = 0
        self._announced_ms: dict[str, int] = {}
        self._worded_ms: dict[str, int] = {}
        self._tools: deque[tuple[int, int | None]] = deque(maxlen=_MOST_TOOLS)
        self._tools_running = 0

    def receive(self, event: CallEvent, now_ms: int) -> None:
        """Note when things were told."""
        match event:
            case CallerSpeechStopped():
                self._stopped_ms = now_ms
            case AgentTextDelta(response_id=response_id) | AgentText(response_id=response_id):
                _note(self._worded_ms, response_id, now_ms)
            case AgentSpeaking(response_id):
                _note(self._announced_ms, response_id, now_ms)
            case _:
                pass

    def tool_began(self, now_ms: int) -> None:
        """A tool runs; several at once count once."""
        if self._tools_running == 0:
            self._tools.append((now_ms, None))
        self._tools_running += 1

    def tool_ended(self, now_ms: int) -> None:
        """A tool is done."""
        self._tools_running -= 1
        if self._tools_running == 0:
            self._tools[-1] = (self._tools[-1][0], now_ms)

    def split(self, response_id: str, from_ms: int, to_ms: int) -> Split:
        """Divide the wait from the caller's last sound to this response's first.

        Args:
            response_id: What was heard at last.
            from_ms: End of the caller's last voiced frame.
            to_ms: When the first voiced frame was given to the ear; not before `from_ms`.

        Returns:
            Parts that are never negative and add up to `to_ms - from_ms`.
        """
        arrived_ms = to_ms - self._waited_ms(to_ms)
        announced_ms = self._announced_ms.get(response_id) or self._worded_ms.get(response_id)
        turn_ms = _within(self._stopped_ms, from_ms, to_ms)
        answer_ms = _within(arrived_ms if announced_ms is None else announced_ms, turn_ms, to_ms)
        packet_ms = _within(arrived_ms, turn_ms, to_ms)
        answer_ms = min(answer_ms, packet_ms)
        tool_ms = sum(
            max(0, min(to_ms if end is None else end, answer_ms) - max(begin, turn_ms))
            for begin, end in self._tools
        )
        return Split(
            endpointing_ms=turn_ms - from_ms,
            model_ms=answer_ms - turn_ms - tool_ms,
            network_ms=packet_ms - answer_ms,
            buffer_ms=to_ms - packet_ms,
            tool_ms=tool_ms,
        )

    def _waited_ms(self, to_ms: int) -> int:
        return next((waited for at_ms, waited in self._onsets if at_ms == to_ms), 0)


def _note(times: dict[str, int], response_id: str, now_ms: int) -> None:
    times.setdefault(response_id, now_ms)
    if len(times) > _MOST_RESPONSES:
        del times[next(iter(times))]


def _within(at_ms: int, first_ms: int, last_ms: int) -> int:
    return max(first_ms, min(at_ms, last_ms))
