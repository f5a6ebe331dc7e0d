"""Frames in and out of PJSIP, the fast way and the public way."""

import pjsua2 as pj
import pytest

from agent.audio.frame import FRAME_BYTES, SILENCE
from agent.call.records import Ending
from sip.leg import ending_of
from sip.pjsip import FrameBuffers

SAMPLES = bytes(i % 251 for i in range(FRAME_BYTES))


def buffers(by_address: bool) -> FrameBuffers:
    made = FrameBuffers()
    assert made.by_address
    made.by_address = by_address
    return made


@pytest.mark.parametrize("by_address", [True, False], ids=["by address", "public"])
def test_round_trip(by_address: bool) -> None:
    """What is written into a frame is read out of it, and a kept vector is not shared."""
    made = buffers(by_address)
    write = made.writer()
    first, second = pj.MediaFrame(), pj.MediaFrame()
    write(first, SAMPLES)
    write(second, SILENCE)
    first.size = second.size = FRAME_BYTES
    assert (made.read(first), made.read(second)) == (SAMPLES, SILENCE)


@pytest.mark.parametrize("by_address", [True, False], ids=["by address", "public"])
@pytest.mark.parametrize(
    ("content", "size"),
    [
        pytest.param(b"", 0, id="empty"),
        pytest.param(b"", FRAME_BYTES, id="size without content"),
        pytest.param(SAMPLES[:160], 160, id="10 ms"),
        pytest.param(SAMPLES[:160], FRAME_BYTES, id="size beyond content"),
    ],
)
def test_odd_frames(by_address: bool, content: bytes, size: int) -> None:
    """A frame that does not hold 20 ms is none; memory beyond it is never read."""
    frame = pj.MediaFrame()
    if content:
        frame.buf = pj.ByteVector(content)
    frame.size = size
    assert buffers(by_address).read(frame) is None


@pytest.mark.parametrize("by_address", [True, False], ids=["by address", "public"])
@pytest.mark.parametrize("length", [0, 319, 640])
def test_wrong_length_is_refused(by_address: bool, length: int) -> None:
    """Only whole frames are written."""
    with pytest.raises(ValueError, match="320 bytes"):
        buffers(by_address).writer()(pj.MediaFrame(), bytes(length))


@pytest.mark.parametrize(
    ("status", "answered", "confirmed", "expected"),
    [
        pytest.param(200, True, True, Ending("caller", "hung up"), id="BYE"),
        pytest.param(487, False, False, Ending("caller", "cancelled"), id="CANCEL"),
        pytest.param(487, True, False, Ending("caller", "cancelled"), id="CANCEL raced 200"),
        pytest.param(
            408, True, True, Ending("trunkline", "the caller stopped answering"), id="timer"
        ),
        pytest.param(
            408, True, False, Ending("caller", "never acknowledged the answer"), id="no ACK"
        ),
        pytest.param(488, False, False, Ending("trunkline", "no common codec"), id="codec"),
    ],
)
def test_ending(status: int, answered: bool, confirmed: bool, expected: Ending) -> None:
    """Each way a dialog can end without us has its words."""
    assert ending_of(status, answered=answered, confirmed=confirmed) == expected
