"""A caller that talks all the time and times its own echo: one process, one call.

    python -m tests.bench.talker URI SECONDS   ->   one JSON object

Every second it says a burst of 100 ms; the far end echoes. The distance from the
burst's first voiced frame out to its first voiced frame in is the round trip
through everything, in whole frames of 20 ms plus the clock's millisecond.
"""

import asyncio
import itertools
import json
import sys

import numpy as np

from agent.audio.frame import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame
from agent.audio.voice import is_voiced
from sip.probe import open_probe

_BURST_FRAMES = 5
_PERIOD_S = 1.0


def speech_like() -> list[Frame]:
    """Five frames of a vowel-like sound, then faint noise for the rest of a second.

    The noise stays below what counts as voiced, but gives the codecs real work.
    """
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    vowel = sum(
        np.sin(2 * np.pi * hz * time_s) / n for n, hz in enumerate((140, 280, 560, 1120), 1)
    )
    noise = np.random.default_rng(1).normal(0, 40, SAMPLE_RATE_HZ)
    loud = np.arange(SAMPLE_RATE_HZ) < _BURST_FRAMES * FRAME_SAMPLES
    samples = np.where(loud, vowel * 4000, noise).astype("<i2")
    data = samples.tobytes()
    return [data[at : at + FRAME_SAMPLES * 2] for at in range(0, len(data), FRAME_SAMPLES * 2)]


async def talk(uri: str, seconds: float) -> dict[str, object]:
    """Call, talk, time the echoes."""
    second = b"".join(speech_like())
    async with open_probe(uri) as probe:
        await asyncio.sleep(2)
        for _ in range(int(seconds / _PERIOD_S)):
            probe.say(second)
            await asyncio.sleep(_PERIOD_S)
        frames = list(probe.heard.frames)
        said = [start_ms for start_ms, _ in probe.spoken.runs]
        answer_delay_ms = probe.answer_delay_ms
    onsets = [at_ms for at_ms, frame in frames if is_voiced(frame)]
    trips = []
    for start_ms in said:
        after = [at_ms for at_ms in onsets if start_ms <= at_ms < start_ms + 500]
        if after:
            trips.append(after[0] - start_ms)
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(frames)]
    return {
        "answer_delay_ms": answer_delay_ms,
        "round_trip_ms": trips,
        "bursts": len(said),
        "longest_gap_ms": max(gaps, default=0),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(talk(sys.argv[1], float(sys.argv[2])))))
