"""The engines all sessions share: ears, transcriber, voice and rules, loaded once.

Each heavy engine has one worker thread of its own, so that a long transcript
does not hold up a voice, and neither ever holds up the event loop::

    session -> await engines.transcribe(pcm) -> words
    session -> await engines.say(sentence)   -> pcm

Which engines there are is found out when they are loaded: no hibari, and
espeak-ng speaks; neither, and tones tell that something was said; no ears or
no transcriber, and text is still answered. What lacks is named once, with the
way to get it. Work that nobody waits for any more is dropped if it has not begun.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import structlog

from agent.audio.frame import SAMPLE_RATE_HZ
from agent.embedded.chat import ChatModel
from agent.embedded.ears import Detector, VoiceDetector
from agent.embedded.espeak import Espeak
from agent.embedded.rulebook import Rulebook
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.transcriber import Transcriber, TranscriptionFailed
from agent.embedded.voice import DEFAULT_VOICE, Voice

log = structlog.get_logger()

_EXTRA = "pip install 'trunkline[embedded]'"
_TONE_HZ = 440
_TONE_MS_PER_CHAR = 12
_MOST_TONE_MS = 2000
_TONE_LEVEL = 3000

_Engine = TypeVar("_Engine")


class _Speaker(Protocol):
    def say(self, sentence: str, speed: float, voice: str) -> bytes: ...


class _Deaf:
    """Ears that hear nothing; the client's text still arrives."""

    def probability(
        self, samples: npt.NDArray[np.float32], state: npt.NDArray[np.float32]
    ) -> tuple[float, npt.NDArray[np.float32]]:
        del samples
        return 0.0, state


class _Tones:
    """A tone as long as the sentence would be: the line is alive, only the voice lacks."""

    def say(self, sentence: str, speed: float, voice: str) -> bytes:
        del speed, voice
        length_ms = min(_MOST_TONE_MS, _TONE_MS_PER_CHAR * len(sentence))
        at_s = np.arange(SAMPLE_RATE_HZ * length_ms // 1000) / SAMPLE_RATE_HZ
        return (_TONE_LEVEL * np.sin(2 * np.pi * _TONE_HZ * at_s)).astype("<i2").tobytes()


class Engines:
    """Everything that is loaded once. Close it when the last session is gone.

    Args:
        settings: `[embedded]`.

    Attributes:
        rulebook: How the receptionist understands and what it knows.
        detector: Whether someone speaks.
        chat: The language model that answers instead of the rules, if one is configured.
        missing: What could not be loaded, in words.

    Raises:
        ValueError: The facts file is not what it should be.
        OSError: The facts file cannot be read.
    """

    def __init__(self, settings: EmbeddedSettings) -> None:
        self.rulebook = Rulebook(settings.facts_file)
        self.missing: list[str] = []
        self.detector: Detector = self._load("ears", VoiceDetector) or _Deaf()
        self._transcriber = self._load("a transcriber", Transcriber)
        self._voice: _Speaker = (
            self._load("the voice", Voice) or self._load("espeak-ng", Espeak) or _Tones()
        )
        self.chat = ChatModel(settings) if settings.chat_url else None
        self._transcripts = 0
        self._listening = ThreadPoolExecutor(1, thread_name_prefix="transcriber")
        self._speaking = ThreadPoolExecutor(1, thread_name_prefix="voice")

    def _load(self, what: str, engine: Callable[[], _Engine]) -> _Engine | None:
        try:
            return engine()
        except (ImportError, FileNotFoundError) as error:
            way = "apt install espeak-ng" if what == "espeak-ng" else _EXTRA
            self.missing.append(f"no {what.removeprefix('a ').removeprefix('the ')}: {way}")
            log.warning("! the embedded server lacks a part", lacks=what, reason=str(error), do=way)
            return None

    @property
    def deafness(self) -> str:
        """Why no turn is ever written down, and the way out; "" when they are."""
        return "" if self._transcriber else f"No transcriber is installed: {_EXTRA}"

    @property
    def is_transcribing(self) -> bool:
        """Whether a transcript is being made: one for mere comfort should wait."""
        return self._transcripts > 0

    async def transcribe(self, pcm: bytes) -> str:
        """Write down one turn: 8 kHz PCM in, words out; "" when nothing was understood.

        Raises:
            TranscriptionFailed: The engine gave up, or there is none.
        """
        if self._transcriber is None:
            raise TranscriptionFailed(self.deafness)
        loop = asyncio.get_running_loop()
        self._transcripts += 1
        try:
            return await loop.run_in_executor(self._listening, self._transcriber.transcribe, pcm)
        finally:
            self._transcripts -= 1

    async def say(self, sentence: str, speed: float, voice: str = DEFAULT_VOICE) -> bytes:
        """Speak one sentence: words in, 8 kHz PCM out."""
        loop = asyncio.get_running_loop()
        say: Any = self._voice.say
        pcm: bytes = await loop.run_in_executor(self._speaking, say, sentence, speed, voice)
        return pcm

    def close(self) -> None:
        """Let running work end, then give the memory back."""
        self._speaking.shutdown(cancel_futures=True)
        self._listening.shutdown(cancel_futures=True)
        if self._transcriber is not None:
            self._transcriber.close()
