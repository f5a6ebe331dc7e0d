"""The telephone's door: listens for SIP and lets in the calls we can take.

    request -> RequestGate: who and how many  -> 403, 503 before PJSIP does anything
    INVITE  -> route                          -> 404
            -> SipLeg, 180                    -> on_call(leg)

The gate decides without I/O; the legs live their own lives from there. An INVITE
must never ring that we could not take.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pjsua2 as pj
import structlog

from agent.call.clean import clean
from agent.call.ports import CallOffer
from sip.leg import PjCall, SipLeg
from sip.pjsip import Refusal, RequestGate
from sip.routing import header_of, headers_of, host_of, request_uri_of, route, trunk_of, user_of
from sip.sdp import first_codec, names_a_host
from sip.settings import RouteSettings, SipSettings, TrunkSettings
from sip.stack import SipStack, SipUnavailable, StackOptions, open_stack

log = structlog.get_logger()

RETRY_AFTER_S = 5
"""What a caller is told to wait when we are full or draining."""

_UNWANTED = ("MESSAGE", "PUBLISH", "REFER", "REGISTER", "SUBSCRIBE")
"""What pjsua would take, keep and even answer with NOTIFYs of its own, or leave without a word."""

_WATCH_S = 1.0

_BURST_CALLS = 20
_BURST_S = 0.6
"""The wheel's PJSIP aborts the process when 64 media sockets are open, closed
ones counting for 500 ms: 25 to 33 INVITE and CANCEL in a row did it."""


class SipEndpoint:
    """The open door. Made by `open_endpoint`."""

    def __init__(
        self,
        stack: SipStack,
        max_calls: int,
        trunks: Sequence[TrunkSettings],
        routes: Sequence[RouteSettings],
        *,
        on_call: Callable[[SipLeg], None],
        accepting: Callable[[], bool],
        no_rtp_timeout_s: float,
    ) -> None:
        self.max_calls = max_calls
        """Calls at once: what is configured, or what this PJSIP build carries if less."""
        self._stack = stack
        self._trunks = tuple(trunks)
        self._routes = tuple(routes)
        self._codecs = {trunk.name: trunk.codecs for trunk in trunks}
        self._headers = {trunk.name: trunk.headers for trunk in trunks}
        self._on_call = on_call
        self._accepting = accepting
        self._no_rtp_timeout_s = no_rtp_timeout_s
        self._legs: set[SipLeg] = set()
        self._recent: deque[float] = deque(maxlen=_BURST_CALLS)
        self._loop = asyncio.get_running_loop()
        self._gate = RequestGate(stack.library, self._refuse)
        self._account = _AnsweringAccount(self._offered)
        self._account.create(stack.account_config("trunkline"), True)
        self._timer = self._loop.call_later(_WATCH_S, self._watch_calls)

    @property
    def active_calls(self) -> int:
        """Calls ringing or answered, none of them over."""
        return len(self._legs)

    @property
    def pj_calls(self) -> int:
        """Call slots in use inside PJSIP; falls to 0 after the last call."""
        return self._stack.pj_calls

    @property
    def is_wheel(self) -> bool:
        """Whether this is the wheel's PJSIP with its few calls."""
        return self._stack.build.is_wheel

    @property
    def late_ticks(self) -> int:
        """20 ms ticks that began a whole tick or more late, since the start."""
        return self._stack.clock.late_ticks

    @property
    def port(self) -> int:
        """The port we listen on."""
        return self._stack.port

    async def close(self) -> None:
        """Say BYE to everybody, wait a little for the answers, and let go of all calls."""
        self._timer.cancel()
        for leg in tuple(self._legs):
            leg.hang_up()
        await self._stack.quiet()
        for leg in tuple(self._legs):
            leg.abandon()

    def _refuse(self, method: str, source: str) -> Refusal | None:
        """Decide about a request outside a dialog, before PJSIP spends anything on it."""
        if trunk_of(source, self._trunks) is None:
            log.debug("< refused", method=clean(method, 16), source=source)
            return Refusal(pj.PJSIP_SC_FORBIDDEN)
        if method in _UNWANTED:
            return Refusal(pj.PJSIP_SC_METHOD_NOT_ALLOWED)
        if method not in ("INVITE", "OPTIONS"):
            return None
        if not self._accepting():
            return Refusal(pj.PJSIP_SC_SERVICE_UNAVAILABLE, RETRY_AFTER_S)
        if method == "INVITE" and (self._is_full() or self._is_burst()):
            log.debug("< full", calls=len(self._legs))
            return Refusal(pj.PJSIP_SC_SERVICE_UNAVAILABLE, RETRY_AFTER_S)
        return None

    def _is_full(self) -> bool:
        # PJSIP keeps a slot until our BYE was answered: it may be fuller than we are.
        return max(len(self._legs), self._stack.pj_calls) >= self.max_calls

    def _is_burst(self) -> bool:
        recent = self._recent
        return (
            self.is_wheel
            and len(recent) == _BURST_CALLS
            and time.monotonic() - recent[0] < _BURST_S
        )

    def _offered(self, pj_call_id: int, message: str, source: str) -> None:
        """Inside PJSIP: take the INVITE as a leg; what to do with it is decided outside."""
        self._recent.append(time.monotonic())
        received_s = self._loop.time()
        source_ip = host_of(source)
        trunk = trunk_of(source_ip, self._trunks)
        self._stack.slot_taken(pj_call_id)
        codecs = self._codecs.get(trunk or "", ("PCMU", "PCMA"))
        pj_call = PjCall(self._account, pj_call_id, self._stack)
        leg = SipLeg(
            self._stack,
            pj_call,
            CallOffer(
                call_id=secrets.token_hex(8),
                sip_call_id=clean(header_of(message, "Call-ID", "i")),
                trunk=trunk or "",
                did=user_of(request_uri_of(message)),
                caller_number=user_of(header_of(message, "From", "f")),
                received_s=received_s,
                headers=headers_of(message, self._headers.get(trunk or "", ())),
                line_codec=first_codec(message.partition("\r\n\r\n")[2], codecs),
            ),
            source_ip=source_ip,
            codecs=codecs,
            no_rtp_timeout_s=self._no_rtp_timeout_s,
            on_closed=self._legs.discard,
        )
        self._legs.add(leg)
        needs_dns = names_a_host(message.partition("\r\n\r\n")[2])
        self._stack.post(lambda: self._admit(leg, needs_dns=needs_dns))

    def _admit(self, leg: SipLeg, *, needs_dns: bool) -> None:
        if leg.is_over:  # PJSIP has answered by itself: 488
            return
        if not leg.offer.trunk:  # the gate was told another address by a Via header
            leg.reject(pj.PJSIP_SC_FORBIDDEN)
            return
        if needs_dns:  # PJSIP would ask the resolver and wait: every other call falls silent
            leg.reject(pj.PJSIP_SC_NOT_ACCEPTABLE_HERE)
            return
        leg.agent_name = route(leg.offer.did, self._routes)
        if self._routes and leg.agent_name is None:
            leg.reject(pj.PJSIP_SC_NOT_FOUND)
            return
        leg.ring()
        self._on_call(leg)

    def _watch_calls(self) -> None:
        self._timer = self._loop.call_later(_WATCH_S, self._watch_calls)
        now_s = self._loop.time()
        for leg in tuple(self._legs):
            leg.watch(now_s)


