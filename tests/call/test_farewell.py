"""A goodbye is heard in full before the line closes, and never holds it for ever."""

import pytest

from agent.call.events import (
    AgentInterrupted,
    AgentSpeaking,
    AgentSpoke,
    AgentTextDelta,
    CallerSpeechStarted,
    CallEvent,
    ResponseEnded,
)
from agent.call.farewell import Farewell

TEXT = AgentTextDelta("item_1", "resp_1", "Goodbye!")
ASK = "ask"


@pytest.mark.parametrize(
    ("steps", "now_ms", "buffered_ms", "due"),
    [
        pytest.param([], 0, 0, False, id="nobody asked"),
        pytest.param([TEXT, ASK], 100, 0, False, id="still speaking"),
        pytest.param([TEXT, ASK, AgentSpoke("resp_1")], 100, 60, False, id="still in our buffer"),
        pytest.param([TEXT, ASK, AgentSpoke("resp_1")], 100, 0, True, id="heard"),
        pytest.param([TEXT, AgentSpoke("resp_1"), ASK], 100, 0, True, id="heard before it asked"),
        pytest.param([ASK], 100, 0, False, id="asked without a word"),
        pytest.param(
            [ASK, ResponseEnded("resp_1", "completed"), AgentSpeaking("resp_2")],
            100,
            0,
            False,
            id="then speaks",
        ),
        pytest.param(
            [ASK, AgentSpeaking("resp_2"), AgentSpoke("resp_2")], 100, 0, True, id="then was heard"
        ),
        pytest.param(
            [TEXT, ASK, CallerSpeechStarted("item_2"), AgentInterrupted("resp_1")],
            99_000,
            0,
            False,
            id="the caller has more to say",
        ),
        pytest.param(
            [TEXT, ASK, AgentSpoke("resp_1"), CallerSpeechStarted("item_2")],
            100,
            0,
            True,
            id="the caller's bye after ours",
        ),
        pytest.param(
            [TEXT, CallerSpeechStarted("item_2"), ASK, AgentInterrupted("resp_1")],
            99_000,
            0,
            False,
            id="the caller spoke just before it asked",
        ),
        pytest.param(
            [TEXT, CallerSpeechStarted("item_2"), AgentInterrupted("resp_1"), ASK],
            99_000,
            0,
            False,
            id="interrupted before it asked",
        ),
        pytest.param([TEXT, ASK], 5_001, 60, True, id="never heard of again"),
        pytest.param(
            [ASK, ResponseEnded("resp_2", "failed")], 100, 0, True, id="the goodbye failed"
        ),
    ],
)
def test_farewell(steps: list[CallEvent | str], now_ms: int, buffered_ms: int, due: bool) -> None:
    """Hang up when the last sentence was heard, when it cannot come, or at the deadline."""
    farewell = Farewell(timeout_ms=5_000)
    for step in steps:
        if isinstance(step, str):
            farewell.ask("resp_1", 0)
        else:
            farewell.receive(step)
    assert farewell.is_due(now_ms, buffered_ms) is due


def test_ask_tells_whether_a_goodbye_is_on_its_way() -> None:
    """A model that asked without a word must be asked for one."""
    silent, spoken = Farewell(1), Farewell(1)
    spoken.receive(TEXT)
    assert (silent.ask("resp_1", 0), spoken.ask("resp_1", 0)) == (False, True)
