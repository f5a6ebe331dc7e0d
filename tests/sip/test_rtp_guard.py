"""Foreign RTP is kept out by the kernel, tried on real sockets."""

import socket
from collections.abc import Sequence

import pytest

from sip.rtp_guard import RtpGuard, Rule, attach_filter, socket_filter, udp_sockets
from tests.sip.wire import udp_socket


def heard_from(guarded: socket.socket, senders: Sequence[socket.socket]) -> list[int]:
    """Which of the senders get through, by index. Loopback delivers before sendto returns."""
    for index, sender in enumerate(senders):
        sender.sendto(bytes([index]), guarded.getsockname())
    guarded.setblocking(False)
    heard = []
    while True:
        try:
            heard.append(guarded.recv(16)[0])
        except BlockingIOError:
            return heard


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(["127.0.0.1:a"], [0], id="one port"),
        pytest.param(["127.0.0.1"], [0, 1], id="any port of an address"),
        pytest.param(["127.0.0.2"], [2], id="another address"),
        pytest.param(["127.0.0.1:b", "127.0.0.2"], [1, 2], id="two rules"),
        pytest.param(["127.0.0.2", "127.0.0.1:a"], [0, 2], id="in either order"),
        pytest.param(["2001:db8::1"], [], id="only rules of the other family"),
        pytest.param([], [], id="none"),
    ],
)
def test_filter(rules: list[str], expected: list[int]) -> None:
    """Only packets that match a rule arrive."""
    with (
        udp_socket() as guarded,
        udp_socket() as a,
        udp_socket() as b,
        udp_socket("127.0.0.2") as foreign,
    ):
        ports = {"a": a.getsockname()[1], "b": b.getsockname()[1]}
        built = [
            Rule(rule[:-2], ports[rule[-1]]) if rule[-1] in ports else Rule(rule) for rule in rules
        ]
        attach_filter(guarded, socket_filter(built, socket.AF_INET))
        assert heard_from(guarded, [a, b, foreign]) == expected


@pytest.mark.parametrize(
    ("ip", "right_port", "expected"),
    [
        pytest.param("::1", True, [0], id="address and port"),
        pytest.param("::1", False, [], id="wrong port"),
        pytest.param("2001:db8::1", True, [], id="wrong address"),
    ],
)
def test_filter_ipv6(ip: str, right_port: bool, expected: list[int]) -> None:
    """The same holds on IPv6."""
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as guarded,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
    ):
        guarded.bind(("::1", 0))
        sender.bind(("::1", 0))
        port = sender.getsockname()[1] if right_port else 1
        attach_filter(guarded, socket_filter([Rule(ip, port)], socket.AF_INET6))
        assert heard_from(guarded, [sender]) == expected


def test_a_new_filter_replaces_the_old() -> None:
    """A re-INVITE can move the caller to another address."""
    with udp_socket() as guarded, udp_socket() as a, udp_socket("127.0.0.2") as b:
        for rule, expected in [(Rule("127.0.0.1"), [0]), (Rule("127.0.0.2"), [1])]:
            attach_filter(guarded, socket_filter([rule], socket.AF_INET))
            assert heard_from(guarded, [a, b]) == expected


def test_udp_sockets() -> None:
    """Sockets are found by local port, borrowed, and stay open when given back."""
    with udp_socket() as a, udp_socket() as b, socket.create_server(("127.0.0.1", 0)) as tcp:
        port = a.getsockname()[1]
        found = udp_sockets([port, tcp.getsockname()[1]])
        assert list(found) == [port]
        for sock in found.values():
            sock.close()
        a.sendto(b"x", b.getsockname())
        assert b.recv(1) == b"x"


def test_guard_of_a_call() -> None:
    """First the signalled port only, then any port of the caller; a re-INVITE starts anew."""
    with (
        udp_socket() as rtp,
        udp_socket() as caller,
        udp_socket() as mouth,
        udp_socket("127.0.0.2") as foreign,
    ):
        senders = [caller, mouth, foreign]
        port = rtp.getsockname()[1]
        guard = RtpGuard("127.0.0.1")
        guard.expect(port, "127.0.0.1", caller.getsockname()[1])
        assert heard_from(rtp, senders) == [0]
        guard.loosen()
        assert heard_from(rtp, senders) == [0, 1]
        guard.expect(port, "127.0.0.2", foreign.getsockname()[1])
        assert heard_from(rtp, senders) == [0, 1, 2]
        guard.expect(port, "127.0.0.1", mouth.getsockname()[1])
        assert heard_from(rtp, senders) == [1]


@pytest.mark.parametrize(
    ("source", "signalled", "expected"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", (Rule("192.0.2.1", 4000),), id="the same"),
        pytest.param(
            "192.0.2.1",
            "10.0.0.1",
            (Rule("10.0.0.1", 4000), Rule("192.0.2.1")),
            id="behind NAT: the INVITE's source from any port",
        ),
        pytest.param("192.0.2.1", "", (Rule("192.0.2.1"),), id="late offer"),
    ],
)
def test_rules(source: str, signalled: str, expected: tuple[Rule, ...]) -> None:
    """Who may send follows from the signalled address and the INVITE's source."""
    guard = RtpGuard(source)
    guard.expect(0, signalled, 4000 if signalled else None)
    assert guard.rules() == expected
