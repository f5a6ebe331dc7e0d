"""A whole Realtime session over loopback: real HTTP, ICE, DTLS, SCTP and Opus."""

import asyncio
import gc
import os
import re
import struct
import threading
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aioice import ice
from aiortc import RTCPeerConnection
from pydantic import SecretStr

from agent.audio.frame import SILENCE, Frame
from agent.call.events import (
    AgentGone,
    AgentInterrupted,
    AgentSpeaking,
    AgentSpoke,
    AgentText,
    CallerSpeechStarted,
    CallEvent,
    ResponseEnded,
)
from agent.call.ports import AgentLeg, AgentProfile, AgentUnavailable, CallOffer
from agent.realtime.leg import RealtimeConnector, RealtimeLeg
from agent.realtime.settings import RealtimeSettings
from tests.fakes.realtime_api import KEY, FakeRealtimeApi, FakeSession, Manners, open_fake, tone

PROFILE = AgentProfile("receptionist", "You answer the phone.", "Hello.", "marin")
OFFER = CallOffer("call_1", "sip_1", "trunk", "100", "200", 0.0)
FRAME_S = 0.02


def sockets() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            count += str(Path(f"/proc/self/fd/{name}").readlink()).startswith("socket:")
        except FileNotFoundError:
            continue
    return count


def open_peers() -> int:
    gc.collect()
    return sum(
        isinstance(thing, RTCPeerConnection) and thing.connectionState != "closed"
        for thing in gc.get_objects()
    )


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Assert that tasks, sockets, threads and peers are what they were before."""

    def cheap() -> tuple[int, int, int]:
        return len(asyncio.all_tasks()), sockets(), threading.active_count()

    before = cheap()
    yield
    async with asyncio.timeout(3):
        # An earlier test's thread may end only now: less than before is as good as equal.
        while any(now > then for now, then in zip(cheap(), before, strict=True)):
            await asyncio.sleep(0.02)
    assert open_peers() == 0


@asynccontextmanager
async def connected(
    manners: Manners | None = None, *, fast: bool = True, timeout_s: float = 3.0
) -> AsyncIterator[tuple[RealtimeLeg, FakeSession, FakeRealtimeApi]]:
    """One open session against the fake, and the fake's side of it."""
    async with (
        nothing_left(),
        open_fake(manners) as api,
        httpx.AsyncClient() as client,
        connector(api.url, client, fast=fast, timeout_s=timeout_s).open(PROFILE, OFFER) as leg,
    ):
        yield leg, await api.session(), api


def connector(
    url: str, client: httpx.AsyncClient, *, fast: bool = True, timeout_s: float = 3.0
) -> RealtimeConnector:
    settings = RealtimeSettings(base_url=url, api_key=SecretStr(KEY), connect_timeout_s=timeout_s)
    return RealtimeConnector(settings, client, fast=fast)


class Ear:
    """The phone's clock for one leg: reads (and writes) a frame every 20 ms."""

    def __init__(self, leg: AgentLeg, mouth: Frame = SILENCE) -> None:
        self.heard: list[Frame] = []
        self._leg = leg
        self._mouth = mouth

    async def listen(self, frames: int) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        for _ in range(frames):
            self._leg.write_frame(self._mouth)
            self.heard.append(self._leg.read_frame())
            due_s += FRAME_S
            await asyncio.sleep(max(0.0, due_s - loop.time()))

    async def listen_until(self, done: Callable[[], bool], most_frames: int = 250) -> None:
        for _ in range(most_frames):
            if done():
                return
            await self.listen(1)
        raise TimeoutError("not heard within time")

    @property
    def voiced(self) -> list[Frame]:
        return [frame for frame in self.heard if loudness(frame) > 500]


def loudness(frame: Frame) -> int:
    return max(abs(v) for v in array("h", frame))


async def next_event(leg: AgentLeg, kind: type[CallEvent]) -> CallEvent:
    async with asyncio.timeout(3):
        async for event in leg.events():
            if isinstance(event, kind):
                return event
    raise AssertionError("the events ended")


