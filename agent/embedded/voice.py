"""The agent's voice: text in, telephone speech out, one sentence at a time.

Data passes one way::

    text -> sentences() -> say() -> 8 kHz PCM, trimmed, levelled, faded

Everything here blocks for 10 to 50 ms a sentence and belongs in a worker
thread (`engines.py` has it). No session state lives here: one voice serves all
calls, and makes the callers' speech of tests and of `trunkline call --say`.
"""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from agent.audio.frame import FRAME_BYTES, SAMPLE_RATE_HZ

Samples = npt.NDArray[np.float32]

# hibari speaks at -25 dBFS; the telephone network expects speech near -20.
_GAIN = 1.8
# Above the knee the level is bent instead of cut: no sample ever clips.
_KNEE = 0.7
# hibari pads each sentence with 230 to 300 ms of nothing in front, and more behind.
_AUDIBLE = 0.004
_LEAD_SAMPLES = SAMPLE_RATE_HZ * 15 // 1000
_TAIL_SAMPLES = SAMPLE_RATE_HZ * 60 // 1000
_FADE_SAMPLES = SAMPLE_RATE_HZ * 5 // 1000
_PAUSE_BYTES = 2 * SAMPLE_RATE_HZ * 180 // 1000

DEFAULT_VOICE = "marin"
VOICES = {
    **dict.fromkeys(("marin", "alloy", "coral", "sage", "shimmer"), 1.0),
    **dict.fromkeys(("cedar", "ash", "ballad", "echo", "verse"), 0.82),
}
"""The service's names, and how high each speaks: two voices, a woman's and a lower one."""

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"”\u2019)\]]*\s+(?=[\"“(\[]?[A-Z0-9])")
_TITLES = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|[A-Z])\.$")
_MAX_SENTENCE_CHARS = 400
# A sentence of this length takes 50 ms to make and more; who waits for it hears its first part.
_LONG_START_CHARS = 60
_LEAST_START_CHARS = 20
_BREATH = re.compile(r"(?<=[,;:])\s+|\s+(?=(?:and|but|or|because)\s)")
_NO = re.compile(r"\b([Nn]o)\.(?=\s|$)")
_PHONE_NUMBER = re.compile(r"\+?\d(?:[\s().-]{0,2}\d){6,}")


def sentences(text: str) -> list[str]:
    """Cut a text where a speaker would breathe.

    Args:
        text: What shall be said.

    Returns:
        The sentences in order, none empty; one overlong sentence is cut at
        its commas, or at words when it has none.
    """
    found: list[str] = []
    for piece in _SENTENCE_END.split(" ".join(text.split())):
        if found and _TITLES.search(found[-1]):
            found[-1] = f"{found[-1]} {piece}"
        elif piece:
            found.append(piece)
    return [short for sentence in found for short in _shorten(sentence)]


def _shorten(sentence: str) -> list[str]:
    if len(sentence) <= _MAX_SENTENCE_CHARS:
        return [sentence]
    cut = max(sentence.rfind(mark, 0, _MAX_SENTENCE_CHARS) for mark in (", ", "; ", ": "))
    if cut < 0:
        cut = sentence.rfind(" ", 0, _MAX_SENTENCE_CHARS)
    cut = _MAX_SENTENCE_CHARS if cut <= 0 else cut + 1
    return [sentence[:cut].strip(), *_shorten(sentence[cut:].strip())]


def first_breath(sentence: str) -> tuple[str, str]:
    """Cut a long sentence where its speaker may breathe first, to be heard sooner.

    Returns:
        Its first part and the rest; the rest is empty when it is better left whole.
    """
    if len(sentence) >= _LONG_START_CHARS:
        for breath in _BREATH.finditer(sentence, _LEAST_START_CHARS):
            head, rest = sentence[: breath.start()], sentence[breath.end() :]
            if len(rest) >= _LEAST_START_CHARS:
                return head, rest
    return sentence, ""


