"""When a turn begins, pauses and ends: as told by probabilities, and by real speech."""

import numpy as np
import pytest

from agent.embedded.ears import (
    CHUNK_MS,
    Ears,
    Endpointing,
    Foreground,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
    TurnDetection,
    VoiceDetector,
)
from agent.embedded.engines import Engines
from agent.embedded.mouth import Cut, Mouth, Started, Stopped
from agent.embedded.partials import Partials
from agent.embedded.semantic import Eagerness, wait_ms
from agent.embedded.transcriber import Transcriber
from agent.embedded.voice import Voice, pronounceable, sentences


@pytest.mark.parametrize(
    ("probabilities", "over_agent", "expected"),
    [
        pytest.param([0.1] * 50, False, [], id="silence"),
        pytest.param([0.1, 0.9, 0.1, 0.1], False, [], id="a click is no speech"),
        pytest.param([0.9] * 2, False, ["SpeechStarted"], id="64 ms of voice begin a turn"),
        pytest.param([0.9] * 4 + [0.1], True, [], id="a cough does not stop the agent"),
        pytest.param([0.9] * 5, True, ["SpeechStarted"], id="160 ms of voice stop the agent"),
        pytest.param(
            [0.9] * 5 + [0.0] * 20,
            False,
            ["SpeechStarted", "SpeechPaused", "SpeechStopped"],
            id="a whole turn",
        ),
        pytest.param(
            [0.9] * 5 + [0.0] * 8 + [0.9] * 2,
            False,
            ["SpeechStarted", "SpeechPaused", "SpeechResumed"],
            id="a pause within a turn",
        ),
        pytest.param(
            [0.9] * 3 + [0.4] * 40, False, ["SpeechStarted"], id="a low voice keeps the turn open"
        ),
    ],
)
def test_endpointing(probabilities: list[float], over_agent: bool, expected: list[str]) -> None:
    """Probabilities become turns."""
    endpointing = Endpointing(TurnDetection())
    facts = [
        fact
        for number, probability in enumerate(probabilities, 1)
        for fact in endpointing.hear(probability, number * CHUNK_MS, over_agent=over_agent)
    ]
    assert [type(fact).__name__ for fact in facts] == expected


def test_endpointing_times() -> None:
    """The start has its padding, the end comes as late as configured, the voice is measured."""
    endpointing = Endpointing(TurnDetection(prefix_padding_ms=100, silence_duration_ms=320))
    voiced = [0.0] * 10 + [0.9] * 10
    facts = [
        fact
        for number, probability in enumerate(voiced + [0.0] * 20, 1)
        for fact in endpointing.hear(probability, number * CHUNK_MS)
    ]
    assert facts == [
        SpeechStarted(320 - 100),
        SpeechPaused(220, 640 + 4 * CHUNK_MS),
        SpeechStopped(220, 640 + 7 * CHUNK_MS, 320),
    ]


def test_endless_turn() -> None:
    """Somebody who never stops is answered after a minute."""
    endpointing = Endpointing(TurnDetection())
    facts = [f for n in range(1, 2000) for f in endpointing.hear(0.9, n * CHUNK_MS)]
    assert [type(fact) for fact in facts] == [SpeechStarted, SpeechStopped, SpeechStarted]


@pytest.mark.parametrize("level", [pytest.param(0, id="clean"), pytest.param(250, id="noisy line")])
def test_real_speech(voice: Voice, engines: Engines, level: int) -> None:
    """Speech on a line is found within 100 ms and its words are on the tape."""
    speech = voice.synthesise("What are your opening hours on Saturday?")
    pcm = np.frombuffer(bytes(16000) + speech + bytes(16000), "<i2").astype(float)
    pcm += np.random.default_rng(1).normal(0, level, pcm.size) if level else 0
    ears = Ears(engines.detector, TurnDetection())
    facts = ears.hear(pcm.astype("<i2").tobytes())
    assert [type(f) for f in facts] == [SpeechStarted, SpeechPaused, SpeechStopped]
    stopped = facts[-1]
    assert isinstance(stopped, SpeechStopped)
    assert 1000 - 300 - 100 < stopped.start_ms < 1000 - 300 + 150
    end_ms = 1000 + len(speech) // 16
    assert end_ms + 350 < stopped.end_ms < end_ms + 600
    tape = ears.audio(stopped.start_ms, stopped.end_ms)
    assert len(tape) == (stopped.end_ms - stopped.start_ms) * 16
    assert "saturday" in Transcriber().transcribe(tape).lower()


