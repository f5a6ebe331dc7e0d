"""RTP between two real peers: both paths, odd packets, and honest reports."""

import asyncio
import os
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aioice import ice
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCRtpReceiver

from agent.realtime import rtp_path
from agent.realtime.rtp_path import (
    RtpPath,
    _ReceivedStream,
    check_private_names,
    gather_loopback_when_alone,
)


@dataclass
class End:
    """One end of a connection, and what it received."""

    pc: RTCPeerConnection
    path: RtpPath
    heard: list[tuple[int, int, int, bytes, float]] = field(default_factory=list)


async def until(condition: Callable[[], bool], timeout_s: float = 3) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def two_ends(*, fast: bool = True) -> AsyncIterator[tuple[End, End]]:
    gather_loopback_when_alone()
    configuration = RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
    a, b = RTCPeerConnection(configuration), RTCPeerConnection(configuration)
    try:
        ours = a.addTransceiver("audio")
        await a.setLocalDescription(await a.createOffer())
        await b.setRemoteDescription(a.localDescription)
        theirs = b.getTransceivers()[0]
        theirs.direction = "sendrecv"
        await b.setLocalDescription(await b.createAnswer())
        await a.setRemoteDescription(b.localDescription)
        await until(lambda: a.connectionState == b.connectionState == "connected")
        heard_a: list[Any] = []
        heard_b: list[Any] = []
        end_a = End(a, RtpPath(a, ours, lambda *rtp: heard_a.append(rtp), fast=fast), heard_a)
        end_b = End(b, RtpPath(b, theirs, lambda *rtp: heard_b.append(rtp)), heard_b)
        yield end_a, end_b
        end_a.path.close()
        end_b.path.close()
    finally:
        await a.close()
        await b.close()


def test_the_installed_libraries_are_the_pinned_ones() -> None:
    """The fast path's private names are all there."""
    assert check_private_names() == []


def test_a_missing_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that was changed inside is noticed by name, before a call is."""
    monkeypatch.delattr(ice.CandidatePair, "remote_addr")
    monkeypatch.setattr(RTCRtpReceiver, "__init__", lambda self: None)
    monkeypatch.setattr(rtp_path, "version", lambda name: "9.9.9")
    problems = check_private_names()
    assert "CandidatePair.remote_addr is missing" in problems
    assert "RTCRtpReceiver._RTCRtpReceiver__remote_streams is missing" in problems
    assert "aiortc is 9.9.9, pinned is 1.16.x" in problems


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "semi-public"])
async def test_both_ways(fast: bool) -> None:
    """Payloads arrive unchanged, in sequence, with their timestamps' distance."""
    async with two_ends(fast=fast) as (a, b):
        assert (a.path.is_fast, b.path.is_fast) == (fast, True)
        for number in range(5):
            a.path.send(b"up%d" % number, 960 * number, marker=number == 0)
            b.path.send(b"down%d" % number, 960 * number)
        await until(lambda: len(a.heard) == len(b.heard) == 5)
        for end, words in ((b, b"up%d"), (a, b"down%d")):
            sequences, timestamps, types, payloads, _ = zip(*end.heard, strict=True)
            assert [s - sequences[0] for s in sequences] == [0, 1, 2, 3, 4]
            assert [(t - timestamps[0]) & 0xFFFFFFFF for t in timestamps] == [
                960 * n for n in range(5)
            ]
            assert set(types) == {end.path.payload_type}
            assert list(payloads) == [words % n for n in range(5)]
        assert a.path.packets_sent == a.path.packets_received == 5


