"""Spoken conversations with the embedded server, over real ICE, DTLS, RTP and SCTP."""

import asyncio
import json
from typing import Any

import numpy as np

from agent.embedded.engines import Engines
from agent.embedded.voice import Voice
from tests.embedded.caller import open_call

TOOLS = [
    {
        "type": "function",
        "name": "weather",
        "description": "The weather somewhere.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
        },
    },
    {
        "type": "function",
        "name": "hang_up",
        "description": "End the call.",
        "parameters": {"type": "object", "properties": {}},
    },
]
SESSION: dict[str, Any] = {
    "type": "realtime",
    "instructions": "You answer the phone for a bakery. Be brief.",
    "tools": TOOLS,
    "audio": {"input": {"transcription": {"model": "gpt-transcribe"}}},
}
GREETING = "Hello, this is the bakery. How can I help?"


async def test_dialogue(url: str, voice: Voice, engines: Engines) -> None:
    """A caller is greeted, asks the time and the weather, says goodbye, and is understood."""
    async with open_call(url, {"type": "realtime", "model": "gpt-realtime-2.1"}) as caller:
        caller.send(type="session.update", session=SESSION)
        await caller.wait("session.updated")
        caller.send(
            type="response.create",
            response={"instructions": f'Say exactly these words: "{GREETING}"'},
        )
        await caller.wait("output_audio_buffer.stopped")
        assert caller.transcripts() == [GREETING]
        greeting = await engines.transcribe(bytes(caller.heard))
        assert "bakery" in greeting.lower()

        caller.say(voice.synthesise("What are your opening hours on Saturday?"))
        await caller.wait("output_audio_buffer.started", 2)
        await caller.wait("output_audio_buffer.stopped", 2)
        assert "Saturday" in caller.transcripts()[1]

        caller.say(voice.synthesise("What is the weather like in Berlin?"))
        called = await caller.wait("response.function_call_arguments.done")
        assert (called["name"], json.loads(called["arguments"])) == ("weather", {"place": "Berlin"})
        await caller.wait("response.done", 3)
        output = {"place": "Berlin", "temperature_c": 7.2, "conditions": "light rain"}
        caller.send(
            type="conversation.item.create",
            item={
                "type": "function_call_output",
                "call_id": called["call_id"],
                "output": json.dumps(output),
            },
        )
        caller.send(type="response.create")
        await caller.wait("output_audio_buffer.stopped", 4)
        assert caller.transcripts()[-1] == "In Berlin it is 7 degrees with light rain."

        caller.say(voice.synthesise("Goodbye, thanks a lot."))
        done = await caller.wait("response.done", 5)
        kinds = [item["type"] for item in done["response"]["output"]]
        assert kinds == ["message", "function_call"]
        await caller.wait("output_audio_buffer.stopped", 5)
        heard = [
            event["transcript"].lower()
            for event in caller.events
            if event["type"] == "conversation.item.input_audio_transcription.completed"
        ]
        assert ["saturday" in heard[0], "berlin" in heard[1], "bye" in heard[2]] == [True] * 3
        spoken = np.frombuffer(caller.heard, "<i2").astype(float) / 32768
        loud = spoken[np.abs(spoken) > 0.01]
        assert -24 < 20 * np.log10(np.sqrt((loud**2).mean())) < -12


async def test_barge_in(url: str, voice: Voice) -> None:
    """Spoken over, the agent stops at once and remembers only what was really sent."""
    async with open_call(url, {**SESSION, "tools": []}) as caller:
        long = "We bake bread. " * 12
        caller.send(type="response.create", response={"instructions": f'Say "{long.strip()}"'})
        await caller.wait("output_audio_buffer.started")
        caller.say(voice.synthesise("Stop, where are you located please?"))
        cut = await caller.wait("conversation.item.truncated")
        heard_ms = len(caller.heard) // 16
        kinds = caller.kinds()
        started, cleared = (
            kinds.index("output_audio_buffer.started"),
            kinds.index("output_audio_buffer.cleared"),
        )
        assert kinds.index("input_audio_buffer.speech_started") < cleared
        assert "output_audio_buffer.stopped" not in kinds
        sent_ms = (caller.arrived_s[cleared] - caller.arrived_s[started]) * 1000
        assert abs(cut["audio_end_ms"] - sent_ms) < 120
        assert cut["audio_end_ms"] < heard_ms + 120
        await caller.wait("output_audio_buffer.stopped")
        assert "Mill Lane" in caller.transcripts()[-1]


