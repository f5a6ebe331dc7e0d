"""From speech to words, by Moonshine on one CPU core.

One transcriber serves all sessions. `transcribe` blocks for 30 to 130 ms and
belongs in the worker thread of `engines.py`; it keeps nothing between calls.
"""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from agent.audio.frame import SAMPLE_RATE_HZ

_MODEL_RATE_HZ = 16000
# The tiny model reads at most half a minute at once, and worse the longer it is.
_PIECE_BYTES = 15 * SAMPLE_RATE_HZ * 2
# A shorter phrase may really have been said twice.
_LEAST_REPEATED_WORDS = 3
# What the model makes of breath and line noise; nobody says just this to a bakery.
_NOTHING_HEARD = {"you", "you."}


class TranscriptionFailed(Exception):
    """The engine gave up on a turn."""


class Transcriber:
    """The Moonshine tiny English model that comes inside its wheel. Loads for 0.3 s.

    Raises:
        ImportError: The extra `embedded` is not installed.
        FileNotFoundError: A later wheel without the model is installed.
    """

    def __init__(self) -> None:
        # Read by the native library when it loads: halves the CPU, same latency.
        os.environ.setdefault("MOONSHINE_ORT_SINGLE_THREAD", "1")
        module = importlib.import_module("moonshine_voice.transcriber")
        api = importlib.import_module("moonshine_voice.moonshine_api")
        self._engine_error: type[Exception] = importlib.import_module(
            "moonshine_voice.errors"
        ).MoonshineError
        model = Path(module.get_model_path("tiny-en"))
        if not (model / "encoder_model.ort").is_file():
            raise FileNotFoundError(
                f"{model} holds no model: install moonshine-voice==0.1.0, the last with one inside"
            )
        # Silero has already found the speech: Moonshine's own VAD (threshold 0
        # turns it off) would cost a third more and invent a leading "You".
        self._moonshine: Any = module.Transcriber(
            str(model),
            api.ModelArch.TINY,
            options={"vad_threshold": "0.0", "return_audio_data": "false"},
        )
        self.transcribe(bytes(SAMPLE_RATE_HZ))

    def transcribe(self, pcm: bytes) -> str:
        """Write down what was said.

        Args:
            pcm: Signed 16 bit little endian at 8 kHz mono, one turn.

        Returns:
            The words with single spaces; empty if nothing was understood.

        Raises:
            TranscriptionFailed: The engine gave up.
        """
        pieces = (pcm[at : at + _PIECE_BYTES] for at in range(0, len(pcm), _PIECE_BYTES))
        text = " ".join(" ".join(self._piece(piece) for piece in pieces).split())
        return "" if text.lower() in _NOTHING_HEARD else _said_once(text)

    def _piece(self, pcm: bytes) -> str:
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        wide = soxr.resample(samples, SAMPLE_RATE_HZ, _MODEL_RATE_HZ)
        try:
            found = self._moonshine.transcribe_without_streaming(wide.tolist(), _MODEL_RATE_HZ)
        except self._engine_error as error:
            raise TranscriptionFailed(str(error)) from error
        return " ".join(line.text for line in found.lines)

    def close(self) -> None:
        """Give the model's memory back."""
        self._moonshine.close()


def _said_once(text: str) -> str:
    """Take back what the model says over and over when voices go on behind the caller's."""
    words = text.split()
    for size in range(_LEAST_REPEATED_WORDS, len(words) // 2 + 1):
        if all(word == words[at % size] for at, word in enumerate(words)):
            return " ".join(words[:size])
    return text
