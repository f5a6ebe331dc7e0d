"""A client of the embedded server over WebSocket, for tests: it sends, waits and checks.

Every event it gets is checked against OpenAI's own types.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.embedded.caller import SERVER_EVENT, TIMEOUT_S


class SocketClient:
    """One open connection. `events` grows while it lasts."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []
        self.closed = asyncio.Event()
        self._changed = asyncio.Event()

    async def read(self) -> None:
        try:
            async for message in self.connection:
                event = json.loads(message)
                SERVER_EVENT.validate_python(event)
                self.events.append(event)
                self._changed.set()
        except ConnectionClosed:
            pass
        finally:
            self.closed.set()

    async def send(self, **event: Any) -> None:
        await self.connection.send(json.dumps(event))

    async def append(self, audio: bytes) -> None:
        """Append audio, 100 ms of 24 kHz PCM an event."""
        for at in range(0, len(audio), 4800):
            chunk = base64.b64encode(audio[at : at + 4800]).decode()
            await self.send(type="input_audio_buffer.append", audio=chunk)

    async def wait(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait for the count-th event of this type since the connection began."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                found = [event for event in self.events if event["type"] == kind]
                if len(found) >= count:
                    return found[count - 1]
                assert not self.closed.is_set(), f"closed; got {self.kinds()[-5:]}"
                self._changed.clear()
                await self._changed.wait()

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    def audio(self) -> bytes:
        kind = "response.output_audio.delta"
        audio = [event["delta"] for event in self.events if event["type"] == kind]
        return b"".join(base64.b64decode(delta) for delta in audio)


@asynccontextmanager
async def open_socket(
    url: str, query: str = "model=gpt-realtime-2.1", key: str = ""
) -> AsyncIterator[SocketClient]:
    """Connect, and close again."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = f"{url.replace('http', 'ws', 1)}/realtime?{query}"
    async with connect(
        address, additional_headers=headers, max_size=None, proxy=None, compression=None
    ) as connection:
        client = SocketClient(connection)
        reading = asyncio.create_task(client.read())
        try:
            yield client
        finally:
            await connection.close()
            async with asyncio.timeout(TIMEOUT_S):
                await reading