class _AnsweringAccount(pj.Account):  # type: ignore[misc]
    """Receives INVITEs. Has no credentials: see `SipStack.account_config`."""

    def __init__(self, on_invite: Callable[[int, str, str], None]) -> None:
        super().__init__()
        self._on_invite = on_invite

    def onIncomingCall(self, prm: Any) -> None:  # noqa: N802
        """Hand over one INVITE: PJSIP's call, the message and its source."""
        try:
            rdata = prm.rdata
            self._on_invite(prm.callId, rdata.wholeMsg, rdata.srcAddress)
        except Exception:
            log.exception("! an INVITE could not be taken; PJSIP answers it with 500")


@asynccontextmanager
async def open_endpoint(
    sip: SipSettings,
    trunks: Sequence[TrunkSettings],
    routes: Sequence[RouteSettings],
    *,
    on_call: Callable[[SipLeg], None],
    accepting: Callable[[], bool],
    no_rtp_timeout_s: float = 20.0,
) -> AsyncIterator[SipEndpoint]:
    """Listen for calls; end them all and let go of the ports however the block is left.

    Once per process: PJSIP cannot be started twice.

    Args:
        sip: Where to listen; port 0 takes any free one.
        trunks: Who may call; without any, this machine.
        routes: Which numbers exist; without any, all do.
        on_call: Gets each admitted call, ringing. Must not block.
        accepting: Whether new calls are wanted; asked for each INVITE and OPTIONS.
        no_rtp_timeout_s: A caller from whom no RTP comes for this long is gone.

    Raises:
        SipUnavailable: The address cannot be listened on; the message says what to do.
    """
    host, _, port = sip.listen.rpartition(":")
    low, _, high = sip.rtp_ports.partition("-")
    options = StackOptions(
        host=host.strip("[]"),
        port=int(port),
        tcp={"auto": None, "on": True, "off": False}[sip.tcp],
        rtp_ports=(int(low), int(high)),
        public_address=sip.public_address,
        log_level=sip.log_level,
    )
    async with open_stack(options) as stack:
        if not stack.build.may_listen_on(options.host):
            raise SipUnavailable(
                f"the public PJSIP wheel must not listen on {options.host}: strangers can stop it"
                ' with a few dozen packets; use sip.listen = "127.0.0.1:5060"'
            )
        max_calls = min(sip.max_calls or stack.build.max_calls, stack.build.max_calls)
        endpoint = SipEndpoint(
            stack,
            max_calls,
            trunks,
            routes,
            on_call=on_call,
            accepting=accepting,
            no_rtp_timeout_s=no_rtp_timeout_s,
        )
        log.info(
            "= listening for SIP",
            address=f"{options.host}:{stack.port}",
            max_calls=max_calls,
            build_carries=stack.build.max_calls,
            build="wheel" if stack.build.is_wheel else "own",
        )
        try:
            yield endpoint
        finally:
            await endpoint.close()
