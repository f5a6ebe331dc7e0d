"""Each wait is explained by its parts, to the millisecond."""

from collections.abc import Callable
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.call.events import (
    AgentSpeaking,
    AgentTextDelta,
    CallerSpeechStopped,
)
from agent.call.latency import Latency, Split

Told = list[tuple[int, Callable[[Latency, int], None]]]


def stopped(latency: Latency, now_ms: int) -> None:
    latency.receive(CallerSpeechStopped("u1"), now_ms)


def worded(latency: Latency, now_ms: int) -> None:
    latency.receive(AgentTextDelta("a1", "r1", "Yes"), now_ms)


def announced(latency: Latency, now_ms: int) -> None:
    latency.receive(AgentSpeaking("r1"), now_ms)


def split(told: Told, waited_ms: int, from_ms: int = 1000, to_ms: int = 2000) -> Split:
    latency = Latency([(100, 7), (to_ms, waited_ms)])
    for now_ms, tell in told:
        tell(latency, now_ms)
    return latency.split("r1", from_ms, to_ms)


@pytest.mark.parametrize(
    ("told", "waited_ms", "expected"),
    [
        pytest.param(
            [(1500, stopped), (1800, worded), (1850, announced)],
            30,
            Split(500, 350, 120, 30, 0),
            id="an answer",
        ),
        pytest.param(
            [(1400, stopped), (1450, Latency.tool_began), (1500, Latency.tool_began),
             (1600, Latency.tool_ended), (1650, Latency.tool_ended), (1900, announced)],
            20,
            Split(400, 300, 80, 20, 200),
            id="two tools at once",
        ),
        pytest.param(
            [(1500, stopped), (1990, announced)],
            40,
            Split(500, 460, 0, 40, 0),
            id="sound that overtakes its announcement",
        ),
        pytest.param(
            [(1500, stopped), (1700, worded)],
            0,
            Split(500, 200, 300, 0, 0),
            id="announced by its words only",
        ),
        pytest.param([], 0, Split(0, 1000, 0, 0, 0), id="nothing was told"),
        pytest.param(
            [(1500, stopped), (1600, announced), (2100, stopped)],
            0,
            Split(1000, 0, 0, 0, 0),
            id="told too late to explain anything",
        ),
        pytest.param(
            [(1500, stopped), (1600, announced)],
            700,
            Split(500, 0, 0, 500, 0),
            id="held back since before the turn was over",
        ),
    ],
)  # fmt: skip
def test_where_the_time_went(told: Told, waited_ms: int, expected: Split) -> None:
    """The caller's last sound ends at 1000 ms, the agent's first begins at 2000 ms."""
    assert split(told, waited_ms) == expected


MOMENTS = st.integers(0, 5000)


@given(
    times=st.lists(st.tuples(MOMENTS, st.sampled_from([stopped, worded, announced])), max_size=8),
    tools=st.lists(st.tuples(MOMENTS, st.integers(0, 3000)), max_size=5),
    from_ms=MOMENTS,
    wait_ms=st.integers(0, 5000),
    waited_ms=st.integers(0, 5000),
)
def test_the_parts_are_the_whole(
    times: Told, tools: list[tuple[int, int]], from_ms: int, wait_ms: int, waited_ms: int
) -> None:
    """Whatever was told when, no part is negative and nothing is left unexplained."""
    told = list(times)
    for began_ms, lasted_ms in tools:
        told += [(began_ms, Latency.tool_began), (began_ms + lasted_ms, Latency.tool_ended)]
    told.sort(key=lambda one: (one[0], one[1] is Latency.tool_ended))
    parts = split(told, waited_ms, from_ms, from_ms + wait_ms)
    assert sum(asdict(parts).values()) == wait_ms
    assert min(
        parts.endpointing_ms, parts.model_ms, parts.network_ms, parts.buffer_ms, parts.tool_ms
    ) >= 0  # fmt: skip
