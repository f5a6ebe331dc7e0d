"""A spoken turn over WebRTC and one over WebSocket, on a machine that is all alone.

    python -m tests.embedded.alone   ->   one JSON object

Run it in a network namespace of its own, where it raises the loopback interface;
the server it talks with is `trunkline realtime`, a child in the same namespace.
"""

import asyncio
import fcntl
import json
import socket
import struct

import numpy as np
import soxr

from agent.audio.frame import SAMPLE_RATE_HZ
from agent.embedded.voice import Voice
from agent.realtime.rtp_path import gather_loopback_when_alone
from tests.embedded.caller import open_call
from tests.embedded.socket_client import open_socket
from tests.fakes.realtime import realtime

QUESTION = "What are your opening hours on Saturday?"
_SOCKET_RATE_HZ = 24000
_SILENCE = bytes(SAMPLE_RATE_HZ * 2)
# netdevice(7): the flags are 16 bits behind a name of 16 bytes.
_SET_FLAGS, _UP, _NAME_AND_FLAGS = 0x8914, 1, "16sh14x"


def raise_loopback() -> None:
    """What `ip link set lo up` does, where iproute2 is not installed either."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SET_FLAGS, struct.pack(_NAME_AND_FLAGS, b"lo", _UP))


async def over_webrtc(url: str, question: bytes) -> dict[str, object]:
    """Ask by RTP; the words of the answer, and how much sound came with it."""
    async with open_call(url) as caller:
        caller.say(question)
        await caller.wait("output_audio_buffer.stopped")
        heard = np.frombuffer(caller.heard, "<i2")
        return {"said": caller.transcripts(), "loudest": int(np.abs(heard).max())}


async def over_websocket(url: str, question: bytes) -> dict[str, object]:
    """Ask by events; the words of the answer, and how much sound came with it."""
    narrow = np.frombuffer(question + _SILENCE, "<i2")
    async with open_socket(url) as client:
        await client.append(soxr.resample(narrow, SAMPLE_RATE_HZ, _SOCKET_RATE_HZ).tobytes())
        said = (await client.wait("response.output_audio_transcript.done"))["transcript"]
        await client.wait("response.done")
        heard = np.frombuffer(client.audio(), "<i2")
        return {"said": [said], "loudest": int(np.abs(heard).max())}


async def talk(url: str) -> dict[str, object]:
    """One turn each way."""
    question = Voice().synthesise(QUESTION)
    return {
        "interfaces": [name for _, name in socket.if_nameindex()],
        "webrtc": await over_webrtc(url, question),
        "websocket": await over_websocket(url, question),
    }


if __name__ == "__main__":
    raise_loopback()
    gather_loopback_when_alone()
    with realtime() as served:
        print(json.dumps(asyncio.run(talk(served.url))))
