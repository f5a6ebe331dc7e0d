"""What a session that takes over is told: everything that was heard, once, in order."""

import pytest

from agent.call.events import ToolCallRequested
from agent.call.history import History, Item, Past, PastNote, PastTool, PastTurn, what_is_due


def request(number: int) -> ToolCallRequested:
    return ToolCallRequested(f"t{number}", f"f{number}", "r1", "weather", '{"place":"Oslo"}')


def test_everything_in_its_place() -> None:
    """Turns as far as they were heard, tools with what they gave, notes where they were told."""
    history = History()
    history.noted("The caller is a customer.", "")
    history.receive(request(1))
    history.tool_ended("t1", '{"temperature_c":3}')
    history.noted("The caller pressed 1.", "u1")
    history.receive(request(2))
    chain = [
        Item("a1", "agent", "Hello, this is"),
        Item("u1", "caller", "What is the weather in Oslo?"),
        Item("f1"),
        Item("x1"),
        Item("a2", "agent", ""),
        Item("f2"),
    ]
    assert history.told(chain) == [
        PastNote("The caller is a customer."),
        PastTurn("agent", "Hello, this is"),
        PastTurn("caller", "What is the weather in Oslo?"),
        PastNote("The caller pressed 1."),
        PastTool("t1", "weather", '{"place":"Oslo"}', '{"temperature_c":3}'),
        PastTool("t2", "weather", '{"place":"Oslo"}', None),
    ]


def test_a_very_long_past_keeps_its_end() -> None:
    """What was said last is told last, and whole."""
    chain = [Item(f"u{n}", "caller", f"{n} " + "x" * 1000) for n in range(200)]
    past = History().told(chain)
    assert 40 < len(past) < 80
    assert past[-1] == PastTurn("caller", chain[-1].text)


def test_a_tool_gives_much_and_asks_much() -> None:
    """One tool does not push out the conversation."""
    history = History()
    history.receive(request(1))
    history.tool_ended("t1", "x" * 1_000_000)
    past = history.told([Item("u1", "caller", "Hello"), Item("f1")])
    assert past[0] == PastTurn("caller", "Hello")
    assert isinstance(past[1], PastTool)
    assert len(past[1].output or "") == 8000


HEARD = PastTurn("agent", "We are open from")
ASKED = PastTurn("caller", "When are you open?")


@pytest.mark.parametrize(
    ("past", "was_cut", "due"),
    [
        pytest.param([], True, "greet", id="nothing was heard"),
        pytest.param([HEARD], True, "go_on", id="cut in mid-sentence"),
        pytest.param([HEARD], False, "nothing", id="the caller's turn"),
        pytest.param([HEARD, ASKED], False, "answer", id="a question without an answer"),
        pytest.param([HEARD, ASKED], True, "answer", id="an answer nobody heard"),
        pytest.param([ASKED, PastTool("t", "x", "{}", "1")], True, "answer", id="a tool's output"),
        pytest.param([ASKED, PastTool("t", "x", "{}")], True, "nothing", id="a tool still runs"),
        pytest.param([HEARD, PastNote("Be brief.")], False, "nothing", id="a note asks nothing"),
    ],
)
def test_what_a_session_owes_the_caller(past: list[Past], was_cut: bool, due: str) -> None:
    """The caller never waits for somebody who does not know that it is their turn."""
    assert what_is_due(past, was_cut=was_cut) == due


def test_a_deaf_session_may_have_missed_a_question() -> None:
    """When nobody knows what the caller said, they are asked; what is known comes first."""
    assert what_is_due([HEARD], was_cut=False, was_deaf=True) == "ask"
    assert what_is_due([HEARD], was_cut=True, was_deaf=True) == "go_on"
    assert what_is_due([HEARD, ASKED], was_cut=False, was_deaf=True) == "answer"
