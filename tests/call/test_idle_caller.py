"""A caller who says nothing is asked, asked again, and then said goodbye to."""

from agent.call.events import CallerSpeechStarted
from agent.call.idle_caller import IdleCaller
from agent.call.settings import IdleSettings


def wishes(idle: IdleCaller, *, busy_until_s: int = 0, spoke_at_s: int = -1) -> list[str]:
    """Let a minute pass; return what was wished for, with the second."""
    found = []
    for second in range(60):
        if second == spoke_at_s:
            idle.receive(CallerSpeechStarted("u1"))
        wish = idle.check(second * 1000, is_occupied=second < busy_until_s)
        if wish != "nothing":
            found.append(f"{wish} {second}")
    return found


def test_asked_twice_then_goodbye() -> None:
    """Twelve seconds each."""
    assert wishes(IdleCaller(IdleSettings()))[:3] == ["ask 12", "ask 24", "goodbye 36"]


def test_time_counts_from_the_end_of_what_was_going_on() -> None:
    """Not while the agent speaks, a tool runs or keys are collected."""
    assert wishes(IdleCaller(IdleSettings()), busy_until_s=20)[0] == "ask 31"


def test_a_caller_who_speaks_is_there() -> None:
    """After a word the count begins anew."""
    found = wishes(IdleCaller(IdleSettings()), spoke_at_s=20)
    assert found[:3] == ["ask 12", "ask 32", "ask 44"]


def test_switched_off() -> None:
    """Nobody is asked when the far end does it, or nobody wants it."""
    assert wishes(IdleCaller(IdleSettings(after_s=0))) == []
