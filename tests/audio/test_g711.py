"""G.711 by table."""

import numpy as np
import pytest

from agent.audio import g711


@pytest.mark.parametrize(
    ("law", "code", "sample"),
    [
        pytest.param("pcmu", 0xFF, 0, id="mu-law silence"),
        pytest.param("pcmu", 0x80, 32124, id="mu-law loudest"),
        pytest.param("pcmu", 0x00, -32124, id="mu-law loudest below"),
        pytest.param("pcmu", 0xF0, 120, id="mu-law end of the first segment"),
        pytest.param("pcma", 0xD5, 8, id="A-law silence"),
        pytest.param("pcma", 0xAA, 32256, id="A-law loudest"),
        pytest.param("pcma", 0x2A, -32256, id="A-law loudest below"),
        pytest.param("pcma", 0x55, -8, id="A-law silence below"),
    ],
)
def test_known_values(law: g711.Law, code: int, sample: int) -> None:
    """The ends and the middle are where the recommendation has them."""
    assert np.frombuffer(g711.decode(bytes([code]), law), "<i2")[0] == sample
    assert g711.encode(np.array([sample], "<i2").tobytes(), law) == bytes([code])


@pytest.mark.parametrize("law", ["pcmu", "pcma"])
def test_nothing_is_far_off(law: g711.Law) -> None:
    """Every sample comes back within half a step: 38 dB for speech, and never another sign."""
    samples = np.arange(-32768, 32768, dtype=np.int32)
    pcm = samples.astype("<i2").tobytes()
    again = np.frombuffer(g711.decode(g711.encode(pcm, law), law), "<i2").astype(np.int32)
    assert np.all(np.abs(again - samples) <= np.maximum(8, np.abs(samples) // 16) + 2)
    assert np.all(again * samples >= -64)


@pytest.mark.parametrize("law", ["pcmu", "pcma"])
def test_a_voice_passes_as_it_is(law: g711.Law) -> None:
    """What was G.711 before is the same bytes after; only mu-law's second zero becomes the first."""
    codes = bytes(code for code in range(256) if (law, code) != ("pcmu", 0x7F))
    assert g711.encode(g711.decode(codes, law), law) == codes
