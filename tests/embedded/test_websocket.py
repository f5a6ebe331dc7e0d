"""Sessions over WebSocket: audio in events, turns, truncation, and what goes wrong."""

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest
import soxr
from pydantic import SecretStr
from websockets.exceptions import InvalidStatus

from agent.audio import g711
from agent.embedded.engines import Engines
from agent.embedded.server import RealtimeServer
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.voice import Voice
from tests.embedded.caller import open_call
from tests.embedded.socket_client import open_socket

TRANSCRIBED = {"transcription": {"model": "gpt-transcribe"}}


def _wide(pcm: bytes) -> bytes:
    return bytes(soxr.resample(np.frombuffer(pcm, "<i2"), 8000, 24000).tobytes())


def _narrow(pcm: bytes) -> bytes:
    return bytes(soxr.resample(np.frombuffer(pcm, "<i2"), 24000, 8000).tobytes())


async def test_spoken_turn(
    url: str, server: RealtimeServer, voice: Voice, engines: Engines
) -> None:
    """24 kHz speech is heard, and answered with 24 kHz speech that can be understood."""
    async with open_socket(url) as client:
        created = await client.wait("session.created")
        assert created["session"]["model"] == "gpt-realtime-2.1"
        await client.send(
            type="session.update", session={"type": "realtime", "audio": {"input": TRANSCRIBED}}
        )
        await client.wait("session.updated")
        question = voice.synthesise("What are your opening hours on Saturday?")
        await client.append(_wide(question + bytes(16000)))
        done = await client.wait("response.done")
        assert done["response"]["status"] == "completed"
        heard = await client.wait("conversation.item.input_audio_transcription.completed")
        assert "opening hours" in heard["transcript"].lower()
        said = (await client.wait("response.output_audio_transcript.done"))["transcript"]
        assert "Saturday" in said
        assert "saturday" in (await engines.transcribe(_narrow(client.audio()))).lower()
        kinds = client.kinds()
        assert not [kind for kind in kinds if kind.startswith("output_audio_buffer")]
        first, done_at = "response.output_audio.delta", "response.output_audio.done"
        assert kinds.index("response.content_part.added") < kinds.index(first)
        assert kinds.index(first) < kinds.index(done_at) < kinds.index("response.done")
    async with asyncio.timeout(5):
        while server.call_count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("law", ["pcmu", "pcma"])
async def test_telephone_formats(url: str, voice: Voice, engines: Engines, law: g711.Law) -> None:
    """A client that takes the turns itself speaks and hears G.711."""
    audio_format = {"type": f"audio/{law}"}
    audio = {
        "input": {**TRANSCRIBED, "format": audio_format, "turn_detection": None},
        "output": {"format": audio_format},
    }
    async with open_socket(url) as client:
        await client.send(type="session.update", session={"type": "realtime", "audio": audio})
        session = (await client.wait("session.updated"))["session"]
        assert session["audio"]["output"]["format"] == audio_format
        await client.append(g711.encode(voice.synthesise("What is your address?"), law))
        await client.send(type="input_audio_buffer.commit")
        await client.wait("conversation.item.done")
        assert "response.created" not in client.kinds()
        await client.send(type="response.create")
        await client.wait("response.done")
        heard = await client.wait("conversation.item.input_audio_transcription.completed")
        assert "address" in heard["transcript"].lower()
        said = (await client.wait("response.output_audio_transcript.done"))["transcript"]
        assert said
        again = await engines.transcribe(g711.decode(client.audio(), law))
        assert len(set(again.lower().split()) & set(said.lower().split())) >= 3


@pytest.mark.parametrize(
    ("duration_ms", "answer"),
    [
        pytest.param(0, "error", id="nothing"),
        pytest.param(90, "error", id="90 ms"),
        pytest.param(100, "input_audio_buffer.committed", id="100 ms"),
    ],
)
async def test_commit(url: str, duration_ms: int, answer: str) -> None:
    """A turn of 100 ms can be committed, a shorter one is refused."""
    off = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    async with open_socket(url) as client:
        await client.send(type="session.update", session=off)
        await client.append(bytes(48 * duration_ms))
        await client.send(type="input_audio_buffer.commit")
        event = await client.wait(answer)
        if answer == "error":
            assert event["error"]["code"] == "input_audio_buffer_commit_empty"


async def test_truncation(url: str) -> None:
    """The client says how much it has played; more than there was is an error."""
    async with open_socket(url) as client:
        await client.send(type="response.create", response={"instructions": 'Say "Good morning."'})
        done = await client.wait("response.done")
        item = done["response"]["output"][0]
        await client.send(
            type="conversation.item.truncate",
            item_id=item["id"],
            content_index=0,
            audio_end_ms=300,
        )
        truncated = await client.wait("conversation.item.truncated")
        assert (truncated["item_id"], truncated["audio_end_ms"]) == (item["id"], 300)
        await client.send(type="conversation.item.retrieve", item_id=item["id"])
        retrieved = await client.wait("conversation.item.retrieved")
        assert retrieved["item"]["content"] == [{"type": "output_audio", "transcript": ""}]
        await client.send(
            type="conversation.item.truncate",
            item_id=item["id"],
            content_index=0,
            audio_end_ms=60000,
        )
        assert "already shorter" in (await client.wait("error"))["error"]["message"]


