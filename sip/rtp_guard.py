"""Keeps strangers out of a call's audio, in the kernel.

PJSIP plays RTP from anyone and sends the agent's voice to whoever sent last.
A classic BPF filter on the call's own UDP sockets lets only the caller's
packets through, before PJSIP could see any other::

    SDP, INVITE source -> rules -> socket_filter() -> SO_ATTACH_FILTER

The sockets are PJSIP's; they are found by their local port and only borrowed.
"""

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import structlog

log = structlog.get_logger()

_SO_ATTACH_FILTER = 26
_NETWORK_HEADER = 0xFFF00000
"""SKF_NET_OFF: offsets from here count from the IP header, others from the UDP header."""

_LOAD_WORD = 0x20
_LOAD_HALF = 0x28
_JUMP_EQUAL = 0x15
_RETURN = 0x06
_WHOLE_PACKET = 0xFFFFFFFF

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, operand."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Packets from `ip` may pass; only those from `port` if one is given."""

    ip: str
    port: int | None = None


def socket_filter(rules: Sequence[Rule], family: int) -> list[Instruction]:
    """Build the BPF program that passes only packets matching a rule.

    Args:
        rules: Rules of the other address family match nothing.
        family: `socket.AF_INET` or `socket.AF_INET6`: the socket's.

    Source: linux/filter.h; on a UDP socket the program sees the UDP header at 0.
    """
    program: list[Instruction] = []
    for rule in rules:
        address = ip_address(rule.ip)
        checks: list[tuple[int, int, int]] = []
        if isinstance(address, IPv4Address) and family == socket.AF_INET:
            checks.append((_LOAD_WORD, _NETWORK_HEADER + 12, int(address)))
        elif isinstance(address, IPv6Address) and family == socket.AF_INET6:
            words = struct.unpack(">4I", address.packed)
            checks += [(_LOAD_WORD, _NETWORK_HEADER + 8 + 4 * i, w) for i, w in enumerate(words)]
        else:
            continue
        if rule.port is not None:
            checks.append((_LOAD_HALF, 0, rule.port))
        for position, (load, offset, wanted) in enumerate(checks):
            # On a mismatch: over the checks that are left and the return behind them.
            to_next_rule = 2 * (len(checks) - position - 1) + 1
            program.append((load, 0, 0, offset))
            program.append((_JUMP_EQUAL, 0, to_next_rule, wanted))
        program.append((_RETURN, 0, 0, _WHOLE_PACKET))
    program.append((_RETURN, 0, 0, 0))
    return program


def attach_filter(sock: socket.socket, program: Sequence[Instruction]) -> None:
    """Put the program on a socket, in place of the one before.

    Raises:
        OSError: The kernel refused it.
    """
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("HP", len(program), ctypes.addressof(buffer)),
    )


def udp_sockets(ports: Sequence[int]) -> dict[int, socket.socket]:
    """Borrow this process's UDP sockets bound to the given local ports.

    Returns:
        Duplicates by port; close them, the originals stay open.
    """
    found: dict[int, socket.socket] = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not stat.S_ISSOCK(entry.stat().st_mode):
                continue
            borrowed = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue  # closed since it was listed
        try:
            port = int(borrowed.getsockname()[1]) if _is_udp(borrowed) else 0
        except OSError:
            port = 0
        if port in ports and port not in found:
            found[port] = borrowed
        else:
            borrowed.close()
    return found


def _is_udp(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_DGRAM and sock.family in (socket.AF_INET, socket.AF_INET6)


class RtpGuard:
    """Who may send RTP into one call.

    At first only the signalled address and port. A caller behind NAT is known by
    the INVITE's source instead: any port there. `loosen` gives up the port for
    callers that send from another one than they receive on.

    Attributes:
        local_port: Our RTP port of this call; 0 before it is known.
    """

    def __init__(self, source_ip: str) -> None:
        self._source_ip = source_ip
        self._remote: tuple[str, int | None] = ("", None)
        self.local_port = 0
        self._strict = True
        self._attached: tuple[int, tuple[Rule, ...]] | None = None

    def expect(self, local_port: int, remote_ip: str, remote_port: int | None) -> None:
        """Learn from signalling where the audio will come from, and let only that in."""
        if (remote_ip, remote_port) != self._remote or local_port != self.local_port:
            self._remote = (remote_ip, remote_port)
            self.local_port = local_port
            self._strict = True
        self._attach()

    def loosen(self) -> None:
        """Accept any port of the caller's addresses from now on."""
        if self._strict:
            self._strict = False
            self._attach()

    def rules(self) -> tuple[Rule, ...]:
        """What is let through now."""
        ip, port = self._remote
        rules = []
        if ip:
            rules.append(Rule(ip, port if self._strict else None))
        if self._source_ip != ip:
            rules.append(Rule(self._source_ip))
        return tuple(rules)

    def _attach(self) -> None:
        rules = self.rules()
        if self.local_port == 0 or self._attached == (self.local_port, rules):
            return
        rtp_port, rtcp_port = self.local_port, self.local_port + 1
        any_port = tuple(Rule(rule.ip) for rule in rules)
        sockets = udp_sockets((rtp_port, rtcp_port))
        try:
            for port, sock in sockets.items():
                wanted = rules if port == rtp_port else any_port
                attach_filter(sock, socket_filter(wanted, sock.family))
            if rtp_port in sockets:
                self._attached = (rtp_port, rules)
            else:
                log.warning("! no socket to guard against foreign RTP", rtp_port=rtp_port)
        except OSError as error:
            log.warning("! foreign RTP is not kept out", error=str(error))
        finally:
            for sock in sockets.values():
                sock.close()
