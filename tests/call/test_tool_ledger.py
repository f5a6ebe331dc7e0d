"""What is run, repeated or refused of a model's tool calls."""

import pytest

from agent.call.events import ToolCallRequested
from agent.call.ports import ToolResult
from agent.call.settings import ToolUseSettings
from agent.call.tool_ledger import Refuse, Repeat, Run, ToolLedger

DONE = ToolResult("{}")
FAILED = ToolResult("{}", "no")


def wish(
    name: str = "weather", arguments: str = "{}", tool_call_id: str = "t"
) -> ToolCallRequested:
    return ToolCallRequested(tool_call_id, "item", "resp", name, arguments)


@pytest.mark.parametrize(
    ("result", "second", "at_ms", "expected"),
    [
        pytest.param(None, '{"b":2,"a":1}', 5, Repeat("first"), id="while the first runs"),
        pytest.param(DONE, '{ "b": 2, "a": 1 }', 9_999, Repeat("first"), id="a moment later"),
        pytest.param(DONE, '{"a":1,"b":2}', 10_000, Run(), id="long after"),
        pytest.param(DONE, '{"a":1,"b":3}', 5, Run(), id="other arguments"),
        pytest.param(FAILED, '{"a":1,"b":2}', 5, Run(), id="the first failed"),
        pytest.param(
            ToolResult("{}", is_repeatable=True), '{"a":1,"b":2}', 5, Run(), id="a new wish"
        ),
    ],
)
def test_the_same_again(
    result: ToolResult | None, second: str, at_ms: int, expected: Run | Repeat
) -> None:
    """A retry is known by name and meaning of the arguments, however they are written."""
    ledger = ToolLedger(ToolUseSettings())
    first = wish(arguments='{"a":1,"b":2}', tool_call_id="first")
    assert ledger.take(first, 0) == Run()
    if result is not None:
        ledger.finish(first, result, 0)
    assert ledger.take(wish(arguments=second), at_ms) == expected


def test_broken_arguments_are_compared_as_text() -> None:
    """What is no JSON can still be asked for twice."""
    ledger = ToolLedger(ToolUseSettings())
    assert ledger.take(wish(arguments="{" * 9_999, tool_call_id="first"), 0) == Run()
    assert ledger.take(wish(arguments="{" * 9_999), 1) == Repeat("first")


def test_a_thousand_calls() -> None:
    """A model that does not stop is stopped; few of its calls get rows, and one an event."""
    ledger = ToolLedger(ToolUseSettings(max_calls_per_call=30))
    verdicts = []
    for number in range(1000):
        request = wish(arguments=f'{{"n":{number}}}')
        verdict = ledger.take(request, number)
        verdicts.append(verdict)
        if verdict == Run():
            ledger.finish(request, DONE, number)
    refused = [it for it in verdicts if isinstance(it, Refuse)]
    assert verdicts[:30] == [Run()] * 30
    assert len(refused) == 970
    assert sum(it.is_recorded for it in refused) == 20
    assert [it.is_first for it in refused].count(True) == 1
    assert refused[0].reason == "a call may have 30 tool calls"


def test_too_many_at_once() -> None:
    """Tools run side by side up to a number; one that ends makes room."""
    ledger = ToolLedger(ToolUseSettings(max_calls_at_once=2))
    wishes = [wish(arguments=f'{{"n":{n}}}') for n in range(3)]
    assert [ledger.take(it, 0) for it in wishes[:2]] == [Run(), Run()]
    assert isinstance(ledger.take(wishes[2], 0), Refuse)
    ledger.finish(wishes[0], DONE, 1)
    assert ledger.take(wishes[2], 1) == Run()


def test_failures_in_a_row() -> None:
    """A model that tries in vain must speak with the caller, who may know better."""
    ledger = ToolLedger(ToolUseSettings(max_failures_in_row=2))
    for _ in range(2):
        ledger.take(wish(), 0)
        ledger.finish(wish(), FAILED, 0)
    verdict = ledger.take(wish(), 0)
    assert isinstance(verdict, Refuse)
    assert verdict.reason == "2 tool calls in a row failed"
    ledger.caller_spoke()
    assert ledger.take(wish(), 0) == Run()


def test_a_tool_with_a_limit_of_its_own() -> None:
    """A tool may be called so many times; others are not concerned, nor are its repeats."""
    ledger = ToolLedger(ToolUseSettings(max_calls={"weather": 1, "fly": 0}))
    assert ledger.take(wish(tool_call_id="first"), 0) == Run()
    ledger.finish(wish(), DONE, 0)
    assert ledger.take(wish(), 1) == Repeat("first")
    assert isinstance(ledger.take(wish(arguments='{"n":2}'), 1), Refuse)
    assert isinstance(ledger.take(wish("fly"), 1), Refuse)
    assert ledger.take(wish("drive"), 1) == Run()
