"""The HTTP server of the admin, as a guest in a loop that it does not own.

It binds first, so that a port in use is one clear sentence; it takes no
signals, because whoever opened it decides when to stop; and it is closed with
a timeout, whatever its clients still want.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn
from fastapi import FastAPI

from agent.admin.settings import AdminSettings

log = structlog.get_logger()

_CLOSE_TIMEOUT_S = 3
_BACKLOG = 128


class AdminUnavailable(Exception):
    """The admin cannot be served; the message says where, why and what to do."""


@asynccontextmanager
async def open_admin(settings: AdminSettings, app: FastAPI) -> AsyncIterator[str]:
    """Serve the app until the block is left.

    Args:
        settings: Where to listen; port 0 takes a free one.
        app: What to serve.

    Yields:
        The address to open, with the real port: `http://127.0.0.1:8080`.

    Raises:
        AdminUnavailable: The address cannot be listened on.
    """
    listener = _listen(settings.listen)
    # uvicorn's own task reads the loop's signals unless told not to: see `_Guest`.
    server = _Guest(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=_CLOSE_TIMEOUT_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="admin")
    try:
        await server.ready.wait()
        yield _address(listener)
    finally:
        server.should_exit = True
        # uvicorn keeps to its own timeout; this one is for the case that it does not.
        done, _ = await asyncio.wait({serving}, timeout=_CLOSE_TIMEOUT_S + 2)
        if not done:
            log.warning("! admin did not close in time")
            serving.cancel()
            await asyncio.wait({serving})
        listener.close()


class _Guest(uvicorn.Server):
    """A server that leaves signals to its host and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        msg = (
            f"admin.listen: cannot listen on {address}: {why.lower()}: "
            "end what uses it, or choose another address"
        )
        raise AdminUnavailable(msg) from error
    listener.setblocking(False)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