def test_noise_is_no_speech() -> None:
    """Steady line noise and a tone begin no turn."""
    ears = Ears(VoiceDetector(), TurnDetection())
    noise = np.random.default_rng(2).normal(0, 1500, 16000)
    tone = 6000 * np.sin(np.arange(16000) * 2 * np.pi * 440 / 8000)
    assert ears.hear(np.concatenate((noise, tone)).astype("<i2").tobytes()) == []


def test_voices_behind_the_caller() -> None:
    """Talk in the caller's room keeps no turn open; a softer caller is heard again soon."""
    foreground = Foreground()
    assert [foreground.near(0.9, -20) for _ in range(20)] == [0.9] * 20
    behind = [foreground.near(0.9, -36) for _ in range(40)]
    assert behind == [0.9] * 6 + [0.0] * 34
    assert foreground.near(0.9, -28) == 0.9
    assert [foreground.near(0.9, -36) for _ in range(300)][-1] == 0.9


def test_talk_in_the_room(voice: Voice, engines: Engines) -> None:
    """The caller's turn ends though others go on talking 18 dB below."""
    caller = np.frombuffer(voice.say("What are your opening hours?"), "<i2").astype(float)
    others = np.frombuffer(
        voice.synthesise("The train leaves at ten, she said, and nobody knew where to."), "<i2"
    ).astype(float)
    room = np.tile(others, 3)[: caller.size + 32000] * 0.125
    room[: caller.size] += caller
    ears = Ears(engines.detector, TurnDetection())
    facts = ears.hear(room.clip(-32768, 32767).astype("<i2").tobytes())
    stops = [fact for fact in facts if isinstance(fact, SpeechStopped)]
    assert len(stops) == 1
    assert stops[0].end_ms < caller.size / 8 + 1000


def test_resumed_is_told_before_the_end() -> None:
    """A pause that was none is taken back."""
    endpointing = Endpointing(TurnDetection())
    row = [0.9] * 4 + [0.0] * 6 + [0.9] + [0.0] * 20
    facts = [f for n, p in enumerate(row, 1) for f in endpointing.hear(p, n * CHUNK_MS)]
    kinds = [SpeechStarted, SpeechPaused, SpeechResumed, SpeechPaused, SpeechStopped]
    assert [type(fact) for fact in facts] == kinds


