"""Bad input of every kind: a clear answer, the other sessions talk on, and nothing is left."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from agent.embedded.server import RealtimeServer
from tests.embedded.caller import TIMEOUT_S, Caller, open_call
from tests.embedded.socket_client import SocketClient, open_socket

DEEP = "[" * 100 + "]" * 100
LONG = "x" * 10_000_000
HALF = '"\\ud83d"'


@asynccontextmanager
async def talking_on(url: str) -> AsyncIterator[None]:
    """Hold another session that is answered, again and again, while something goes wrong."""
    async with open_socket(url) as other:
        talking = asyncio.create_task(_talk(other))
        await other.wait("response.done")
        yield
        await other.wait("response.done", other.kinds().count("response.done") + 2)
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        done = [e["response"]["status"] for e in other.events if e["type"] == "response.done"]
        assert set(done) == {"completed"}
        assert "error" not in other.kinds()


async def _talk(client: SocketClient) -> None:
    wish = {"instructions": 'Say "Still here."', "output_modalities": ["text"]}
    for count in range(1, 10_000):
        await client.send(type="response.create", response=wish)
        await client.wait("rate_limits.updated", count)


def _update(session: str) -> str:
    return f'{{"type": "session.update", "session": {{"type": "realtime", {session}}}}}'


WRONG_MESSAGES = [
    pytest.param(b"\x00\xff", "invalid_event", id="binary"),
    pytest.param("{", "invalid_event", id="no JSON"),
    pytest.param("[]", "invalid_event", id="no object"),
    pytest.param('{"type": null}', "missing_required_parameter", id="no type"),
    pytest.param(f'{{"type": "x", "a": {DEEP}}}', "invalid_event", id="nested deep"),
    pytest.param("[" * 100_000, "invalid_event", id="nested very deep"),
    pytest.param(_update('"audio": {"output": {"speed": NaN}}'), "invalid_event", id="NaN"),
    pytest.param(_update('"audio": {"output": {"speed": 1e999}}'), "invalid_event", id="1e999"),
    pytest.param(_update(f'"max_output_tokens": {"9" * 5000}'), "invalid_event", id="huge number"),
    pytest.param(_update(f'"instructions": {HALF}'), "invalid_event", id="half a character"),
]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        *WRONG_MESSAGES,
        pytest.param(f'{{"type": "x", "a": [{"[]," * 3_000_000}[]]}}', "invalid_event", id="parts"),
        pytest.param(_update(f'"instructions": "{LONG}"'), "invalid_value", id="10 MB of JSON"),
        pytest.param(
            f'{{"type": "input_audio_buffer.append", "audio": "{LONG}%"}}',
            "invalid_value",
            id="10 MB that is not base64",
        ),
    ],
)
async def test_websocket_message(url: str, message: str | bytes, code: str) -> None:
    """A message that cannot be taken is refused, and its session goes on like the others."""
    async with talking_on(url), open_socket(url) as client:
        await client.connection.send(message)
        assert (await client.wait("error"))["error"]["code"] == code
        await client.send(type="session.update", session={"type": "realtime"})
        await client.wait("session.updated")


@pytest.mark.parametrize(("message", "code"), WRONG_MESSAGES)
async def test_data_channel_message(url: str, message: str | bytes, code: str) -> None:
    """The same over WebRTC."""
    async with talking_on(url), open_call(url) as caller:
        caller.channel.send(message[:60_000])
        assert (await caller.wait("error"))["error"]["code"] == code
        caller.send(type="session.update", session={"type": "realtime"})
        await caller.wait("session.updated")


async def test_data_channel_message_that_is_far_too_long(url: str) -> None:
    """A client that ignores what length was agreed is refused as well."""
    async with talking_on(url), open_call(url) as caller:
        sctp: Any = caller.pc.sctp
        text = _update(f'"instructions": "{LONG[:1_000_000]}"')
        await sctp._send(caller.channel.id, 51, text.encode())
        assert (await caller.wait("error"))["error"]["code"] == "invalid_value"


@pytest.mark.parametrize(
    ("text", "close_code"),
    [
        pytest.param(b"\xff\xfe{}", 1007, id="not UTF-8"),
        pytest.param(b"x" * 23_000_000, 1009, id="longer than any event"),
    ],
)
async def test_websocket_frame(
    url: str, server: RealtimeServer, text: bytes, close_code: int
) -> None:
    """A frame that breaks the WebSocket protocol ends its own connection, and says why."""
    async with talking_on(url), open_socket(url) as client:
        with contextlib.suppress(ConnectionClosed):
            async with client.connection.send_context():
                client.connection.protocol.send_text(text)
        async with asyncio.timeout(TIMEOUT_S):
            await client.closed.wait()
        assert client.connection.close_code == close_code


async def test_websocket_reset(url: str, server: RealtimeServer) -> None:
    """A client whose TCP connection is reset in mid-sentence is forgotten at once."""
    async with talking_on(url):
        async with open_socket(url) as client:
            await client.send(
                type="response.create", response={"instructions": 'Say "One. Two. Three. Four."'}
            )
            await client.wait("response.output_audio.delta")
            raw: socket.socket = client.connection.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.connection.transport.abort()
        async with asyncio.timeout(TIMEOUT_S):
            while server.call_count > 1:
                await asyncio.sleep(0.01)


JSON = {"Content-Type": "application/json"}
PARTS = {"Content-Type": "multipart/form-data; boundary=b"}


def _part(name: str, body: bytes) -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), body)


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        pytest.param(
            "POST", "/client_secrets", JSON, b'{"session": 5}', 400, "invalid_value", id="session"
        ),
        pytest.param(
            "POST", "/client_secrets", JSON, LONG.encode(), 413, "request_too_large", id="10 MB"
        ),
        pytest.param(
            "POST", "/client_secrets", JSON, b'{"a": "\xff"}', 400, "invalid_value", id="not UTF-8"
        ),
        pytest.param("POST", "/client_secrets", JSON, b"NaN", 400, "invalid_value", id="NaN"),
        pytest.param(
            "POST", "/client_secrets", JSON, DEEP.encode(), 400, "invalid_value", id="nested deep"
        ),
        pytest.param(
            "POST",
            "/client_secrets",
            JSON,
            b'{"session": {"type": "realtime", "voice": "x"}}',
            400,
            "unknown_parameter",
            id="beta session",
        ),
        pytest.param(
            "POST", "/calls", JSON, b"{}", 415, "unsupported_content_type", id="JSON as offer"
        ),
        pytest.param("POST", "/calls", {}, LONG.encode(), 413, "request_too_large", id="10 MB SDP"),
        pytest.param("POST", "/calls", {}, b"\xff\xfe", 400, "invalid_offer", id="SDP not UTF-8"),
        pytest.param("POST", "/calls", PARTS, b"junk", 400, None, id="broken multipart"),
        pytest.param(
            "POST",
            "/calls",
            PARTS,
            _part("session", b"{}") + b"--b--\r\n",
            400,
            "invalid_offer",
            id="no sdp part",
        ),
        pytest.param(
            "POST",
            "/calls",
            PARTS,
            _part("sdp", b"v=0\r\n") + _part("session", b"{") + b"--b--\r\n",
            400,
            "invalid_value",
            id="session part is no JSON",
        ),
        pytest.param("GET", "/calls", {}, b"", 405, None, id="method"),
        pytest.param("DELETE", "/client_secrets", {}, b"", 405, None, id="another method"),
        pytest.param("POST", "/sessions", JSON, b"{}", 404, None, id="a path of the beta"),
        pytest.param("POST", "/calls/rtc_x/refer", JSON, b"{}", 404, None, id="a path of SIP"),
        pytest.param("GET", "", {}, b"", 404, None, id="no upgrade"),
    ],
)
async def test_request(
    url: str,
    server: RealtimeServer,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    code: str | None,
) -> None:
    """A request that cannot be served has its status and OpenAI's error body, and opens nothing."""
    async with talking_on(url), httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client:
        reply = await client.request(method, f"{url}/realtime{path}", headers=headers, content=body)
        assert reply.status_code == status
        error = reply.json()["error"]
        assert (error["code"], error["type"]) == (code, "invalid_request_error")
        assert error["message"]
        assert server.call_count == 1


