"""HTTP to where an admin pointed a tool, and nowhere else.

A name is resolved once, every address it has is checked, and the connection goes to
a checked address: a name that answers differently the second time gains nothing.
Redirects are not followed, proxies of the environment are not used, answers have a
limit, and compressed ones, whose size nobody knows, are refused.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import httpcore2
import httpx2

_NAT64 = ip_network("64:ff9b::/96")
"""RFC 6052: an IPv4 address in the last 32 bits."""


class TargetRefused(httpcore2.ConnectError):
    """The host may not be reached; the text says where it leads."""


def is_public(address: str) -> bool:
    """Tell whether an address belongs to the public Internet.

    Private, loopback, link-local (169.254.169.254 tells cloud machines their keys),
    shared, multicast and reserved addresses do not, nor do IPv6 addresses that lead to such.
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        inner = _embedded(ip)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    if ip.sixtofour is not None:
        return ip.sixtofour
    return ip.teredo[1] if ip.teredo is not None else None


async def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """Find the addresses of a host, all of them allowed.

    Raises:
        TargetRefused: One of them is not public.
        httpcore2.ConnectError: The name cannot be resolved.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not allow_private and not is_public(address):
            raise TargetRefused(
                f"{host} leads to {address}, which is not public; allow_private = true permits it"
            )
    return addresses


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses; TLS still asks for the host's name."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, check, connect: to the first address that answers."""
        failed: httpcore2.ConnectError | None = None
        for address in await resolve(host, port, allow_private=self._allow_private):
            try:
                return await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore2.ConnectError as error:
                failed = error
        raise failed or httpcore2.ConnectError(f"{host} has no address")

    async def sleep(self, seconds: float) -> None:
        """Wait between attempts."""
        await self._network.sleep(seconds)


class _CheckedTransport(httpx2.AsyncHTTPTransport):
    """Requests to checked addresses, with a limit on what comes back."""

    def __init__(self, *, allow_private: bool, max_bytes: int, takes_events: bool) -> None:
        super().__init__(trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=30,
            network_backend=_CheckedNetwork(allow_private=allow_private),
        )
        self._max_bytes = max_bytes
        self._takes_events = takes_events

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; refuse answers that are packed."""
        reply = await super().handle_async_request(request)
        if reply.headers.get("content-encoding", "identity") != "identity":
            await reply.aclose()
            raise httpx2.ReadError("the answer is compressed, which was not asked for")
        assert isinstance(reply.stream, httpx2.AsyncByteStream)
        is_events = reply.headers.get("content-type", "").startswith("text/event-stream")
        if not (is_events and self._takes_events):
            reply.stream = _Limited(reply.stream, self._max_bytes)
        return reply


class _Limited(httpx2.AsyncByteStream):
    """A body that is cut off, with an error, where it gets too long."""

    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._max_bytes
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise httpx2.ReadError(f"the answer has more than {self._max_bytes} bytes")
            yield chunk

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._stream.aclose()


def open_client(
    *,
    allow_private: bool,
    max_bytes: int,
    timeout_s: float,
    headers: dict[str, str],
    takes_events: bool = False,
) -> httpx2.AsyncClient:
    """Make a client that keeps to this module's rules; to be closed by its owner.

    Args:
        allow_private: Whether hosts of our own networks may be reached.
        max_bytes: The longest answer.
        timeout_s: From one sign of life to the next; its user sets a limit for the whole.
        headers: Sent with every request.
        takes_events: A stream of server-sent events may be endless: its reader limits each.
    """
    transport = _CheckedTransport(
        allow_private=allow_private, max_bytes=max_bytes, takes_events=takes_events
    )
    return httpx2.AsyncClient(
        transport=transport,
        headers={"Accept-Encoding": "identity", "User-Agent": "trunkline", **headers},
        timeout=timeout_s,
        follow_redirects=False,
        trust_env=False,
    )
