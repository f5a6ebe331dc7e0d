"""A session over WebRTC: its voices as RTP, its events on a data channel.

    write_frame -> Opus, PCMU or PCMA -> RTP   (in the phone's own tick)
    RTP -> Playout -> read_frame               (decoded when it is due)
    data channel -> receive_text

The far end sends in real time, and knows what it has sent: what of it was not heard is
small, and it forgets the rest by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from agent.audio.frame import SAMPLE_RATE_HZ, Frame
from agent.audio.opus import OpusEncoder
from agent.call.events import (
    AgentInterrupted,
    AgentSpeaking,
    AgentSpoke,
    CallEvent,
    ResponseEnded,
)
from agent.call.ports import AgentProfile, AgentUnavailable, CallOffer
from agent.realtime.calls_api import CallAnswer, CallsApi
from agent.realtime.codec import Codec, CodecError, G711Codec, codecs_to_offer, open_codec
from agent.realtime.leg import RealtimeLeg
from agent.realtime.peer import Peer, PeerError, open_peer
from agent.realtime.playout import Playout
from agent.realtime.settings import RealtimeSettings
from agent.realtime.sideband import open_sideband

_MOST_CHANNEL_CHARS = 200_000
"""Most data channels take messages of 256 KiB, and the session comes back with defaults added."""

_LONGEST_TAIL_S = 0.3
"""How long the rest of an interrupted response may go on arriving: a round trip and then some."""

_LONGEST_OBEDIENCE_S = 1.0
"""The same where the far end has yet to be told, and to act on it."""


@asynccontextmanager
async def open_webrtc(
    settings: RealtimeSettings,
    profile: AgentProfile,
    offer: CallOffer,
    api: CallsApi,
    *,
    fast: bool = True,
) -> AsyncIterator["WebRtcLeg"]:
    """Connect one session; entered, it can hear and speak.

    Args:
        settings: As they hold for this agent.
        profile: Who answers.
        offer: Whose call it is.
        api: Carries the offer, and says goodbye.
        fast: See `RtpPath`.

    Raises:
        AgentUnavailable: It could not be opened within `connect_timeout_s`.
    """
    leg = WebRtcLeg(settings, offer.call_id)
    try:
        async with open_peer(
            settings.ice_servers,
            leg.receive_rtp,
            leg.receive_text,
            leg.lose,
            codecs_to_offer(settings.codec, offer.line_codec),
            fast=fast,
        ) as peer:
            try:
                await _connect(leg, peer, profile, api, settings.connect_timeout_s)
                yield leg
            finally:
                await api.hang_up(leg.realtime_call_id)
    except PeerError as error:
        raise AgentUnavailable(str(error)) from error
    finally:
        leg.close()


async def _connect(
    leg: "WebRtcLeg", peer: Peer, profile: AgentProfile, api: CallsApi, timeout_s: float
) -> None:
    waiting_for = "the Realtime API did not answer"
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _answered(peer, api)
            leg.realtime_call_id = answer.realtime_call_id
            waiting_for = ""
            await peer.accept(answer.sdp)
            await peer.ready()
            waiting_for = "the session settings were not acknowledged"
            leg.attach(peer)
            await leg.configured(profile)
    except TimeoutError as error:
        what = waiting_for or peer.waiting_for
        raise AgentUnavailable(f"{what} within {timeout_s:g} s") from error


async def _answered(peer: Peer, api: CallsApi) -> CallAnswer:
    """Gather candidates and get a secret at the same time; then exchange the offer."""
    try:
        async with asyncio.TaskGroup() as group:
            secret = group.create_task(api.admit())
            offer = group.create_task(peer.offer())
    except* AgentUnavailable as refused:
        refusal = refused.exceptions[0]
    else:
        return await api.create(offer.result(), secret.result())
    raise refusal


class WebRtcLeg(RealtimeLeg):
    """The `RealtimeLeg` whose audio is RTP. Made by `open_webrtc`."""

    def __init__(self, settings: RealtimeSettings, call_id: str) -> None:
        """Prepare the playout; nothing is connected yet."""
        super().__init__(settings, call_id)
        self._codecs: dict[int, Codec] = {}
        """Those that are in use, by payload type."""
        self._encoder: Codec = G711Codec("pcmu")
        self._playout = Playout(self._encoder)
        self._peer: Peer | None = None
        self._timestamp = 0
        self._speaking_response_id = ""
        self._muted_response_id = ""
        self._muted_until_s = 0.0
        self._late_spoke: AgentSpoke | None = None

    def write_frame(self, frame: Frame) -> None:
        """Send the caller's next 20 ms up. Never blocks, never raises."""
        timestamp = self._timestamp
        self._timestamp = timestamp + self._encoder.ticks_per_frame
        path = self._peer.path if self._peer else None
        if path is None:
            return
        try:
            payload = self._encoder.encode(frame)
        except CodecError:
            self._frames_refused += 1
            return
        path.send(payload, timestamp, marker=timestamp == 0)

    def read_frame(self) -> Frame:
        """Give the next 20 ms for the caller's ear; silence when nothing is due."""
        frame = self._playout.read(self._loop.time())
        if self._late_spoke is not None and not self._playout.is_behind:
            self._tell_late_spoke()
        return frame

    def flush(self) -> int:
        """Drop what has arrived, and the rest of this response as it arrives.

        Returns:
            How many ms were dropped now.
        """
        if self._speaking_response_id:
            self._muted_response_id = self._speaking_response_id
            self._muted_until_s = self._loop.time() + _LONGEST_TAIL_S
        dropped_ms = self._playout.flush()
        self._flushed_ms += dropped_ms
        return dropped_ms

    def interrupt(self) -> int:
        """Stop the response and drop what has arrived of it; return how many ms that was."""
        dropped_ms = self.flush()
        self._protocol.interrupt(dropped_ms)
        self._send_outgoing()
        if self._muted_response_id:
            self._muted_until_s = self._loop.time() + _LONGEST_OBEDIENCE_S
        return dropped_ms

    def hold(self, is_held: bool) -> None:
        """Let the agent's voice wait, or go on where it stopped."""
        self._playout.hold(is_held)

    def buffered_ms(self) -> int:
        """How much speech has arrived and was not read yet."""
        return self._playout.buffered_ms

    def waited_ms(self) -> int:
        """How long the frame read last had waited for its read."""
        return max(0, int((self._loop.time() - self._playout.read_arrival_s) * 1000))

    def quality(self) -> Mapping[str, object]:
        """Packets, loss and repairs so far, both directions."""
        path = self._peer.path if self._peer else None
        playout = self._playout
        return {
            "codec": path.codecs[path.payload_type] if path else None,
            "fast_path": path.is_fast if path else None,
            "packets_sent": path.packets_sent if path else 0,
            "packets_unsent": path.packets_dropped if path else 0,
            "packets_received": path.packets_received if path else 0,
            "packets_replayed": path.replayed if path else 0,
            "srtp_failures": path.unprotect_failures if path else 0,
            "lost": playout.lost,
            "concealed": playout.concealed,
            "late": playout.late,
            "duplicate": playout.duplicate,
            "reordered": playout.reordered,
            "underruns": playout.underruns,
            "overflowed": playout.overflowed,
            "trimmed": playout.trimmed,
            "shortened_ms": playout.shortened_samples * 1000 // SAMPLE_RATE_HZ,
            "lengthened_ms": playout.lengthened_samples * 1000 // SAMPLE_RATE_HZ,
            "undecodable": playout.undecodable,
            "jitter_ms": round(playout.jitter_ms, 1),
            "flushed_ms": self._flushed_ms,
            "events_dropped": self._events_dropped,
            "messages_refused": self._protocol.garbage
            + (self._peer.unreadable if self._peer else 0),
            "messages_unsent": self._peer.unsent if self._peer else 0,
        }

    def _tell_late_spoke(self) -> None:
        """All was sent long ago; only now has the ear been given it."""
        event, self._late_spoke = self._late_spoke, None
        if event is not None:
            self._tell(event)

    # --- connecting

    def attach(self, peer: Peer) -> None:
        """Take a connected peer; from now on frames and events flow."""
        self._peer = peer
        if peer.path is not None:
            self._encoder = self._codec_of(peer.path.payload_type)
            self._playout.use(self._encoder)

    def _codec_of(self, payload_type: int) -> Codec:
        """Open the codec of a negotiated payload type, once."""
        codec = self._codecs.get(payload_type)
        if codec is None:
            assert self._peer is not None
            assert self._peer.path is not None
            codec = open_codec(self._peer.path.codecs[payload_type], self._new_opus_encoder)
            self._codecs[payload_type] = codec
        return codec

    def _new_opus_encoder(self) -> OpusEncoder:
        opus = self._settings.opus
        return OpusEncoder(opus.complexity, opus.bitrate_bps, opus.fec, opus.expected_loss_percent)

    async def configured(self, profile: AgentProfile) -> None:
        """Send the session settings and wait until they are acknowledged.

        Raises:
            AgentUnavailable: They were refused, or the connection was lost.
        """
        self._protocol.configure(profile, self._settings)
        texts = self._protocol.take_outgoing()
        fits = max(map(len, texts)) <= _MOST_CHANNEL_CHARS
        if fits and self._peer is not None:
            for text in texts:
                self._peer.send_text(text)
            fits = not self._peer.unsent
        if fits:
            await self._acknowledged()
            return
        async with open_sideband(
            self._settings, self.realtime_call_id, self.receive_text
        ) as sideband:
            for text in texts:
                await sideband.send(text)
            await self._acknowledged()

    def _free(self) -> None:
        self._peer = None
        self._playout.flush()
        for codec in self._codecs.values():
            codec.close()

    # --- the far end's side

    def receive_rtp(
        self, sequence: int, timestamp: int, payload_type: int, payload: bytes, arrival_s: float
    ) -> None:
        """Take one packet of the agent's voice."""
        path = self._peer.path if self._peer else None
        if path is None or payload_type not in path.codecs:
            return
        # A far end that agreed to several may send another than the one it likes best.
        self._playout.use(self._codec_of(payload_type))
        self._playout.receive(sequence, timestamp, payload, arrival_s)
        if self._muted_response_id:
            if arrival_s < self._muted_until_s:
                self._flushed_ms += self._playout.flush()
            else:
                self._muted_response_id = ""

    def receive_text(self, text: str) -> None:
        """Take one event of the data channel."""
        for event in self._protocol.receive(text):
            self._follow(event)
            if isinstance(event, AgentSpoke) and self._playout.is_behind:
                self._late_spoke = event
            else:
                self._tell(event)
        self._send_outgoing()
        self._settled.set()

    def _follow(self, event: CallEvent) -> None:
        """Keep track of whose audio is arriving."""
        match event:
            case AgentSpeaking(response_id):
                self._speaking_response_id = response_id
                self._playout.speech_began()
                if response_id != self._muted_response_id:
                    self._muted_response_id = ""
            case AgentSpoke(response_id) | AgentInterrupted(response_id):
                self._end_speech(response_id)
            case ResponseEnded(response_id, "cancelled"):
                self._unmute(response_id)
            case _:
                pass

    def _end_speech(self, response_id: str) -> None:
        if response_id == self._speaking_response_id:
            self._speaking_response_id = ""
            self._playout.speech_ended()
        self._unmute(response_id)

    def _unmute(self, response_id: str) -> None:
        if response_id == self._muted_response_id:
            self._muted_response_id = ""

    def _send_text(self, text: str) -> None:
        if self._peer is not None:
            self._peer.send_text(text)
