"""What clients do wrong, and how calls end: a clear answer, and nothing left behind."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from pydantic import SecretStr

from agent.embedded.access import Access
from agent.embedded.conversation import Conversation
from agent.embedded.server import RealtimeServer
from agent.embedded.settings import EmbeddedSettings
from tests.embedded.caller import open_call, post_offer


async def _offer(*, audio: bool = True, channel: bool = True) -> str:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    if audio:
        pc.addTransceiver("audio", "sendrecv")
    if channel:
        pc.createDataChannel("oai-events")
    await pc.setLocalDescription(await pc.createOffer())
    sdp = str(pc.localDescription.sdp)
    await pc.close()
    return sdp


async def _gone(server: RealtimeServer, calls: int = 0) -> None:
    async with asyncio.timeout(5):
        while server.call_count > calls:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda sdp: "", id="nothing"),
        pytest.param(lambda sdp: "hello\r\n", id="no SDP"),
        pytest.param(lambda sdp: "v=0\r\nm=audio\r\n", id="broken media line"),
        pytest.param(lambda sdp: sdp.rstrip(), id="last line break trimmed off"),
        pytest.param(lambda sdp: re.sub("opus|PCM[UA]", "speex", sdp), id="no codec we speak"),
        pytest.param(lambda sdp: sdp.replace("a=fingerprint", "a=finger"), id="no fingerprint"),
        pytest.param(lambda sdp: sdp.replace("a=ice-ufrag", "a=ice"), id="no ICE"),
        pytest.param(lambda sdp: sdp[: len(sdp) // 3] + "\r\n", id="cut off"),
        pytest.param(
            lambda sdp: re.sub(r"m=application.*\r\n", "", sdp), id="a media line is missing"
        ),
    ],
)
async def test_bad_offer(url: str, server: RealtimeServer, change: Any) -> None:
    """An offer that makes no sense is refused as invalid_offer, and opens nothing."""
    reply = await post_offer(url, change(await _offer()))
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "invalid_offer"
    assert server.call_count == 0


async def test_offer_without_audio(url: str, server: RealtimeServer) -> None:
    """A peer that only brings a data channel is told what is missing."""
    reply = await post_offer(url, await _offer(audio=False))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_offer")
    assert "audio" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        pytest.param({}, "missing_required_parameter", "session.type", id="no type"),
        pytest.param(
            {"type": "realtime", "temperature": 1},
            "unknown_parameter",
            "session.temperature",
            id="beta",
        ),
        pytest.param([], "invalid_value", "session", id="no object"),
    ],
)
async def test_bad_session_part(url: str, session: Any, code: str, param: str) -> None:
    """A session part that is wrong refuses the offer and names the field."""
    reply = await post_offer(url, await _offer(), session)
    assert reply.status_code == 400
    assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == (code, param)


async def test_answer(url: str, server: RealtimeServer) -> None:
    """The answer has CRLF, a relative Location, Opus alone, and ends by hangup; again is 404."""
    reply = await post_offer(url, await _offer())
    assert reply.status_code == 201
    location = reply.headers["location"]
    assert location.startswith("/v1/realtime/calls/rtc_u0_")
    assert reply.text.endswith("\r\n")
    assert reply.text.count("\n") == reply.text.count("\r\n")
    assert "a=setup:active" in reply.text
    assert not {"G722", "PCMU", "PCMA"} & set(reply.text.replace("/", " ").split())
    async with httpx.AsyncClient(trust_env=False) as client:
        path = f"{url.removesuffix('/v1')}{location}/hangup"
        assert (await client.post(path)).status_code == 200
        await _gone(server)
        again = await client.post(path)
        assert (again.status_code, again.json()["error"]["code"]) == (404, "call_id_not_found")
        other = await client.post(f"{url}/realtime/nothing")
        assert (other.status_code, other.json()["error"]["code"]) == (404, None)


class TestRequiredKey:
    """A server with a key."""

    @pytest.fixture
    def settings(self) -> EmbeddedSettings:
        return EmbeddedSettings(api_key=SecretStr("right"), max_sessions=1)

    async def test_key(self, url: str, server: RealtimeServer) -> None:
        """Without the right bearer nobody gets in; when full, the next is told to wait."""
        offer, kind = await _offer(), {"Content-Type": "application/sdp"}
        async with httpx.AsyncClient(trust_env=False) as client:
            for headers in (kind, {**kind, "Authorization": "Bearer wrong"}):
                reply = await client.post(f"{url}/realtime/calls", content=offer, headers=headers)
                assert (reply.status_code, reply.json()["error"]["code"]) == (
                    401,
                    "invalid_api_key",
                )
            headers = {**kind, "Authorization": "Bearer right"}
            reply = await client.post(f"{url}/realtime/calls", content=offer, headers=headers)
            assert reply.status_code == 201
            reply = await client.post(f"{url}/realtime/calls", content=offer, headers=headers)
            assert (reply.status_code, reply.headers["retry-after"]) == (429, "5")

    async def test_all_at_once(self, url: str) -> None:
        """Offers that come together do not get in together where there is room for one."""
        offers = [await _offer() for _ in range(4)]
        headers = {"Content-Type": "application/sdp", "Authorization": "Bearer right"}
        async with httpx.AsyncClient(trust_env=False) as client:
            asked = (
                client.post(f"{url}/realtime/calls", content=offer, headers=headers)
                for offer in offers
            )
            replies = await asyncio.gather(*asked)
        assert sorted(reply.status_code for reply in replies) == [201, 429, 429, 429]


async def test_broken_server(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the server itself breaks, the client is told in OpenAI's form, the log what it was."""
    monkeypatch.setattr(Access, "mint", lambda *_: 1 / 0)
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.post(f"{url}/realtime/client_secrets", json={})
    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "server_error")
    assert "ZeroDivisionError" in caplog.text


