"""A scripted server, seen by clients: what it was told to hear, answer and break, and no more."""

import asyncio
import itertools
import json
import os
import stat
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from pydantic import SecretStr, ValidationError
from websockets.asyncio.client import connect

from agent.audio.g711 import encode
from agent.audio.wav import tone
from agent.call.events import AgentGone
from agent.call.ports import AgentProfile, AgentUnavailable, CallOffer
from agent.embedded.downlink import Downlink
from agent.embedded.engines import Engines
from agent.embedded.faults import Faults
from agent.embedded.script import Script, ScriptError, ScriptFault, load_script
from agent.embedded.trace import SessionTrace, writing
from agent.embedded.voice import Voice
from agent.realtime.connector import RealtimeConnector
from agent.realtime.settings import RealtimeSettings
from tests.embedded.caller import Caller, open_call, post_offer
from tests.embedded.scripted import scripted
from tests.embedded.socket_client import open_socket

SCRIPTS = Path(__file__).parent.parent / "data" / "scripts"
PROFILE = AgentProfile("receptionist", "You answer the phone.", "Hello.", "marin")
TRANSCRIBED = {
    "type": "realtime",
    "audio": {"input": {"transcription": {"model": "gpt-transcribe"}}},
}
OFFER = CallOffer("call_1", "sip_1", "trunk", "100", "200", 0.0)


def _faults(*faults: dict[str, Any]) -> Script:
    return Script.model_validate({"faults": faults, "otherwise": "One two three four five."})


async def _answered(call: Caller, count: int = 1) -> None:
    call.send(type="response.create")
    await call.wait("response.done", count)


async def _offer_sdp() -> str:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio", "sendrecv")
    pc.createDataChannel("oai-events")
    await pc.setLocalDescription(await pc.createOffer())
    sdp = str(pc.localDescription.sdp)
    await pc.close()
    return sdp


async def test_hears_and_answers_as_written(engines: Engines, voice: Voice) -> None:
    """Whatever is said, the script's words are heard, its tool called and its answer spoken."""
    script = load_script(SCRIPTS / "weather.yaml")
    async with scripted(engines, script, key="") as far, open_call(far.url, TRANSCRIBED) as call:
        await _answered(call)
        assert call.transcripts() == ["Hello, this is a script."]
        await call.wait("output_audio_buffer.stopped")
        call.say(voice.synthesise("Something else entirely."))
        heard = await call.wait("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"] == "What is the weather in Oslo?"
        done = await call.wait("response.function_call_arguments.done")
        assert json.loads(done["arguments"]) == {"place": "Oslo"}
        await call.wait("response.done", 2)
        output = {"type": "function_call_output", "call_id": done["call_id"], "output": "sun"}
        call.send(type="conversation.item.create", item=output)
        await _answered(call, 3)
        assert call.transcripts()[1:] == ["Let me look.", "They say: sun."]
        await call.wait("output_audio_buffer.stopped", 3)
        heard_bytes = len(call.heard)
        text = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
        call.send(type="conversation.item.create", item=text)
        await _answered(call, 4)
        await call.wait("output_audio_buffer.stopped", 4)
        silence = memoryview(bytes(call.heard[heard_bytes + 8000 :])).cast("h")
        assert len(silence) > 2000
        assert max(abs(sample) for sample in silence) < 50
        await _answered(call, 5)
        assert call.transcripts()[-1] == "That was all."


@pytest.mark.parametrize(
    ("offer", "status", "headers"),
    [
        pytest.param({"status": 500}, 500, {}, id="500"),
        pytest.param(
            {"status": 429, "headers": {"Retry-After": 7}}, 429, {"retry-after": "7"}, id="429"
        ),
        pytest.param({"status": 401, "error": {"code": "invalid_api_key"}}, 401, {}, id="401"),
    ],
)
async def test_refused_offer(
    engines: Engines, offer: dict[str, Any], status: int, headers: dict[str, str]
) -> None:
    """The first offer is refused as written, the second is answered."""
    script = Script.model_validate({"offers": [offer, {}]})
    async with scripted(engines, script, key="") as far:
        reply = await post_offer(far.url, await _offer_sdp())
        assert reply.status_code == status
        assert reply.json()["error"]["code"] == offer.get("error", {}).get(
            "code", "scripted_refusal"
        )
        assert headers.items() <= dict(reply.headers).items()
        async with open_call(far.url) as call:
            assert call.kinds() == ["session.created"]


