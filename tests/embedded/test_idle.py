"""When the agent speaks up by itself."""

from agent.embedded.idle import IdleWatch


def test_after_the_answer_was_played() -> None:
    """The wait begins when the words have been heard, and is over once."""
    watch = IdleWatch()
    assert watch.due(9000, 5000, agent_speaks=False) is None
    watch.answered(10_000, 2_000)
    assert watch.due(16_900, 5000, agent_speaks=False) is None
    assert watch.due(17_000, 5000, agent_speaks=False) == 12_000
    assert watch.due(30_000, 5000, agent_speaks=False) is None


def test_speech_and_playing_put_it_off() -> None:
    """While the agent speaks the wait has not begun; a caller who speaks ends it."""
    watch = IdleWatch()
    watch.answered(1000, 0)
    assert watch.due(8000, 5000, agent_speaks=True) is None
    assert watch.due(12_900, 5000, agent_speaks=False) is None
    assert watch.due(12_999, None, agent_speaks=False) is None
    assert watch.due(13_000, 5000, agent_speaks=False) == 8000
    watch.answered(13_000, 0)
    watch.disarm()
    assert watch.due(90_000, 5000, agent_speaks=False) is None
