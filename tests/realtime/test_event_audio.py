"""Audio inside events: what is asked for, what is sent, what is taken."""

import base64
import json
from typing import Any

import pytest

from agent.realtime.protocol import AudioPiece, append_of
from agent.realtime.settings import RealtimeSettings
from tests.realtime.test_protocol import CLIENT, PROFILE, Session


def with_audio() -> Session:
    session = Session()
    session.protocol.configure(PROFILE, RealtimeSettings(), "audio/pcma")
    return session


def speak(session: Session, payload: bytes, response_id: str = "r1") -> list[AudioPiece]:
    """Let the far end send some speech; return what is for the ear."""
    delta = base64.b64encode(payload).decode()
    ids = {"response_id": response_id, "item_id": "a1", "output_index": 0, "content_index": 0}
    session.receive("response.output_audio.delta", **ids, delta=delta)
    return session.protocol.take_audio()


def test_both_directions_are_asked_for_in_the_same_law() -> None:
    """The session is given its formats, beside everything else it is given."""
    (update,) = with_audio().sent()
    audio = update["session"]["audio"]
    assert audio["input"]["format"] == audio["output"]["format"] == {"type": "audio/pcma"}
    assert audio["output"]["voice"] == "marin"


def test_speech_is_handed_over_once() -> None:
    """In order, and with the end of its item."""
    session = with_audio()
    assert speak(session, b"abc") == [AudioPiece("r1", "a1", 0, b"abc")]
    session.receive("response.output_audio.done", response_id="r1", item_id="a1")
    assert session.protocol.take_audio() == [AudioPiece("r1", "a1", 0, b"")]
    assert session.protocol.take_audio() == []


def test_where_audio_travels_elsewhere_none_is_taken() -> None:
    """A far end that sends it all the same fills no memory."""
    session = Session()
    session.protocol.configure(PROFILE, RealtimeSettings())
    assert speak(session, b"abc") == []


def test_what_was_made_before_the_stop_was_read_is_not_heard() -> None:
    """A response that we stopped is over for the ear; the one after it is not."""
    session = with_audio()
    session.response("r1", done=False)
    session.protocol.interrupt()
    assert speak(session, b"abc") == []
    session.receive("response.done", response={"id": "r1", "status": "cancelled"})
    session.protocol.answer()
    session.protocol.interrupt()
    session.response("r2", done=False)
    assert speak(session, b"abc", "r2") == [], "stopped before it began"
    session.response("r3", done=False)
    assert speak(session, b"abc", "r3") == [AudioPiece("r3", "a1", 0, b"abc")]


@pytest.mark.parametrize("payload", [b"", b"\x00", bytes(range(256)), b"\xff" * 160])
def test_the_callers_voice_is_a_proper_event(payload: bytes) -> None:
    """What is put together by hand is what a library would have written."""
    text = append_of(payload)
    CLIENT.validate_json(text)
    event: dict[str, Any] = json.loads(text)
    assert event["type"] == "input_audio_buffer.append"
    assert base64.b64decode(event["audio"], validate=True) == payload


def test_what_was_heard_is_told() -> None:
    """A cut names the item and the ms."""
    session = with_audio()
    session.sent()
    session.protocol.truncate("a1", 0, 740)
    (event,) = session.sent()
    assert (event["item_id"], event["content_index"], event["audio_end_ms"]) == ("a1", 0, 740)