@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "semi-public path"])
async def test_hear_and_speak(fast: bool) -> None:
    """The caller's voice arrives, the agent's comes back, and the session is hung up at the end."""
    async with connected(Manners(reply=tone(300)), fast=fast) as (leg, session, api):
        assert leg.realtime_call_id == session.call_id
        assert session.model_session == {"type": "realtime", "model": "gpt-realtime-2.1"}
        assert session.received[0]["type"] == "session.update"
        leg.greet("Hello.")
        ear = Ear(leg, tone(20)[0])
        await ear.listen(40)
        await session.wait_heard(35)
        assert loudness(session.heard[20]) > 3000
        assert 15 <= len(ear.voiced) <= 20
        assert leg.quality()["fast_path"] is fast
        assert leg.quality()["lost"] == 0
        events = leg.events()
        seen = [await anext(events) for _ in range(8)]
        assert AgentText("item_resp_1", "resp_1", "Hello") in seen
        assert seen[-1] == AgentSpoke("resp_1")
    assert api.hung_up == [leg.realtime_call_id]


async def test_the_first_syllable_is_whole() -> None:
    """The first 100 ms of the greeting are at the ear as they were spoken."""
    # A click at once and then rising tones: a missing or repeated frame would show.
    greeting = [frame for step in range(10) for frame in tone(20, hz=200.0 + 100 * step)]
    async with connected(Manners(reply=greeting)) as (leg, _, _):
        leg.greet("Hello.")
        ear = Ear(leg)
        await ear.listen_until(lambda: len(ear.voiced) >= 9)
        start = next(i for i, frame in enumerate(ear.heard) if loudness(frame) > 500)
        original = array("h", b"".join(greeting[:5]))
        heard = array("h", b"".join(ear.heard[start : start + 6]))
        best = max(
            correlation(original, heard[delay : delay + len(original)]) for delay in range(120)
        )
        assert best > 0.8


