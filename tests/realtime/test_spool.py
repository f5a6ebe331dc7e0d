"""Speech that arrived ahead of its time: what the ear is given, and what is known of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.audio.frame import FRAME_SAMPLES
from agent.call.events import AgentInterrupted, AgentSpeaking, AgentSpoke, CallEvent
from agent.realtime.protocol import AudioPiece
from agent.realtime.spool import Cut, Spool

Step = tuple[str, str, str, int]


def played(spool: Spool, *steps: Step) -> list[CallEvent]:
    """Let things happen: add RESPONSE ITEM ms, done RESPONSE ITEM, end RESPONSE, read, n times."""
    for what, response_id, item_id, number in steps:
        if what == "add":
            spool.add(AudioPiece(response_id, item_id, 0, b"x" * (number * 8)), 1.0)
        elif what == "done":
            spool.add(AudioPiece(response_id, item_id, 0, b""), 1.0)
        elif what == "end":
            spool.complete(response_id)
        else:
            for _ in range(number):
                spool.read()
    facts, spool.facts = spool.facts, []
    return facts


def add(ms: int, response_id: str = "r1", item_id: str = "i1") -> Step:
    return ("add", response_id, item_id, ms)


def done(item_id: str = "i1", response_id: str = "r1") -> Step:
    return ("done", response_id, item_id, 0)


def end(response_id: str = "r1") -> Step:
    return ("end", response_id, "", 0)


def read(times: int) -> Step:
    return ("read", "", "", times)


@pytest.mark.parametrize(
    ("steps", "facts"),
    [
        pytest.param([add(200)], [AgentSpeaking("r1")], id="begun when it arrives"),
        pytest.param([add(200), end(), read(9)], [AgentSpeaking("r1")], id="not heard yet"),
        pytest.param(
            [add(200), end(), read(10)], [AgentSpeaking("r1"), AgentSpoke("r1")], id="heard"
        ),
        pytest.param(
            [add(200), read(10), end()],
            [AgentSpeaking("r1"), AgentSpoke("r1")],
            id="heard before its end was told",
        ),
        pytest.param([end()], [], id="a response without audio"),
        pytest.param(
            [add(40), end(), add(40, "r2", "i2"), read(2)],
            [AgentSpeaking("r1"), AgentSpoke("r1")],
            id="the next waits for its turn",
        ),
        pytest.param(
            [add(40), end(), add(40, "r2", "i2"), read(3)],
            [AgentSpeaking("r1"), AgentSpoke("r1"), AgentSpeaking("r2")],
            id="and begins when it is read",
        ),
        pytest.param(
            [add(30), done(), end(), add(40, "r2", "i2"), end("r2"), read(4)],
            [AgentSpeaking("r1"), AgentSpoke("r1"), AgentSpeaking("r2"), AgentSpoke("r2")],
            id="half a frame at the end",
        ),
    ],
)
def test_facts(steps: list[Step], facts: list[CallEvent]) -> None:
    """Speaking begins where there is silence before it, and is over when the ear has had it all."""
    assert played(Spool(), *steps) == facts


@pytest.mark.parametrize(
    ("steps", "cuts"),
    [
        pytest.param([add(200), done(), end(), read(3)], [Cut("i1", 0, 60)], id="in the middle"),
        pytest.param([add(200), read(3)], [Cut("i1", 0, 60)], id="still being made"),
        pytest.param([add(60), read(3)], [Cut("i1", 0, 60)], id="more is on its way"),
        pytest.param([add(60), done(), read(3)], [], id="all of it was heard"),
        pytest.param([add(60)], [Cut("i1", 0, 0)], id="nothing was heard"),
        pytest.param(
            [add(40), done(), add(40, "r1", "i2"), end(), read(3)],
            [Cut("i2", 0, 20)],
            id="the second of two items",
        ),
        pytest.param(
            [add(60), end(), add(60, "r2", "i2"), end("r2"), read(1)],
            [Cut("i1", 0, 20), Cut("i2", 0, 0)],
            id="another response had not begun",
        ),
        pytest.param([], [], id="silence"),
    ],
)
def test_cuts(steps: list[Step], cuts: list[Cut]) -> None:
    """After a flush the far end is told of each item that was not heard whole, to the sample."""
    spool = Spool()
    played(spool, *steps)
    assert spool.flush() == cuts
    assert spool.waiting_ms == 0
    assert {fact.response_id for fact in spool.facts if isinstance(fact, AgentInterrupted)} >= {
        "r1" for cut in cuts if cut.item_id == "i1"
    }


def test_the_rest_of_what_was_cut_is_dropped() -> None:
    """What is still on its way is not heard; the next response is, also under an old name."""
    spool = Spool()
    played(spool, add(100), read(1))
    spool.flush()
    assert played(spool, add(100)) == [AgentInterrupted("r1")]
    assert spool.waiting_ms == 0
    assert played(spool, add(100, "r2", "i2")) == [AgentSpeaking("r2")]
    played(spool, end(), read(5))
    assert played(spool, add(20, "r1", "i9"), read(1)) == [AgentSpoke("r2"), AgentSpeaking("r1")]


def test_a_voice_slower_than_itself_is_waited_for() -> None:
    """Half a frame of what is still being made is kept until the other half is there."""
    spool = Spool()
    played(spool, add(30))
    assert len(spool.read()) == FRAME_SAMPLES
    assert spool.read() == b""
    assert spool.is_mid_speech
    played(spool, add(10))
    assert len(spool.read()) == FRAME_SAMPLES


def test_a_far_end_that_never_stops_is_bounded() -> None:
    """Ten minutes wait at most; what is beyond that is counted, and what waits is heard whole."""
    spool = Spool()
    for _ in range(700):
        played(spool, add(1000))
    assert spool.waiting_ms == 600_000
    assert spool.overflowed_bytes == 100 * 8000


def test_crumbs_are_bounded() -> None:
    """A far end that sends single samples fills no memory with what holds them."""
    spool = Spool()
    for _ in range(40_000):
        spool.add(AudioPiece("r1", "i1", 0, b"x"), 1.0)
    assert spool.overflowed_bytes == 10_000


@given(
    st.lists(
        st.one_of(
            st.builds(add, st.integers(1, 90), st.sampled_from(["r1", "r2"]), st.just("i")),
            st.builds(read, st.integers(1, 4)),
        ),
        max_size=30,
    )
)
def test_no_sample_is_lost_or_made_up(steps: list[Step]) -> None:
    """Whatever the order of arriving and reading, what came was read, waits, or was cut."""
    spool = Spool()
    came = sum(step[3] * 8 for step in steps if step[0] == "add")
    given_bytes = 0
    for step in steps:
        if step[0] == "add":
            played(spool, step)
        else:
            given_bytes += sum(len(spool.read()) for _ in range(step[3]))
    assert came == given_bytes + spool.waiting_ms * 8
    heard_ms = sum(cut.heard_ms for cut in spool.flush())
    assert heard_ms * 8 <= given_bytes
