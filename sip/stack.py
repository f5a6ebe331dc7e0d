"""PJSIP, started and stopped: what the answering endpoint and the test caller share.

PJSIP has no thread of its own in Python. The clock polls it and drives its
bridge, so every callback runs on the event loop, inside `poll` or `tick`.
Callbacks decide nothing and call nothing: they `post` what happened, and the
posted work runs right after, when PJSIP is back in a quiet state. Ports are
`bury`-ed, not dropped: their last callback may still be on its way. Call objects
are the opposite: they must be gone before PJSIP gives their slot to another call.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pjsua2 as pj
import structlog

from agent.audio.frame import FRAME_MS, SAMPLE_RATE_HZ
from agent.call.clean import clean
from sip.build import Build
from sip.clock import PhoneClock
from sip.pjsip import BridgeMaster, FrameBuffers, load_library

log = structlog.get_logger()

_BURIAL_S = 0.5
"""PJSIP's media objects are gone 500 ms after their call; ours stay a little longer."""

_MOST_CALLS = 1024
"""More than any build carries: PJSIP clamps it to its real limit."""

_LOG_LINE_CHARS = 2000

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to

_CODECS = ("PCMU/8000", "PCMA/8000")

_CLOSING_S = 2.0
"""How long BYEs may take to be answered when the whole endpoint closes."""


class SipUnavailable(Exception):
    """The telephone side cannot be opened; the message says what to do."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How to start PJSIP.

    Attributes:
        host: Address to listen on; 0.0.0.0 for all.
        port: 0 for any free one.
        tcp: None: only on our own PJSIP build.
        rtp_ports: First and last.
        public_address: What to write into Contact and SDP; empty for our own.
        log_level: PJSIP's own, 0 to 6.
    """

    host: str
    port: int
    tcp: bool | None
    rtp_ports: tuple[int, int]
    public_address: str = ""
    log_level: int = 1


class _PjsipLog(pj.LogWriter):  # type: ignore[misc]
    """Sends PJSIP's own log lines to ours, at DEBUG.

    Even its errors quote what strangers sent: one line for each bad packet.
    """

    def write(self, entry: pj.LogEntry) -> None:
        """Take one line."""
        with contextlib.suppress(Exception):
            log.debug("= pjsip", line=clean(entry.msg, _LOG_LINE_CHARS))


