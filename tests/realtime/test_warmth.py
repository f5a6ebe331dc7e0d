"""The first caller finds an open connection: no TLS handshake is left for the INVITE."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.realtime.warmth import open_client

_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_TIMEOUT_S = 10


class FarEnd:
    """An HTTPS server that counts connections and keeps the requests' first lines."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.requests: list[str] = []
        self.keys: list[str] = []
        self.changed = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                self.requests.append(lines[0])
                self.keys += [line for line in lines if line.lower().startswith("authorization")]
                writer.write(_REPLY)
                self.changed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def seen(self, count: int) -> None:
        async with asyncio.timeout(_TIMEOUT_S):
            while len(self.requests) < count:
                self.changed.clear()
                await self.changed.wait()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@pytest.fixture
async def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FarEnd]:
    """A far end whose certificate is trusted."""
    far_end = FarEnd()
    certificate = _certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(far_end.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        far_end.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield far_end


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "far end")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "far.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


async def test_the_first_call_finds_a_connection(far: FarEnd) -> None:
    """Before anybody calls there is a connection, made without a key, and the call takes it."""
    answered = asyncio.Event()

    async def note(reply: httpx.Response) -> None:
        await reply.aread()
        answered.set()

    async with open_client([far.url], warm_every_s=3600) as client:
        client.event_hooks = {"response": [note]}
        async with asyncio.timeout(_TIMEOUT_S):
            await answered.wait()
        await client.post(f"{far.url}/realtime/calls")
    assert far.requests == [
        "OPTIONS /v1/realtime/calls HTTP/1.1",
        "POST /v1/realtime/calls HTTP/1.1",
    ]
    assert far.connections == 1
    assert far.keys == []


async def test_every_region_is_kept_warm(far: FarEnd) -> None:
    """An idle connection is used again and again, and made anew when it was closed."""
    async with open_client([far.url, far.url], warm_every_s=0.05) as client:
        await far.seen(3)
        assert far.connections == 1
        far.hang_up()
        await far.seen(len(far.requests) + 2)
        assert far.connections == 2
        assert not client.is_closed
    assert client.is_closed


@pytest.mark.parametrize(
    ("url", "every_s"),
    [
        pytest.param("http://127.0.0.1:9/v1", 0.01, id="without TLS"),
        pytest.param("https://127.0.0.1:9/v1", 0, id="not wanted"),
        pytest.param("https://127.0.0.1:9/v1", 0.01, id="nobody there"),
    ],
)
async def test_nothing_to_keep_warm(url: str, every_s: float) -> None:
    """Where it brings nothing or cannot be, the client works all the same and ends in time."""
    async with asyncio.timeout(_TIMEOUT_S), open_client([url], warm_every_s=every_s) as client:
        with pytest.raises(httpx.ConnectError):
            await client.post(f"{url}/realtime/calls")


async def test_a_proxy_is_for_others(far: FarEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on this machine is reached past the proxy that the environment names."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with open_client([], warm_every_s=0) as client:
        reply = await client.post(f"{far.url}/realtime/calls")
    assert reply.status_code == 200
