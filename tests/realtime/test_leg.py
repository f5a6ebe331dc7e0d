"""A whole Realtime session over loopback: real HTTP, ICE, DTLS, SCTP and Opus."""

import asyncio
import os
import struct
import threading
import wave
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from aioice import ice
from aiortc import RTCPeerConnection
from pydantic import SecretStr

from agent.audio import g711
from agent.audio.frame import FRAME_BYTES, SAMPLE_RATE_HZ, SILENCE, Frame
from agent.audio.opus import OpusEncoder
from agent.audio.wav import tone
from agent.call.events import (
    AgentGone,
    AgentInterrupted,
    AgentSpeaking,
    AgentSpoke,
    AgentText,
    CallerSpeechStarted,
    CallEvent,
    ResponseEnded,
    ToolCallRequested,
    UsageReported,
)
from agent.call.ports import AgentLeg, AgentProfile, AgentUnavailable, CallOffer
from agent.embedded.engines import Engines
from agent.realtime.connector import RealtimeConnector
from agent.realtime.leg import RealtimeLeg
from agent.realtime.settings import RealtimeSettings
from agent.realtime.webrtc import WebRtcLeg
from tests.embedded.scripted import KEY, QUIET, FarEnd, scripted

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


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Assert that tasks, sockets and threads are what they were before, and peers are closed."""

    def cheap() -> tuple[int, int, int]:
        return len(asyncio.all_tasks()), sockets(), threading.active_count()

    peers: list[RTCPeerConnection] = []
    create = RTCPeerConnection.__init__

    def noted(self: RTCPeerConnection, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        peers.append(self)

    before = cheap()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RTCPeerConnection, "__init__", noted)
        yield
    async with asyncio.timeout(3):
        # An earlier test's thread may end only now: less than before is as good as equal.
        while any(now > then for now, then in zip(cheap(), before, strict=True)):
            await asyncio.sleep(0.02)
    used = [peer for peer in peers if peer.iceGatheringState != "new"]
    assert [peer for peer in used if peer.connectionState != "closed"] == []


@asynccontextmanager
async def connected(
    engines: Engines,
    script: dict[str, Any] | None = None,
    *,
    fast: bool = True,
    timeout_s: float = 3.0,
    line_codec: str = "",
    **settings: Any,
) -> AsyncIterator[tuple[RealtimeLeg, FarEnd]]:
    """One open session with a far end that plays the script, or nothing."""
    async with (
        nothing_left(),
        scripted(engines, QUIET | (script or {})) as far,
        httpx.AsyncClient() as client,
        connector(far.url, client, fast=fast, timeout_s=timeout_s, **settings).open(
            PROFILE, replace(OFFER, line_codec=line_codec)
        ) as leg,
    ):
        yield leg, far


def says(text: str, tone_ms: int, tone_hz: int = 440) -> dict[str, Any]:
    """One turn's answer: these words, and a tone for a voice."""
    return {"answer": [{"say": text, "tone_hz": tone_hz, "tone_ms": tone_ms}]}


def frames(pcm: bytes) -> list[Frame]:
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]


def connector(
    url: str,
    client: httpx.AsyncClient,
    *,
    fast: bool = True,
    timeout_s: float = 3.0,
    **more: Any,
) -> RealtimeConnector:
    settings = RealtimeSettings(
        base_url=url, api_key=SecretStr(KEY), connect_timeout_s=timeout_s, **more
    )
    return RealtimeConnector(settings, client, fast=fast)