def pronounceable(sentence: str) -> str:
    """Write a sentence the way hibari reads it right.

    Its normaliser takes "No." for "number", and a telephone number for one in
    the millions.
    """
    sentence = _NO.sub(r"\1,", sentence)
    return _PHONE_NUMBER.sub(lambda number: spoken_digits(number.group()), sentence)


def spoken_digits(number: str) -> str:
    """Spell digits in groups of three and four: `5550123` -> `5 5 5, 0 1 2 3`."""
    digits = [char for char in number if char.isdigit()]
    groups: list[str] = []
    while digits:
        size = len(digits) if len(digits) <= 4 else 3
        groups.append(" ".join(digits[:size]))
        digits = digits[size:]
    return ", ".join(groups)


class Voice:
    """The hibari voice at telephone bandwidth and level. Loads for 0.4 s.

    Raises:
        ImportError: The extra `embedded` is not installed.
    """

    def __init__(self) -> None:
        import hibari

        self._hibari: Any = hibari.Hibari(threads=1)
        # The first synthesis builds the pronunciation tables (0.3 s).
        self._hibari("Ready.")

    def say(self, sentence: str, speed: float = 1.0, voice: str = DEFAULT_VOICE) -> bytes:
        """Speak one sentence.

        Args:
            sentence: At most a few hundred characters.
            speed: 1.0 is the natural pace.
            voice: A name of `VOICES`; any other is the default.

        Returns:
            Signed 16 bit little endian PCM at 8 kHz mono, speech near -20 dBFS,
            beginning 15 ms before the first sound; empty if nothing in the
            text can be spoken.
        """
        pitch = VOICES.get(voice, 1.0)
        # One speaker is all the wheel has. Played slower she is another, lower
        # and larger; spoken faster by as much, she keeps the pace.
        spoken: Samples = self._hibari(pronounceable(sentence), speed=speed / pitch, seed=1)
        if not spoken.size:
            return b""
        played_hz = self._hibari.sample_rate * pitch
        return finished(soxr.resample(spoken, played_hz, SAMPLE_RATE_HZ))

    def synthesise(self, text: str, speed: float = 1.0) -> bytes:
        """Speak a whole text, with a breath between sentences.

        Args:
            text: Any number of sentences.
            speed: 1.0 is the natural pace.

        Returns:
            Signed 16 bit little endian PCM at 8 kHz mono, whole 20 ms frames.
        """
        spoken = bytes(_PAUSE_BYTES).join(self.say(sentence, speed) for sentence in sentences(text))
        return spoken + bytes(-len(spoken) % FRAME_BYTES)


def finished(samples: Samples) -> bytes:
    """Trim, level, bend the peaks and fade the ends.

    Args:
        samples: At 8 kHz, -1 to 1, speech near -25 dBFS.

    Returns:
        Signed 16 bit little endian PCM; empty when nothing is audible.
    """
    audible = np.flatnonzero(np.abs(samples) > _AUDIBLE)
    if not audible.size:
        return b""
    begin = max(0, int(audible[0]) - _LEAD_SAMPLES)
    samples = samples[begin : int(audible[-1]) + _TAIL_SAMPLES] * np.float32(_GAIN)
    loud = np.abs(samples)
    bent = _KNEE + (1 - _KNEE) * np.tanh((loud - _KNEE) / (1 - _KNEE))
    samples = np.where(loud > _KNEE, np.sign(samples) * bent, samples)
    fade = np.linspace(0, 1, min(_FADE_SAMPLES, samples.size // 2), dtype=np.float32)
    if fade.size:
        samples[: fade.size] *= fade
        samples[-fade.size :] *= fade[::-1]
    return (samples * 32767).astype("<i2").tobytes()


PAUSE_BETWEEN_SENTENCES = bytes(_PAUSE_BYTES)
"""Silence between two sentences of one turn: 180 ms of 8 kHz PCM."""