def test_full_conversation() -> None:
    """Where the oldest item gives way to a new one, the new one still follows the last."""
    conversation = Conversation()
    for number in range(2500):
        before = conversation.add({"id": f"item_{number}"})
        assert before == (f"item_{number - 1}" if number else None)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param("not json", "invalid_event", id="no JSON"),
        pytest.param("[" * 5000, "invalid_event", id="nested deep"),
        pytest.param("[]", "invalid_event", id="no object"),
        pytest.param("{}", "missing_required_parameter", id="no type"),
        pytest.param('{"type": 5}', "missing_required_parameter", id="type is no string"),
        pytest.param('{"type": "brand.new"}', "invalid_value", id="unknown type"),
        pytest.param('{"type": "session.update"}', "missing_required_parameter", id="no session"),
        pytest.param(
            '{"type": "session.update", "session": {"instructions": "x"}}',
            "missing_required_parameter",
            id="no session type",
        ),
        pytest.param(
            '{"type": "session.update", "session": {"type": "realtime", "voice": "x"}}',
            "unknown_parameter",
            id="beta field",
        ),
        pytest.param('{"type": "response.cancel"}', "response_cancel_not_active", id="no response"),
        pytest.param(
            '{"type": "input_audio_buffer.append", "audio": "AAAA"}', "invalid_event", id="audio"
        ),
        pytest.param(
            '{"type": "conversation.item.delete", "item_id": "item_x"}',
            "invalid_value",
            id="no item",
        ),
        pytest.param(
            '{"type": "conversation.item.delete", "item_id": {"a": 1}}',
            "invalid_value",
            id="id type",
        ),
        pytest.param(
            '{"type": "conversation.item.create", "item": 5}', None, id="item is a number"
        ),
        pytest.param(
            '{"type": "response.create", "response": {"instructions": 5}}', "invalid_value", id="5"
        ),
        pytest.param(
            '{"type": "response.create", "response": {"voice": 5}}', "unknown_parameter", id="voice"
        ),
    ],
)
async def test_bad_event(url: str, message: str, code: str | None) -> None:
    """A wrong event becomes an error event with the service's code, and the session lives on."""
    async with open_call(url) as caller:
        caller.channel.send(message)
        error = (await caller.wait("error"))["error"]
        assert error["code"] == (code or "missing_required_parameter")
        caller.send(type="session.update", event_id="c1", session={"type": "realtime"})
        await caller.wait("session.updated")


async def test_binary_and_unreadable_messages(url: str) -> None:
    """Bytes on the data channel are refused like any other garbage."""
    async with open_call(url) as caller:
        caller.channel.send(b"\xff\xfe\x00")
        assert (await caller.wait("error"))["error"]["code"] == "invalid_event"


async def test_error_names_the_event(url: str) -> None:
    """The client's event_id comes back in the error."""
    async with open_call(url) as caller:
        caller.send(type="response.cancel", event_id="c7")
        assert (await caller.wait("error"))["error"]["event_id"] == "c7"


async def test_one_response_at_a_time(url: str) -> None:
    """A second response.create is refused while the first is made."""
    async with open_call(url) as caller:
        caller.send(type="response.create", response={"instructions": 'Say "One. Two. Three."'})
        caller.send(type="response.create")
        code = (await caller.wait("error"))["error"]["code"]
        assert code == "conversation_already_has_active_response"
        assert (await caller.wait("response.done"))["response"]["status"] == "completed"


