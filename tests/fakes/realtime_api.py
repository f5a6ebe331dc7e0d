"""A Realtime API with a script: a real HTTP port, a real WebRTC peer, and bad manners on demand.

In a test::

    async with open_fake(Manners(acknowledge=False)) as api:
        settings = RealtimeSettings(base_url=api.url)
        ...
        session = await api.session()          # the next call that was connected
        await session.wait_for("response.create")
        session.send({"type": "error", ...})   # a dict, or text, or bytes as they are
        await session.say(frames, "resp_1")    # RTP, with the events around it

`session.received` holds the client's events, `session.heard` the caller's frames.
What a manner means is said where it is declared. As a process::

    python -m tests.fakes.realtime_api --port 0 --echo

prints one JSON line, `{"url": "http://127.0.0.1:PORT/v1"}`, when it is ready, and
sends every caller's RTP back to them.
"""

import argparse
import asyncio
import email.parser
import email.policy
import gc
import itertools
import json
import math
import struct
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidStateError

from agent.audio.frame import FRAME_SAMPLES, Frame
from agent.audio.opus import OpusDecoder, OpusEncoder
from agent.realtime.rtp_path import RtpPath, gather_loopback_when_alone

KEY = "sk-test-not-a-secret"
_FRAME_S = 0.02
_TICKS = 960
_TIMEOUT_S = 5.0

Event = dict[str, Any]


def tone(duration_ms: int, hz: float = 440.0, peak: int = 8000) -> list[Frame]:
    """Make a sine as frames of 20 ms."""
    count = duration_ms * 8
    values = [int(peak * math.sin(2 * math.pi * hz * i / 8000)) for i in range(count)]
    return [
        struct.pack(f"<{FRAME_SAMPLES}h", *values[i : i + FRAME_SAMPLES])
        for i in range(0, count - FRAME_SAMPLES + 1, FRAME_SAMPLES)
    ]


@dataclass
class Manners:
    """How the fake behaves; the defaults are polite."""

    key: str | None = KEY
    """Any other bearer gets 401; None takes everybody."""
    status: int = 201
    headers: dict[str, str] = field(default_factory=dict)
    error: Event = field(default_factory=lambda: {"message": "no", "code": "nope"})
    """The error object of a reply that is not 201."""
    delay_s: float = 0.0
    """How long the reply takes."""
    answer: Callable[[str], str] = lambda sdp: sdp
    """What becomes of the SDP answer before it is sent."""
    location: bool = True
    channel: bool = True
    """False: the data channel never opens."""
    acknowledge: bool = True
    """False: session.update gets no answer."""
    refuse_session: Event | None = None
    """The error object that answers session.update."""
    reply: Sequence[Frame] = ()
    """What each response.create is answered with; empty: nothing happens."""
    echo: bool = False
    """The caller's RTP goes back to them at once."""
    lose: frozenset[int] = frozenset()
    """Downlink packets, counted from 0, that never arrive."""
    duplicate: frozenset[int] = frozenset()
    swap: frozenset[int] = frozenset()
    """Downlink packets that are sent after their successor."""


