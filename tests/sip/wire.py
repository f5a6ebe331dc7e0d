"""A telephone made of one UDP socket: says on the wire exactly what a test wants said."""

import re
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

WAIT_S = 5.0


@dataclass(frozen=True)
class Message:
    text: str

    @property
    def status(self) -> int:
        return int(self.text.split(" ", 2)[1]) if self.text.startswith("SIP/2.0 ") else 0

    @property
    def method(self) -> str:
        return "" if self.status else self.text.split(" ", 1)[0]

    @property
    def body(self) -> str:
        return self.text.partition("\r\n\r\n")[2]

    def header(self, name: str) -> str | None:
        found = re.search(rf"^{name}:\s*(.*?)\r$", self.text, re.I | re.M)
        return found.group(1) if found else None


def sdp(
    ip: str, port: int, payloads: str = "0 8", video: bool = False, direction: str = "sendrecv"
) -> str:
    lines = [
        "v=0",
        f"o=- 1 1 IN IP4 {ip}",
        "s=-",
        f"c=IN IP4 {ip}",
        "t=0 0",
        f"m=audio {port} RTP/AVP {payloads}",
        f"a={direction}",
    ]
    if video:
        lines += ["m=video 40000 RTP/AVP 96", "a=rtpmap:96 H264/90000"]
    return "\r\n".join(lines) + "\r\n"


@dataclass
class Phone:
    """One dialog at a time. `say` sends a request; `hear` waits for a message."""

    sip: socket.socket
    rtp: socket.socket
    agent: tuple[str, int]
    user: str = "+15550100"
    headers: Mapping[str, str] = field(default_factory=dict)
    from_user: str = "caller"
    display: str = ""
    call_id: str = field(default_factory=lambda: f"{time.monotonic_ns():x}@wire")
    to_tag: str = ""
    branch: int = 0
    cseq: int = 0
    sequence: int = 0

    @property
    def ip(self) -> str:
        return str(self.sip.getsockname()[0])

    @property
    def rtp_port(self) -> int:
        return int(self.rtp.getsockname()[1])

    def say(
        self,
        method: str,
        body: str = "",
        *,
        via_more: str = "",
        content_type: str = "application/sdp",
    ) -> None:
        if method not in ("ACK", "CANCEL"):
            self.cseq += 1
            self.branch += 1
        in_dialog = bool(self.to_tag) and method != "CANCEL"
        branch = f"z9hG4bK{self.call_id.partition('@')[0]}-{self.branch}{'a' if method == 'ACK' and in_dialog else ''}"
        ip, port = self.sip.getsockname()
        lines = [
            f"{method} sip:{self.user}@{self.agent[0]}:{self.agent[1]} SIP/2.0",
            f"Via: SIP/2.0/UDP {ip}:{port};branch={branch}{via_more}",
            f"From: {self.display}<sip:{self.from_user}@{ip}:{port}>;tag=wire",
            f"To: <sip:{self.user}@{self.agent[0]}>" + (f";tag={self.to_tag}" * in_dialog),
            f"Call-ID: {self.call_id}",
            f"CSeq: {self.cseq} {method}",
            f"Contact: <sip:{self.from_user}@{ip}:{port}>",
            "Max-Forwards: 70",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            *([f"Content-Type: {content_type}"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        message = "\r\n".join(lines) + "\r\n\r\n" + body
        self.sip.sendto(message.encode("utf-8", "surrogateescape"), self.agent)

    def hear(self, *wanted: int | str, within_s: float = WAIT_S) -> Message:
        """Wait for one of these statuses or methods; lesser statuses pass by."""
        until_s = time.monotonic() + within_s
        passed: list[str] = []
        while (left_s := until_s - time.monotonic()) > 0:
            self.sip.settimeout(left_s)
            try:
                message = Message(self.sip.recv(65535).decode("utf-8", "surrogateescape"))
            except TimeoutError:
                break
            tag = re.search(r"^To:.*;tag=([^\r;]+)", message.text, re.M)
            if tag and message.status:
                self.to_tag = tag.group(1)
            if message.status in wanted or message.method in wanted:
                return message
            passed.append(message.text.partition("\r\n")[0])
        raise AssertionError(f"waited {within_s:g} s for {wanted}, heard only {passed}")

    def reply_ok(self, request: Message) -> None:
        self.reply(request, "200 OK")

    def reply(self, request: Message, status: str) -> None:
        kept = re.findall(r"^(?:Via|From|To|Call-ID|CSeq):.*\r$", request.text, re.M | re.I)
        ip, port = self.sip.getsockname()
        contact = f"Contact: <sip:{self.from_user}@{ip}:{port}>"
        lines = [
            f"SIP/2.0 {status}",
            contact,
            *(line.rstrip("\r") for line in kept),
            "Content-Length: 0",
        ]
        self.sip.sendto(("\r\n".join(lines) + "\r\n\r\n").encode(), self.agent)

    def invite(self, body: str | None = None) -> Message:
        """INVITE with PCMU and PCMA, up to ACK; returns the 200."""
        self.say("INVITE", sdp(self.ip, self.rtp_port) if body is None else body)
        answer = self.hear(200)
        self.say("ACK")
        return answer

    def bye(self) -> None:
        self.say("BYE")
        self.hear(200)

    def talk(
        self,
        to: tuple[str, int],
        packets: int,
        *,
        payload: bytes = b"\xff" * 160,
        payload_type: int = 0,
        through: socket.socket | None = None,
    ) -> None:
        """Send RTP in real time: its pace is what jitter buffers go by."""
        start_s = time.monotonic()
        for i in range(packets):
            self.sequence += 1
            step = len(payload)
            header = struct.pack(
                ">BBHII", 0x80, payload_type, self.sequence & 0xFFFF, self.sequence * step, 4711
            )
            (through or self.rtp).sendto(header + payload, to)
            time.sleep(max(0.0, start_s + (i + 1) * step / 8000 - time.monotonic()))

    def listen(self, within_s: float, through: socket.socket | None = None) -> list[bytes]:
        """Collect the RTP packets that have come or come within this time."""
        sock = through or self.rtp
        until_s = time.monotonic() + within_s
        packets = []
        while (left_s := until_s - time.monotonic()) > 0:
            sock.settimeout(left_s)
            try:
                packets.append(sock.recv(2048))
            except TimeoutError:
                break
        return packets


def rtp_target(answer: Message) -> tuple[str, int]:
    ip = re.search(r"^c=IN IP4 (\S+)", answer.body, re.M)
    port = re.search(r"^m=audio (\d+)", answer.body, re.M)
    assert ip is not None
    assert port is not None
    return ip.group(1), int(port.group(1))


def udp_socket(ip: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ip, 0))
    return sock


@contextmanager
def phone(
    port: int,
    *,
    ip: str = "127.0.0.1",
    user: str = "+15550100",
    from_user: str = "caller",
    display: str = "",
    headers: Mapping[str, str] | None = None,
) -> Iterator[Phone]:
    with udp_socket(ip) as sip, udp_socket(ip) as rtp:
        yield Phone(sip, rtp, ("127.0.0.1", port), user, headers or {}, from_user, display)


def loud(packets: Sequence[bytes]) -> int:
    """How many PCMU packets carry more than silence (0xff and 0x7f are zero)."""
    return sum(any(byte | 0x80 != 0xFF for byte in packet[12:]) for packet in packets)