async def test_barge_in_cancels_the_response(url: str, voice: Voice) -> None:
    """Who speaks while a response is made stops it; nothing is truncated for the client."""
    async with open_socket(url) as client:
        text = " ".join(f"This is sentence number {n} of a long speech." for n in range(40))
        await client.send(type="response.create", response={"instructions": f'Say "{text}"'})
        await client.wait("response.output_audio.delta")
        await client.append(_wide(voice.synthesise("Stop, please, stop, that is enough.")))
        done = await client.wait("response.done")
        details = done["response"]["status_details"]
        assert details == {"type": "cancelled", "reason": "turn_detected"}
        assert done["response"]["output"][0]["status"] == "incomplete"
        assert "conversation.item.truncated" not in client.kinds()


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        pytest.param(b"\x00\xff", "invalid_event", None, id="binary frame"),
        pytest.param("{", "invalid_event", None, id="no JSON"),
        pytest.param(
            {"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio", id="none"
        ),
        pytest.param(
            {"type": "input_audio_buffer.append", "audio": "%%%%"},
            "invalid_value",
            "audio",
            id="not base64",
        ),
        pytest.param(
            {"type": "input_audio_buffer.append", "audio": "AAAA"},
            "invalid_value",
            "audio",
            id="half a sample",
        ),
        pytest.param(
            {"type": "input_audio_buffer.append", "audio": 5}, "invalid_value", "audio", id="number"
        ),
        pytest.param(
            {"type": "input_audio_buffer.append", "audio": "A" * 20_971_560},
            "invalid_value",
            "audio",
            id="over 15 MiB",
        ),
        pytest.param(
            {
                "type": "session.update",
                "session": {"type": "realtime", "instructions": "x" * 10_000_000},
            },
            "invalid_value",
            "session",
            id="10 MB of JSON",
        ),
        pytest.param(
            {
                "type": "session.update",
                "session": {
                    "type": "realtime",
                    "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}},
                },
            },
            "invalid_value",
            "session.audio.input.format.rate",
            id="wrong rate",
        ),
        pytest.param(
            {"type": "output_audio_buffer.clear"}, "invalid_event", "type", id="no such buffer"
        ),
    ],
)
async def test_bad_event(url: str, message: Any, code: str, param: str | None) -> None:
    """A wrong event becomes an error event that names the field, and the session lives on."""
    async with open_socket(url) as client:
        raw = json.dumps(message) if isinstance(message, dict) else message
        await client.connection.send(raw)
        error = (await client.wait("error"))["error"]
        assert (error["code"], error["param"]) == (code, param)
        await client.send(type="session.update", session={"type": "realtime"})
        await client.wait("session.updated")


async def test_long_append_disturbs_nobody(url: str, voice: Voice) -> None:
    """Five minutes of audio in one event are taken, and another session answers meanwhile."""
    async with open_socket(url) as busy, open_socket(url) as other:
        await other.wait("session.created")
        minutes = base64.b64encode(bytes(15 * 1024 * 1024)).decode()
        await busy.send(type="input_audio_buffer.append", audio=minutes)
        await busy.send(type="input_audio_buffer.clear")
        await other.send(type="response.create", response={"instructions": 'Say "Hello there."'})
        assert (await other.wait("response.done"))["response"]["status"] == "completed"
        await busy.wait("input_audio_buffer.cleared")


class TestLimits:
    """A server with a key, one session and a short limit."""

    @pytest.fixture
    def settings(self) -> EmbeddedSettings:
        return EmbeddedSettings(api_key=SecretStr("right"), max_sessions=1, session_limit_s=0.5)

    @pytest.mark.parametrize(
        ("key", "query", "status"),
        [
            pytest.param("", "model=m", 401, id="no key"),
            pytest.param("wrong", "model=m", 401, id="wrong key"),
            pytest.param("ek_invented", "model=m", 401, id="invented secret"),
            pytest.param("right", "call_id=rtc_x", 404, id="no such call"),
            pytest.param("right", "intent=translation", 400, id="translation"),
        ],
    )
    async def test_refused_before_the_upgrade(
        self, url: str, key: str, query: str, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Who may not come in gets an HTTP status with an OpenAI error body; it is no error here."""
        with pytest.raises(InvalidStatus) as refused:
            async with open_socket(url, query, key):
                pass
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body or b"")["error"]["code"]
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    async def test_expiry_and_room(self, url: str) -> None:
        """A full server says 429; a session whose time is over is told, and closed with 1001."""
        async with open_socket(url, key="right") as client:
            await client.wait("session.created")
            with pytest.raises(InvalidStatus) as refused:
                async with open_socket(url, key="right"):
                    pass
            assert refused.value.response.status_code == 429
            assert (await client.wait("error"))["error"]["code"] == "session_expired"
            async with asyncio.timeout(5):
                await client.closed.wait()
            assert client.connection.close_code == 1001
            assert "maximum duration" in (client.connection.close_reason or "")


async def test_sideband(url: str, server: RealtimeServer) -> None:
    """A second connection steers a call and sees its events, but no audio and no session.created."""
    async with open_call(url) as caller:
        async with open_socket(url, f"call_id={caller.call_id}") as sideband:
            await sideband.send(
                type="session.update", session={"type": "realtime", "instructions": "Be kind."}
            )
            updated = await sideband.wait("session.updated")
            assert updated["session"]["instructions"] == "Be kind."
            await caller.wait("session.updated")
            await sideband.send(
                type="response.create", response={"instructions": 'Say "Good morning."'}
            )
            await sideband.wait("output_audio_buffer.stopped")
            assert sideband.kinds()[0] == "session.updated"
            assert "response.output_audio.delta" not in sideband.kinds()
            await caller.wait("output_audio_buffer.stopped")
        # Gone again, the call goes on without it.
        caller.send(type="response.create", response={"instructions": 'Say "Still here."'})
        await caller.wait("response.done", 2)
        async with open_socket(url, f"call_id={caller.call_id}") as last:
            await last.send(type="session.update", session={"type": "realtime"})
            await last.wait("session.updated")
            await caller.close()
            async with asyncio.timeout(20):
                await last.closed.wait()
