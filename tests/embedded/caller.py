"""A caller for tests of the embedded server: a real aiortc peer with a voice and an ear.

It offers, sends speech as Opus in real time, keeps every server event (each
checked against OpenAI's own types) and everything it heard.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from agent.audio.frame import FRAME_BYTES, SILENCE
from agent.audio.voice import VoiceTrack
from agent.realtime.codec import CodecName, open_codec
from agent.realtime.rtp_path import RtpPath

SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
TIMEOUT_S = 12


class Caller:
    """One open call. `events` and `heard` grow while it lasts.

    `spoken` and `listened` tell when there was sound, in ms of the loop's clock:
    as frames left, and as they came.
    """

    def __init__(self, pc: RTCPeerConnection, call_id: str, codec: CodecName = "opus") -> None:
        self.pc = pc
        self.call_id = call_id
        self.channel: Any = None
        self.events: list[dict[str, Any]] = []
        self.arrived_s: list[float] = []
        self.heard = bytearray()
        self.said_s = 0.0
        self.packets = 0
        self.spoken = VoiceTrack()
        self.listened = VoiceTrack()
        self._to_say = bytearray()
        self._changed = asyncio.Event()
        self._codec = open_codec(codec)
        self._path: RtpPath | None = None

    def on_message(self, message: str) -> None:
        event = json.loads(message)
        SERVER_EVENT.validate_python(event)
        self.events.append(event)
        self.arrived_s.append(time.monotonic())
        self._changed.set()

    def _on_rtp(
        self, sequence: int, timestamp: int, kind: int, payload: bytes, at_s: float
    ) -> None:
        self.packets += 1
        pcm = self._codec.decode(payload)
        self.heard += pcm
        self.listened.note(pcm, int(at_s * 1000))

    def attach(self) -> None:
        self._path = RtpPath(self.pc, self.pc.getTransceivers()[0], self._on_rtp)

    async def talk(self) -> None:
        """Send 50 packets a second: what `say` queued, else silence."""
        assert self._path is not None
        loop = asyncio.get_running_loop()
        due_s, timestamp = loop.time(), 0
        while True:
            frame = bytes(self._to_say[:FRAME_BYTES])
            del self._to_say[:FRAME_BYTES]
            self._path.send(self._codec.encode(frame.ljust(FRAME_BYTES, b"\0")), timestamp)
            self.spoken.note(frame, int(loop.time() * 1000))
            if frame and not self._to_say:
                self.said_s = time.monotonic()
            timestamp += self._codec.ticks_per_frame
            due_s += 0.02
            await asyncio.sleep(max(0.0, due_s - loop.time()))

    def say(self, pcm: bytes) -> None:
        self._to_say += pcm + bytes(-len(pcm) % FRAME_BYTES) + SILENCE

    @property
    def speaking(self) -> bool:
        """Whether something `say` queued has not been sent yet."""
        return bool(self._to_say)

    def send(self, **event: Any) -> None:
        self.channel.send(json.dumps(event))

    async def wait(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait for the count-th event of this type since the call began."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                found = [event for event in self.events if event["type"] == kind]
                if len(found) >= count:
                    return found[count - 1]
                self._changed.clear()
                await self._changed.wait()

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    def transcripts(self) -> list[str]:
        kind = "response.output_audio_transcript.done"
        return [event["transcript"] for event in self.events if event["type"] == kind]

    async def close(self) -> None:
        if self._path is not None:
            self._path.close()
        await self.pc.close()
        self._codec.close()


@asynccontextmanager
async def open_call(
    url: str, session: dict[str, Any] | None = None, codec: CodecName = "opus"
) -> AsyncIterator[Caller]:
    """Place a call in one codec and take it down again."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    caller = Caller(pc, "", codec)
    known = RTCRtpSender.getCapabilities("audio").codecs
    pc.addTransceiver("audio", "sendrecv").setCodecPreferences(
        [k for k in known if k.mimeType.lower() == f"audio/{codec}"]
    )
    caller.channel = pc.createDataChannel("oai-events")
    caller.channel.on("message", caller.on_message)
    connected = asyncio.Event()

    @pc.on("connectionstatechange")
    def changed() -> None:
        if pc.connectionState == "connected":
            connected.set()

    await pc.setLocalDescription(await pc.createOffer())
    talking: asyncio.Task[None] | None = None
    try:
        reply = await post_offer(url, pc.localDescription.sdp, session)
        assert reply.status_code == 201, reply.text
        caller.call_id = reply.headers["location"].rsplit("/", 1)[1]
        await pc.setRemoteDescription(RTCSessionDescription(reply.text, "answer"))
        async with asyncio.timeout(TIMEOUT_S):
            await connected.wait()
        caller.attach()
        talking = asyncio.create_task(caller.talk())
        await caller.wait("session.created")
        yield caller
    finally:
        if talking is not None:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
        await caller.close()


async def post_offer(url: str, sdp: str, session: dict[str, Any] | None = None) -> httpx.Response:
    """POST an offer in form A, or form B when there is a session."""
    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client:
        if session is None:
            return await client.post(
                f"{url}/realtime/calls", content=sdp, headers={"Content-Type": "application/sdp"}
            )
        return await client.post(
            f"{url}/realtime/calls",
            files={
                "sdp": (None, sdp, "application/sdp"),
                "session": (None, json.dumps(session), "application/json"),
            },
        )
