"""Which codec a call gets, and that each of them carries speech both ways."""

import pytest

from agent.embedded.codec import first_spoken
from agent.embedded.engines import Engines
from agent.embedded.voice import Voice
from agent.realtime.codec import CodecName
from tests.embedded.caller import open_call


@pytest.mark.parametrize(
    ("lines", "codec"),
    [
        pytest.param(
            ["m=audio 9 UDP/TLS/RTP/SAVPF 96 0", "a=rtpmap:96 opus/48000/2"], "opus", id="Opus"
        ),
        pytest.param(
            ["m=audio 9 UDP/TLS/RTP/SAVPF 8 96", "a=rtpmap:96 OPUS/48000/2"],
            "pcma",
            id="PCMA first, by number",
        ),
        pytest.param(
            ["m=audio 9 UDP/TLS/RTP/SAVPF 9 97", "a=rtpmap:97 PCMU/8000"], "pcmu", id="G.722 first"
        ),
        pytest.param(
            ["m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=rtpmap:0 speex/8000"], None, id="number abused"
        ),
        pytest.param(["m=video 9 UDP/TLS/RTP/SAVPF 0"], None, id="video"),
        pytest.param([], None, id="nothing"),
    ],
)
def test_first_spoken(lines: list[str], codec: str | None) -> None:
    """The offer's order decides among the codecs this server speaks."""
    assert first_spoken("v=0\r\n" + "".join(f"{line}\r\n" for line in lines)) == codec


@pytest.mark.parametrize("codec", ["pcmu", "pcma"])
async def test_g711_call(url: str, engines: Engines, voice: Voice, codec: CodecName) -> None:
    """A peer that offers G.711 alone is heard and spoken to in it."""
    async with open_call(url, codec=codec) as caller:
        transcribed = {"input": {"transcription": {"model": "gpt-transcribe"}}}
        caller.send(type="session.update", session={"type": "realtime", "audio": transcribed})
        caller.say(voice.synthesise("What is your address?"))
        await caller.wait("output_audio_buffer.stopped")
        heard = await caller.wait("conversation.item.input_audio_transcription.completed")
        assert "address" in heard["transcript"].lower()
        said = set(caller.transcripts()[0].lower().split())
        spoken = (await engines.transcribe(bytes(caller.heard))).lower().split()
        assert len(said & set(spoken)) >= 3