def correlation(a: "array[int]", b: "array[int]") -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    size = (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
    return dot / size if size else 0.0


async def test_a_bad_network_is_not_heard() -> None:
    """Lost, repeated and reordered packets: the tone goes on, and the delay does not grow."""
    manners = Manners(
        lose=frozenset({20, 40}), duplicate=frozenset({25, 26}), swap=frozenset({30, 50})
    )
    async with connected(manners) as (leg, session, _):
        ear = Ear(leg)
        playing = asyncio.create_task(session.play(tone(1600)))
        await ear.listen(95)
        await playing
        quality = leg.quality()
        # A swapped packet that just missed its read is concealed, and then late.
        assert quality["lost"] in (2, 3, 4)
        assert quality["packets_replayed"] == 2
        assert quality["packets_received"] == 78
        first = next(i for i, frame in enumerate(ear.heard) if loudness(frame) > 500)
        assert all(loudness(frame) > 1500 for frame in ear.heard[first + 1 : first + 78])
        assert leg.buffered_ms() == 0


async def test_barge_in_cuts_the_tail_and_not_the_next_word() -> None:
    """After flush nothing of the interrupted response is heard, and the next one from its start."""
    async with connected() as (leg, session, _):
        ear = Ear(leg)
        speaking = asyncio.create_task(session.say(tone(2000), "resp_1"))
        await ear.listen_until(lambda: len(ear.voiced) > 5)
        session.send({"type": "input_audio_buffer.speech_started", "item_id": "u1"})
        assert await next_event(leg, CallerSpeechStarted) == CallerSpeechStarted("u1")
        leg.flush()
        ear.heard.clear()
        await ear.listen(5)
        assert ear.voiced == []
        speaking.cancel()
        session.send({"type": "output_audio_buffer.cleared", "response_id": "resp_1"})
        assert await next_event(leg, AgentInterrupted) == AgentInterrupted("resp_1")
        leg.flush()
        answering = asyncio.create_task(session.say(tone(200, hz=600), "resp_2"))
        await ear.listen(20)
        await answering
        assert len(ear.voiced) >= 10
        assert leg.buffered_ms() == 0


async def test_the_tail_of_an_interrupted_response_ends_by_itself() -> None:
    """A far end that never says it stopped is heard again after 300 ms."""
    async with connected() as (leg, session, _):
        ear = Ear(leg)
        speaking = asyncio.create_task(session.say(tone(1500), "resp_1"))
        await ear.listen_until(lambda: len(ear.voiced) > 3)
        await next_event(leg, AgentSpeaking)
        leg.flush()
        ear.heard.clear()
        await ear.listen(10)
        assert ear.voiced == []
        await ear.listen(20)
        assert len(ear.voiced) > 10
        speaking.cancel()


async def test_an_interrupted_agent_is_told_so_and_not_heard_again() -> None:
    """The call stops it: silence with the next frame, however long the far end goes on."""
    async with connected() as (leg, session, _):
        ear = Ear(leg)
        speaking = asyncio.create_task(session.say(tone(2000), "resp_1"))
        await ear.listen_until(lambda: len(ear.voiced) > 5)
        leg.interrupt()
        ear.heard.clear()
        await ear.listen(25)
        assert ear.voiced == []
        await session.wait_for("output_audio_buffer.clear")
        speaking.cancel()
        session.send({"type": "output_audio_buffer.cleared", "response_id": "resp_1"})
        assert await next_event(leg, AgentInterrupted) == AgentInterrupted("resp_1")


async def test_a_held_agent_is_silent_and_has_spoken_when_the_ear_has_it() -> None:
    """What waits is heard after the hold, and only then the agent has spoken."""
    async with connected() as (leg, session, _):
        ear = Ear(leg)
        speaking = asyncio.create_task(session.say(tone(600), "resp_1"))
        await ear.listen_until(lambda: len(ear.voiced) > 5)
        leg.hold(True)
        before = len(ear.voiced)
        await speaking
        await ear.listen(5)
        assert len(ear.voiced) == before
        leg.hold(False)
        events = leg.events()
        told = asyncio.create_task(anext(e async for e in events if isinstance(e, AgentSpoke)))
        await asyncio.sleep(0)
        assert not told.done()
        await ear.listen_until(told.done)
        assert len(ear.voiced) >= 29
        assert leg.buffered_ms() == 0


FAULTS = [
    pytest.param(Manners(key="another"), "the API key was refused", 60, id="401"),
    pytest.param(
        Manners(status=429, headers={"Retry-After": "7"}), "rate limit is reached", 7, id="429"
    ),
    pytest.param(Manners(status=500), "failed with status 500", 5, id="500"),
    pytest.param(
        Manners(status=400, error={"message": "Bad offer."}), "session: Bad offer.", 60, id="400"
    ),
    pytest.param(Manners(delay_s=9), "did not answer", 5, id="never answers"),
    pytest.param(Manners(answer=lambda _: "<html>"), "no SDP", 5, id="no SDP"),
    pytest.param(Manners(answer=lambda _: "v=0\r\nnonsense"), "makes no sense", 5, id="nonsense"),
    pytest.param(
        Manners(answer=lambda sdp: sdp.replace("a=ice-pwd", "a=x")),
        "makes no sense",
        5,
        id="no ICE password",
    ),
    pytest.param(
        Manners(answer=lambda sdp: re.sub(r"(a=fingerprint:\S+ )\S\S", r"\g<1>00", sdp)),
        "connection failed",
        5,
        id="another certificate",
    ),
    pytest.param(
        Manners(answer=lambda sdp: re.sub(r"a=ice-pwd:.{8}", "a=ice-pwd:AAAAAAAA", sdp)),
        "no way through",
        5,
        id="no way through",
    ),
    pytest.param(
        Manners(answer=lambda sdp: sdp[: sdp.index("m=application")]),
        "makes no sense",
        5,
        id="no data channel in the answer",
    ),
    pytest.param(
        Manners(channel=False),
        "the data channel did not open within 1 s",
        5,
        id="the data channel never opens",
    ),
    pytest.param(
        Manners(acknowledge=False), "were not acknowledged within", 5, id="not acknowledged"
    ),
    pytest.param(
        Manners(refuse_session={"code": "invalid_value", "message": "No such voice."}),
        "the session was refused: No such voice.",
        60,
        id="session refused",
    ),
]


@pytest.mark.parametrize(("manners", "reason", "retry_after_s"), FAULTS)
async def test_no_session(manners: Manners, reason: str, retry_after_s: int) -> None:
    """Whatever goes wrong while opening has a plain reason, and nothing is left behind."""
    with pytest.raises(AgentUnavailable) as caught:
        async with connected(manners, timeout_s=1.0):
            pass
    assert reason in caught.value.reason
    assert caught.value.retry_after_s == retry_after_s
    assert KEY not in caught.value.reason


async def test_nobody_listens() -> None:
    """A port where no server is: a reason, at once."""
    async with nothing_left(), httpx.AsyncClient() as client:
        with pytest.raises(AgentUnavailable, match="unreachable"):
            async with connector("http://127.0.0.1:1/v1", client).open(PROFILE, OFFER):
                pass


async def test_a_caller_who_gives_up_while_it_opens() -> None:
    """CANCEL during the ringing: the opening is cancelled, and nothing is left behind."""
    async with nothing_left(), open_fake(Manners(acknowledge=False)) as api:
        async with httpx.AsyncClient() as client:

            async def ring() -> None:
                async with connector(api.url, client).open(PROFILE, OFFER):
                    pass

            ringing = asyncio.create_task(ring())
            session = await api.session()
            await session.wait_for("session.update")
            ringing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ringing
        assert api.hung_up == [session.call_id]


async def test_without_location() -> None:
    """A far end that does not name the call is served all the same, and not hung up."""
    async with connected(Manners(location=False)) as (leg, _, api):
        assert leg.realtime_call_id == ""
    assert api.hung_up == []


def like_openai(sdp: str) -> str:
    """Dress an answer as the service's: ice-lite, one fingerprint, odd candidates, more codecs."""
    lines = []
    for line in sdp.splitlines():
        if line.startswith("m=audio"):
            line += " 0 8"
        if line.startswith(("a=fingerprint:sha-384", "a=fingerprint:sha-512")):
            continue
        if line.startswith("a=end-of-candidates"):
            continue
        if line.startswith("a=candidate") and " udp " in line:
            tcp = line.replace(" udp ", " tcp ").replace("typ host", "typ host tcptype passive")
            lines += [f"{line} ufrag Ab/cd1", f"{tcp} ufrag Ab/cd1"]
            continue
        lines.append(line)
    return "\r\n".join(lines) + "\r\n"


async def test_an_answer_like_the_service_gives() -> None:
    """Static payload types without rtpmap, TCP candidates and a ufrag behind them do not matter."""
    async with connected(Manners(answer=like_openai)) as (leg, session, _):
        await Ear(leg, tone(20)[0]).listen(10)
        await session.wait_heard(5)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\xff\xfe\x00", id="not UTF-8"),
        pytest.param("not json", id="not JSON"),
        pytest.param('{"type":"brand.new.event"}', id="unknown"),
        pytest.param('{"type":"x","pad":"' + "x" * 200_000 + '"}', id="200 kB"),
        pytest.param("[" * 50_000, id="deep"),
        pytest.param('{"type":"response.created","response":null}', id="null"),
        pytest.param('{"type":"session.updated","session":{}}', id="repeated"),
    ],
)
async def test_odd_messages_do_not_end_the_call(message: str | bytes) -> None:
    """Garbage on the channel is counted; the conversation goes on."""
    async with connected() as (leg, session, _):
        session.send(message)
        session.send({"type": "output_audio_buffer.started", "response_id": "r1"})
        assert await next_event(leg, AgentSpeaking) == AgentSpeaking("r1")