@pytest.mark.parametrize(
    ("count", "status"),
    [pytest.param(1, 200, id="short"), pytest.param(1000, 413, id="without end")],
)
async def test_body_without_length(url: str, count: int, status: int) -> None:
    """A body that comes in chunks is taken, but not for ever."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"{"
        for _ in range(count):
            yield b" " * 64_000
        yield b"}"

    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client:
        reply = await client.post(f"{url}/realtime/client_secrets", content=chunks())
        assert reply.status_code == status


async def test_events_at_once(url: str) -> None:
    """What a client sends before it has read a word is answered after session.created."""
    async with open_socket(url) as client:
        await client.send(type="input_audio_buffer.append", audio="AAAA" * 100)
        await client.send(type="input_audio_buffer.clear")
        await client.send(type="no.such.event")
        await client.wait("error")
        assert client.kinds() == ["session.created", "input_audio_buffer.cleared", "error"]


async def test_events_as_the_channel_opens(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same over WebRTC, where the channel may be open before the session is."""
    attach = Caller.attach

    def hurry(caller: Caller) -> None:
        attach(caller)
        caller.channel.on("open", lambda: caller.send(type="no.such.event"))
        if caller.channel.readyState == "open":
            caller.send(type="no.such.event")

    monkeypatch.setattr(Caller, "attach", hurry)
    async with open_call(url) as caller:
        await caller.wait("error")
        assert caller.kinds()[:2] == ["session.created", "error"]


