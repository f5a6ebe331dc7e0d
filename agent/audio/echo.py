"""Line echo: the agent's own voice, coming back from the caller's side.

A hybrid, a loudspeaker or a bad headset returns what the agent says, later and weaker.
Loudness over time is enough to tell it from a person: an echo is weaker by the same
measure all the time, while two speakers rise and fall by their own.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agent.audio.frame import FRAME_SAMPLES

WINDOW_FRAMES = 30
"""600 ms: three or four syllables, whose rhythm two speakers do not share by chance."""

_LONGEST_DELAY_FRAMES = 20
"""400 ms: a mobile network both ways."""

_LEAST_LOUD_FRAMES = 12
_LOUD_DB = 52.0  # of a 16 bit sample's square: -38 dBFS, enough for an echo above line noise
_SPREAD_DB = 4.0


def is_echo(agent: Sequence[float], caller: Sequence[float], below_db: float) -> bool:
    """Tell whether what the caller's side sent last is what the agent just said.

    Args:
        agent: Energy of what the ear was given, a value a frame, newest last.
        caller: Energy of what came back in the same frames.
        below_db: How much weaker it must be, at least, to be taken for an echo.

    Returns:
        False also when there is too little of either to tell.
    """
    returned, sent = _db(caller)[-WINDOW_FRAMES:], _db(agent)
    if len(returned) < WINDOW_FRAMES:
        return False
    for delay in range(min(_LONGEST_DELAY_FRAMES, len(sent) - WINDOW_FRAMES) + 1):
        end = len(sent) - delay
        original = sent[end - WINDOW_FRAMES : end]
        loud = original > _LOUD_DB
        if loud.sum() < _LEAST_LOUD_FRAMES:
            continue
        loss_db = (original - returned)[loud]
        if np.median(loss_db) >= below_db and loss_db.std() <= _SPREAD_DB:
            # Silence is weaker by the same measure only where the measure is everything.
            return bool(np.median(returned[loud]) > _LOUD_DB - 25)
    return False


def _db(energies: Sequence[float]) -> npt.NDArray[np.float64]:
    """Turn energies of frames into decibels of a mean square."""
    return 10 * np.log10(np.asarray(energies, dtype=np.float64) / FRAME_SAMPLES + 1)
