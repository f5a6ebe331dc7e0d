"""The `openai` package's own Realtime client talks to the embedded server, as to the service."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import soxr
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from agent.embedded.voice import Voice

_TYPED: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
_TIMEOUT_S = 15
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string"}},
        "required": ["place"],
    },
}


class Conversation:
    """One connection, and every event of it as JSON, each checked against the typed union."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []

    async def until(self, kind: str) -> dict[str, Any]:
        """Read on to the next event of this type."""
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                event: dict[str, Any] = json.loads(await self.connection.recv_bytes())
                _TYPED.validate_python(event)
                self.events.append(event)
                assert event["type"] != "error", event
                if event["type"] == kind:
                    return event

    async def write(self, text: str) -> None:
        """Say something in writing and ask for the answer."""
        await self.connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": text}],
            }
        )
        await self.connection.response.create()

    async def speak(self, pcm: bytes) -> None:
        """Say something aloud: 8 kHz PCM, sent as 24 kHz, a second of silence after it."""
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        wide = np.clip(soxr.resample(samples, 8000, 24000), -1, 1)
        audio = (wide * 32767).astype("<i2").tobytes() + bytes(48000)
        for at in range(0, len(audio), 9600):
            chunk = base64.b64encode(audio[at : at + 9600]).decode()
            await self.connection.input_audio_buffer.append(audio=chunk)

    def heard_ms(self) -> int:
        """How much of the agent's voice has come."""
        deltas = (
            event["delta"]
            for event in self.events
            if event["type"] == "response.output_audio.delta"
        )
        return sum(len(base64.b64decode(delta)) for delta in deltas) // 48


@asynccontextmanager
async def _connected(url: str, **session: Any) -> AsyncIterator[Conversation]:
    async with (
        AsyncOpenAI(api_key="sk-test", base_url=url) as client,
        client.realtime.connect(model="gpt-realtime-2.1") as connection,
    ):
        conversation = Conversation(connection)
        await conversation.until("session.created")
        wanted: Any = {"type": "realtime", **session}
        await connection.session.update(session=wanted)
        await conversation.until("session.updated")
        yield conversation


async def test_text(url: str) -> None:
    """A session that asks for text is answered in text, and without a sound."""
    async with _connected(url, output_modalities=["text"]) as conversation:
        await conversation.write("When are you open on Monday?")
        said = await conversation.until("response.output_text.done")
        done = await conversation.until("response.done")
    assert "Monday" in said["text"]
    assert done["response"]["status"] == "completed"
    assert conversation.heard_ms() == 0


async def test_whole_conversation(url: str, voice: Voice) -> None:
    """Greeting, spoken question, transcript, tool call and spoken result; every event is typed."""
    transcription = {"model": "gpt-transcribe"}
    async with _connected(
        url, tools=[WEATHER], audio={"input": {"transcription": transcription}}
    ) as conversation:
        await conversation.connection.response.create()
        greeting = await conversation.until("response.output_audio_transcript.done")
        await conversation.until("response.done")
        assert greeting["transcript"]
        assert conversation.heard_ms() > 500
        await conversation.speak(voice.synthesise("What is the weather in Oslo?"))
        kind = "conversation.item.input_audio_transcription.completed"
        heard = await conversation.until(kind)
        assert "weather" in heard["transcript"].lower()
        call = await conversation.until("response.function_call_arguments.done")
        assert json.loads(call["arguments"])["place"].lower() == "oslo"
        await conversation.until("response.done")
        await conversation.connection.conversation.item.create(
            item={
                "type": "function_call_output",
                "call_id": call["call_id"],
                "output": json.dumps({"error": "The weather is not known today."}),
            }
        )
        await conversation.connection.response.create()
        said = await conversation.until("response.output_audio_transcript.done")
        done = await conversation.until("response.done")
    assert said["transcript"]
    assert done["response"]["usage"]["output_tokens"] > 0
    assert len({event["event_id"] for event in conversation.events}) == len(conversation.events)


@pytest.mark.parametrize(
    "seconds", [pytest.param(600, id="ten minutes"), pytest.param(10, id="the least")]
)
async def test_client_secret(url: str, seconds: int) -> None:
    """A secret made by the package opens a session that begins as the secret says."""
    async with AsyncOpenAI(api_key="sk-test", base_url=url, max_retries=0) as client:
        secret = await client.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": seconds},
            session={"type": "realtime", "instructions": "Be brief."},
        )
    assert secret.value.startswith("ek_")
    async with (
        AsyncOpenAI(api_key=secret.value, base_url=url) as client,
        client.realtime.connect(model="gpt-realtime-2.1") as connection,
    ):
        created = await Conversation(connection).until("session.created")
    assert created["session"]["instructions"] == "Be brief."