def _tools(count: int) -> list[dict[str, Any]]:
    schema = {"type": "object", "properties": {"number": {"type": "string"}}}
    described = {
        "type": "function",
        "description": "Looks up the mood of a sheep.",
    }
    return [
        *({**described, "name": f"sheep_{n}", "parameters": schema} for n in range(count - 1)),
        {"type": "function", "name": "launch_rocket", "description": "Launches the rocket."},
    ]


async def test_thousand_tools(url: str) -> None:
    """A WebSocket takes them, and the right one is called, while others talk on."""
    async with talking_on(url), open_socket(url) as client:
        session = {"type": "realtime", "output_modalities": ["text"], "tools": _tools(1000)}
        await client.send(type="session.update", session=session)
        assert len((await client.wait("session.updated"))["session"]["tools"]) == 1000
        content = [{"type": "input_text", "text": "Please launch the rocket."}]
        item = {"type": "message", "role": "user", "content": content}
        await client.send(type="conversation.item.create", item=item)
        await client.send(type="response.create")
        called = await client.wait("response.function_call_arguments.done")
        assert (called["name"], called["arguments"]) == ("launch_rocket", "{}")


async def test_thousand_tools_over_a_data_channel(url: str) -> None:
    """A data channel could not carry them back: they are refused, by the offer as by the event."""
    tools = [{**tool, "description": "x" * 150} for tool in _tools(1000)]
    session = {"type": "realtime", "tools": tools}
    async with talking_on(url), open_call(url) as caller:
        text = json.dumps({"type": "session.update", "session": session})
        sctp: Any = caller.pc.sctp
        await sctp._send(caller.channel.id, 51, text.encode())
        error = (await caller.wait("error"))["error"]
        assert (error["code"], error["param"]) == ("invalid_value", "session")
        assert "200 KiB" in error["message"]
