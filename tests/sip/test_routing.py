"""Addresses, numbers and URIs: pure decisions."""

from collections.abc import Sequence

import pytest

from sip.routing import header_of, headers_of, host_of, request_uri_of, route, trunk_of, user_of
from sip.settings import RouteSettings, TrunkSettings

TRUNKS = [
    TrunkSettings(name="carrier", allow=("203.0.113.0/24", "2001:db8::/32")),
    TrunkSettings(name="office", allow=("203.0.113.7", "192.0.2.1")),
    TrunkSettings(name="closed"),
]


@pytest.mark.parametrize(
    ("source", "trunks", "expected"),
    [
        pytest.param("127.0.0.1", [], "local", id="this machine without trunks"),
        pytest.param("127.9.9.9", [], "local", id="all of loopback without trunks"),
        pytest.param("::1", [], "local", id="IPv6 loopback without trunks"),
        pytest.param("10.0.0.1", [], None, id="another machine without trunks"),
        pytest.param("127.0.0.1", TRUNKS, None, id="this machine with trunks"),
        pytest.param("203.0.113.7", TRUNKS, "carrier", id="first match wins"),
        pytest.param("192.0.2.1", TRUNKS, "office", id="single address"),
        pytest.param("2001:db8::5", TRUNKS, "carrier", id="IPv6 network"),
        pytest.param("::ffff:192.0.2.1", TRUNKS, "office", id="IPv4 in IPv6"),
        pytest.param("localhost", [], None, id="a name is no address"),
        pytest.param("", [], None, id="nothing"),
    ],
)
def test_trunk_of(source: str, trunks: Sequence[TrunkSettings], expected: str | None) -> None:
    """A request belongs to the first trunk that allows its source, or to none."""
    assert trunk_of(source, trunks) == expected


@pytest.mark.parametrize(
    ("did", "dids", "expected"),
    [
        pytest.param("+15550100", ["*", "+1555*", "+15550100"], "+15550100", id="exact first"),
        pytest.param("+15550199", ["*", "+1*", "+1555*"], "+1555*", id="longest prefix"),
        pytest.param("+44", ["*", "+1555*"], "*", id="everything else"),
        pytest.param("+44", ["+1555*", "+15550100"], None, id="nowhere"),
        pytest.param("", ["*"], "*", id="no number"),
        pytest.param("+1555", ["+1555*"], "+1555*", id="prefix alone"),
        pytest.param("+1555", [], None, id="no routes"),
    ],
)
def test_route(did: str, dids: list[str], expected: str | None) -> None:
    """Exact number, then longest prefix, then `*`."""
    assert route(did, [RouteSettings(did=it, agent=it) for it in dids]) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        pytest.param("sip:agent@127.0.0.1", "agent", id="plain"),
        pytest.param(
            '"Bob <x>" <sips:%2B15550100@a.example:5061;x=y>;tag=1', "+15550100", id="all"
        ),
        pytest.param("sip:+1555;phone-context=+1@h", "+1555", id="parameters in the user"),
        pytest.param("sip:bob:secret@h", "bob", id="password is not kept"),
        pytest.param("tel:+1-555-0100;ext=5", "+1-555-0100", id="tel"),
        pytest.param("sip:127.0.0.1", "", id="no user"),
        pytest.param("<sip:%00%0d%0a%1b[2J@h>", "[2J", id="control characters"),
        pytest.param("sip:\udcffx@h", "\ufffdx", id="lone surrogate"),
        pytest.param("", "", id="nothing"),
        pytest.param("<<<>>@;:", "", id="nonsense"),
    ],
)
def test_user_of(uri: str, expected: str) -> None:
    """The user part comes out clean, whatever surrounds it."""
    assert user_of(uri) == expected


MESSAGE = (
    "INVITE sip:+1555@h SIP/2.0\r\nf: <sip:a@b>;tag=1\r\nCALL-id : x@y\r\n"
    "From: <sip:second@b>\r\n\r\nCall-ID: in the body\r\n"
)


@pytest.mark.parametrize(
    ("name", "short_name", "expected"),
    [
        pytest.param("From", "f", "<sip:a@b>;tag=1", id="compact, first wins"),
        pytest.param("Call-ID", "i", "x@y", id="any case"),
        pytest.param("Subject", "s", "", id="absent"),
    ],
)
def test_header_of(name: str, short_name: str, expected: str) -> None:
    """A header is found by either name, in the head only."""
    assert header_of(MESSAGE, name, short_name) == expected


def test_headers_of() -> None:
    """Those asked for, by the names they were asked with, fit to show; the rest stays outside."""
    message = (
        "INVITE sip:100@host SIP/2.0\r\nx-customer:  47\t11 \x1b[2J\r\nX-Empty: \r\n"
        "X-Other: secret\r\nX-Long: " + "a" * 5000 + "\r\n\r\nX-Body: no header"
    )
    found = headers_of(message, ("X-Customer", "X-Empty", "X-Body", "X-Missing", "X-Long"))
    assert found == {"X-Customer": "47 11 [2J", "X-Long": "a" * 255 + "…"}


def test_request_uri_of() -> None:
    """The request URI is the second word of the first line, if there is one."""
    assert request_uri_of(MESSAGE) == "sip:+1555@h"
    assert request_uri_of("x") == ""


@pytest.mark.parametrize(
    ("address", "host"), [("127.0.0.1:5060", "127.0.0.1"), ("[::1]:5060", "::1")]
)
def test_host_of(address: str, host: str) -> None:
    """The port and IPv6 brackets go."""
    assert host_of(address) == host