@pytest.mark.parametrize(
    ("script", "reason", "retry_after_s"),
    [
        pytest.param({"offers": [{"status": 500}]}, "failed with status 500", 5, id="500"),
        pytest.param(
            {"offers": [{"status": 429, "headers": {"Retry-After": "7"}}]},
            "rate limit is reached",
            7,
            id="429",
        ),
        pytest.param({"offers": [{"status": 401}]}, "key was refused", 60, id="401"),
        pytest.param({"offers": [{"silent": True}]}, "did not answer", 5, id="silent"),
        pytest.param({"offers": [{"delay_s": 9}]}, "did not answer", 5, id="too late"),
        pytest.param({"offers": [{"answer": "hi"}]}, "no SDP", 5, id="nonsense"),
        pytest.param({"channel": False}, "data channel", 5, id="no data channel"),
        pytest.param(
            {"faults": [{"at": "session.created", "do": "freeze"}]},
            "not acknowledged",
            5,
            id="frozen at once",
        ),
    ],
)
async def test_our_agent_says_why(
    engines: Engines, script: dict[str, Any], reason: str, retry_after_s: int
) -> None:
    """Trunkline's own connector gives up in time, with a reason, and leaves nothing behind."""
    async with (
        scripted(engines, script, key="") as far,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        settings = RealtimeSettings(
            base_url=far.url, api_key=SecretStr("sk-test"), connect_timeout_s=1.5
        )
        with pytest.raises(AgentUnavailable, match=reason) as caught:
            async with RealtimeConnector(settings, client).open(PROFILE, OFFER):
                pass
        assert caught.value.retry_after_s == retry_after_s


async def test_our_agent_notices_a_dropped_session(engines: Engines) -> None:
    """A session that ends in mid-call is told to the call as the agent's end."""
    async with (
        scripted(engines, _faults({"at": 0.5, "do": "drop"}), key="") as far,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        settings = RealtimeSettings(base_url=far.url, api_key=SecretStr("sk-test"))
        async with RealtimeConnector(settings, client).open(PROFILE, OFFER) as leg:
            async with asyncio.timeout(8):
                events = [event async for event in leg.events()]
        assert isinstance(events[-1], AgentGone)


async def test_mends_nothing_it_was_told_to_break(engines: Engines) -> None:
    """Garbage, unknown, oversized, repeated, reordered, missing and failed: each as written, once."""
    script = load_script(SCRIPTS / "rough.yaml")
    got: list[str] = []
    async with scripted(engines, script, key="") as far, open_raw(far.url, got) as send:
        await _until(lambda: len(got) == 5)
        assert got[0] == got[1]
        assert got[2] == "no JSON"
        assert json.loads(got[3])["type"] == "brand.new.event"
        assert len(got[4]) == 200_000
        send({"type": "response.create"})
        await _until(lambda: "response.done" in _kinds(got[5:]))
        kinds = _kinds(got[5:])
        assert kinds.index("response.created") == 1
        done = json.loads(got[5 + kinds.index("response.done")])["response"]
        assert done["status"] == "failed"
        assert done["status_details"]["error"]["code"] == "rate_limit_exceeded"
        await _until(lambda: "output_audio_buffer.stopped" in _kinds(got[5:]))
        send({"type": "response.create"})
        await _until(lambda: _kinds(got[5:]).count("output_audio_buffer.stopped") == 2)
        assert _kinds(got[5:]).count("response.done") == 1


async def test_mute(engines: Engines) -> None:
    """A muted session claims to speak: every event comes, and no sound."""
    async with (
        scripted(engines, _faults({"at": "session.created", "do": "mute"}), key="") as far,
        open_call(far.url) as call,
    ):
        await _answered(call)
        await call.wait("output_audio_buffer.stopped")
        assert call.packets > 20
        assert max(abs(sample) for sample in memoryview(bytes(call.heard)).cast("h")) < 50


async def test_freeze(engines: Engines) -> None:
    """A frozen session says nothing more and answers nothing, and can still be hung up."""
    script = _faults({"at": "output_audio_buffer.started", "do": "freeze"})
    async with scripted(engines, script, key="") as far, open_call(far.url) as call:
        call.send(type="response.create")
        await call.wait("output_audio_buffer.started")
        seen = len(call.events)
        call.send(type="input_audio_buffer.clear")
        packets = call.packets
        await _until(lambda: call.packets > packets + 30)
        assert len(call.events) == seen


@pytest.mark.parametrize(
    "at", [pytest.param(0.3, id="after a time"), pytest.param("response.created", id="at an event")]
)
async def test_expire(engines: Engines, at: float | str) -> None:
    """An expired session says so before it closes."""
    async with (
        scripted(engines, _faults({"at": at, "do": "expire"}), key="") as far,
        open_call(far.url) as call,
    ):
        call.send(type="response.create")
        error = await call.wait("error")
        assert error["error"]["code"] == "session_expired"
        await _until(lambda: call.channel.readyState == "closed")


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        pytest.param("drop", None, id="drop"),
        pytest.param("expire", "session_expired", id="expire"),
    ],
)
async def test_a_socket_session_ends(engines: Engines, do: str, reason: str | None) -> None:
    """Over WebSocket a session is dropped without a word, or told that its time is over."""
    script = _faults({"at": "response.create", "do": do})
    async with scripted(engines, script, key="") as far, open_socket(far.url) as client:
        await client.send(type="response.create")
        async with asyncio.timeout(10):
            await client.closed.wait()
        errors = [event["error"]["code"] for event in client.events if event["type"] == "error"]
        assert errors == ([reason] if reason else [])
        assert "response.done" not in client.kinds()
    assert far.trace[-1]["what"] == "ended"