class Ear:
    """The phone's clock for one leg: reads a frame every 20 ms, and writes one."""

    def __init__(self, leg: AgentLeg, mouth: Sequence[Frame] = ()) -> None:
        self.heard: list[Frame] = []
        self._leg = leg
        self._mouth = list(mouth)

    async def listen(self, count: int, *, writes: bool = True) -> None:
        """Go on for so many frames; silence is written after what is to be said."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        for _ in range(count):
            if writes:
                self._leg.write_frame(self._mouth.pop(0) if self._mouth else SILENCE)
            self.heard.append(self._leg.read_frame())
            # A stall of this machine stops the clock: to catch up would be to read too early.
            due_s = max(due_s, loop.time() - FRAME_S) + FRAME_S
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


async def events_until(leg: AgentLeg, kind: type[CallEvent]) -> list[CallEvent]:
    seen: list[CallEvent] = []
    async with asyncio.timeout(5):
        async for event in leg.events():
            seen.append(event)
            if isinstance(event, kind):
                break
    return seen


async def next_event(leg: AgentLeg, kind: type[CallEvent]) -> CallEvent:
    async with asyncio.timeout(3):
        async for event in leg.events():
            if isinstance(event, kind):
                return event
    raise AssertionError("the events ended")


@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "semi-public path"])
async def test_hear_and_speak(engines: Engines, fast: bool) -> None:
    """The agent's voice arrives with all its facts, and the session is hung up at the end."""
    async with connected(engines, {"turns": [says("Hello", 300)]}, fast=fast) as (leg, far):
        assert [leg.realtime_call_id] == far.call_ids
        assert far.trace[0]["session"]["model"] == "gpt-realtime-2.1"
        assert next(r["event"]["type"] for r in far.trace if r["what"] == "received") == (
            "session.update"
        )
        leg.greet("Hello.")
        ear = Ear(leg)
        await ear.listen_until(lambda: len(ear.voiced) >= 15)
        await ear.listen(8)
        assert len(ear.voiced) <= 20
        assert leg.quality()["fast_path"] is fast
        assert leg.quality()["lost"] == 0
        seen = await events_until(leg, AgentSpoke)
        [response_id] = {event.response_id for event in seen if isinstance(event, AgentSpeaking)}
        assert seen[-1] == AgentSpoke(response_id)
        assert "Hello" in [event.text for event in seen if isinstance(event, AgentText)]
        told = (await far.sent("response.done"))["response"]["usage"]
        [used] = [event.usage for event in seen if isinstance(event, UsageReported)]
        assert used is not None
        assert used.audio_out == told["output_token_details"]["audio_tokens"] > 0
    assert far.hung_up == [leg.realtime_call_id]


@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "semi-public path"])
async def test_the_caller_is_heard_as_they_spoke(engines: Engines, fast: bool) -> None:
    """What the caller says is there, loud and whole: a far end that echoes gives it back."""
    spoken = tone(440, 700)
    async with connected(engines, {"echo": True}, fast=fast) as (leg, far):
        ear = Ear(leg, frames(spoken))
        await ear.listen_until(lambda: len(ear.voiced) >= 30)
        start = next(i for i, frame in enumerate(ear.heard) if loudness(frame) > 500)
        assert all(loudness(frame) > 3000 for frame in ear.heard[start + 2 : start + 30])
    assert far.trace[-1]["packets_received"] >= 30


def altered(find: str, put: str = "") -> dict[str, Any]:
    return {"offers": [{"alter": [{"find": find, "put": put}]}]}


def says_without(line: str) -> dict[str, Any]:
    return altered(rf"a={line}[^\r]*\r\n")


@pytest.mark.parametrize(
    ("codec", "line_codec", "script", "spoken"),
    [
        pytest.param("opus", "PCMU", {}, "opus", id="Opus"),
        pytest.param("pcmu", "PCMA", {}, "pcmu", id="PCMU"),
        pytest.param("pcma", "PCMU", {}, "pcma", id="PCMA"),
        pytest.param("auto", "PCMA", {}, "pcma", id="the caller's law"),
        pytest.param("auto", "PCMU", says_without("rtpmap:0"), "pcmu", id="PCMU without rtpmap"),
        pytest.param("auto", "PCMA", says_without("rtpmap:8"), "pcma", id="PCMA without rtpmap"),
    ],
)
async def test_codecs(
    engines: Engines, codec: str, line_codec: str, script: dict[str, Any], spoken: str
) -> None:
    """What the answer takes is spoken and heard, loud and whole."""
    script = {"echo": True, **script}
    async with connected(engines, script, codec=codec, line_codec=line_codec) as (leg, _):
        assert leg.quality()["codec"] == spoken
        ear = Ear(leg, frames(tone(440, 600)))
        await ear.listen_until(lambda: len(ear.voiced) >= 25)
        start = next(i for i, frame in enumerate(ear.heard) if loudness(frame) > 500)
        assert all(loudness(frame) > 3000 for frame in ear.heard[start + 2 : start + 25])
        assert leg.quality()["lost"] == 0


