"""The caller's audio, where PJSIP's bridge meets our event loop.

Our clock drives the bridge every 20 ms, and the bridge calls this port::

    mouth -> onFrameReceived  -> MediaPort.hear_caller()
    ear   <- onFrameRequested <- MediaPort.speak_to_caller()

Both callbacks run inside that tick, once per call. They must not block, log
or raise: a late frame is a click in someone's ear.
"""

from collections.abc import Callable
from typing import Any

import pjsua2 as pj

from agent.audio.frame import FRAME_MS, SAMPLE_RATE_HZ, SILENCE
from agent.call.ports import MediaPort
from sip.pjsip import FrameBuffers


class CallerPort(pj.AudioMediaPort):  # type: ignore[misc]
    """One call's port on the 8 kHz bridge. Without RTP the media hear silence, on time."""

    def __init__(
        self,
        name: str,
        media: MediaPort,
        buffers: FrameBuffers,
        on_fault: Callable[[Exception], None],
    ) -> None:
        """Put a port on the bridge.

        Args:
            name: For PJSIP's own log.
            media: Hears and speaks.
            buffers: How frames are read and written.
            on_fault: Told of the first exception of `media`; from then on the port is silent.
        """
        super().__init__()
        self._read = buffers.read
        self._write = buffers.writer()
        self._hear = media.hear_caller
        self._speak = media.speak_to_caller
        self._on_fault = on_fault
        self._broken = False
        audio = pj.MediaFormatAudio()
        audio.type = pj.PJMEDIA_TYPE_AUDIO
        audio.clockRate = SAMPLE_RATE_HZ
        audio.channelCount = 1
        audio.bitsPerSample = 16
        audio.frameTimeUsec = FRAME_MS * 1000
        audio.avgBps = audio.maxBps = SAMPLE_RATE_HZ * 16
        self.createPort(name, audio)

    def mute(self) -> None:
        """Touch the media no more: the call is over, the port is about to go."""
        self._broken = True

    def onFrameReceived(self, frame: Any) -> None:  # noqa: N802
        """Pass on what the caller said; PJSIP also calls with empty frames."""
        if self._broken:
            return
        try:
            self._hear(self._read(frame) or SILENCE)
        except Exception as fault:  # noqa: BLE001 - it would cross C++; told to the leg, which logs
            self._broken = True
            self._on_fault(fault)

    def onFrameRequested(self, frame: Any) -> None:  # noqa: N802
        """Fetch what the caller shall hear."""
        frame.type = pj.PJMEDIA_FRAME_TYPE_AUDIO
        if self._broken:
            self._write(frame, SILENCE)
            return
        try:
            self._write(frame, self._speak())
        except Exception as fault:  # noqa: BLE001 - as above
            self._broken = True
            self._write(frame, SILENCE)
            self._on_fault(fault)
