"""The admin as a real server: found, refused, and closed while somebody still wants something."""

import asyncio
import signal
import socket

import httpx
import pytest

from agent.admin.server import AdminUnavailable, open_admin
from agent.admin.settings import AdminSettings
from tests.admin.conftest import ADMIN_TOKEN, Admin

FREE = AdminSettings(listen="127.0.0.1:0")


async def test_real_server(admin: Admin) -> None:
    """The address it gives can be opened; signals stay with whoever had them."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with (
        open_admin(FREE, admin.app) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        reply = await client.get("/api/v1/calls", headers=headers)
        assert len(reply.json()["items"]) == 3
        assert "server" not in reply.headers
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", int(url.rpartition(":")[2])))


async def test_port_in_use(admin: Admin) -> None:
    """A port in use is one sentence that names it, and nothing is left open."""
    async with open_admin(FREE, admin.app) as url:
        address = url.removeprefix("http://")
        with pytest.raises(AdminUnavailable, match=f"cannot listen on {address}: .*in use"):
            async with open_admin(AdminSettings(listen=address), admin.app):
                pass


@pytest.mark.parametrize("listen", ["127.0.0.1:99999", "no.such.host.invalid:80", "192.0.2.1:0"])
async def test_no_such_address(admin: Admin, listen: str) -> None:
    """An address that is not ours is refused with its text."""
    with pytest.raises(AdminUnavailable, match=f"cannot listen on {listen}"):
        async with open_admin(AdminSettings(listen=listen), admin.app):
            pass


async def test_ipv6(admin: Admin) -> None:
    """An IPv6 address in brackets is listened on and given back in brackets."""
    async with (
        open_admin(AdminSettings(listen="[::1]:0"), admin.app) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        assert url.startswith("http://[::1]:")
        assert (await client.get("/healthz")).status_code == 200


async def test_closes_with_open_connections(admin: Admin) -> None:
    """Silent, half-asked and waiting clients do not keep it from closing."""
    asked = asyncio.Event()

    @admin.app.get("/never")
    async def never() -> None:
        asked.set()
        await asyncio.sleep(3600)

    async with asyncio.timeout(10):
        async with open_admin(FREE, admin.app) as url:
            host, _, port = url.removeprefix("http://").rpartition(":")
            clients = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
            clients[1][1].write(b"GET /heal")
            clients[2][1].write(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
            await asked.wait()
        for reader, writer in clients:
            await reader.read()
            writer.close()
            await writer.wait_closed()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "admin"]
