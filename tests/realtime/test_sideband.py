"""Into a call by its second door: large sessions, and tools where the sound is elsewhere."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from agent.call.events import CallEvent, ToolCallRequested
from agent.call.ports import AgentProfile, AgentUnavailable, CallOffer, ToolSchema
from agent.embedded.engines import Engines
from agent.realtime.connector import RealtimeConnector
from agent.realtime.protocol import RealtimeProtocol
from agent.realtime.settings import RealtimeSettings
from agent.realtime.sideband import open_sideband, socket_url
from tests.embedded.scripted import KEY, QUIET, scripted

OFFER = CallOffer("call_1", "sip_1", "trunk", "100", "200", 0.0)
PROFILE = AgentProfile("receptionist", "You answer the phone.", "Hello.", "marin")
WEATHER = ToolSchema(
    "weather",
    "Tells the weather.",
    {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
)


def settings_for(url: str, key: str = KEY, timeout_s: float = 5) -> RealtimeSettings:
    return RealtimeSettings(base_url=url, api_key=SecretStr(key), connect_timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        pytest.param("https://host/v1", "wss://host/v1/realtime", id="TLS"),
        pytest.param("http://127.0.0.1:8/v1/", "ws://127.0.0.1:8/v1/realtime", id="plain"),
    ],
)
def test_address(base_url: str, expected: str) -> None:
    """The WebSocket lies below the base URL, as safe as that is."""
    assert socket_url(base_url) == expected


async def test_a_session_larger_than_the_channel_takes(engines: Engines) -> None:
    """300 KB of instructions reach the far end all the same, and the call can be used."""
    profile = AgentProfile("talker", "x" * 300_000, "Hello.", "marin", (WEATHER,))
    async with scripted(engines, QUIET) as far, httpx.AsyncClient() as client:
        async with RealtimeConnector(settings_for(far.url), client).open(profile, OFFER) as leg:
            leg.note("still there")
            note = await far.received("conversation.item.create")
        update = await far.received("session.update")
    assert update["session"]["instructions"] == profile.instructions
    assert note["item"]["content"][0]["text"] == "still there"


async def test_a_refused_large_session_names_the_field(engines: Engines) -> None:
    """What is wrong is told the same way, whichever door it was sent through."""
    profile = AgentProfile("talker", "x" * 300_000, "Hello.", "marin")
    script = {"faults": [{"at": "session.update", "do": "refuse", "error": {"message": "No."}}]}
    async with scripted(engines, script) as far, httpx.AsyncClient() as client:
        with pytest.raises(AgentUnavailable, match=r"the session was refused: No\."):
            async with RealtimeConnector(settings_for(far.url), client).open(profile, OFFER):
                pass


async def test_tools_of_a_call_whose_sound_is_elsewhere(engines: Engines) -> None:
    """Instructions and tools come from here, the tool runs here, the voice is there."""
    call = {"call": "weather", "arguments": {"place": "Oslo"}}
    script = {"turns": [{"answer": [call, {"say": "It is {output}."}]}]}
    asked: dict[str, Any] = {"type": "message", "role": "user"}
    asked |= {"content": [{"type": "input_text", "text": "How is the weather in Oslo?"}]}
    got: asyncio.Queue[CallEvent] = asyncio.Queue()
    protocol = RealtimeProtocol()

    def take(text: str) -> None:
        for event in protocol.receive(text):
            got.put_nowait(event)

    async with scripted(engines, script) as far, httpx.AsyncClient() as client:
        settings = settings_for(far.url)
        async with (
            RealtimeConnector(settings, client).open(PROFILE, OFFER) as elsewhere,
            open_sideband(settings, elsewhere.realtime_call_id, take) as sideband,
        ):
            profile = AgentProfile("second", "You know the weather.", "", "marin", (WEATHER,))
            protocol.configure(profile, settings)
            await _send(sideband.send, protocol)
            await sideband.send(json.dumps({"type": "conversation.item.create", "item": asked}))
            protocol.answer()
            await _send(sideband.send, protocol)
            async with asyncio.timeout(5):
                while not isinstance(request := await got.get(), ToolCallRequested):
                    pass
            assert (request.name, json.loads(request.arguments)) == ("weather", {"place": "Oslo"})
            protocol.give_tool_output(request.tool_call_id, "sunny")
            await _send(sideband.send, protocol)
            said = await far.sent("response.output_audio_transcript.done")
            update = await far.received("session.update", 2)
    assert said["transcript"] == "It is sunny."
    assert update["session"]["instructions"] == "You know the weather."


async def _send(send: Any, protocol: RealtimeProtocol) -> None:
    for text in protocol.take_outgoing():
        await send(text)


async def test_a_sideband_ends_with_its_call(engines: Engines) -> None:
    """Who watches a call learns when it is over, and can say nothing more."""
    async with scripted(engines, QUIET) as far, httpx.AsyncClient() as client:
        settings = settings_for(far.url)
        async with RealtimeConnector(settings, client).open(PROFILE, OFFER) as leg:
            call_id = leg.realtime_call_id
            async with asyncio.timeout(5), open_sideband(settings, call_id, print) as sideband:
                await client.post(
                    f"{far.url}/realtime/calls/{call_id}/hangup",
                    headers={"Authorization": f"Bearer {KEY}"},
                )
                await sideband.closed()
                with pytest.raises(AgentUnavailable, match="closed"):
                    await sideband.send("{}")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        pytest.param(KEY, "it knows no such call", id="unknown call"),
        pytest.param("sk-wrong", "status 401", id="wrong key"),
    ],
)
async def test_refused(engines: Engines, key: str, said: str) -> None:
    """A door that stays shut says why, in time."""
    async with scripted(engines, QUIET) as far:
        with pytest.raises(AgentUnavailable, match=said):
            async with open_sideband(settings_for(far.url, key, 0.5), "rtc_none", print):
                pass


async def test_unreachable() -> None:
    """Nobody there is a reason, not a traceback."""
    with pytest.raises(AgentUnavailable, match="unreachable"):
        async with open_sideband(settings_for("http://127.0.0.1:9/v1"), "rtc_1", print):
            pass
