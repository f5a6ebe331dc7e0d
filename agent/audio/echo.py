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
_QUIET_DB = 27.0  # a mean square of line noise
_LONGEST_FRAMES = WINDOW_FRAMES + _LONGEST_DELAY_FRAMES


def is_echo(agent: Sequence[float], caller: Sequence[float], below_db: float) -> bool:
    """Tell whether what the caller's side sent last is what the agent just said.

    Args:
        agent: Energy of what the ear was given, a value a frame, newest last.
        caller: Energy of what came back in the same frames.
        below_db: How much weaker it must be, at least, to be taken for an echo.

    Returns:
        False also when there is too little of either to tell.
    """
    returned, sent = _db(caller)[-WINDOW_FRAMES:], _db(agent)[-_LONGEST_FRAMES:]
    if len(returned) < WINDOW_FRAMES or len(sent) < WINDOW_FRAMES:
        return False
    originals = np.lib.stride_tricks.sliding_window_view(sent, WINDOW_FRAMES)
    loud = originals > _LOUD_DB
    counts = np.maximum(loud.sum(axis=1), 1)
    loss_db = np.where(loud, originals - returned, 0.0)
    mean_db = loss_db.sum(axis=1) / counts
    spread_db = np.sqrt((np.where(loud, loss_db - mean_db[:, None], 0.0) ** 2).sum(axis=1) / counts)
    is_like = (counts >= _LEAST_LOUD_FRAMES) & (spread_db <= _SPREAD_DB)
    # A steady nothing is weaker than a steady voice by one measure, too.
    is_there = returned.mean() > _QUIET_DB
    return bool(is_there and (is_like & (mean_db >= below_db)).any())


def _db(energies: Sequence[float]) -> npt.NDArray[np.float64]:
    """Turn energies of frames into decibels of a mean square."""
    return 10 * np.log10(np.asarray(energies, dtype=np.float64) / FRAME_SAMPLES + 1)