async def test_g711_passes_as_it_is(engines: Engines) -> None:
    """In the line's own law every sample of the caller's voice is what it was."""
    spoken = g711.decode(g711.encode(tone(440, 300), "pcmu"), "pcmu")
    async with connected(engines, {"echo": True}, codec="auto", line_codec="PCMU") as (leg, _):
        ear = Ear(leg, frames(spoken))
        await ear.listen_until(lambda: len(ear.voiced) >= 14)
        assert spoken[FRAME_BYTES : 10 * FRAME_BYTES] in b"".join(ear.heard)


async def test_a_far_end_may_send_any_codec_it_agreed_to(engines: Engines) -> None:
    """It named Opus first and takes the caller's law: that is sent, and whichever comes is heard."""
    changes = [
        {"find": r"^(m=audio \d+ \S+) 0", "put": r"\1 96 0"},
        {"find": "a=rtpmap:0", "put": "a=rtpmap:96 opus/48000/2\r\na=rtpmap:0"},
    ]
    script = {"offers": [{"alter": changes}], "turns": [says("Hello", 2000)]}
    async with connected(engines, script, codec="auto", line_codec="PCMU") as (leg, _):
        assert isinstance(leg, WebRtcLeg)
        assert leg.quality()["codec"] == "pcmu"
        encoder = OpusEncoder()
        for number in range(20):
            payload, arrival_s = encoder.encode(tone(440, 20)), asyncio.get_running_loop().time()
            leg.receive_rtp(40_000 + number, 960 * number, 96, payload, arrival_s)
            frame = leg.read_frame()
        assert loudness(frame) > 3000
        leg.receive_rtp(40_020, 0, 97, b"never agreed to", 0.0)
        leg.greet("Hello.")
        ear = Ear(leg)
        await ear.listen_until(lambda: len(ear.voiced) >= 18)
        assert leg.quality()["undecodable"] == 0


WAYS = [
    pytest.param({"codec": "opus"}, id="Opus"),
    pytest.param({"codec": "pcmu"}, id="PCMU"),
    pytest.param({"transport": "websocket"}, id="WebSocket"),
]


@pytest.mark.parametrize("way", WAYS)
async def test_the_first_syllable_is_whole(
    engines: Engines, tmp_path: Path, way: dict[str, Any]
) -> None:
    """The first 100 ms of the greeting are at the ear as they were spoken."""
    # A click at once and then rising tones: a missing or repeated frame would show.
    greeting = b"".join(tone(200.0 + 100 * step, 20) for step in range(10))
    file = tmp_path / "rising.wav"
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE_HZ)
        sound.writeframes(greeting)
    script = {"turns": [{"answer": [{"say": "Hello.", "wav": str(file)}]}]}
    async with connected(engines, script, **way) as (leg, _):
        leg.greet("Hello.")
        ear = Ear(leg)
        await ear.listen_until(lambda: len(ear.voiced) >= 9)
        start = next(i for i, frame in enumerate(ear.heard) if loudness(frame) > 500)
        original = array("h", greeting[: 5 * FRAME_BYTES])
        heard = array("h", b"".join(ear.heard[start : start + 6]))
        best = max(
            correlation(original, heard[delay : delay + len(original)]) for delay in range(120)
        )
        assert best > 0.8