class FakeSession:
    """One call as the API sees it."""

    def __init__(self, manners: Manners, call_id: str) -> None:
        self.call_id = call_id
        self.received: list[Event] = []
        self.heard: list[Frame] = []
        self.model_session: Event = {}
        self._manners = manners
        self._news = asyncio.Event()
        self._channel: RTCDataChannel | None = None
        self._path: RtpPath | None = None
        self._encoder = OpusEncoder(fec=True, bitrate_bps=40000)
        self._decoder = OpusDecoder()
        self._timestamp = 0
        self._responses = 0
        self._gathering: asyncio.Future[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.pc = RTCPeerConnection(
            RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        self.pc.on("connectionstatechange", self._attach)
        self.pc.on("datachannel", self._take_channel)

    async def answer(self, offer: str) -> str:
        """Negotiate; returns our SDP."""
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
        transceiver: RTCRtpTransceiver = self.pc.getTransceivers()[0]
        transceiver.direction = "sendrecv"
        # Cut short, gathering and closing would each leave a socket behind.
        gathering = self.pc.setLocalDescription(await self.pc.createAnswer())
        self._gathering = asyncio.ensure_future(gathering)
        await asyncio.shield(self._gathering)
        if not self._manners.channel:
            sctp: Any = self.pc.sctp
            sctp.start = _never
        sdp: str = self.pc.localDescription.sdp
        return sdp

    def send(self, event: Event | str | bytes) -> None:
        """Send an event; a str or bytes goes as it is (bytes as a text message)."""
        if self._channel is None or self._channel.readyState != "open":
            return
        if isinstance(event, bytes):
            # Text that is not UTF-8, which only the layer below can send.
            sctp: Any = self.pc.sctp
            sctp._data_channel_queue.append((self._channel, 51, event))
            self._start(sctp._data_channel_flush())
            return
        with suppress(InvalidStateError):
            self._channel.send(event if isinstance(event, str) else json.dumps(event))

    async def wait_for(self, event_type: str, count: int = 1) -> Event:
        """Wait until the client has sent `count` events of this type; returns the last."""
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                found = [e for e in self.received if e.get("type") == event_type]
                if len(found) >= count:
                    return found[count - 1]
                self._news.clear()
                await self._news.wait()

    async def wait_heard(self, count: int) -> None:
        """Wait until `count` frames of the caller have arrived."""
        async with asyncio.timeout(_TIMEOUT_S):
            while len(self.heard) < count:
                self._news.clear()
                await self._news.wait()

    async def play(self, frames: Sequence[Frame]) -> None:
        """Send frames as RTP in real time, without any events."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        for frame in frames:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            due_s += _FRAME_S
            if self._path is not None:
                self._path.send(self._encoder.encode(frame), self._timestamp)
            self._timestamp += _TICKS

    async def say(self, frames: Sequence[Frame], response_id: str = "") -> None:
        """Speak one response, with all events around it in their usual order."""
        self._responses += 1
        response_id = response_id or f"resp_{self._responses}"
        item_id = f"item_{response_id}"
        ids: Event = {
            "response_id": response_id,
            "item_id": item_id,
            "output_index": 0,
            "content_index": 0,
        }
        item: Event = {"id": item_id, "type": "message", "role": "assistant", "content": []}
        response: Event = {"id": response_id, "object": "realtime.response", "output": []}
        self.send({"type": "response.created", "response": {**response, "status": "in_progress"}})
        self.send({"type": "conversation.item.added", "previous_item_id": None, "item": item})
        self.send({"type": "response.output_audio_transcript.delta", **ids, "delta": "Hello"})
        self.send({"type": "output_audio_buffer.started", "response_id": response_id})
        self.send({"type": "response.output_audio_transcript.done", **ids, "transcript": "Hello"})
        usage = {"total_tokens": 7, "input_tokens": 4, "output_tokens": 3}
        done = {**response, "status": "completed", "usage": usage}
        self.send({"type": "response.done", "response": done})
        await self.play(frames)
        self.send({"type": "output_audio_buffer.stopped", "response_id": response_id})

    async def drop(self) -> None:
        """Go away without a word on HTTP."""
        await self.close()

    async def close(self) -> None:
        """End everything of this call."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._gathering is not None:
            await asyncio.wait((self._gathering,))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._path is not None:
            self._path.close()
        async with asyncio.timeout(_TIMEOUT_S):
            await self.pc.close()

    def _attach(self) -> None:
        if self.pc.connectionState != "connected" or self._path is not None:
            return
        self._path = RtpPath(self.pc, self.pc.getTransceivers()[0], self._receive_rtp)
        manners = self._manners
        if manners.lose or manners.duplicate or manners.swap:
            transport: Any = self.pc.getTransceivers()[0].sender.transport
            pair = transport.transport._connection._nominated[1]
            pair.protocol.transport = _BadNetwork(pair.protocol.transport, manners)

    def _take_channel(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", self._receive_event)
        self.send({"type": "session.created", "session": {"id": "sess_1", "type": "realtime"}})

    def _receive_rtp(
        self, sequence: int, timestamp: int, payload_type: int, payload: bytes, arrival_s: float
    ) -> None:
        if self._manners.echo:
            if self._path is not None:
                self._path.send(payload, timestamp)
            return
        self.heard.append(self._decoder.decode(payload))
        self._news.set()

    def _receive_event(self, message: str) -> None:
        event: Event = json.loads(message)
        self.received.append(event)
        self._news.set()
        if event["type"] == "session.update":
            if self._manners.refuse_session is not None:
                error = {**self._manners.refuse_session, "event_id": event["event_id"]}
                self.send({"type": "error", "error": error})
            elif self._manners.acknowledge:
                self.send({"type": "session.updated", "session": event["session"]})
        elif event["type"] == "response.create" and self._manners.reply:
            self._start(self.say(self._manners.reply))

    def _start(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _BadNetwork:
    """A UDP transport that loses, repeats and reorders RTP."""

    def __init__(self, transport: Any, manners: Manners) -> None:
        self._transport = transport
        self._manners = manners
        self._count = -1
        self._held: list[tuple[bytes, Any]] = []

    def sendto(self, data: bytes, addr: Any) -> None:
        if not 128 <= data[0] < 192 or 192 <= data[1] <= 223:
            self._transport.sendto(data, addr)
            return
        self._count += 1
        if self._count in self._manners.swap:
            self._held.append((data, addr))
            return
        if self._count not in self._manners.lose:
            for _ in range(2 if self._count in self._manners.duplicate else 1):
                self._transport.sendto(data, addr)
        for held in self._held:
            self._transport.sendto(*held)
        self._held.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class FakeRealtimeApi:
    """The HTTP side. Made by `open_fake`."""

    def __init__(self, manners: Manners) -> None:
        self.manners = manners
        self.url = ""
        self.sessions: list[FakeSession] = []
        self.made: list[FakeSession] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of every request."""
        self.hung_up: list[str] = []
        self._news = asyncio.Event()
        self._taken = 0
        self._numbers = itertools.count(1)

    async def session(self) -> FakeSession:
        """Wait for the next call."""
        async with asyncio.timeout(_TIMEOUT_S):
            while len(self.sessions) <= self._taken:
                self._news.clear()
                await self._news.wait()
        self._taken += 1
        return self.sessions[self._taken - 1]

    async def serve_one(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Answer one request."""
        self.requests.append((method, path, headers))
        manners = self.manners
        if manners.key is not None and headers.get("authorization") != f"Bearer {manners.key}":
            return _error(401, {"message": "Incorrect API key.", "code": "invalid_api_key"})
        if path.endswith("/hangup"):
            call_id = path.split("/")[-2]
            self.hung_up.append(call_id)
            for session in [s for s in self.sessions if s.call_id == call_id]:
                self.sessions.remove(session)
                self._taken -= 1
                await session.close()
            return 200, {}, b""
        if path != "/v1/realtime/calls" or method != "POST":
            return _error(404, {"message": "Unknown path.", "code": "not_found"})
        await asyncio.sleep(manners.delay_s)
        if manners.status != 201:
            status, kind, text = _error(manners.status, manners.error)
            return status, {**kind, **manners.headers}, text
        parts = _multipart(headers["content-type"], body)
        session = FakeSession(manners, f"rtc_u0_{next(self._numbers)}")
        self.made.append(session)
        session.model_session = json.loads(parts["session"])
        answer = manners.answer(await session.answer(parts["sdp"].decode()))
        self.sessions.append(session)
        self._news.set()
        location = {"Location": f"/v1/realtime/calls/{session.call_id}"}
        kind = {"Content-Type": "text/plain; charset=utf-8"}
        return 201, {**kind, **(location if manners.location else {})}, answer.encode()


@asynccontextmanager
async def open_fake(
    manners: Manners | None = None, *, port: int = 0
) -> AsyncIterator[FakeRealtimeApi]:
    """Serve on 127.0.0.1 until the block is left; port 0 takes a free one."""
    gather_loopback_when_alone()
    api = FakeRealtimeApi(manners or Manners())
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        connections.add(task)
        try:
            while await _serve_request(api, reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    api.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield api
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for session in api.made:
            await session.close()


async def _never(*_: object) -> None:
    """Stand in for what should have happened."""


async def _serve_request(
    api: FakeRealtimeApi, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *lines = head.strip().split("\r\n")
    method, path, _ = request.split(" ", 2)
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    status, extra, text = await api.serve_one(method, path, headers, body)
    reply = [f"HTTP/1.1 {status} x", f"Content-Length: {len(text)}"]
    reply += [f"{name}: {value}" for name, value in extra.items()]
    writer.write("\r\n".join([*reply, "", ""]).encode() + text)
    await writer.drain()
    return True


def _error(status: int, error: Event) -> tuple[int, dict[str, str], bytes]:
    kind = {"Content-Type": "application/json"}
    return status, kind, json.dumps({"error": {"type": "error", **error}}).encode()


def _multipart(content_type: str, body: bytes) -> dict[str, bytes]:
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message: Any = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    return {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.iter_parts()
    }


async def _serve_for_ever(port: int, manners: Manners) -> None:
    async with open_fake(manners, port=port) as api:
        print(json.dumps({"url": api.url}), flush=True)
        gc.collect()
        gc.freeze()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted Realtime API on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--echo", action="store_true", help="send the caller's RTP back")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve_for_ever(options.port, Manners(key=None, echo=options.echo)))
    sys.exit(0)


if __name__ == "__main__":
    main()
