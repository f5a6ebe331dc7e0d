"""Clients that come and go, and at the end some that only come.

    python -m tests.embedded.visitors URL SPEECH SESSIONS STAYING

SPEECH is a file of 8 kHz PCM. Half of the sessions go over WebRTC, half over WebSocket;
each is left in the middle of a turn. Then as many as STAYING are opened each way, a
line is printed, and whoever started this process may end it as rudely as they like.
"""

import asyncio
import itertools
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from agent.realtime.rtp_path import gather_loopback_when_alone
from tests.embedded.caller import Caller, open_call
from tests.embedded.socket_client import SocketClient, open_socket

AT_ONCE = 4
LONG = {"instructions": f'Say "{"We bake bread. " * 20}"'}


async def talk_over(caller: Caller, speech: bytes) -> None:
    """Speak while the agent begins to."""
    caller.say(speech)
    caller.send(type="response.create", response=LONG)
    await caller.wait("output_audio_buffer.started")


async def write_over(client: SocketClient, speech: bytes) -> None:
    """Send audio, of whatever rate, while the agent begins to speak."""
    await client.append(speech)
    await client.send(type="response.create", response=LONG)
    await client.wait("response.output_audio.delta")


async def visit(url: str, speech: bytes, numbers: "itertools.count[int]", sessions: int) -> None:
    """Hold sessions until so many were held by all."""
    while (number := next(numbers)) < sessions:
        if number % 2:
            async with open_call(url) as caller:
                await talk_over(caller, speech)
        else:
            async with open_socket(url) as client:
                await write_over(client, speech)


async def main(url: str, speech: bytes, sessions: int, staying: int) -> None:
    """Visit, then stay."""
    numbers = itertools.count()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(visit(url, speech, numbers, sessions))
    async with AsyncExitStack() as stack:
        for _ in range(staying):
            await talk_over(await stack.enter_async_context(open_call(url)), speech)
            await write_over(await stack.enter_async_context(open_socket(url)), speech)
        print("open", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    gather_loopback_when_alone()
    _, where, file, come, stay = sys.argv
    asyncio.run(main(where, Path(file).read_bytes(), int(come), int(stay)))
