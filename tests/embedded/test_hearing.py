"""What a client sees of a caller's turn while and after it is spoken, over real ICE and RTP.

Silences are counted in the caller's audio, as the events tell them, so a busy
machine changes nothing.
"""

from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.embedded.voice import Voice
from tests.embedded.caller import Caller, open_call

PREFIX_MS = 300
HALF_A_SECOND = {
    "type": "server_vad",
    "prefix_padding_ms": PREFIX_MS,
    "silence_duration_ms": 500,
}


def session(detection: dict[str, Any]) -> dict[str, Any]:
    transcription = {"model": "gpt-transcribe"}
    audio = {"input": {"transcription": transcription, "turn_detection": detection}}
    return {"type": "realtime", "audio": audio}


async def silence_ms(caller: Caller, speech: bytes) -> int:
    """Say something; how long the server waited after it, in the caller's audio."""
    # The call is just open: the padding needs something before the speech.
    caller.say(bytes(500 * 16) + speech)
    started = await caller.wait("input_audio_buffer.speech_started")
    stopped = await caller.wait("input_audio_buffer.speech_stopped")
    spoken_ms = len(speech) // 16
    return int(stopped["audio_end_ms"] - started["audio_start_ms"] - PREFIX_MS - spoken_ms)


@pytest.mark.parametrize(
    ("words", "least_ms", "most_ms"),
    [
        pytest.param("What are your opening hours?", 0, 420, id="a whole question"),
        pytest.param("Can I have a sourdough loaf and", 620, 1100, id="a conjunction"),
        pytest.param("My telephone number is five five five one", 620, 1100, id="half a number"),
    ],
)
async def test_semantic_vad(
    url: str, voice: Voice, words: str, least_ms: int, most_ms: int
) -> None:
    """A complete phrase is answered soon; who is in the middle of one is given time."""
    async with open_call(url, session({"type": "semantic_vad"}), "pcmu") as caller:
        waited_ms = await silence_ms(caller, voice.say(words))
    assert least_ms < waited_ms < most_ms


async def test_words_while_they_are_spoken(url: str, voice: Voice) -> None:
    """Deltas come before the transcript is complete, and joined they are its words."""
    kind = "conversation.item.input_audio_transcription"
    words = "I would like to know when you are open on Saturday and whether you have rye bread."
    async with open_call(url, session(HALF_A_SECOND), "pcmu") as caller:
        caller.say(bytes(500 * 16) + voice.say(words))
        final = await caller.wait(f"{kind}.completed")
        deltas = [event for event in caller.events if event["type"] == f"{kind}.delta"]
        kinds = caller.kinds()
    assert kinds.index(f"{kind}.delta") < kinds.index("input_audio_buffer.speech_stopped")
    told = "".join(event["delta"] for event in deltas)
    assert {event["item_id"] for event in deltas} == {final["item_id"]}
    assert len(told.split()) >= 3
    assert told.lower()[:20] in final["transcript"].lower()


async def test_pause_within_a_sentence(url: str, voice: Voice) -> None:
    """Who takes breath for 300 ms has said one thing, and is answered once, to all of it."""
    breath = bytes(300 * 16)
    words = breath.join(
        (voice.say("Do you have rye bread"), voice.say("and are you open on Sunday?"))
    )
    async with open_call(url, session(HALF_A_SECOND), "pcmu") as caller:
        caller.say(bytes(500 * 16) + words)
        final = await caller.wait("conversation.item.input_audio_transcription.completed")
        await caller.wait("output_audio_buffer.stopped")
        kinds = caller.kinds()
    assert "bread" in final["transcript"].lower()
    assert "sunday" in final["transcript"].lower()
    assert kinds.count("input_audio_buffer.committed") == 1
    assert kinds.count("response.created") == 1


async def test_unknown_voice(url: str, voice: Voice) -> None:
    """A voice that is none of ours is kept in the session, spoken by ours, and warned of once."""
    wished = {"type": "realtime", "audio": {"output": {"voice": "voice_of_my_own"}}}
    with capture_logs() as logged:
        async with open_call(url, wished, "pcmu") as caller:
            created = await caller.wait("session.created")
            for turn in (1, 2):
                caller.send(type="response.create", response={"instructions": 'Say "Hello."'})
                await caller.wait("output_audio_buffer.stopped", turn)
            assert "error" not in caller.kinds()
            assert created["session"]["audio"]["output"]["voice"] == "voice_of_my_own"
            assert len(bytes(caller.heard).strip(b"\0")) > len(voice.say("Hello."))
    warnings = [line for line in logged if line["log_level"] == "warning"]
    assert [line["voice"] for line in warnings] == ["voice_of_my_own"]
