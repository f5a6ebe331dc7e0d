"""An MCP server as a child process: JSON-RPC, one message a line, over its stdin and stdout.

Why not the library's own: a line without end must not fill our memory, and a server
that dies must be noticed when it dies, not when it is next asked. What it writes to
stderr goes to our log at DEBUG. Source: MCP specification 2025-11-25, transports, stdio.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from agent.call.clean import clean
from agent.call.tasks import cancel

_LONGEST_LINE_BYTES = 1_000_000
_MOST_GARBAGE_LINES = 100
_LAST_WORDS_S = 0.2
"""How long stderr may take to come after stdout has ended."""

_PATIENCE_S = 1.0
"""How long the server may take to leave after its stdin is closed, and again after SIGTERM."""

Streams = tuple[
    MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]
]


@dataclass
class StdioServer:
    """A running server.

    Attributes:
        streams: What it says, and what is said to it.
        ended: Set once it says nothing any more.
        reason: Why, in few words.
        last_words: What it wrote to stderr last; mostly what went wrong.
    """

    streams: Streams
    ended: asyncio.Event
    reason: str = ""
    last_words: str = ""


@asynccontextmanager
async def open_stdio(
    command: Sequence[str], env: Mapping[str, str], name: str
) -> AsyncIterator[StdioServer]:
    """Start a server; stop it, and all it has started, however the block is left.

    Args:
        command: Program and arguments; no shell is involved.
        env: All of its environment.
        name: For log lines.

    Raises:
        OSError: It cannot be started.
    """
    log = structlog.get_logger().bind(mcp=name)
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=dict(env),
        limit=_LONGEST_LINE_BYTES,
        start_new_session=True,
    )
    to_us, read = anyio.create_memory_object_stream[SessionMessage | Exception](16)
    write, to_them = anyio.create_memory_object_stream[SessionMessage](16)
    server = StdioServer((read, write), asyncio.Event())

    async def listen() -> None:
        try:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                server.reason = await _listen(process, to_us)
        finally:
            to_us.close()
            await asyncio.wait((overhearing,), timeout=_LAST_WORDS_S)
            server.ended.set()

    overhearing = asyncio.create_task(_overhear(process, server, log))
    tasks = [
        asyncio.create_task(listen()),
        asyncio.create_task(_speak(process, to_them)),
        overhearing,
    ]
    try:
        yield server
    finally:
        await cancel(*tasks)
        for stream in (to_us, read, write, to_them):
            stream.close()
        await _stop(process)


async def _listen(
    process: Process, to_us: MemoryObjectSendStream[SessionMessage | Exception]
) -> str:
    """Pass messages on until there are no more; return why."""
    assert process.stdout is not None
    garbage = 0
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:
            return f"it wrote a line of more than {_LONGEST_LINE_BYTES} bytes"
        if not line:
            return "it ended"
        if not line.strip():
            continue
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            garbage += 1
            if garbage > _MOST_GARBAGE_LINES:
                return "it writes things to stdout that are no messages"
            continue
        await to_us.send(SessionMessage(message))


async def _speak(process: Process, to_them: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):  # it is gone: `_listen` notices, too
        async for message in to_them:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(text.encode() + b"\n")
            await process.stdin.drain()


async def _overhear(
    process: Process, server: StdioServer, log: structlog.typing.FilteringBoundLogger
) -> None:
    assert process.stderr is not None
    while chunk := await process.stderr.read(4096):
        text = chunk.decode("utf-8", "replace")
        log.debug("< stderr", text=clean(text, 500))
        server.last_words = clean(text.strip().rpartition("\n")[2], 200) or server.last_words


async def _stop(process: Process) -> None:
    """Close its stdin, then ask, then force; the whole group, for it may have children.

    Meanwhile what it still writes is read and dropped: writers that are stuck cannot
    leave, and a pipe is only let go of at its end.
    """
    assert process.stdin is not None
    process.stdin.close()
    drains = [asyncio.create_task(_drain(it)) for it in (process.stdout, process.stderr) if it]
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            _signal(process, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await process.wait()
                break
    _signal(process, signal.SIGKILL)  # children that outlived it
    await asyncio.wait(drains, timeout=_PATIENCE_S)
    await cancel(*drains)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        pass


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
