"""A RealtimeAgent of `openai-agents` talks to the embedded server and runs its function tool."""

import asyncio
import importlib
import json
from typing import Any


async def test_function_tool(url: str) -> None:
    """A written question makes the agent's own function run, and its result is spoken."""
    agents: Any = importlib.import_module("agents")
    realtime: Any = importlib.import_module("agents.realtime")
    asked: list[str] = []

    @agents.function_tool  # type: ignore[untyped-decorator]
    def weather(place: str) -> str:
        """Tells the weather.

        Args:
            place: A town.
        """
        asked.append(place)
        return json.dumps({"error": "The weather is not known today."})

    agent = realtime.RealtimeAgent(
        name="receptionist", instructions="You answer the phone.", tools=[weather]
    )
    runner = realtime.RealtimeRunner(
        agent, config={"model_settings": {"model_name": "gpt-realtime-2.1"}}
    )
    socket_url = url.replace("http://", "ws://") + "/realtime?model=gpt-realtime-2.1"
    kinds: list[str] = []
    heard_bytes = 0
    async with await runner.run(model_config={"api_key": "sk-test", "url": socket_url}) as session:
        await session.send_message("What is the weather in Oslo?")
        async with asyncio.timeout(20):
            async for event in session:
                kinds.append(event.type)
                assert event.type != "error", event
                if event.type == "audio" and "tool_end" in kinds:
                    heard_bytes += len(event.audio.data)
                if event.type == "audio_end" and heard_bytes:
                    break
    assert asked == ["Oslo"]
    assert heard_bytes > 24000
