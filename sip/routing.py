"""Who may call and whom they reach: decisions about addresses and numbers, without I/O."""

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import unquote

from agent.call.clean import clean
from sip.settings import RouteSettings, TrunkSettings

LOCAL_TRUNK = "local"
"""The name of the trunk when none is configured: callers on this machine."""

_LOCAL_NETWORKS = ("127.0.0.0/8", "::1/128")


def trunk_of(source: str, trunks: Sequence[TrunkSettings]) -> str | None:
    """Name the trunk an INVITE came from; None if nobody may call from there.

    Args:
        source: The IP address the request came from, without port.
        trunks: In order of configuration; the first match wins. Without any,
            only this machine may call, as the trunk `local`.
    """
    try:
        address = ip_address(source)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not trunks:
        return LOCAL_TRUNK if any(address in ip_network(n) for n in _LOCAL_NETWORKS) else None
    for trunk in trunks:
        if any(address in ip_network(network, strict=False) for network in trunk.allow):
            return trunk.name
    return None


def route(did: str, routes: Sequence[RouteSettings]) -> str | None:
    """Name the agent that answers a number; None if none does.

    The exact number goes first, then the longest prefix (`+1555*`), then `*`.
    """
    best: RouteSettings | None = None
    for candidate in routes:
        if candidate.did == did:
            return candidate.agent
        prefix = candidate.did.removesuffix("*")
        is_pattern = prefix != candidate.did
        if (
            is_pattern
            and did.startswith(prefix)
            and (best is None or len(candidate.did) > len(best.did))
        ):
            best = candidate
    return best.agent if best else None


def user_of(uri: str) -> str:
    """Take the user part out of a SIP or tel URI or name-addr, fit to store and show.

    `"Bob" <sip:+15550100;phone-context=x@host>` gives `+15550100`; a URI without
    user gives an empty string.
    """
    if "<" in uri:
        uri = uri.rpartition("<")[2].partition(">")[0]
    scheme, _, rest = uri.partition(":")
    if scheme.strip().lower() == "tel":
        user = rest
    else:
        user, at, _ = rest.rpartition("@")
        if not at:
            return ""
        user = user.partition(":")[0]
    return clean(unquote(user.partition(";")[0]))


def request_uri_of(message: str) -> str:
    """Take the request URI out of a SIP request's first line; empty if it has none."""
    parts = message.partition("\r\n")[0].split(" ")
    return parts[1] if len(parts) > 1 else ""


def header_of(message: str, name: str, short_name: str) -> str:
    """Take the value of the first such header out of a SIP request; empty if absent.

    Args:
        message: The whole request.
        name: As in RFC 3261, for example `Call-ID`; case does not matter.
        short_name: Its compact form (RFC 3261, 7.3.3), for example `i`.
    """
    wanted = (name.lower(), short_name.lower())
    for line in message.partition("\r\n\r\n")[0].split("\r\n")[1:]:
        found, colon, value = line.partition(":")
        if colon and found.strip().lower() in wanted:
            return value.strip()
    return ""


def headers_of(message: str, names: Sequence[str]) -> dict[str, str]:
    """Take some headers out of a SIP request, fit to store and show; those it has.

    Args:
        message: The whole request.
        names: As configured; the result has them as they are written here.
    """
    found = {name: clean(header_of(message, name, name)) for name in names}
    return {name: value for name, value in found.items() if value}


def host_of(address: str) -> str:
    """Take the host out of `127.0.0.1:5060` or `[::1]:5060`."""
    return address.rpartition(":")[0].strip("[]")