async def test_a_socket_session_freezes(engines: Engines) -> None:
    """Over WebSocket a frozen session stays open and sends nothing more."""
    script = _faults({"at": "response.created", "do": "freeze"})
    async with scripted(engines, script, key="") as far, open_socket(far.url) as client:
        await client.send(type="response.create")
        await client.wait("response.created")
        await client.send(type="input_audio_buffer.clear")
        await far.received("input_audio_buffer.clear")
        # A control frame comes back behind everything that was sent before it.
        await (await client.connection.ping())
        assert client.kinds()[-1] == "response.created"
        assert not client.closed.is_set()


async def test_a_mute_socket_session(engines: Engines) -> None:
    """Over WebSocket a muted session sends as much audio as ever, and all of it is silence."""
    script = _faults({"at": "session.created", "do": "mute"})
    async with scripted(engines, script, key="") as far, open_socket(far.url) as client:
        await client.send(type="response.create")
        await client.wait("response.done")
        assert len(client.audio()) > 24000
        assert max(abs(sample) for sample in memoryview(client.audio()).cast("h")) < 50


async def test_refused_and_ignored_events(engines: Engines) -> None:
    """A client event is refused with the script's error or not answered, once; then it counts."""
    script = _faults(
        {"at": "session.update", "do": "refuse", "error": {"code": "oops", "message": "Oops."}},
        {"at": "session.update", "nth": 2, "do": "ignore"},
    )
    update = {"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief"}}
    async with scripted(engines, script, key="") as far, open_socket(far.url) as client:
        for number in range(3):
            await client.send(event_id=f"e{number}", **update)
        updated = await client.wait("session.updated")
        assert updated["session"]["instructions"] == "Be brief"
        assert client.kinds() == ["session.created", "error", "session.updated"]
        error = client.events[1]["error"]
        assert (error["code"], error["message"], error["event_id"]) == ("oops", "Oops.", "e0")


async def test_a_message_that_is_not_utf_8(engines: Engines) -> None:
    """Over WebSocket, too, the bytes of the script leave as a text message."""
    script = _faults({"at": "cue.now", "do": "send", "hex": "fffe00"})
    async with scripted(engines, script, key="") as far:
        address = f"{far.url.replace('http', 'ws', 1)}/realtime?model=x"
        async with connect(address, proxy=None) as connection:
            created = json.loads(await connection.recv())
            assert created["type"] == "session.created"
            await connection.send('{"type": "cue.now"}')
            async with asyncio.timeout(10):
                assert await connection.recv(decode=False) == bytes.fromhex("fffe00")


