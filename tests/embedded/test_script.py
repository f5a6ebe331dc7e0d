"""A scripted server, seen by clients: what it was told to hear, answer and break, and no more."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from aiortc import RTCConfiguration, RTCPeerConnection
from pydantic import SecretStr, ValidationError

from agent.call.events import AgentGone
from agent.call.ports import AgentProfile, AgentUnavailable, CallOffer
from agent.embedded.doorstep import Doorstep
from agent.embedded.engines import Engines
from agent.embedded.script import Script, ScriptError, load_script
from agent.embedded.server import RealtimeServer
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.stage import ScriptedEngines
from agent.embedded.voice import Voice
from agent.realtime.leg import RealtimeConnector
from agent.realtime.settings import RealtimeSettings
from tests.embedded.caller import Caller, open_call, post_offer

SCRIPTS = Path(__file__).parent.parent / "data" / "scripts"
PROFILE = AgentProfile("receptionist", "You answer the phone.", "Hello.", "marin")
TRANSCRIBED = {
    "type": "realtime",
    "audio": {"input": {"transcription": {"model": "gpt-transcribe"}}},
}
OFFER = CallOffer("call_1", "sip_1", "trunk", "100", "200", 0.0)


@asynccontextmanager
async def scripted(engines: Engines, script: Script) -> AsyncIterator[str]:
    """Serve a script on a real port; leaving it, no call is left."""
    server = RealtimeServer(EmbeddedSettings(), ScriptedEngines(engines, script))
    config = uvicorn.Config(
        Doorstep(server.app, script),
        host="127.0.0.1",
        port=0,
        ws="none",
        lifespan="off",
        log_config=None,
    )
    web = uvicorn.Server(config)
    async with server.running():
        serving = asyncio.create_task(web.serve())
        async with asyncio.timeout(5):
            while not web.started:
                await asyncio.sleep(0.01)
        port = web.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            web.should_exit = True
            async with asyncio.timeout(10):
                await serving
    assert server.call_count == 0


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
    async with scripted(engines, script) as url, open_call(url, TRANSCRIBED) as call:
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
    async with scripted(engines, script) as url:
        reply = await post_offer(url, await _offer_sdp())
        assert reply.status_code == status
        assert reply.json()["error"]["code"] == offer.get("error", {}).get(
            "code", "scripted_refusal"
        )
        assert headers.items() <= dict(reply.headers).items()
        async with open_call(url) as call:
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
        scripted(engines, Script.model_validate(script)) as url,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        settings = RealtimeSettings(
            base_url=url, api_key=SecretStr("sk-test"), connect_timeout_s=1.5
        )
        with pytest.raises(AgentUnavailable, match=reason) as caught:
            async with RealtimeConnector(settings, client).open(PROFILE, OFFER):
                pass
        assert caught.value.retry_after_s == retry_after_s


async def test_our_agent_notices_a_dropped_session(engines: Engines) -> None:
    """A session that ends in mid-call is told to the call as the agent's end."""
    async with (
        scripted(engines, _faults({"at": 0.5, "do": "drop"})) as url,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        settings = RealtimeSettings(base_url=url, api_key=SecretStr("sk-test"))
        async with RealtimeConnector(settings, client).open(PROFILE, OFFER) as leg:
            async with asyncio.timeout(8):
                events = [event async for event in leg.events()]
        assert isinstance(events[-1], AgentGone)


async def test_mends_nothing_it_was_told_to_break(engines: Engines) -> None:
    """Garbage, unknown, oversized, repeated, reordered, missing and failed: each as written, once."""
    script = load_script(SCRIPTS / "rough.yaml")
    got: list[str] = []
    async with scripted(engines, script) as url, open_raw(url, got) as send:
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
        scripted(engines, _faults({"at": "session.created", "do": "mute"})) as url,
        open_call(url) as call,
    ):
        await _answered(call)
        await call.wait("output_audio_buffer.stopped")
        assert call.packets > 20
        assert max(abs(sample) for sample in memoryview(bytes(call.heard)).cast("h")) < 50


async def test_freeze(engines: Engines) -> None:
    """A frozen session says nothing more and answers nothing, and can still be hung up."""
    script = _faults({"at": "output_audio_buffer.started", "do": "freeze"})
    async with scripted(engines, script) as url, open_call(url) as call:
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
        scripted(engines, _faults({"at": at, "do": "expire"})) as url,
        open_call(url) as call,
    ):
        call.send(type="response.create")
        error = await call.wait("error")
        assert error["error"]["code"] == "session_expired"
        await _until(lambda: call.channel.readyState == "closed")


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
