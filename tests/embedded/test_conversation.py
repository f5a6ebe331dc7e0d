"""Spoken conversations with the embedded server, over real ICE, DTLS, RTP and SCTP."""

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
        print("latency ms", (caller.arrived_s[-1] - caller.said_s) * 1000)
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