async def test_without_the_private_names_a_call_still_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unknown library version costs CPU, not the call; it is said once."""
    monkeypatch.setattr(rtp_path, "_warned", set())
    monkeypatch.setattr(rtp_path, "version", lambda name: "9.9.9")
    async with two_ends() as (a, b):
        assert not a.path.is_fast
        a.path.send(b"hello", 0)
        await until(lambda: len(b.heard) == 1)
        assert rtp_path._warned == {"fallback"}


def raw(end: End, packet: bytes) -> None:
    """Send an RTP packet of any shape, properly encrypted."""
    pair = end.path._nominated[1]
    pair.protocol.transport.sendto(end.path._protect(packet), pair.remote_addr)


def header(first: int, sequence: int, ssrc: int = 7, payload_type: int = 96) -> bytes:
    return struct.pack("!BBHII", first, payload_type, sequence, 1000, ssrc)


@pytest.mark.parametrize(
    ("packet", "payload"),
    [
        pytest.param(header(0x80, 1) + b"voice", b"voice", id="plain"),
        pytest.param(header(0x82, 1) + bytes(8) + b"voice", b"voice", id="two CSRC"),
        pytest.param(
            header(0x90, 1) + b"\xbe\xde\x00\x01\x10\xff\x00\x00" + b"voice",
            b"voice",
            id="header extension",
        ),
        pytest.param(header(0xA0, 1) + b"voice\x00\x00\x03", b"voice", id="padding"),
        pytest.param(
            header(0xB1, 1) + bytes(4) + b"\xbe\xde\x00\x01\x10\xff\x00\x00voice\x00\x02",
            b"voice",
            id="all of them",
        ),
        pytest.param(header(0xA0, 1) + b"\x00\x00\x03", b"", id="only padding"),
        pytest.param(header(0xA0, 1) + b"voice\xff", None, id="padding that lies"),
    ],
)
async def test_headers(packet: bytes, payload: bytes | None) -> None:
    """Whatever a header carries, the payload is what is behind it; a lie is counted."""
    async with two_ends() as (a, b):
        raw(a, packet)
        a.path.send(b"next", 0)
        await until(lambda: any(rtp[3] == b"next" for rtp in b.heard))
        assert [rtp[3] for rtp in b.heard[:-1]] == ([] if payload is None else [payload])
        assert b.path.malformed == (1 if payload is None else 0)


async def test_what_is_not_from_the_peer_is_dropped() -> None:
    """Forged, repeated and oversized datagrams are counted, never heard, and never raise."""
    async with two_ends() as (a, b):
        pair = a.path._nominated[1]
        transport = pair.protocol.transport
        transport.sendto(header(0x80, 5) + os.urandom(40), pair.remote_addr)
        transport.sendto(header(0x80, 6) + os.urandom(1800), pair.remote_addr)
        transport.sendto(b"\x80", pair.remote_addr)
        transport.sendto(b"", pair.remote_addr)
        protected = a.path._protect(header(0x80, 7) + b"voice")
        for _ in range(3):
            transport.sendto(protected, pair.remote_addr)
        await until(lambda: b.path.replayed == 2)
        assert b.path.unprotect_failures == 1
        assert b.path.malformed == 1
        assert [rtp[3] for rtp in b.heard] == [b"voice"]


async def test_reports_are_honest() -> None:
    """RTCP says what was really sent and received, though aiortc saw none of it."""
    async with two_ends() as (a, b):
        for number in range(60):
            a.path.send(bytes(40), 960 * number)
            if number == 30:
                a.path._sequence += 3
        await until(lambda: len(b.heard) == 60)

        def told() -> dict[str, Any]:
            return {stat.type: stat for stat in stats.values()}

        stats: Any = {}
        async with asyncio.timeout(4):
            while "remote-inbound-rtp" not in told():
                await asyncio.sleep(0.05)
                stats = await a.pc.getSenders()[0].getStats()
        assert told()["outbound-rtp"].packetsSent == 60
        assert told()["outbound-rtp"].bytesSent == 60 * 40
        assert told()["remote-inbound-rtp"].packetsLost == 3


async def report_of(end: End, packets_lost: int) -> Any:
    """What this end is told by the other's receiver reports, once they know of so many losses."""
    async with asyncio.timeout(5):
        while True:
            stats = await end.pc.getSenders()[0].getStats()
            for stat in stats.values():
                if stat.type == "remote-inbound-rtp" and stat.packetsLost == packets_lost:
                    return stat
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "semi-public"])
async def test_loss_is_reported_as_it_was(fast: bool) -> None:
    """One packet in four never leaves: the sender is told of a quarter, and of each."""
    async with two_ends(fast=fast) as (a, b):
        for number in range(200):
            if number % 4 == 2:
                b.path._sequence += 1
            else:
                b.path.send(bytes(40), 960 * number)
        await until(lambda: len(a.heard) == 150)
        told = await report_of(b, 50)
        assert told.fractionLost == pytest.approx(64, abs=1)