async def test_exact_sound(engines: Engines, tmp_path: Path) -> None:
    """A tone and a WAV file named beside the script are heard as they are, whatever is said."""
    sound = tone(300, 400)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(sound)
    part = tmp_path / "part.yaml"
    part.write_text(
        "turns:\n"
        "  - answer: [{say: One. Two. Three., tone_hz: 300, tone_ms: 400}]\n"
        "  - answer: [{say: One., wav: sound.wav}]\n"
    )
    formats = {"output": {"format": {"type": "audio/pcmu"}}}
    async with scripted(engines, load_script(part), key="") as far, open_socket(far.url) as client:
        session = {"type": "realtime", "audio": formats}
        await client.send(type="session.update", session=session)
        await client.send(type="response.create")
        await client.wait("response.done")
        first = client.audio()
        await client.send(type="response.create")
        await client.wait("response.done", 2)
        assert first[: len(sound) // 2] == client.audio()[len(first) :] == encode(sound, "pcmu")


async def test_a_long_sentence(engines: Engines) -> None:
    """A sentence that begins to be spoken in part sounds as it is written, all the same."""
    long = "This sentence is so long that its beginning is spoken first, and the rest of it later."
    step = {"say": f"{long} And another one.", "tone_hz": 440, "tone_ms": 300}
    silent = {"say": long, "silent": True}
    script = Script.model_validate({"turns": [{"answer": [step]}, {"answer": [silent]}]})
    async with scripted(engines, script, key="") as far, open_socket(far.url) as client:
        await client.send(type="response.create")
        await client.wait("response.done")
        before = len(client.audio())
        assert before == 300 * 48
        await client.send(type="response.create")
        await client.wait("response.done", 2)
        assert len(client.audio()) > before + 1000 * 48
        assert max(abs(sample) for sample in memoryview(client.audio()[before:]).cast("h")) < 50


async def test_after_the_last_turn_there_is_a_voice_again(engines: Engines) -> None:
    """What is said after the script's end is heard, however the last turn was spoken."""
    silent = {"say": "You will not hear this.", "silent": True}
    script = Script.model_validate({"turns": [{"answer": [silent]}], "otherwise": "I am back."})
    async with scripted(engines, script, key="") as far, open_socket(far.url) as client:
        for turn in (1, 2):
            before = len(client.audio())
            await client.send(type="response.create")
            await client.wait("response.done", turn)
        assert max(abs(sample) for sample in memoryview(client.audio()[before:]).cast("h")) > 1000


async def test_more_than_anybody_hears(engines: Engines) -> None:
    """A client that asks for speech upon speech is refused before it fills the memory."""
    step = {"say": "Beep.", "tone_hz": 440, "tone_ms": 400_000}
    script = Script.model_validate({"turns": [{"answer": [step]}] * 3})
    async with scripted(engines, script, key="") as far, open_call(far.url) as call:
        await _answered(call)
        await _answered(call, 2)
        call.send(type="response.create")
        assert (await call.wait("error"))["error"]["code"] == "rate_limit_exceeded"
        call.send(type="output_audio_buffer.clear")
        await _answered(call, 3)


async def test_the_trace_tells_both_sides(engines: Engines) -> None:
    """What a client sent and what it was sent, faults included, is written down, audio left out."""
    script = _faults({"at": "session.created", "do": "repeat"})
    async with scripted(engines, script, key="") as far, open_call(far.url) as call:
        call.send(type="input_audio_buffer.append", audio="AAAA" * 100)
        await call.wait("error")
        call.send(type="response.create")
        await call.wait("response.done")
    told = [record["what"] for record in far.trace]
    assert (told[0], told[-1]) == ("opened", "ended")
    assert {record["session_id"] for record in far.trace} == {call.call_id}
    assert await far.sent("session.created", 2) == await far.sent("session.created", 1)
    append = await far.received("input_audio_buffer.append")
    assert append["audio"] == "(400 characters)"
    assert far.trace[-1]["packets_sent"] > 0


def test_the_trace_on_the_command_line(tmp_path: Path) -> None:
    """`--trace` appends one JSON object a line to a file that nobody else can read."""
    file = tmp_path / "trace.jsonl"
    with writing(file) as note:
        SessionTrace(note, "sess_1").received("no JSON")
        SessionTrace(note, "sess_2").ended("hangup by client", packets_sent=7)
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert (first["session_id"], first["what"], first["text"]) == ("sess_1", "received", "no JSON")
    assert (second["reason"], second["packets_sent"]) == ("hangup by client", 7)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


PACKETS = [str(number).encode() for number in range(8)]


@pytest.mark.parametrize(
    ("faults", "arrived"),
    [
        pytest.param([], "0 1 2 3 4 5 6 7", id="good"),
        pytest.param([{"do": "lose", "packets": [0, 3]}], "1 2 4 5 6 7", id="lost"),
        pytest.param([{"do": "lose", "every": 3}], "0 1 3 4 6 7", id="one in three lost"),
        pytest.param([{"do": "duplicate", "every": 4}], "0 1 2 3 3 4 5 6 7 7", id="twice"),
        pytest.param([{"do": "reorder", "packets": [1, 5]}], "0 2 1 3 4 6 5 7", id="reordered"),
        pytest.param(
            [{"do": "reorder", "packets": [1]}, {"do": "lose", "packets": [2]}],
            "0 1 3 4 5 6 7",
            id="behind a lost one",
        ),
        pytest.param(
            [{"do": "delay", "packets": [2], "delay_ms": 50}],
            "0 1 2@90 3@90 4@90 5 6 7",
            id="late, and a burst",
        ),
        pytest.param([{"do": "vanish"}], "", id="cut"),
    ],
)
def test_downlink(faults: list[dict[str, Any]], arrived: str) -> None:
    """Packets every 20 ms: which arrive, in which order, and when if not at once."""
    decided = Faults([ScriptFault(at="cue.go", **fault) for fault in faults], lambda *_: None)
    decided.take({"type": "cue.go"})
    seen = []
    for number, packet in enumerate(PACKETS):
        now_s = number / 50
        for leaves_s, each in decided.downlink.pass_on(packet, now_s):
            late = f"@{leaves_s * 1000:.0f}" if leaves_s > now_s else ""
            seen.append(each.decode() + late)
    assert " ".join(seen) == arrived


def test_jitter() -> None:
    """Each packet is late by up to so much, never overtakes, and by the same in each session."""
    fault = ScriptFault(at=0.0, do="jitter", every=1, delay_ms=40)

    def leaves() -> list[float]:
        downlink = Downlink()
        downlink.add(fault)
        sent = [downlink.pass_on(b"x", number / 50) for number in range(50)]
        return [leaves_s - number / 50 for number, [(leaves_s, _)] in enumerate(sent)]

    late = leaves()
    assert late == leaves()
    assert max(late) <= 0.04
    assert len(set(late)) > 25
    assert all(later + 0.02 >= earlier - 1e-9 for earlier, later in itertools.pairwise(late))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("- a\n", "accepted: offers, channel, echo, greeting", id="a list"),
        pytest.param("a: [", "found no YAML", id="no YAML"),
        pytest.param("turn: []", "turn: found an unknown key, accepted: offers,", id="unknown key"),
        pytest.param(
            "turns: [{heer: x}]", "turns.0.heer: found an unknown key, accepted: hear,", id="deep"
        ),
        pytest.param("turns: 5", "turns: found 5, accepted: a valid tuple", id="wrong type"),
        pytest.param(
            "faults: [{at: 1, do: explode}]",
            "faults.0.do: found 'explode', accepted: 'drop', 'freeze'",
            id="unknown fault",
        ),
        pytest.param("faults: [{do: drop}]", "faults.0.at: missing", id="no time"),
        pytest.param("faults: [{at: -1, do: drop}]", "found -1, accepted: 0 to", id="the past"),
        pytest.param(
            "faults: [{at: 1, do: send}]", "one of event, text and hex", id="sends nothing"
        ),
        pytest.param(
            "faults: [{at: 1, do: hold}]", "a type of the server's events", id="holds nothing"
        ),
        pytest.param("offers: [{status: 200}]", "found 200, accepted: 201 or 400", id="status"),
        pytest.param("turns: [{answer: [{}]}]", "say and call", id="empty step"),
        pytest.param(
            "turns: [{answer: [{say: x, tone_hz: 440}]}]", "both or neither", id="no length"
        ),
        pytest.param(
            "turns: [{answer: [{say: x, tone_hz: 5000, tone_ms: 20}]}]",
            "tone_hz: found 5000, accepted: less than 4000",
            id="too high",
        ),
        pytest.param(
            "turns: [{answer: [{say: x, wav: none.wav}]}]", "cannot be read as WAV", id="no WAV"
        ),
        pytest.param(
            "turns: [{answer: [{say: x, wav: a.wav, tone_hz: 9, tone_ms: 9}]}]",
            "found both tone_hz and wav",
            id="two sounds",
        ),
        pytest.param(
            "turns: [{answer: [{call: x, silent: true}]}]", "silent beside call", id="silent call"
        ),
        pytest.param("offers: [{alter: [{find: '('}]}]", "no regular expression", id="pattern"),
        pytest.param(
            "offers: [{alter: [{find: a, put: '\\9'}]}]", "no regular expression", id="group"
        ),
        pytest.param("offers: [{alter: [{fnd: a}]}]", "accepted: find, put", id="alter's key"),
        pytest.param(
            "offers: [{answer: x, alter: [{find: a}]}]", "both answer and alter", id="two answers"
        ),
        pytest.param("offers: [{error: {code: x}}]", "a refusal's status", id="error with 201"),
        pytest.param("echo: 7", "echo: found 7, accepted: a valid boolean", id="echo"),
        pytest.param(
            "faults: [{at: 1, do: ignore}]",
            "at: found 1 s, accepted with do: ignore: one of conversation.item.create",
            id="ignores nothing",
        ),
        pytest.param(
            "faults: [{at: session.update, do: omit}]",
            "at: found session.update, accepted with do: omit: a type of the server's events",
            id="omits the client's",
        ),
        pytest.param(
            "faults: [{at: response.done, after_s: 1, do: omit}]", "found after_s", id="omits later"
        ),
        pytest.param("faults: [{at: 1, do: send, hex: xyz}]", "hex: found 'xyz'", id="hex"),
        pytest.param("faults: [{at: 1, do: lose}]", "either packets or every", id="which packets"),
        pytest.param(
            "faults: [{at: 1, do: lose, packets: [-1]}]", "found -1, accepted: greater", id="before"
        ),
        pytest.param("faults: [{at: 1, do: drop, every: 5}]", "nothing else does", id="not RTP"),
        pytest.param(
            "faults: [{at: 1, do: delay, every: 5}]", "take delay_ms; nothing else", id="how late"
        ),
        pytest.param(
            "faults: [{at: 1, do: drop, error: {code: x}}]", "only with do: fail", id="no error"
        ),
    ],
)
def test_wrong_script(tmp_path: Path, text: str, said: str) -> None:
    """A script that cannot be played is refused by file, key, what was found and what is accepted."""
    file = tmp_path / "part.yaml"
    file.write_text(text)
    with pytest.raises(ScriptError) as caught:
        load_script(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)


