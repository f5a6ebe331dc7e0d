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
    ResponseStarted,
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


OLD, NEW = ResponseStarted("resp_1"), ResponseStarted("resp_2")
OUR_GOODBYE = [NEW, AgentSpeaking("resp_2")]


@pytest.mark.parametrize(
    ("before", "after", "now_ms", "due"),
    [
        pytest.param([], [], 9_999, False, id="waits for the goodbye"),
        pytest.param([], [], 10_000, True, id="but not for ever"),
        pytest.param([], [*OUR_GOODBYE, AgentSpoke("resp_2")], 100, True, id="heard"),
        pytest.param(
            [OLD, TEXT], [AgentSpoke("resp_1")], 100, False, id="what it was saying is no goodbye"
        ),
        pytest.param(
            [OLD],
            [AgentSpeaking("resp_1"), AgentSpoke("resp_1")],
            100,
            False,
            id="nor what it was about to say",
        ),
        pytest.param(
            [OLD], [ResponseEnded("resp_1", "failed")], 100, False, id="whose failure means nothing"
        ),
        pytest.param([OLD], [ResponseEnded("resp_2", "failed")], 100, True, id="no goodbye comes"),
        pytest.param(
            [], [CallerSpeechStarted("item_2")], 10_000, True, id="the caller cannot put it off"
        ),
        pytest.param(
            [], [*OUR_GOODBYE, AgentInterrupted("resp_2")], 100, True, id="nor talk it down"
        ),
        pytest.param([], [ASK, *OUR_GOODBYE], 100, False, id="the agent agrees: still one goodbye"),
    ],
)
def test_insisting(
    before: list[CallEvent], after: list[CallEvent | str], now_ms: int, due: bool
) -> None:
    """A goodbye that we want is the next response, and the caller cannot take it back."""
    farewell = Farewell(timeout_ms=5_000)
    for event in before:
        farewell.receive(event)
    assert farewell.insist(0)
    for step in after:
        if isinstance(step, str):
            assert farewell.ask("resp_1", 0)
        else:
            farewell.receive(step)
    assert farewell.is_due(now_ms, 0) is due


def test_insisting_on_a_goodbye_that_is_on_its_way() -> None:
    """Two goodbyes would be one too many; only the caller's veto is gone."""
    farewell = Farewell(timeout_ms=5_000)
    farewell.receive(TEXT)
    farewell.ask("resp_1", 0)
    assert not farewell.insist(100)
    farewell.receive(CallerSpeechStarted("item_2"))
    assert farewell.is_due(5_000, 60)
