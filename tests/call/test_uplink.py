"""What the caller says reaches a session that understands it, once."""

from agent.audio.frame import SILENCE, Frame
from agent.call.uplink import Uplink

SECOND = 50


def voice(number: int) -> Frame:
    """A frame that can be told from others, and is loud."""
    return (1000 + number).to_bytes(2, "little") * 160


def test_without_a_loss_every_frame_passes_in_its_tick() -> None:
    """Nothing is held back, and nothing changed."""
    uplink = Uplink()
    frames = [voice(n) for n in range(10 * SECOND)]
    assert [uplink.send(frame) for frame in frames] == frames
    assert not uplink.is_behind


def test_a_turn_that_was_not_written_down_is_said_again_in_its_own_pace() -> None:
    """One frame a tick, from the beginning; then what is said now."""
    uplink = Uplink()
    for n in range(3 * SECOND):
        uplink.send(voice(n))
        if n == 15:
            uplink.heard("u1")
    uplink.lost()
    assert uplink.is_behind
    sent = [uplink.send(voice(1000 + n)) for n in range(4 * SECOND)]
    assert sent[: 3 * SECOND] == [voice(n) for n in range(3 * SECOND)]
    assert sent[3 * SECOND] == voice(1000)


def test_pauses_are_shortened_until_it_has_caught_up() -> None:
    """The caller falls silent, and soon nothing is late any more."""
    uplink = Uplink()
    uplink.heard("u1")
    for n in range(SECOND):
        uplink.send(voice(n))
    uplink.lost()
    sent = [uplink.send(SILENCE) for _ in range(SECOND + 12)]
    assert [frame for frame in sent if frame != SILENCE] == [voice(n) for n in range(SECOND)]
    assert not uplink.is_behind


def test_what_is_said_while_there_is_no_session_waits() -> None:
    """Silence is not kept; a voice is, and the pauses in it."""
    uplink = Uplink()
    uplink.lost()
    for frame in (SILENCE, voice(1), SILENCE, voice(2)):
        uplink.wait(frame)
    assert [uplink.send(SILENCE) for _ in range(3)] == [voice(1), SILENCE, voice(2)]


def test_two_turns_at_once() -> None:
    """The first turn's words come while the second is being said: the second is kept."""
    uplink = Uplink()
    uplink.heard("u1")
    uplink.send(voice(1))
    uplink.heard("u2")
    uplink.send(voice(2))
    uplink.understood("u1")
    uplink.lost()
    assert [uplink.send(SILENCE) for _ in range(2)] == [voice(1), voice(2)]


def test_very_much_is_not_kept() -> None:
    """Twenty seconds are; who talks longer is asked again anyway."""
    uplink = Uplink()
    uplink.heard("u1")
    for n in range(60 * SECOND):
        uplink.send(voice(n))
    uplink.lost()
    assert uplink.send(SILENCE) == voice(40 * SECOND + 1)
