"""The HTTP client of all Realtime calls, with a connection that is open before it is needed.

A TLS handshake takes two round trips or three, and an INVITE has no time for them. So
each address is asked something small at the start and every so often, before anybody on
the way takes the connection for dead.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import httpx
import structlog

_MOST_WAIT_S = 5
_LEAST_KEPT_S = 60
_MOST_CONNECTIONS = 500
"""One for each call that begins at the same moment."""

log = structlog.get_logger()


@asynccontextmanager
async def open_client(
    addresses: Collection[str], *, warm_every_s: float
) -> AsyncIterator[httpx.AsyncClient]:
    """Hold a client and keep its connections warm; close both however the block is left.

    Args:
        addresses: Base URLs that calls will go to.
        warm_every_s: How often each is asked; 0 for never.
    """
    limits = httpx.Limits(
        max_connections=_MOST_CONNECTIONS,
        keepalive_expiry=max(_LEAST_KEPT_S, 2 * warm_every_s),
    )
    # A proxy of the environment cannot reach a server on this machine.
    direct = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
    async with httpx.AsyncClient(limits=limits, mounts=direct) as client:
        # Without TLS a new connection costs next to nothing.
        secure = sorted({url for url in addresses if url.startswith("https:")})
        warming = asyncio.create_task(_keep_warm(client, secure, warm_every_s))
        try:
            yield client
        finally:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)


async def _keep_warm(client: httpx.AsyncClient, urls: list[str], every_s: float) -> None:
    while urls and every_s:
        await asyncio.gather(*(_touch(client, url) for url in urls))
        await asyncio.sleep(every_s)


async def _touch(client: httpx.AsyncClient, url: str) -> None:
    """Ask what may be asked: any answer will do, and no key is needed for it."""
    try:
        await client.options(url.rstrip("/") + "/realtime/calls", timeout=_MOST_WAIT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.debug("! no warm connection", url=url, reason=type(error).__name__)
