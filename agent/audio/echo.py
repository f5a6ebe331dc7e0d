"""Line echo: the agent's own voice, coming back from the caller's side.

A hybrid, a loudspeaker or a bad headset returns what the agent says, later and weaker.
Loudness over time is enough to tell it from a person: an echo rises and falls as the
agent did a moment ago, and stays below it.
"""

from collections.abc import Sequence

import numpy as np

WINDOW_FRAMES = 20
"""400 ms: two or three syllables, whose rhythm two speakers do not share by chance."""

_LONGEST_DELAY_FRAMES = 25
"""500 ms: a mobile network both ways and then some."""

_LIKENESS = 0.85
_LEAST_ENERGY = 1e6  # of a frame: below that there is nothing to echo


def is_echo(agent: Sequence[float], caller: Sequence[float], below_db: float) -> bool:
    """Tell whether what the caller's side sent last is what the agent just said.

    Args:
        agent: Energy of what the ear was given, a value a frame, newest last.
        caller: Energy of what came back in the same frames.
        below_db: How much weaker it must be, at least, to be taken for an echo.

    Returns:
        False also when there is too little of either to tell.
    """
    if len(caller) < WINDOW_FRAMES or len(agent) < WINDOW_FRAMES:
        return False
    returned = np.sqrt(np.asarray(caller, dtype=np.float64)[-WINDOW_FRAMES:])
    sent = np.sqrt(np.asarray(agent, dtype=np.float64))
    for delay in range(min(_LONGEST_DELAY_FRAMES, len(sent) - WINDOW_FRAMES) + 1):
        end = len(sent) - delay
        original = sent[end - WINDOW_FRAMES : end]
        if original.max() ** 2 < _LEAST_ENERGY:
            continue
        loss_db = 10 * np.log10((original**2).sum() / max((returned**2).sum(), 1.0))
        if loss_db >= below_db and _likeness(original, returned) >= _LIKENESS:
            return True
    return False


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two envelopes, -1 to 1; 0 when either does not move."""
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / norm if norm else 0.0
