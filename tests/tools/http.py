"""HTTP services as a tool may meet them: good, silent, broken, hostile."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


def reply(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole HTTP reply."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    ).encode() + body


@dataclass
class Service:
    """A running service.

    Attributes:
        url: Where it is.
        requests: What it was sent, each as head and body.
    """

    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)


@asynccontextmanager
async def http_service(
    answers: Mapping[str, bytes | None] | None = None, *, hang_up_on: int = 0
) -> AsyncIterator[Service]:
    """Answer each path with prepared bytes; None: accept and stay silent.

    Args:
        answers: By path, without the query; `*` for any other.
        hang_up_on: So many requests are read and the connection is closed.
    """
    service = Service()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = 0
            for line in head.lower().split("\r\n"):
                if line.startswith("content-length:"):
                    length = int(line.partition(":")[2])
            service.requests.append((head, (await reader.readexactly(length)).decode()))
            if len(service.requests) <= hang_up_on:
                return
            path = head.split(" ", 2)[1].split("?")[0]
            known = answers or {}
            found = known[path] if path in known else known["*"]
            if found is None:
                await reader.read()
            else:
                writer.write(found)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield service
    finally:
        server.close()
        await server.wait_closed()