@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "semi-public path"])
async def test_the_far_end_goes(fast: bool) -> None:
    """A connection that is closed over there ends the events with a reason; audio is silence."""
    async with connected(fast=fast) as (leg, session, _):
        dropping = asyncio.create_task(session.drop())
        gone = await next_event(leg, AgentGone)
        await dropping
        assert isinstance(gone, AgentGone)
        assert gone.reason in ("the data channel was closed", "the connection was lost")
        for _ in range(3):
            leg.write_frame(SILENCE)
            assert leg.read_frame() == SILENCE
        leg.greet("Hello?")


async def test_the_far_end_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A far end that is killed says nothing; the call is told all the same."""
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.1)
    async with connected() as (leg, session, _):
        assert ice.CONSENT_FAILURES == 3
        dtls: Any = session.pc.getTransceivers()[0].sender.transport
        for protocol in dtls.transport._connection._protocols:
            protocol.datagram_received = lambda data, addr: None
        async with asyncio.timeout(5):
            async for event in leg.events():
                gone = event
        assert gone == AgentGone("the connection was lost")


async def test_instructions_that_do_not_fit() -> None:
    """A session that the channel cannot carry is refused with a reason, not by a timeout."""
    profile = AgentProfile("talker", "x" * 300_000, "Hello.", "marin")
    async with nothing_left(), open_fake() as api, httpx.AsyncClient() as client:
        with pytest.raises(AgentUnavailable, match="larger than the far end accepts"):
            async with connector(api.url, client).open(profile, OFFER):
                pass


async def test_an_ice_server_that_is_none() -> None:
    """A wrong URL in the settings is a reason, not a crash."""
    settings = RealtimeSettings(base_url="http://127.0.0.1:1/v1", ice_servers=("nonsense",))
    async with nothing_left(), httpx.AsyncClient() as client:
        with pytest.raises(AgentUnavailable, match="ice_servers"):
            async with RealtimeConnector(settings, client).open(PROFILE, OFFER):
                pass


async def test_an_expired_session() -> None:
    """The far end's last word is passed on as the end."""
    async with connected() as (leg, session, _):
        session.send({"type": "error", "error": {"code": "session_expired", "message": "60 min"}})
        assert await next_event(leg, AgentGone) == AgentGone("the Realtime session expired")