def correlation(a: "array[int]", b: "array[int]") -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    size = (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
    return dot / size if size else 0.0


async def test_a_bad_network_is_not_heard(engines: Engines) -> None:
    """Lost, repeated and reordered packets: the tone goes on, and the delay does not grow."""
    bad = [
        {"at": "session.created", "do": "lose", "packets": [20, 40]},
        {"at": "session.created", "do": "duplicate", "packets": [25, 26]},
        {"at": "session.created", "do": "reorder", "packets": [30, 50]},
    ]
    async with connected(engines, {"echo": True, "faults": bad}) as (leg, _):
        ear = Ear(leg, frames(tone(440, 1600)))
        await ear.listen(80)
        await ear.listen(15, writes=False)
        quality = leg.quality()
        # A swapped packet that just missed its read is concealed, and then late.
        assert quality["lost"] in (2, 3, 4)
        assert quality["packets_replayed"] == 2
        assert quality["packets_received"] == 78
        first = next(i for i, frame in enumerate(ear.heard) if loudness(frame) > 500)
        assert all(loudness(frame) > 1500 for frame in ear.heard[first + 1 : first + 78])
        assert leg.buffered_ms() == 0


@pytest.mark.parametrize("codec", ["opus", "pcmu"])
async def test_one_lost_packet_in_fifty(engines: Engines, codec: str) -> None:
    """Each is concealed: no hole of 20 ms in the voice. For its delay, see `test_playout`."""
    lossy = [{"at": "session.created", "do": "lose", "every": 50}]
    script = {"turns": [says("A long story.", 4000)], "faults": lossy}
    async with connected(engines, script, codec=codec) as (leg, _):
        leg.greet("Hello.")
        ear = Ear(leg)
        await ear.listen_until(lambda: len(ear.voiced) >= 2)
        await ear.listen(185)
        assert leg.quality()["lost"] in range(3, 6)
        first = next(i for i, frame in enumerate(ear.heard) if loudness(frame) > 500)
        # A steady tone is the worst for Opus: after a loss it swells again for a frame.
        assert all(loudness(frame) > 800 for frame in ear.heard[first + 1 : first + 180])


async def test_barge_in_cuts_the_tail_and_not_the_next_word(engines: Engines) -> None:
    """After flush nothing of the interrupted response is heard, and the next one from its start."""
    spoken: dict[str, Any] = {"type": "input_audio_buffer.speech_started", "item_id": "u1"}
    script = {
        "turns": [says("One.", 2000), says("Two.", 200, 600)],
        "faults": [{"at": "cue.talk", "do": "send", "event": {"audio_start_ms": 0, **spoken}}],
    }
    async with connected(engines, script) as (leg, far):
        ear = Ear(leg)
        leg.greet("Hello.")
        await ear.listen_until(lambda: len(ear.voiced) > 5)
        await far.cue("talk")
        assert await next_event(leg, CallerSpeechStarted) == CallerSpeechStarted("u1")
        leg.flush()
        ear.heard.clear()
        await ear.listen(5)
        assert ear.voiced == []
        await far.command(type="output_audio_buffer.clear")
        cut = await far.sent("output_audio_buffer.cleared")
        assert await next_event(leg, AgentInterrupted) == AgentInterrupted(cut["response_id"])
        leg.flush()
        await far.command(type="response.create")
        await ear.listen_until(lambda: len(ear.voiced) >= 10)
        await ear.listen(10)
        assert leg.buffered_ms() == 0


async def test_the_tail_of_an_interrupted_response_ends_by_itself(engines: Engines) -> None:
    """A far end that never says it stopped is heard again after 300 ms."""
    async with connected(engines, {"turns": [says("One.", 1500)]}) as (leg, _):
        ear = Ear(leg)
        leg.greet("Hello.")
        await ear.listen_until(lambda: len(ear.voiced) > 3)
        await next_event(leg, AgentSpeaking)
        leg.flush()
        ear.heard.clear()
        await ear.listen(10)
        assert ear.voiced == []
        await ear.listen(20)
        assert len(ear.voiced) > 10


def refused(status: int, **manners: Any) -> dict[str, Any]:
    return {"offers": [{"status": status, **manners}]}


FAULTS = [
    pytest.param(
        refused(401, error={"code": "invalid_api_key"}), "the API key was refused", 60, id="401"
    ),
    pytest.param(refused(429, headers={"Retry-After": 7}), "rate limit is reached", 7, id="429"),
    pytest.param(refused(500), "failed with status 500", 5, id="500"),
    pytest.param(
        refused(400, error={"message": "Bad offer."}), "session: Bad offer.", 60, id="400"
    ),
    pytest.param({"offers": [{"silent": True}]}, "did not answer", 5, id="never answers"),
    pytest.param({"offers": [{"answer": "<html>"}]}, "no SDP", 5, id="no SDP"),
    pytest.param({"offers": [{"answer": "v=0\r\nnonsense"}]}, "makes no sense", 5, id="nonsense"),
    pytest.param(altered("a=ice-pwd", "a=x"), "makes no sense", 5, id="no ICE password"),
    pytest.param(
        altered(r"(a=fingerprint:\S+ )\S\S", r"\g<1>00"),
        "connection failed",
        5,
        id="another certificate",
    ),
    pytest.param(
        altered("a=ice-pwd:.{8}", "a=ice-pwd:AAAAAAAA"),
        "no way through",
        5,
        id="no way through",
    ),
    pytest.param(
        altered("(?s)m=application.*"), "makes no sense", 5, id="no data channel in the answer"
    ),
    pytest.param(
        {"channel": False},
        "the data channel did not open within 1 s",
        5,
        id="the data channel never opens",
    ),
    pytest.param(
        {"faults": [{"at": "session.update", "do": "ignore"}]},
        "were not acknowledged within",
        5,
        id="not acknowledged",
    ),
    pytest.param(
        {
            "faults": [
                {
                    "at": "session.update",
                    "do": "refuse",
                    "error": {"code": "invalid_value", "message": "No such voice."},
                }
            ]
        },
        "the session was refused: No such voice.",
        60,
        id="session refused",
    ),
]


@pytest.mark.parametrize(("script", "reason", "retry_after_s"), FAULTS)
async def test_no_session(
    engines: Engines, script: dict[str, Any], reason: str, retry_after_s: int
) -> None:
    """Whatever goes wrong while opening has a plain reason, and nothing is left behind."""
    with pytest.raises(AgentUnavailable) as caught:
        async with connected(engines, script, timeout_s=1.0):
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


async def test_a_caller_who_gives_up_while_it_opens(engines: Engines) -> None:
    """CANCEL during the ringing: the opening is cancelled, and nothing is left behind."""
    script = {"faults": [{"at": "session.update", "do": "ignore"}]}
    async with nothing_left(), scripted(engines, script) as far, httpx.AsyncClient() as client:

        async def ring() -> None:
            async with connector(far.url, client).open(PROFILE, OFFER):
                pass

        ringing = asyncio.create_task(ring())
        await far.received("session.update")
        ringing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ringing
        assert far.hung_up == far.call_ids


async def test_without_location(engines: Engines) -> None:
    """A far end that does not name the call is served all the same, and not hung up."""
    async with connected(engines, {"offers": [{"location": False}]}) as (leg, far):
        assert leg.realtime_call_id == ""
    assert far.hung_up == []


LIKE_OPENAI = [
    ("^(m=audio.*?)(\r?)$", r"\1 0 8\2"),
    (r"^a=fingerprint:sha-(384|512).*\n", ""),
    (r"^a=end-of-candidates.*\n", ""),
    (
        r"^(a=candidate.*) udp (.*typ host)(.*?)\r\n",
        r"\1 udp \2\3 ufrag Ab/cd1\r\n\1 tcp \2 tcptype passive\3 ufrag Ab/cd1\r\n",
    ),
]
"""An answer dressed as the service's: one fingerprint, odd candidates, more codecs."""


async def test_an_answer_like_the_service_gives(engines: Engines) -> None:
    """Static payload types without rtpmap, TCP candidates and a ufrag behind them do not matter."""
    alter = [{"find": find, "put": put} for find, put in LIKE_OPENAI]
    async with connected(engines, {"echo": True, "offers": [{"alter": alter}]}) as (leg, _):
        ear = Ear(leg, frames(tone(440, 1000)))
        await ear.listen_until(lambda: len(ear.voiced) > 5)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"hex": "fffe00"}, id="not UTF-8"),
        pytest.param({"text": "not json"}, id="not JSON"),
        pytest.param({"event": {"type": "brand.new.event"}}, id="unknown"),
        pytest.param({"event": {"type": "x"}, "size_bytes": 200_000}, id="200 kB"),
        pytest.param({"text": "[" * 50_000}, id="deep"),
        pytest.param({"event": {"type": "response.created", "response": None}}, id="null"),
        pytest.param({"event": {"type": "session.updated", "session": {}}}, id="repeated"),
    ],
)
async def test_odd_messages_do_not_end_the_call(engines: Engines, message: dict[str, Any]) -> None:
    """Garbage on the channel is counted; the conversation goes on."""
    speaking = {"type": "output_audio_buffer.started", "response_id": "r1"}
    faults = [
        {"at": "session.updated", "do": "send", **message},
        {"at": "session.updated", "do": "send", "event": speaking},
    ]
    async with connected(engines, {"faults": faults}) as (leg, _):
        assert await next_event(leg, AgentSpeaking) == AgentSpeaking("r1")