def test_the_documented_example_can_be_played() -> None:
    """What docs/realtime-script.md shows is accepted, key by key."""
    page = Path(__file__).parents[2] / "docs" / "realtime-script.md"
    example = page.read_text().split("```yaml")[1].split("```")[0]
    import yaml

    script = Script.model_validate(yaml.safe_load(example))
    assert {fault.do for fault in script.faults} >= {"drop", "freeze", "send", "fail_response"}
    with pytest.raises(ValidationError):
        script.greeting = "another"  # type: ignore[misc]


async def test_wrong_script_on_the_command_line(tmp_path: Path) -> None:
    """`trunkline realtime --script` with a wrong file: 2, one message, no traceback."""
    missing = tmp_path / "nothing.yaml"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent.main", "realtime", "--script", str(missing)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OPENAI_API_KEY": ""},
        cwd=tmp_path,
    )
    async with asyncio.timeout(30):
        out, err = await child.communicate()
    assert child.returncode == 2
    assert out == b""
    assert err.decode() == f"{missing}: cannot be read: No such file or directory\n"


def _kinds(messages: list[str]) -> list[str]:
    return [json.loads(message)["type"] for message in messages]


async def _until(holds: Any) -> None:
    async with asyncio.timeout(12):
        while not holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def open_raw(url: str, got: list[str]) -> AsyncIterator[Any]:
    """A call that keeps every message as it came, readable or not."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio", "sendrecv")
    channel = pc.createDataChannel("oai-events")
    channel.on("message", got.append)
    try:
        from aiortc import RTCSessionDescription

        await pc.setLocalDescription(await pc.createOffer())
        sdp = pc.localDescription.sdp.replace(
            "a=max-message-size:65536", "a=max-message-size:262144"
        )
        reply = await post_offer(url, sdp)
        await pc.setRemoteDescription(RTCSessionDescription(reply.text, "answer"))
        yield lambda event: channel.send(json.dumps(event))
    finally:
        await pc.close()