async def test_a_flood_of_events_is_bounded() -> None:
    """Nobody reads: the newest are dropped and counted, and the end is told all the same."""
    async with connected() as (leg, session, _):
        for _ in range(1200):
            leg.receive_text(
                '{"type":"response.output_text.delta","item_id":"a","response_id":"r","delta":"x"}'
            )
        assert leg.quality()["events_dropped"] == 201  # one more is the turn's beginning
        session.send({"type": "error", "error": {"code": "session_expired"}})
        assert isinstance(await next_event(leg, AgentGone), AgentGone)


async def test_tool_output_and_reply() -> None:
    """A tool's output reaches the model, and then the model is asked to go on."""
    async with connected() as (leg, session, _):
        item = {
            "id": "f1",
            "type": "function_call",
            "status": "completed",
            "name": "weather",
            "call_id": "c1",
            "arguments": "{}",
        }
        session.send({"type": "response.created", "response": {"id": "r1"}})
        session.send({"type": "response.output_item.done", "response_id": "r1", "item": item})
        session.send({"type": "response.done", "response": {"id": "r1", "status": "completed"}})
        await next_event(leg, ResponseEnded)
        leg.give_tool_output("c1", "sunny")
        created = await session.wait_for("conversation.item.create")
        assert created["item"]["output"] == "sunny"
        await session.wait_for("response.create")


async def test_frames_of_another_length_are_not_sent() -> None:
    """The clock is never thrown at."""
    async with connected() as (leg, session, _):
        leg.write_frame(struct.pack("<2h", 1, 2))
        leg.write_frame(SILENCE)
        await session.wait_heard(1)
        assert leg.quality()["packets_sent"] == 1
