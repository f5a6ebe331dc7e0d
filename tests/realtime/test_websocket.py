"""A whole Realtime session over a real WebSocket: voices inside events."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from agent.audio.frame import SILENCE
from agent.call.events import (
    AgentGone,
    AgentInterrupted,
    AgentSpeaking,
    AgentSpoke,
    AgentText,
    CallerSpeechStarted,
    CallerSpeechStopped,
    ResponseEnded,
    ToolCallRequested,
    TurnTruncated,
)
from agent.call.ports import AgentProfile, AgentUnavailable, CallOffer
from agent.embedded.engines import Engines
from agent.embedded.voice import Voice
from agent.realtime import websocket
from agent.realtime.connector import RealtimeConnector
from agent.realtime.leg import RealtimeLeg
from agent.realtime.settings import RealtimeSettings
from tests.embedded.scripted import KEY, QUIET, FarEnd, scripted
from tests.realtime.test_leg import Ear, events_until, frames, loudness, next_event, nothing_left

PROFILE = AgentProfile("receptionist", "You answer the phone.", "Hello.", "marin")


def line(codec: str) -> CallOffer:
    return CallOffer("call_1", "sip_1", "trunk", "100", "200", 0.0, line_codec=codec)


def settings_of(url: str, **more: Any) -> RealtimeSettings:
    return RealtimeSettings(
        base_url=url,
        transport="websocket",
        **{"connect_timeout_s": 3.0, "api_key": SecretStr(KEY), **more},
    )


@asynccontextmanager
async def connected(
    engines: Engines, script: dict[str, Any] | None = None, codec: str = "PCMU", **more: Any
) -> AsyncIterator[tuple[RealtimeLeg, FarEnd]]:
    async with (
        nothing_left(),
        scripted(engines, QUIET | (script or {})) as far,
        httpx.AsyncClient() as client,
        RealtimeConnector(settings_of(far.url, **more), client).open(PROFILE, line(codec)) as leg,
    ):
        yield leg, far


def says(text: str, tone_ms: int, tone_hz: int = 440) -> dict[str, Any]:
    return {"answer": [{"say": text, "tone_hz": tone_hz, "tone_ms": tone_ms}]}


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_hear_and_speak(engines: Engines, codec: str) -> None:
    """The voice arrives at once and whole, in real time, with the facts of its beginning and end."""
    async with connected(engines, {"turns": [says("Hello", 600)]}, codec) as (leg, far):
        session = (await far.received("session.update"))["session"]
        kind = {"type": f"audio/{codec.lower()}"}
        assert session["audio"]["input"]["format"] == session["audio"]["output"]["format"] == kind
        leg.greet("Hello.")
        ear = Ear(leg)
        assert isinstance(await next_event(leg, AgentSpeaking), AgentSpeaking)
        await ear.listen(40)
        assert 29 <= len(ear.voiced) <= 31
        start = next(i for i, frame in enumerate(ear.heard) if loudness(frame) > 500)
        assert all(loudness(frame) > 3000 for frame in ear.heard[start + 1 : start + 29])
        seen = await events_until(leg, AgentSpoke)
        assert "Hello" in [event.text for event in seen if isinstance(event, AgentText)]
        assert leg.buffered_ms() == 0
        assert leg.realtime_call_id.startswith("sess_")
        assert leg.quality()["underruns"] == 0


async def test_the_end_is_told_when_it_is_heard(engines: Engines) -> None:
    """Three seconds arrive at once; that they were spoken is known three seconds later."""
    async with connected(engines, {"turns": [says("Hello", 1000)]}) as (leg, far):
        leg.greet("Hello.")
        await far.sent("response.done")
        await next_event(leg, ResponseEnded)
        assert leg.buffered_ms() == 1000
        for _ in range(49):
            leg.read_frame()
        assert leg.buffered_ms() == 20
        told = asyncio.ensure_future(next_event(leg, AgentSpoke))
        await asyncio.sleep(0.05)
        assert not told.done()
        leg.read_frame()
        assert isinstance(await told, AgentSpoke)


async def test_the_caller_is_heard(engines: Engines) -> None:
    """The caller's frames reach the far end's ears as speech that begins and ends."""
    async with connected(engines) as (leg, _):
        spoken = Voice().synthesise("What is the weather in Oslo?")
        ear = Ear(leg, frames(spoken))
        await ear.listen(len(spoken) // 320 + 60)
        seen = await events_until(leg, CallerSpeechStopped)
        assert any(isinstance(event, CallerSpeechStarted) for event in seen)
        assert leg.quality()["frames_unsent"] == 0


@pytest.mark.parametrize("by_us", [True, False], ids=["interrupt", "flush"])
async def test_what_was_not_heard_is_taken_back(engines: Engines, by_us: bool) -> None:
    """Cut in mid-sentence: silence at once, and the far end knows to the sample what was heard."""
    turns = [says("One two three four five six.", 2000), says("Next.", 100)]
    async with connected(engines, {"turns": turns}) as (leg, far):
        leg.greet("Hello.")
        await next_event(leg, ResponseEnded)
        for _ in range(37):
            assert loudness(leg.read_frame()) > 100
        assert (leg.interrupt() if by_us else leg.flush()) == 2000 - 740
        assert leg.read_frame() == SILENCE
        assert leg.buffered_ms() == 0
        seen = await events_until(leg, TurnTruncated)
        assert isinstance(seen[-1], TurnTruncated)
        assert seen[-1].audio_end_ms == 740
        assert any(isinstance(event, AgentInterrupted) for event in seen)
        assert (await far.received("conversation.item.truncate"))["audio_end_ms"] == 740
        leg.answer()
        ear = Ear(leg)
        await ear.listen_until(lambda: len(ear.voiced) >= 4)


async def test_what_arrives_after_the_cut_is_not_heard(engines: Engines) -> None:
    """A response that is still being made is cut with all that is on its way."""
    answer = [{"say": "One.", "tone_hz": 440, "tone_ms": 300}]
    late = [{"say": "Two.", "tone_hz": 880, "tone_ms": 300, "after_s": 0.4}]
    script = {"turns": [{"answer": [*answer, *late]}, says("Next.", 200, 600)]}
    async with connected(engines, script) as (leg, far):
        leg.greet("Hello.")
        await next_event(leg, AgentSpeaking)
        ear = Ear(leg)
        await ear.listen(5)
        leg.interrupt()
        ear.heard.clear()
        await ear.listen(40)
        assert ear.voiced == []
        await far.received("response.cancel")
        leg.answer()
        await ear.listen_until(lambda: len(ear.voiced) >= 9)


async def test_a_held_voice_goes_on_where_it_stopped(engines: Engines) -> None:
    """Waiting costs no word, and nothing is said to be spoken meanwhile."""
    async with connected(engines, {"turns": [says("Hello", 400)]}) as (leg, _):
        leg.greet("Hello.")
        await next_event(leg, ResponseEnded)
        for _ in range(10):
            leg.read_frame()
        leg.hold(True)
        assert {leg.read_frame() for _ in range(50)} == {SILENCE}
        assert leg.buffered_ms() == 200
        leg.hold(False)
        assert sum(loudness(leg.read_frame()) > 500 for _ in range(12)) == 10
        assert isinstance(await next_event(leg, AgentSpoke), AgentSpoke)


async def test_tools(engines: Engines) -> None:
    """A tool is asked for, answered, and spoken of."""
    told = {"say": "They say {output}.", "tone_hz": 440, "tone_ms": 40}
    async with connected(engines, {"turns": [{"answer": [{"call": "weather"}, told]}]}) as (leg, _):
        leg.greet("Hello.")
        called = await next_event(leg, ToolCallRequested)
        assert isinstance(called, ToolCallRequested)
        await next_event(leg, ResponseEnded)
        leg.give_tool_output(called.tool_call_id, "sunny")
        said = await next_event(leg, AgentText)
        assert isinstance(said, AgentText)
        assert said.text == "They say sunny."


ENDS = [
    pytest.param("drop", "was closed", id="closed"),
    pytest.param("expire", "expired", id="session expired"),
]


@pytest.mark.parametrize(("fault", "reason"), ENDS)
async def test_a_session_that_ends(engines: Engines, fault: str, reason: str) -> None:
    """The call is told why, once, and may go on writing and reading until it has hung up."""
    script = {"faults": [{"at": "response.created", "do": fault}]}
    async with connected(engines, script) as (leg, _):
        leg.greet("Hello.")
        gone = await next_event(leg, AgentGone)
        assert isinstance(gone, AgentGone)
        assert reason in gone.reason
        leg.write_frame(SILENCE)
        assert leg.read_frame() == SILENCE


GARBAGE = [
    pytest.param({"text": "no JSON"}, id="no JSON"),
    pytest.param({"hex": "fffe00"}, id="not UTF-8"),
    pytest.param({"event": {"type": "response.output_audio.delta"}}, id="a delta of nothing"),
    pytest.param(
        {
            "event": {
                "type": "response.output_audio.delta",
                "response_id": "r",
                "item_id": "i",
                "content_index": 0,
                "delta": "!!!",
            }
        },
        id="no base64",
    ),
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_is_counted(engines: Engines, garbage: dict[str, Any]) -> None:
    """What is no event, or no audio, is passed over; the session goes on."""
    script = {
        "turns": [says("Hello", 100)],
        "faults": [{"at": "response.created", "do": "send", **garbage}],
    }
    async with connected(engines, script) as (leg, _):
        leg.greet("Hello.")
        ear = Ear(leg)
        await ear.listen_until(lambda: len(ear.voiced) >= 4)
        assert leg.quality()["messages_refused"] == 1


async def test_a_wrong_key_is_refused_in_words(engines: Engines) -> None:
    """The reason is as plain as over WebRTC."""
    async with (
        nothing_left(),
        scripted(engines, QUIET) as far,
        httpx.AsyncClient() as client,
    ):
        settings = settings_of(far.url, api_key=SecretStr("sk-wrong"))
        with pytest.raises(AgentUnavailable, match="the API key was refused"):
            async with RealtimeConnector(settings, client).open(PROFILE, line("PCMU")):
                pass


@asynccontextmanager
async def doorkeeper(*statuses: int) -> AsyncIterator[tuple[str, list[float]]]:
    """A far end that answers handshakes so, one after the other, and then lets everybody in."""
    came_s: list[float] = []

    def look(connection: ServerConnection, request: Request) -> Response | None:
        came_s.append(asyncio.get_running_loop().time())
        if len(came_s) > len(statuses):
            return None
        return connection.respond(statuses[len(came_s) - 1], '{"error": {"message": "No."}}')

    async def talk(connection: ServerConnection) -> None:
        async for _ in connection:
            await connection.send('{"type": "session.updated", "session": {"id": "sess_1"}}')
            await connection.close(1011, "worn out")

    async with serve(talk, "127.0.0.1", 0, process_request=look) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1", came_s


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_passing_failure_is_tried_again(status: int) -> None:
    """A far end that is busy or fails once costs a quarter of a second, not the call."""
    async with doorkeeper(status) as (url, came_s), httpx.AsyncClient() as client, nothing_left():
        async with RealtimeConnector(settings_of(url), client).open(PROFILE, line("")) as leg:
            gone = await next_event(leg, AgentGone)
        assert gone == AgentGone("the connection to the Realtime API was closed (1011: worn out)")
        assert len(came_s) == 2


@pytest.mark.parametrize(
    ("statuses", "reason", "attempts"),
    [
        pytest.param((401,), "the API key was refused", 1, id="wrong key"),
        pytest.param((403,), "may not use this model", 1, id="not allowed"),
        pytest.param((404,), "does not know this address or model", 1, id="unknown model"),
        pytest.param((503, 503), "failed with status 503: No.", 2, id="down"),
    ],
)
async def test_no_session(statuses: tuple[int, ...], reason: str, attempts: int) -> None:
    """What will not pass is not tried again, and what did not pass is not tried for ever."""
    async with doorkeeper(*statuses) as (url, came_s), httpx.AsyncClient() as client:
        with pytest.raises(AgentUnavailable, match=reason):
            async with (
                nothing_left(),
                RealtimeConnector(settings_of(url), client).open(PROFILE, line("")),
            ):
                pass
        assert len(came_s) == attempts


async def test_nobody_listens() -> None:
    """A port where no server is: a reason, and the second attempt."""
    async with nothing_left(), httpx.AsyncClient() as client:
        settings = settings_of("http://127.0.0.1:1/v1")
        with pytest.raises(AgentUnavailable, match="unreachable"):
            async with RealtimeConnector(settings, client).open(PROFILE, line("")):
                pass


async def test_a_far_end_that_never_answers() -> None:
    """A port that takes connections and says nothing: a reason, in time, and nothing left."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        async with nothing_left(), httpx.AsyncClient() as client:
            settings = settings_of(url, connect_timeout_s=0.3)
            with pytest.raises(AgentUnavailable, match=r"did not answer within 0\.3 s"):
                async with RealtimeConnector(settings, client).open(PROFILE, line("")):
                    pass