@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "semi-public path"])
async def test_the_far_end_goes(engines: Engines, fast: bool) -> None:
    """A connection that is closed over there ends the events with a reason; audio is silence."""
    script = {"faults": [{"at": "cue.go", "do": "drop"}]}
    async with connected(engines, script, fast=fast) as (leg, far):
        await far.cue("go")
        gone = await next_event(leg, AgentGone)
        assert isinstance(gone, AgentGone)
        assert gone.reason in ("the data channel was closed", "the connection was lost")
        ear = Ear(leg)
        await ear.listen_until(lambda: ear.heard[-3:] == [SILENCE] * 3)
        assert ear.voiced == []
        leg.greet("Hello?")


async def test_the_far_end_vanishes(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A far end that is killed says nothing; the call is told all the same."""
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.1)
    script = {"faults": [{"at": "session.updated", "do": "vanish"}]}
    async with connected(engines, script) as (leg, _):
        assert ice.CONSENT_FAILURES == 3
        async with asyncio.timeout(5):
            async for event in leg.events():
                gone = event
        assert gone == AgentGone("the connection was lost")


async def test_an_expired_session(engines: Engines) -> None:
    """The far end's last word is passed on as the end."""
    script = {"faults": [{"at": "session.updated", "do": "expire"}]}
    async with connected(engines, script) as (leg, _):
        assert await next_event(leg, AgentGone) == AgentGone("the Realtime session expired")


async def test_a_flood_of_events_is_bounded(engines: Engines) -> None:
    """Nobody reads: the newest are dropped and counted, and the end is told all the same."""
    script = {"faults": [{"at": "cue.end", "do": "expire"}]}
    async with connected(engines, script) as (leg, far):
        for _ in range(1200):
            leg.receive_text(
                '{"type":"response.output_text.delta","item_id":"a","response_id":"r","delta":"x"}'
            )
        assert leg.quality()["events_dropped"] == 201  # one more is the turn's beginning
        await far.cue("end")
        assert isinstance(await next_event(leg, AgentGone), AgentGone)


async def test_tool_output_and_reply(engines: Engines) -> None:
    """A tool's output reaches the model, and then the model is asked to go on."""
    told = {"say": "They say {output}.", "tone_hz": 440, "tone_ms": 40}
    script = {"turns": [{"answer": [{"call": "weather"}, told]}]}
    async with connected(engines, script) as (leg, far):
        leg.greet("Hello.")
        called = await next_event(leg, ToolCallRequested)
        assert isinstance(called, ToolCallRequested)
        await next_event(leg, ResponseEnded)
        leg.give_tool_output(called.tool_call_id, "sunny")
        created = await far.received("conversation.item.create")
        assert created["item"]["output"] == "sunny"
        await far.received("response.create", 2)
        said = await next_event(leg, AgentText)
        assert isinstance(said, AgentText)
        assert said.text == "They say sunny."


async def test_frames_of_another_length_are_not_sent(engines: Engines) -> None:
    """The clock is never thrown at."""
    async with connected(engines, {"echo": True}) as (leg, _):
        leg.write_frame(struct.pack("<2h", 1, 2))
        leg.write_frame(SILENCE)
        async with asyncio.timeout(5):
            while not leg.quality()["packets_received"]:
                await asyncio.sleep(0.01)
        assert leg.quality()["packets_sent"] == 1
