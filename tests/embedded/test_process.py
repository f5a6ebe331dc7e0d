"""The server as a child of `serve`."""

import time

import pytest
from websockets.exceptions import InvalidStatus

from agent.embedded.process import open_embedded_server
from agent.embedded.settings import EmbeddedSettings
from tests.embedded.socket_client import open_socket


async def test_child_is_as_configured() -> None:
    """What the configuration file says of the server holds in the child, too."""
    settings = EmbeddedSettings(max_sessions=1, session_limit_s=90)
    async with open_embedded_server(settings) as url, open_socket(url) as first:
        session = (await first.wait("session.created"))["session"]
        assert session["expires_at"] < time.time() + 100
        with pytest.raises(InvalidStatus, match="429"):
            async with open_socket(url):
                pass