class SipStack:
    """A running PJSIP."""

    def __init__(self, endpoint: pj.Endpoint, options: StackOptions) -> None:
        self.endpoint = endpoint
        self.options = options
        self.library = load_library()
        self.buffers = FrameBuffers()
        self.build = Build(endpoint.libVersion().full, int(self.library.pjsua_call_get_max_count()))
        self.port = 0
        self._posted: deque[Callable[[], None]] = deque()
        self._ended: dict[int, pj.Call] = {}
        self._graves: deque[tuple[float, object]] = deque()
        self._master = BridgeMaster(self.library)
        self.clock = PhoneClock(self._poll, self._master.tick)

    @property
    def pj_calls(self) -> int:
        """Call slots PJSIP has in use."""
        return int(self.library.pjsua_call_get_count())

    def post(self, step: Callable[[], None]) -> None:
        """Run a step on the loop once PJSIP has finished what it is doing."""
        self._posted.append(step)

    def bury(self, *objects: object) -> None:
        """Keep PJSIP objects until no callback can reach them any more."""
        until_s = time.monotonic() + _BURIAL_S
        self._graves.extend((until_s, it) for it in objects)

    def account_config(self, user: str) -> pj.AccountConfig:
        """An account without registration and without credentials.

        Whoever calls could ask for credentials with a 407 to our BYE; an account
        that has none cannot give any away.
        """
        options = self.options
        config = pj.AccountConfig()
        host = options.public_address or options.host
        config.idUri = f"sip:{user}@{f'[{host}]' if ':' in host else host}:{self.port}"
        config.regConfig.registerOnAdd = False
        config.mwiConfig.enabled = False
        config.presConfig.publishEnabled = False
        config.videoConfig.autoShowIncoming = False
        config.videoConfig.autoTransmitOutgoing = False
        config.natConfig.iceEnabled = False
        media = config.mediaConfig.transportConfig
        media.port, last = options.rtp_ports
        media.portRange = last - media.port - 1
        media.randomizePort = True
        media.publicAddress = options.public_address
        if options.host not in _EVERY_ADDRESS:
            media.boundAddress = options.host
        return config

    def slot_ended(self, pj_call_id: int, call: pj.Call) -> None:
        """Note, inside a callback, that PJSIP may give this call's slot to another."""
        self._ended[pj_call_id] = call

    def slot_taken(self, pj_call_id: int) -> None:
        """Disarm the slot's last call object, if it could not be deleted in time.

        A deleted pjsua2 call object hangs up whatever call has its slot. It is
        normally deleted before another INVITE is read; if BYE and INVITE came in
        one poll it is given up to PJSIP, which never deletes it: about 2 kB.
        """
        call = self._ended.pop(pj_call_id, None)
        if call is not None:
            call.__disown__()

    def slot_released(self, call: pj.Call) -> None:
        """The call object is about to be deleted."""
        for pj_call_id, ended in tuple(self._ended.items()):
            if ended is call:
                del self._ended[pj_call_id]

    def _poll(self) -> None:
        self._run_posted()  # call objects must go before their slots are taken again
        self.endpoint.libHandleEvents(0)
        self._run_posted()
        now_s = time.monotonic()
        while self._graves and self._graves[0][0] < now_s:
            self._graves.popleft()

    def _run_posted(self) -> None:
        while self._posted:
            self._posted.popleft()()

    async def quiet(self) -> None:
        """Wait, but not for long, until PJSIP has no call left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_S):
                while self.pj_calls or self._posted:  # noqa: ASYNC110 - C has no event
                    await asyncio.sleep(FRAME_MS / 1000)

    async def close(self) -> None:
        """Let go of everything buried while PJSIP still turns, then stop the clock.

        A call object deleted after PJSIP has stopped would abort the process, and
        a port must be off the bridge, which takes it a tick, before the bridge goes.
        """
        self._graves.clear()
        await asyncio.sleep(3 * FRAME_MS / 1000)
        self.clock.stop()


@asynccontextmanager
async def open_stack(options: StackOptions) -> AsyncIterator[SipStack]:
    """Start PJSIP with its sockets; stop it however the block is left. Once per process.

    Raises:
        SipUnavailable: The address cannot be listened on.
    """
    library = load_library()
    library.pj_log_set_level(0)  # before libCreate, which prints to stdout otherwise
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    stack: SipStack | None = None
    try:
        writer = _PjsipLog()
        endpoint.libInit(_endpoint_config(options, writer))
        stack = SipStack(endpoint, options)
        _listen(stack)
        endpoint.libStart()
        _choose_codecs(endpoint)
        yield stack
    finally:
        if stack is not None:
            await stack.close()
        endpoint.libDestroy(pj.PJSUA_DESTROY_NO_RX_MSG)
        # The C++ endpoint is deleted now, not whenever the interpreter gets to it.
        del stack, endpoint


def _endpoint_config(options: StackOptions, writer: pj.LogWriter) -> pj.EpConfig:
    config = pj.EpConfig()
    ua, media, logs = config.uaConfig, config.medConfig, config.logConfig
    ua.threadCnt = 0
    ua.mainThreadOnly = True
    ua.maxCalls = _MOST_CALLS
    ua.userAgent = "Trunkline"
    ua.mwiUnsolicitedEnabled = False
    media.clockRate = media.sndClockRate = SAMPLE_RATE_HZ
    media.channelCount = 1
    media.audioFramePtime = media.ptime = FRAME_MS
    media.noVad = True
    media.ecTailLen = 0
    media.sndAutoCloseTime = -1  # there is no sound device to close
    media.maxMediaPorts = 2 * _MOST_CALLS + 10
    logs.msgLogging = 0
    logs.level = logs.consoleLevel = options.log_level
    logs.writer = writer.__disown__()
    return config


def _listen(stack: SipStack) -> None:
    options = stack.options
    config = pj.TransportConfig()
    config.port = options.port
    config.publicAddress = options.public_address
    if options.host not in _EVERY_ADDRESS:
        config.boundAddress = options.host
    ipv6 = ":" in options.host
    udp = pj.PJSIP_TRANSPORT_UDP6 if ipv6 else pj.PJSIP_TRANSPORT_UDP
    transport = _open_transport(stack, udp, config, "UDP")
    stack.port = int(stack.endpoint.transportGetInfo(transport).localName.rpartition(":")[2])
    if options.tcp is None and stack.build.is_wheel:
        log.info("= SIP over UDP only: this PJSIP build aborts after some 60 TCP connections")
    elif options.tcp is not False:
        config.port = stack.port
        tcp = pj.PJSIP_TRANSPORT_TCP6 if ipv6 else pj.PJSIP_TRANSPORT_TCP
        _open_transport(stack, tcp, config, "TCP")


def _open_transport(stack: SipStack, kind: int, config: pj.TransportConfig, name: str) -> int:
    try:
        return int(stack.endpoint.transportCreate(kind, config))
    except pj.Error as error:
        where = f"{stack.options.host}:{config.port}"
        raise SipUnavailable(
            f"cannot listen for SIP on {where} ({name}): {error.reason}. Another program may be "
            "using it, or this machine may not have the address: change [sip] listen"
        ) from None


def _choose_codecs(endpoint: pj.Endpoint) -> None:
    """Speak G.711 and nothing else: it is what every trunk has, and the bridge is 8 kHz."""
    for codec in endpoint.codecEnum2():
        wanted = codec.codecId.startswith(_CODECS)
        endpoint.codecSetPriority(codec.codecId, 128 if wanted else 0)
