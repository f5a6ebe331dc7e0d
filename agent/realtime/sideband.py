"""A second way into a WebRTC call: its events over a WebSocket, without its sound.

    WS /realtime?call_id=rtc_... -> every event of the session, and ours into it

For session settings that are larger than a data channel takes, and for the tools and
instructions of a call whose sound is somewhere else, such as in a browser. What the
events mean is `protocol`'s affair; the key of the project is needed.

Source: OpenAI Realtime API, server-side controls.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from agent.call.clean import clean
from agent.call.ports import AgentUnavailable
from agent.realtime.access import key_headers
from agent.realtime.settings import RealtimeSettings

_MOST_EVENT_BYTES = 16 * 1024 * 1024
_CLOSE_TIMEOUT_S = 1
_RETRY_EVERY_S = 0.1
_UNKNOWN_FOR_S = 3
"""A call's name is known everywhere only some time after it was given."""


class Sideband:
    """One open sideband. Made by `open_sideband`."""

    def __init__(self, connection: ClientConnection, reading: asyncio.Task[None]) -> None:
        self._connection = connection
        self._reading = reading

    async def send(self, text: str) -> None:
        """Send one event.

        Raises:
            AgentUnavailable: The call is over, or this way into it.
        """
        try:
            await self._connection.send(text)
        except ConnectionClosed as error:
            raise AgentUnavailable("the sideband was closed") from error

    async def closed(self) -> None:
        """Wait until the call is over, or this way into it."""
        await asyncio.wait((self._reading,))


@asynccontextmanager
async def open_sideband(
    settings: RealtimeSettings, realtime_call_id: str, on_text: Callable[[str], None]
) -> AsyncIterator[Sideband]:
    """Get into a call; leaving the block leaves the call as it is.

    Args:
        settings: Where, with which key, and for how long to try.
        realtime_call_id: The last part of the Location it was opened with.
        on_text: Told of every event; must not raise.

    Raises:
        AgentUnavailable: There is no such call, or no way in.
    """
    url = f"{socket_url(settings.base_url)}?call_id={quote(realtime_call_id, safe='')}"
    connection = await _connect(url, settings)
    reading = asyncio.create_task(_read(connection, on_text))
    try:
        yield Sideband(connection, reading)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await connection.close()


async def _read(connection: ClientConnection, on_text: Callable[[str], None]) -> None:
    try:
        async for message in connection:
            if isinstance(message, str):
                on_text(message)
    except ConnectionClosed as closed:
        structlog.get_logger().debug("x sideband lost", reason=clean(str(closed), 120))


def socket_url(base_url: str) -> str:
    """Name the WebSocket below a base URL: `https://host/v1` has `wss://host/v1/realtime`."""
    scheme, _, rest = base_url.rstrip("/").partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}/realtime"


async def _connect(url: str, settings: RealtimeSettings) -> ClientConnection:
    timeout_s = settings.connect_timeout_s
    loop = asyncio.get_running_loop()
    known_s = loop.time() + min(timeout_s / 2, _UNKNOWN_FOR_S)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await connect(
                        url,
                        additional_headers=key_headers(settings),
                        max_size=_MOST_EVENT_BYTES,
                        open_timeout=None,
                        close_timeout=_CLOSE_TIMEOUT_S,
                        compression=None,
                        proxy=None if settings.provider == "embedded" else True,
                    )
                except InvalidStatus as refused:
                    if refused.response.status_code != 404 or loop.time() > known_s:
                        raise
                await asyncio.sleep(_RETRY_EVERY_S)
    except InvalidStatus as refused:
        status = refused.response.status_code
        said = "it knows no such call" if status == 404 else f"status {status}"
        raise AgentUnavailable(f"the sideband was refused: {said}", 60) from refused
    except TimeoutError as error:
        raise AgentUnavailable(f"no sideband within {timeout_s:g} s") from error
    except (OSError, InvalidHandshake, InvalidURI) as error:
        reason = clean(str(error), 120) or type(error).__name__
        raise AgentUnavailable(f"the sideband is unreachable: {reason}") from error