def test_mouth() -> None:
    """Responses are spoken one after the other; silence fills the gaps, a cut says what was sent."""
    mouth = Mouth()
    assert mouth.next_frame() == (bytes(320), [])
    mouth.begin("r1", "i1")
    assert mouth.next_frame() == (bytes(320), [])
    mouth.add("r1", b"\1" * 500)
    assert mouth.next_frame() == (b"\1" * 320, [Started("r1")])
    assert mouth.next_frame() == (bytes(320), [])
    mouth.complete("r1")
    mouth.begin("r2", "i2")
    mouth.add("r2", b"\2" * 640)
    assert mouth.next_frame()[0] == (b"\1" * 180).ljust(320, b"\0")
    assert mouth.next_frame() == (b"\2" * 320, [Stopped("r1"), Started("r2")])
    assert mouth.clear() == [Cut("r2", "i2", 20)]
    mouth.add("r2", b"\2" * 640)
    mouth.complete("r2")
    assert mouth.next_frame() == (bytes(320), [])


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        pytest.param("One. Two! Three?", ["One.", "Two!", "Three?"], id="sentences"),
        pytest.param("Ask Dr. Smith. Now.", ["Ask Dr. Smith.", "Now."], id="title"),
        pytest.param("It is 7.5 degrees.", ["It is 7.5 degrees."], id="decimal"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_sentences(text: str, cut: list[str]) -> None:
    """A text is cut where a speaker breathes."""
    assert sentences(text) == cut


def test_long_sentence_is_cut() -> None:
    """No piece is longer than the engine likes, and no word is lost."""
    text = "word " * 300
    assert all(len(piece) <= 400 for piece in sentences(text))
    assert " ".join(sentences(text)).split() == text.split()


def test_pronounceable() -> None:
    """The word "No." is not a number, and a telephone number is spelled."""
    assert pronounceable("No. Call 555-0123 now.") == "No, Call 5 5 5, 0 1 2 3 now."


def test_voice_level(voice: Voice) -> None:
    """Speech is near -20 dBFS, begins at once, never clips, and begins and ends without a click."""
    pcm = np.frombuffer(voice.say("Hello, this is the bakery."), "<i2").astype(float) / 32768
    loud = pcm[np.abs(pcm) > 0.01]
    assert -22 < 20 * np.log10(np.sqrt((loud**2).mean())) < -16
    assert np.abs(pcm).max() < 0.99
    assert np.flatnonzero(np.abs(pcm) > 0.01)[0] < 8 * 60
    assert abs(pcm[0]) < 0.001
    assert abs(pcm[-1]) < 0.001
    assert voice.say("...") == b"" or len(voice.say("...")) < 16000


def test_a_judged_pause_ends_sooner_or_later() -> None:
    """What was said decides how much silence ends the turn, for this pause alone."""
    endpointing = Endpointing(TurnDetection(silence_duration_ms=900, eagerness="auto"))
    ended: list[int] = []
    row = [0.9] * 10 + [0.0] * 6 + [0.9] * 4 + [0.0] * 40
    for number, probability in enumerate(row, 1):
        for fact in endpointing.hear(probability, number * CHUNK_MS):
            if isinstance(fact, SpeechPaused) and number < 20:
                endpointing.wait(300)
            if isinstance(fact, SpeechStopped):
                ended.append((number - 20) * CHUNK_MS)
    assert ended == [-4 * CHUNK_MS + 0] or ended == [832]


@pytest.mark.parametrize(
    ("text", "eagerness", "is_complete", "wants_number", "expected"),
    [
        pytest.param("Yes.", "auto", True, False, 300, id="a whole phrase"),
        pytest.param("I was thinking.", "auto", False, False, 500, id="anything else"),
        pytest.param("I would like a baguette and", "auto", False, False, 900, id="conjunction"),
        pytest.param("A baguette,", "auto", False, False, 900, id="comma"),
        pytest.param("Five five five", "auto", False, False, 900, id="half a number"),
        pytest.param("555-0", "auto", False, True, 900, id="half of the number asked for"),
        pytest.param("555-0123.", "auto", False, True, 500, id="a whole number"),
        pytest.param("At four.", "auto", True, False, 300, id="one figure is no dictation"),
        pytest.param("", "auto", False, False, 500, id="nothing"),
        pytest.param("Yes and", "low", False, False, 1620, id="patient"),
        pytest.param("Yes.", "high", True, False, 300, id="eager, but after the words"),
        pytest.param("Yes and", "high", False, False, 630, id="eager"),
    ],
)
def test_semantic_wait(
    text: str, eagerness: Eagerness, is_complete: bool, wants_number: bool, expected: int
) -> None:
    """A whole phrase is answered sooner, half a sentence is given time."""
    wait = wait_ms(text, eagerness, is_complete=is_complete, wants_number=wants_number)
    assert wait == expected


@pytest.mark.parametrize(
    ("heard", "final", "deltas"),
    [
        pytest.param(
            ["What are", "What are your", "What are your opening ours"],
            "What are your opening hours?",
            ["", "What are", " your", " opening hours?"],
            id="grows",
        ),
        pytest.param([], "Yes.", ["Yes."], id="short"),
        pytest.param(
            ["I can see", "I can see the", "Icy the"],
            "Icy the sea.",
            ["", "I can see", "", ""],
            id="a contradiction is left to the end",
        ),
        pytest.param(["", ""], "", ["", "", ""], id="nothing"),
    ],
)
def test_partials(heard: list[str], final: str, deltas: list[str]) -> None:
    """Only what is sure is told, and no word is told twice."""
    partials = Partials()
    assert [*map(partials.hear, heard), partials.finish(final)] == deltas