async def test_false_start(url: str) -> None:
    """A click on the line while the agent speaks changes nothing."""
    async with open_call(url, SESSION) as caller:
        caller.send(type="response.create", response={"instructions": f'Say "{GREETING}"'})
        await caller.wait("output_audio_buffer.started")
        click = np.random.default_rng(1).normal(0, 9000, 8000 * 60 // 1000)
        caller.say(click.clip(-32000, 32000).astype("<i2").tobytes())
        await caller.wait("output_audio_buffer.stopped")
        assert "input_audio_buffer.speech_started" not in caller.kinds()
        assert "output_audio_buffer.cleared" not in caller.kinds()


async def test_downlink_never_pauses(url: str) -> None:
    """RTP flows at 50 packets a second although nobody speaks."""
    async with open_call(url) as caller:
        began, packets = asyncio.get_running_loop().time(), caller.packets
        async with asyncio.timeout(5):
            while caller.packets < packets + 50:
                await asyncio.sleep(0.01)
        assert 0.8 < asyncio.get_running_loop().time() - began < 1.4
        assert np.abs(np.frombuffer(caller.heard, "<i2")).max() < 8


async def test_response_order(url: str) -> None:
    """A spoken response comes in the service's order, and says what it used."""
    async with open_call(url, SESSION) as caller:
        caller.send(type="response.create", response={"instructions": f'Say "{GREETING}"'})
        await caller.wait("output_audio_buffer.stopped")
        kinds = [kind for kind in caller.kinds() if not kind.endswith(".delta")]
        assert kinds == [
            "session.created",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "output_audio_buffer.started",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
            "output_audio_buffer.stopped",
        ]
        deltas = [e["delta"] for e in caller.events if e["type"].endswith("transcript.delta")]
        assert len(deltas) > 2
        assert "".join(deltas) == GREETING
        usage = (await caller.wait("response.done"))["response"]["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert usage["output_token_details"]["audio_tokens"] > 30


async def test_manual_turn(url: str, voice: Voice) -> None:
    """With turn detection off, the client commits and asks, and is answered."""
    session = {**SESSION, "audio": {"input": {"turn_detection": None}}}
    async with open_call(url, session) as caller:
        caller.send(type="input_audio_buffer.clear")
        await caller.wait("input_audio_buffer.cleared")
        pcm = voice.synthesise("How much is an apple pie?")
        caller.say(pcm)
        await asyncio.sleep(len(pcm) / 16000 + 0.2)
        caller.send(type="input_audio_buffer.commit")
        caller.send(type="response.create")
        done = await caller.wait("response.done")
        caller.send(type="conversation.item.retrieve", item_id=caller.events[2]["item_id"])
        content = (await caller.wait("conversation.item.retrieved"))["item"]["content"]
        assert "apple pie" in content[0]["transcript"].lower()
        assert "sixteen dollars" in done["response"]["output"][0]["content"][0]["transcript"]
        assert "input_audio_buffer.speech_started" not in caller.kinds()


async def test_text_turn(url: str) -> None:
    """A client that writes and wants text gets text and no audio."""
    async with open_call(url, SESSION) as caller:
        content = [{"type": "input_text", "text": "Where are you?"}]
        item = {"type": "message", "role": "user", "content": content}
        caller.send(type="conversation.item.create", item=item)
        caller.send(type="response.create", response={"output_modalities": ["text"]})
        done = await caller.wait("response.done")
        assert "Mill Lane" in done["response"]["output"][0]["content"][0]["text"]
        assert "output_audio_buffer.started" not in caller.kinds()


async def test_cancel_and_clear(url: str) -> None:
    """What a client cancels ends as cancelled, and what it clears is heard no more."""
    async with open_call(url, SESSION) as caller:
        text = "We bake our bread each morning, and we like it very much. " * 8
        caller.send(type="response.create", response={"instructions": f'Say "{text.strip()}"'})
        await caller.wait("response.created")
        caller.send(type="response.cancel")
        done = await caller.wait("response.done")
        assert done["response"]["status"] == "cancelled"
        assert done["response"]["status_details"]["reason"] == "client_cancelled"
        caller.send(type="output_audio_buffer.clear")
        caller.send(type="response.create", response={"instructions": 'Say "Short."'})
        await caller.wait("response.done", 2)
        await caller.wait("output_audio_buffer.stopped")
        assert caller.transcripts()[-1] == "Short."
