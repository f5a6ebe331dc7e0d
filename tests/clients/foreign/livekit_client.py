"""A telephone agent as livekit-agents builds it: a spoken question, a function, an interruption.

    python livekit_client.py http://HOST:PORT/v1 QUESTION.wav INTERRUPTION.wav

Run by livekit's own Python (`make install-dev` puts it under build/). It asks
once the greeting was heard, and interrupts the answer that follows the
function's result. What it experienced comes out as one JSON object.
"""

import asyncio
import json
import sys
import time
import wave
from pathlib import Path
from typing import Any

import aiohttp
from livekit import rtc
from livekit.agents import Agent, AgentSession, UserInputTranscribedEvent, function_tool
from livekit.agents.voice import ConversationItemAddedEvent
from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities
from livekit.plugins.openai.realtime import RealtimeModel
from openai.types.realtime import AudioTranscription

RATE_HZ = 24000
CHUNK_MS = 20
CHUNK_BYTES = RATE_HZ * 2 * CHUNK_MS // 1000
FORECAST = (
    "It will rain all day, and the wind will blow from the west, and then it will clear. " * 3
)


class Microphone(AudioInput):
    """Silence, and what is put into `saying`, as fast as it is spoken."""

    def __init__(self) -> None:
        super().__init__(label="microphone")
        self.saying = bytearray()

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(CHUNK_MS / 1000)
        chunk = bytes(self.saying[:CHUNK_BYTES]).ljust(CHUNK_BYTES, b"\0")
        del self.saying[:CHUNK_BYTES]
        return rtc.AudioFrame(chunk, RATE_HZ, 1, CHUNK_BYTES // 2)


class Loudspeaker(AudioOutput):
    """Plays in real time, so that an interruption comes in the middle."""

    def __init__(self) -> None:
        super().__init__(
            label="loudspeaker",
            capabilities=AudioOutputCapabilities(pause=False),
            sample_rate=RATE_HZ,
        )
        self.audio_s = self.segment_s = self.began_s = 0.0
        self.is_playing = False
        self.interruptions = 0
        self._playing: asyncio.Task[None] | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self.is_playing:
            self.is_playing, self.began_s, self.segment_s = True, time.monotonic(), 0.0
            self.on_playback_started(created_at=time.time())
        self.segment_s += frame.duration
        self.audio_s += frame.duration

    def flush(self) -> None:
        super().flush()
        if self.is_playing:
            self._playing = asyncio.create_task(self._play())

    async def _play(self) -> None:
        await asyncio.sleep(max(0.0, self.began_s + self.segment_s - time.monotonic()))
        self._finished(self.segment_s, interrupted=False)

    def clear_buffer(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
        if self.is_playing:
            self.interruptions += 1
            played_s = min(self.segment_s, time.monotonic() - self.began_s)
            self._finished(played_s, interrupted=True)

    def _finished(self, played_s: float, *, interrupted: bool) -> None:
        self.is_playing = False
        self.on_playback_finished(playback_position=played_s, interrupted=interrupted)


async def converse(
    url: str, question: bytes, interruption: bytes, http: aiohttp.ClientSession
) -> dict[str, Any]:
    """Hold the conversation; returns what was experienced."""
    called: list[dict[str, Any]] = []
    heard: list[str] = []
    said: list[str] = []

    @function_tool
    async def weather(place: str) -> str:
        """Tells the weather.

        Args:
            place: A town.
        """
        called.append({"place": place})
        return json.dumps({"text": FORECAST})

    transcription = AudioTranscription(model="gpt-transcribe")
    model = RealtimeModel(
        base_url=url,
        api_key="sk-test",
        input_audio_transcription=transcription,
        http_session=http,
    )
    microphone, loudspeaker = Microphone(), Loudspeaker()
    session: AgentSession[None] = AgentSession(llm=model)

    @session.on("user_input_transcribed")
    def transcribed(event: UserInputTranscribedEvent) -> None:
        if event.is_final:
            heard.append(event.transcript)

    @session.on("conversation_item_added")
    def added(event: ConversationItemAddedEvent) -> None:
        if getattr(event.item, "role", "") == "assistant":
            said.append(event.item.text_content or "")

    session.input.audio = microphone
    session.output.audio = loudspeaker
    await session.start(Agent(instructions="You answer the phone.", tools=[weather]))
    async with asyncio.timeout(40):
        await session.generate_reply(instructions='Say "Hello, how can I help you?"')
        microphone.saying += question
        while not called:
            await asyncio.sleep(0.02)
        before_s = loudspeaker.audio_s
        while not (loudspeaker.is_playing and loudspeaker.audio_s > before_s + 2):
            await asyncio.sleep(0.02)
        microphone.saying += interruption
        while not loudspeaker.interruptions or len(heard) < 2:
            await asyncio.sleep(0.02)
    await session.aclose()
    return {
        "heard": heard,
        "said": " ".join(said),
        "called": called,
        "audio_ms": int(loudspeaker.audio_s * 1000),
        "interrupted": bool(loudspeaker.interruptions),
    }


def read(file: str) -> bytes:
    """The samples of a WAV file: 24 kHz, 16 bit, mono."""
    with wave.open(str(Path(file)), "rb") as wav:
        return wav.readframes(wav.getnframes())


async def main(url: str, question: str, interruption: str) -> None:
    """Converse, and tell."""
    async with aiohttp.ClientSession() as http:
        print(json.dumps(await converse(url, read(question), read(interruption), http)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
