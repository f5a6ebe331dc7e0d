"""A telephone agent as pipecat builds it: a spoken question, a function, an interruption.

    python pipecat_client.py ws://HOST:PORT/v1/realtime QUESTION.wav INTERRUPTION.wav

Run by pipecat's own Python (`make install-dev` puts it under build/). It asks
once the greeting was heard, and interrupts the answer that follows the
function's result. What it experienced comes out as one JSON object.
"""

import asyncio
import json
import sys
import wave
from pathlib import Path
from typing import Any

from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime.events import (
    AudioConfiguration,
    AudioInput,
    InputAudioTranscription,
    SessionProperties,
)
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService

RATE_HZ = 24000
CHUNK_MS = 20
CHUNK_BYTES = RATE_HZ * 2 * CHUNK_MS // 1000
FORECAST = (
    "It will rain all day, and the wind will blow from the west, and then it will clear. " * 3
)


class Ear(FrameProcessor):
    """Stands where the loudspeaker would, and notes what arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.said: list[str] = []
        self.called: list[dict[str, Any]] = []
        self.audio_ms = 0
        self.audio_after_call_ms = 0
        self.interruptions = 0
        self.changed = asyncio.Event()
        self.answers = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            duration_ms = len(frame.audio) * 1000 // (RATE_HZ * 2)
            self.audio_ms += duration_ms
            self.audio_after_call_ms += duration_ms if self.called else 0
        elif isinstance(frame, TTSTextFrame):
            self.said.append(frame.text)
        elif isinstance(frame, InterruptionFrame):
            self.interruptions += 1
        elif isinstance(frame, LLMFullResponseEndFrame):
            self.answers += 1
        self.changed.set()
        await self.push_frame(frame, direction)

    async def until(self, what: str) -> None:
        """Wait until this attribute says yes."""
        async with asyncio.timeout(30):
            while not getattr(self, what):
                self.changed.clear()
                await self.changed.wait()


class Mouth(FrameProcessor):
    """Stands in front of the model, where what it hears passes upstream."""

    def __init__(self, ear: Ear) -> None:
        super().__init__()
        self.ear = ear

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            self.ear.heard.append(frame.text)
            self.ear.changed.set()
        await self.push_frame(frame, direction)


async def converse(url: str, question: bytes, interruption: bytes) -> dict[str, Any]:
    """Hold the conversation; returns what was experienced."""
    ear = Ear()

    async def weather(params: FunctionCallParams) -> None:
        ear.called.append(dict(params.arguments))
        await params.result_callback({"text": FORECAST})

    place = {"place": {"type": "string"}}
    tools = ToolsSchema([FunctionSchema("weather", "Tells the weather.", place, ["place"])])
    transcription = AudioConfiguration(input=AudioInput(transcription=InputAudioTranscription()))
    llm = OpenAIRealtimeLLMService(
        api_key="sk-test",
        base_url=url,
        settings=OpenAIRealtimeLLMService.Settings(
            system_instruction="You answer the phone.",
            session_properties=SessionProperties(audio=transcription),
        ),
    )
    llm.register_function("weather", weather)
    context = LLMContext(tools=tools)
    pair = LLMContextAggregatorPair(context)
    pipeline = Pipeline([pair.user(), Mouth(ear), llm, ear, pair.assistant()])
    params = PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ)
    task = PipelineTask(pipeline, params=params)
    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    saying = bytearray()

    async def microphone() -> None:
        while True:
            chunk = bytes(saying[:CHUNK_BYTES]).ljust(CHUNK_BYTES, b"\0")
            del saying[:CHUNK_BYTES]
            frame = InputAudioRawFrame(audio=chunk, sample_rate=RATE_HZ, num_channels=1)
            await task.queue_frame(frame)
            await asyncio.sleep(CHUNK_MS / 1000)

    listening = asyncio.create_task(microphone())
    await task.queue_frame(LLMContextFrame(context))
    await ear.until("answers")
    saying += question
    await ear.until("called")
    await ear.until("audio_after_call_ms")
    before = ear.interruptions
    saying += interruption
    async with asyncio.timeout(30):
        while ear.interruptions == before or len(ear.heard) < 2:
            ear.changed.clear()
            await ear.changed.wait()
    listening.cancel()
    await task.cancel()
    await asyncio.wait_for(running, 10)
    return {
        "heard": ear.heard,
        "said": " ".join(ear.said),
        "called": ear.called,
        "audio_ms": ear.audio_ms,
        "interrupted": ear.interruptions > before,
    }


def read(file: str) -> bytes:
    """The samples of a WAV file: 24 kHz, 16 bit, mono."""
    with wave.open(str(Path(file)), "rb") as wav:
        return wav.readframes(wav.getnframes())


async def main(url: str, question: str, interruption: str) -> None:
    """Converse, and tell."""
    print(json.dumps(await converse(url, read(question), read(interruption))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
