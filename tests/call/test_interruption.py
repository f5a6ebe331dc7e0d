"""A cough does not stop the agent, a word does, and an echo is nobody."""

from collections.abc import Sequence

import numpy as np
import pytest

from agent.audio.frame import FRAME_MS, FRAME_SAMPLES
from agent.audio.voice import VoiceTrack
from agent.call.events import (
    AgentSpoke,
    CallerSpeechStarted,
    CallerSpeechStopped,
    CallerText,
    CallerTextDelta,
    CallerTextFailed,
    CallEvent,
    ResponseStarted,
)
from agent.call.interruption import Interruption, Reaction
from agent.call.settings import InterruptionSettings

STARTED, STOPPED = CallerSpeechStarted("u1"), CallerSpeechStopped("u1")


class Stage:
    """The agent speaks from 0 ms on; the caller's voice is heard from 1000 ms for a while."""

    def __init__(
        self, voiced_ms: int, *, is_busy: bool = True, echo: bool = False, **settings: object
    ) -> None:
        chosen = {"guard": "pause", **settings}
        self.caller, self.agent = VoiceTrack(), VoiceTrack()
        self.interruption = Interruption(
            InterruptionSettings.model_validate(chosen), self.caller, self.agent
        )
        self.is_busy = is_busy
        self.echo = echo
        self.voiced_until_ms = 1000 + voiced_ms
        self.now_ms = 0
        self.did: list[str] = []

    def play(self, *script: tuple[int, CallEvent], until_ms: int = 4000) -> list[str]:
        """Run every frame and event up to `until_ms`; return what followed, with its time."""
        events = list(script)
        while self.now_ms < until_ms:
            self.agent.note(frame(SYLLABLES[self.now_ms // FRAME_MS]), self.now_ms)
            if self.echo:
                self.caller.note(frame(SYLLABLES[self.now_ms // FRAME_MS - 6] / 4), self.now_ms)
            else:
                is_voiced = 1000 <= self.now_ms < self.voiced_until_ms
                self.caller.note(frame(3000 if is_voiced else 0), self.now_ms)
            while events and events[0][0] <= self.now_ms:
                _, event = events.pop(0)
                self._keep(self.interruption.receive(event, self.now_ms, is_busy=self.is_busy))
            self._keep(self.interruption.check(self.now_ms, is_busy=self.is_busy))
            self.now_ms += FRAME_MS
        return list(self.did)

    def _keep(self, reaction: Reaction) -> None:
        self.did += [name for name in ("flush", "stop", "answer") if getattr(reaction, name)]
        if reaction.doubts is not None and not reaction.stop:
            went_on = f"go on: {reaction.ignored}" if reaction.ignored else "go on"
            self.did.append("doubt" if reaction.doubts else went_on)


# The loudness of somebody speaking, frame by frame: syllables of uneven length and stress.
SYLLABLES = np.repeat(
    np.random.default_rng(7).integers(200, 9000, 80), np.random.default_rng(8).integers(3, 9, 80)
).astype(float)


def frame(loudness: float) -> bytes:
    return np.full(FRAME_SAMPLES, loudness, dtype="<i2").tobytes()


@pytest.mark.parametrize(
    ("voiced_ms", "script", "expected"),
    [
        pytest.param(
            300,
            [(1160, STARTED), (1800, STOPPED), (2000, CallerText("u1", ""))],
            ["doubt", "go on: no words"],
            id="cough",
        ),
        pytest.param(
            300,
            [(1160, STARTED), (1800, STOPPED), (2000, CallerText("u1", "Mm-hm. Okay."))],
            ["doubt", "go on: backchannel"],
            id="mm-hm",
        ),
        pytest.param(
            300,
            [(1160, STARTED), (1800, STOPPED), (2000, CallerTextFailed("u1", "noise"))],
            ["doubt", "go on: no words"],
            id="not understood",
        ),
        pytest.param(
            300, [(1160, STARTED), (1800, STOPPED)], ["doubt", "go on: no words"], id="no transcript"
        ),
        pytest.param(
            300,
            [(1160, STARTED), (1800, STOPPED), (2000, CallerText("u1", "Stop."))],
            ["doubt", "stop", "answer"],
            id="a short word",
        ),
        pytest.param(
            300,
            [(1160, STARTED), (1800, STOPPED), (3500, CallerText("u1", "Wait a moment."))],
            ["doubt", "go on: no words", "stop", "answer"],
            id="words that are known late",
        ),
        pytest.param(
            2000,
            [(1160, STARTED), (3500, STOPPED), (3700, CallerText("u1", "I would like bread."))],
            ["doubt", "stop", "answer"],
            id="a long sentence",
        ),
        pytest.param(
            500,
            [(1160, STARTED), (1300, CallerTextDelta("u1", "Yeah, ")),
             (1400, CallerTextDelta("u1", "but")), (2000, STOPPED)],
            ["doubt", "stop", "answer"],
            id="words while they are spoken",
        ),
    ],
)  # fmt: skip
def test_sounds_over_the_agent(
    voiced_ms: int, script: Sequence[tuple[int, CallEvent]], expected: list[str]
) -> None:
    """Doubt comes at once; what the sound was decides whether the agent stops or goes on."""
    assert Stage(voiced_ms).play(*script) == expected


def test_a_voice_that_lasts_stops_the_agent_before_its_words_are_known() -> None:
    """700 ms of speech are enough."""
    stage = Stage(2000)
    stage.play((1160, STARTED), until_ms=1800)
    assert "stop" in stage.did
    assert Stage(2000).play((1160, STARTED), until_ms=1640) == ["doubt"]


def test_a_sound_whose_end_is_never_told_keeps_nobody_waiting() -> None:
    """The far end fell silent in mid-sound: the agent goes on."""
    assert Stage(300).play((1160, STARTED), until_ms=5000) == ["doubt", "go on: no words"]


def test_words_count_although_a_cough_followed_them() -> None:
    """Two sounds, one after the other: the words of the first are known late."""
    assert Stage(300).play(
        (1160, STARTED),
        (1800, STOPPED),
        (1900, CallerSpeechStarted("u2")),
        (2000, CallerText("u1", "No, stop.")),
    ) == ["doubt", "stop", "answer"]


def test_while_the_agent_listens_every_turn_is_meant() -> None:
    """A short "yes" to a question is answered."""
    stage = Stage(300, is_busy=False)
    assert stage.play((1160, STARTED), (1800, STOPPED)) == ["answer"]


def test_a_caller_who_goes_on_is_not_talked_over() -> None:
    """The pause was none: the answer that was asked for is stopped, and asked for again."""
    stage = Stage(300, is_busy=False)
    again = CallerSpeechStarted("u2")
    assert stage.play(
        (1160, STARTED),
        (1800, STOPPED),
        (1850, again),
        (1900, ResponseStarted("r1")),
        (2500, CallerSpeechStopped("u2")),
        (2600, ResponseStarted("r2")),
    ) == ["answer", "stop", "answer"]


def test_a_greeting_goes_on_while_the_caller_says_hello() -> None:
    """Nobody asked for it as an answer."""
    stage = Stage(300, is_busy=False)
    assert stage.play((1160, STARTED), (1200, ResponseStarted("r1"))) == []


def test_without_a_guard_the_far_end_decides() -> None:
    """It has stopped by itself the moment it heard a voice, and answers by itself."""
    stage = Stage(300, guard="off")
    assert stage.play((1160, STARTED), (1800, STOPPED)) == ["flush", "answer"]


def test_a_yes_into_the_last_words_is_an_answer() -> None:
    """The agent's question was nearly over; the caller does not wait in vain."""
    stage = Stage(300)
    script: list[tuple[int, CallEvent]] = [
        (1160, STARTED),
        (1800, STOPPED),
        (2000, CallerText("u1", "Yes.")),
    ]
    assert stage.play(*script, (2600, AgentSpoke("r1"))) == [
        "doubt",
        "go on: backchannel",
        "answer",
    ]
    stage = Stage(300)
    assert stage.play(*script, (3900, AgentSpoke("r1"))) == ["doubt", "go on: backchannel"]


def test_a_turn_that_outlives_the_agent_is_answered() -> None:
    """Doubt ends with the agent's own last word: what the caller said then stands."""
    stage = Stage(300)
    stage.play((1160, STARTED), until_ms=1400)
    stage.is_busy = False
    assert stage.play((1800, STOPPED)) == ["doubt", "go on", "answer"]


def test_the_lines_echo_is_nobody() -> None:
    """The agent's own voice, weaker and later, neither stops nor lowers it."""
    stage = Stage(0, echo=True)
    script: list[tuple[int, CallEvent]] = [
        (1160, STARTED),
        (3000, STOPPED),
        (3200, CallerText("u1", "from seven to six")),
    ]
    assert stage.play(*script) == ["go on: echo"]


def test_speech_over_an_echo_stops_the_agent() -> None:
    """An echo at first, and then somebody who speaks up."""
    stage = Stage(3000, echo=True)
    stage.play((900, STARTED), until_ms=1200)
    assert stage.did == []
    stage.echo = False
    stage.voiced_until_ms = 5000
    stage.play(until_ms=3000)
    assert stage.did == ["doubt", "stop"]


@pytest.mark.parametrize(
    ("keys", "is_busy", "stops"),
    [
        pytest.param(True, True, True, id="while the agent speaks"),
        pytest.param(True, False, False, id="while it listens"),
        pytest.param(False, True, False, id="switched off"),
    ],
)
def test_keys(keys: bool, is_busy: bool, stops: bool) -> None:
    """A key stops the agent where that is wanted."""
    settings = InterruptionSettings(keys=keys)
    interruption = Interruption(settings, VoiceTrack(), VoiceTrack())
    assert interruption.press(is_busy=is_busy).stop is stops
