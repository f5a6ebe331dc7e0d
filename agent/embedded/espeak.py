"""The voice of last resort: espeak-ng, as a process of its own for each sentence.

    text on stdin -> espeak-ng -> WAV on stdout -> 8 kHz PCM

It is robotic but everywhere (Debian's espeak-ng, 8 ms a sentence). A process,
not a library: its licence and its crashes stay outside. Blocks, like every
voice; belongs in the worker thread of `engines.py`.
"""

import io
import shutil
import subprocess
import wave

import numpy as np
import soxr

from agent.audio.frame import SAMPLE_RATE_HZ
from agent.embedded.voice import VOICES, finished

_TIMEOUT_S = 5
_NATURAL_WORDS_PER_MINUTE = 165
_LOW, _HIGH = "en-us+m3", "en-us+f3"
# As hibari speaks; `finished` raises that to the telephone's level.
_LEVEL = 0.056


class Espeak:
    """espeak-ng at telephone bandwidth and level.

    Args:
        program: Its name or path.

    Raises:
        FileNotFoundError: It is not installed.
    """

    def __init__(self, program: str = "espeak-ng") -> None:
        found = shutil.which(program)
        if found is None:
            raise FileNotFoundError(f"{program} is not installed")
        self._program = found

    def say(self, sentence: str, speed: float = 1.0, voice: str = "") -> bytes:
        """Speak one sentence; as `Voice.say`. Empty when the process fails."""
        speaker = _LOW if VOICES.get(voice, 1.0) < 1 else _HIGH
        words_per_minute = round(_NATURAL_WORDS_PER_MINUTE * speed)
        # Text on stdin: a sentence that begins with a dash is no option.
        command = [self._program, "--stdin", "--stdout", "-v", speaker, "-s", str(words_per_minute)]
        try:
            made = subprocess.run(
                command,
                input=sentence.encode(),
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=True,
            )
            with wave.open(io.BytesIO(made.stdout)) as sound:
                rate_hz = sound.getframerate()
                # The length in the header is a guess when it is written to a pipe.
                pcm = sound.readframes(len(made.stdout) // 2)
        except (OSError, subprocess.SubprocessError, wave.Error, EOFError):
            return b""
        samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.float32) / 32768
        loud = samples[np.abs(samples) > 0.01]
        if not loud.size:
            return b""
        samples *= np.float32(_LEVEL / np.sqrt(np.mean(loud**2)))
        return finished(soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ))
