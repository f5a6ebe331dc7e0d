"""An echo is told from a person by loudness over time alone."""

import numpy as np
import pytest

from agent.audio.echo import is_echo

RNG = np.random.default_rng(3)
SYLLABLES = np.repeat(RNG.integers(100, 9000, 30), RNG.integers(3, 9, 30))[:60].astype(float)
OTHER = np.repeat(RNG.integers(100, 9000, 30), RNG.integers(3, 9, 30))[:60].astype(float)


def energies(rms: np.ndarray) -> list[float]:
    return [float(level**2 * 160) for level in rms]


def delayed(rms: np.ndarray, frames: int, gain: float) -> np.ndarray:
    noise = RNG.uniform(5, 20, len(rms))
    return np.concatenate([np.zeros(frames), rms[: len(rms) - frames]]) * gain + noise


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        pytest.param(delayed(SYLLABLES, 0, 0.25), True, id="hybrid"),
        pytest.param(delayed(SYLLABLES, 12, 0.1), True, id="mobile network, 240 ms"),
        pytest.param(delayed(SYLLABLES, 6, 0.9), False, id="as loud as the agent"),
        pytest.param(OTHER / 4, False, id="somebody quiet"),
        pytest.param(OTHER, False, id="somebody else"),
        pytest.param(np.full(60, 10.0), False, id="line noise"),
        pytest.param(np.zeros(60), False, id="nothing"),
        pytest.param(np.concatenate([np.full(50, 10.0), np.full(10, 2000.0)]), False, id="cough"),
    ],
)
def test_what_comes_back(returned: np.ndarray, expected: bool) -> None:
    """Weaker by the same measure all the time is an echo; everything else is not."""
    assert is_echo(energies(SYLLABLES), energies(returned), 6) is expected


def test_a_silent_agent_has_no_echo() -> None:
    """Nor has one of whom too little was heard."""
    assert not is_echo(energies(np.zeros(60)), energies(SYLLABLES), 6)
    assert not is_echo(energies(SYLLABLES[:10]), energies(SYLLABLES[:10] / 4), 6)