@pytest.mark.parametrize("rate_hz", [48000, 8000], ids=["Opus", "G.711"])
@pytest.mark.parametrize("jitter_ms", [0, 4, 20])
def test_jitter_is_reported_as_it_was(rate_hz: int, jitter_ms: int) -> None:
    """Packets that come alternately early and late: their distance, whatever the timestamps do."""
    stream = _ReceivedStream(rate_hz)
    for number in range(500):
        late_s = (number % 2) * jitter_ms / 1000
        timestamp = (0xFFFF0000 + number * rate_hz // 50) & 0xFFFFFFFF
        stream.note((65_400 + number) & 0xFFFF, timestamp, 1e6 + number * 0.02 + late_s)
    assert stream.jitter / rate_hz * 1000 == pytest.approx(jitter_ms, abs=0.2)
    assert (stream.packets_received, stream.packets_lost) == (500, 0)


def test_a_pause_is_no_jitter() -> None:
    """A sender that was silent for a minute, or set its clock anew, was not late."""
    stream = _ReceivedStream(48000)
    for number in range(200):
        pause_s, jump = (60, 7_000_000) if number >= 100 else (0, 0)
        stream.note(number, jump + number * 960, pause_s + number * 0.02)
    assert stream.jitter < 48


def test_a_new_count_is_no_loss() -> None:
    """What was lost before stays lost; a step of thousands is a new count, once it is proved."""
    stream = _ReceivedStream(8000)
    for sequence in (0, 1, 2, 5, 30_000, 6, 30_000, 30_001, 30_002, 30_004, 30_003):
        stream.note(sequence, sequence * 160, sequence * 0.02)
    # The first packet of the new count proved nothing yet.
    assert stream.packets_received == 9
    assert stream.packets_lost == 2


async def test_no_thread_is_kept_for_a_decoder() -> None:
    """Aiortc's decoder thread ends with the first packet."""
    before = threading.active_count()
    async with two_ends() as (a, b):
        await until(lambda: threading.active_count() == before + 2)
        a.path.send(b"x", 0)
        b.path.send(b"x", 0)
        await until(lambda: threading.active_count() == before)


async def test_after_close_nothing_is_sent_or_heard() -> None:
    """Closing twice is harmless; what is sent afterwards is counted."""
    async with two_ends() as (a, b):
        b.path.close()
        b.path.close()
        a.path.send(b"x", 0)
        b.path.send(b"y", 0)
        await asyncio.sleep(0.02)
        assert (b.heard, b.path.packets_dropped) == ([], 1)
        protocol = a.path._nominated[1].protocol
    a.path.send(b"z", 960)
    assert a.path.packets_dropped == 1
    assert "datagram_received" not in vars(protocol)


async def test_a_path_needs_a_connection() -> None:
    """Asking too early is a programming error, said plainly."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = pc.addTransceiver("audio")
    with pytest.raises(RuntimeError, match="not connected"):
        RtpPath(pc, transceiver, lambda *rtp: None)
    await pc.close()


async def test_another_nominated_pair_is_followed() -> None:
    """When ICE moves to another pair, the next packet goes there, and is heard there."""

    def connection(end: End) -> Any:
        dtls: Any = end.pc.getTransceivers()[0].sender.transport
        return dtls.transport._connection

    async with two_ends() as (a, b):
        nominated = connection(a)._nominated
        used = nominated[1].protocol
        # A machine with one address has one socket; then the pair is only replaced.
        unused = [p for p in connection(a)._protocols if p is not used] or [used]
        is_v6 = ":" in unused[0].local_candidate.host
        remote = next(c for c in connection(b).local_candidates if (":" in c.host) == is_v6)
        nominated[1] = ice.CandidatePair(unused[0], remote)
        a.path.send(b"moved", 0)
        await until(lambda: [rtp[3] for rtp in b.heard] == [b"moved"])


async def test_the_sequence_wraps_in_mid_call() -> None:
    """After 65535 comes 0, encrypted and heard as if nothing were special about it."""
    async with two_ends() as (a, b):
        a.path._sequence = 65530
        for number in range(12):
            a.path.send(b"x", 960 * number)
        await until(lambda: len(b.heard) == 12)
        assert [rtp[0] for rtp in b.heard] == [*range(65530, 65536), *range(6)]
        assert b.path.unprotect_failures == 0


def test_a_machine_without_addresses_has_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unplugged laptop can talk to the embedded server; others gather as before."""
    found = ["192.0.2.7"]
    monkeypatch.setattr(ice, "get_host_addresses", lambda use_ipv4, use_ipv6: list(found))
    gather_loopback_when_alone()
    gather_loopback_when_alone()
    assert ice.get_host_addresses(True, True) == ["192.0.2.7"]
    found.clear()
    assert ice.get_host_addresses(True, True) == ["127.0.0.1"]
    assert ice.get_host_addresses(False, True) == []
