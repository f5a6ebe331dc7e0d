"""The embedded Realtime server as a child process of `serve`.

Ears, voice and mind take whole cores for tens of milliseconds; in a process of
their own they cannot make a frame late. The child prints one JSON line when it
is ready, and is started again, at the same address, if it dies.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from pydantic import SecretStr

from agent.embedded.settings import EmbeddedSettings

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 5
_RESTART_DELAY_S = 1.0


class EmbeddedServerError(Exception):
    """The embedded server did not start; the text says what it printed last."""


@asynccontextmanager
async def open_embedded_server(settings: EmbeddedSettings) -> AsyncIterator[str]:
    """Run the server beside us for as long as the block lasts.

    Yields:
        Its base URL, such as `http://127.0.0.1:41234/v1`. It stays the same
        when the server has to be started again.

    Raises:
        EmbeddedServerError: It ended or said nothing within a minute.
    """
    child, url = await _start(settings, settings.listen)
    address = url.removeprefix("http://").removesuffix("/v1")
    watch = asyncio.create_task(_keep_alive(settings, address, child))
    try:
        yield url
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


async def _start(settings: EmbeddedSettings, listen: str) -> tuple[asyncio.subprocess.Process, str]:
    command = [sys.executable, "-m", "agent.main", "realtime", "--listen", listen]
    if settings.facts_file is not None:
        command += ["--facts", str(settings.facts_file)]
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=_environment(settings),
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            line = await child.stdout.readline()
        return child, str(json.loads(line)["url"])
    except (TimeoutError, ValueError, KeyError):
        await _stop(child)
        raise EmbeddedServerError(
            "the embedded Realtime server did not start; `trunkline realtime` shows why"
        ) from None


def _environment(settings: EmbeddedSettings) -> dict[str, str]:
    """Ours, and what our configuration file says of the child.

    Keys must not stand on the command line, where every user can read them.
    """
    environment = dict(os.environ)
    for name in settings.model_fields_set - {"listen", "facts_file"}:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if value is not None:
            environment[f"TRUNKLINE_EMBEDDED__{name.upper()}"] = str(value)
    return environment


async def _keep_alive(
    settings: EmbeddedSettings, address: str, child: asyncio.subprocess.Process
) -> None:
    """Wait for the child; start another whenever it ends by itself."""
    log = structlog.get_logger()
    try:
        while True:
            status = await child.wait()
            log.error("! the embedded Realtime server ended; starting it again", status=status)
            await asyncio.sleep(_RESTART_DELAY_S)
            with contextlib.suppress(EmbeddedServerError):
                child, _ = await _start(settings, address)
    finally:
        await _stop(child)


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await child.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
