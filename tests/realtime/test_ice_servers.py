"""STUN and TURN servers that do not help: the call is connected all the same, and soon."""

import asyncio
import os
import socket
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from agent.call.ports import AgentProfile, CallOffer
from agent.embedded.engines import Engines
from agent.realtime.connector import RealtimeConnector
from agent.realtime.settings import RealtimeSettings
from tests.embedded.scripted import KEY, QUIET, scripted

OFFER = CallOffer("call_1", "sip_1", "trunk", "100", "200", 0.0)
PROFILE = AgentProfile("receptionist", "You answer the phone.", "Hello.", "marin")


@pytest.mark.parametrize(
    "server",
    [
        pytest.param({"urls": ["stun:127.0.0.1:{port}"]}, id="STUN"),
        pytest.param(
            {"urls": ["turn:127.0.0.1:{port}"], "username": "a", "credential": "b"}, id="TURN"
        ),
    ],
)
async def test_a_silent_server(engines: Engines, server: dict[str, Any]) -> None:
    """It is asked, waited for a moment, and done without."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        url = server["urls"][0].format(port=silent.getsockname()[1])
        async with scripted(engines, QUIET) as far, httpx.AsyncClient() as client:
            settings = RealtimeSettings.model_validate(
                {"base_url": far.url, "api_key": SecretStr(KEY)}
                | {"ice_servers": [server | {"urls": [url]}]}
            )
            loop = asyncio.get_running_loop()
            before, began_s = len(os.listdir("/proc/self/fd")), loop.time()  # noqa: PTH208
            async with RealtimeConnector(settings, client).open(PROFILE, OFFER) as leg:
                took_s = loop.time() - began_s
                assert leg.realtime_call_id
            assert silent.recv(2048)[4:8] == b"\x21\x12\xa4\x42"  # RFC 8489, 5: the magic cookie
            async with asyncio.timeout(10):
                # Both ends are here; the far one takes a moment longer to close.
                while len(os.listdir("/proc/self/fd")) > before + 2:  # noqa: PTH208
                    await asyncio.sleep(0.02)
    assert took_s < 4.5