async def test_session_merges(url: str) -> None:
    """Only the fields present change, null clears, and the whole session comes back."""
    async with open_call(url, {"type": "realtime", "instructions": "A"}) as caller:
        detection = {"type": "server_vad", "silence_duration_ms": 400}
        audio = {"input": {"turn_detection": detection}}
        caller.send(type="session.update", session={"type": "realtime", "audio": audio})
        session = (await caller.wait("session.updated"))["session"]
        assert session["instructions"] == "A"
        assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 400
        assert session["audio"]["input"]["turn_detection"]["create_response"] is True
        assert session["audio"]["output"]["voice"] == "marin"
        off = {"input": {"turn_detection": None}}
        caller.send(type="session.update", session={"type": "realtime", "audio": off})
        session = (await caller.wait("session.updated", 2))["session"]
        assert session["audio"]["input"]["turn_detection"] is None


async def test_items(url: str) -> None:
    """Items are added in their place, retrieved and deleted."""
    async with open_call(url) as caller:
        for name in ("item_a", "item_b"):
            content = [{"type": "input_text", "text": name}]
            item = {"id": name, "type": "message", "role": "user", "content": content}
            caller.send(type="conversation.item.create", item=item, previous_item_id="root")
        assert (await caller.wait("conversation.item.done", 2))["previous_item_id"] is None
        caller.send(type="conversation.item.retrieve", item_id="item_a")
        assert (await caller.wait("conversation.item.retrieved"))["item"]["id"] == "item_a"
        caller.send(type="conversation.item.delete", item_id="item_a")
        assert (await caller.wait("conversation.item.deleted"))["item_id"] == "item_a"


async def test_hangup_ends_the_call(url: str, server: RealtimeServer) -> None:
    """POST hangup in mid-sentence closes the peer connection."""
    async with open_call(url) as caller:
        caller.send(type="response.create", response={"instructions": 'Say "One. Two. Three."'})
        await caller.wait("output_audio_buffer.started")
        async with httpx.AsyncClient(trust_env=False) as client:
            reply = await client.post(f"{url}/realtime/calls/{caller.call_id}/hangup")
        assert reply.status_code == 200
        await _gone(server)
        async with asyncio.timeout(5):
            while caller.pc.connectionState != "closed":
                await asyncio.sleep(0.02)


async def test_client_vanishes(url: str, server: RealtimeServer) -> None:
    """A client that goes in mid-sentence is forgotten, and another is served meanwhile."""
    async with open_call(url) as staying:
        async with open_call(url) as leaving:
            text = "One. Two. Three. Four. Five. Six."
            leaving.send(type="response.create", response={"instructions": f'Say "{text}"'})
            await leaving.wait("output_audio_buffer.started")
            assert server.call_count == 2
        await _gone(server, 1)
        staying.send(type="response.create", response={"instructions": 'Say "Still here."'})
        await staying.wait("output_audio_buffer.stopped")
    await _gone(server)


async def test_many_tools(url: str) -> None:
    """More instructions and tools than the data channel carries are refused, not lost."""
    async with open_call(url) as caller:
        tools = [
            {"type": "function", "name": f"t{n}", "description": "x" * 150} for n in range(999)
        ]
        caller.send(type="session.update", session={"type": "realtime", "tools": tools})
        assert (await caller.wait("error"))["error"]["code"] == "invalid_value"


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; from pathlib import Path\n"
        "from agent.embedded.server import serve_forever\n"
        "from agent.embedded.settings import EmbeddedSettings\n"
        "facts = Path(sys.argv[2]) if len(sys.argv) > 2 else None\n"
        "serve_forever(EmbeddedSettings(listen=sys.argv[1], facts_file=facts))",
        *arguments,
        cwd=root,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_process_says_where_it_is_and_ends_on_sigterm() -> None:
    """One JSON line when ready; SIGTERM ends it cleanly."""
    async with asyncio.timeout(30), _process("127.0.0.1:0") as process:
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        reply = await post_offer(url, await _offer())
        assert reply.status_code == 201
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_process_ends_with_its_parent() -> None:
    """When whoever started it is killed, it goes too."""
    middle = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'from agent.embedded.server import "
        "serve_forever; from agent.embedded.settings import EmbeddedSettings; "
        "serve_forever(EmbeddedSettings())'], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", middle, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        child = int(await process.stdout.readline())
        process.kill()
        await process.communicate()
        while _is_running(child):
            await asyncio.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        pytest.param("- just\n- a list", "expected keys", id="a list"),
        pytest.param("hours: {monday: early}", "hours.monday", id="hours"),
        pytest.param("a: [", "not YAML", id="broken"),
        pytest.param(None, "No such file", id="missing"),
    ],
)
async def test_wrong_facts(tmp_path: Path, facts: str | None, said: str) -> None:
    """A facts file that is wrong stops the start with one message and exit 2."""
    file = tmp_path / "facts.yaml"
    if facts is not None:
        file.write_text(facts)
    async with asyncio.timeout(30), _process("127.0.0.1:0", str(file)) as process:
        _, errors = await process.communicate()
        assert process.returncode == 2
        assert said in errors.decode()
        assert "Traceback" not in errors.decode()