async def test_a_far_end_that_vanishes(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pulled cable is noticed by the pings that nobody answers."""
    monkeypatch.setattr(websocket, "_PING_EVERY_S", 0.2)
    monkeypatch.setattr(websocket, "_PING_TIMEOUT_S", 0.3)
    cut = asyncio.Event()
    async with (
        nothing_left(),
        scripted(engines, QUIET) as far,
        cable(far.url, cut) as url,
        httpx.AsyncClient() as client,
        RealtimeConnector(settings_of(url), client).open(PROFILE, line("PCMU")) as leg,
    ):
        cut.set()
        gone = await next_event(leg, AgentGone)
        assert gone == AgentGone("the connection to the Realtime API was lost")


@asynccontextmanager
async def cable(url: str, cut: asyncio.Event) -> AsyncIterator[str]:
    """A TCP connection to the far end, which carries nothing any more once it is cut."""
    host, _, port = url.removeprefix("http://").removesuffix("/v1").rpartition(":")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not cut.is_set():
                writer.write(data)
        writer.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    server = await asyncio.start_server(join, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_a_secret_opens_the_session(engines: Engines) -> None:
    """With `auth = "ephemeral"` the connection is made without the project's key."""
    async with connected(engines, {"turns": [says("Hello", 100)]}, auth="ephemeral") as (leg, _):
        leg.greet("Hello.")
        assert isinstance(await next_event(leg, AgentSpeaking), AgentSpeaking)
