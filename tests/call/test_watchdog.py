"""Silence that should not be is found in time, named, and repaired step by step."""

import numpy as np
import pytest

from agent.audio.frame import FRAME_MS, FRAME_SAMPLES
from agent.audio.voice import VoiceTrack
from agent.call.events import (
    AgentInterrupted,
    AgentSpeaking,
    AgentSpoke,
    AgentTextDelta,
    CallerSpeechStarted,
    CallEvent,
    ResponseEnded,
    ResponseStarted,
    ToolCallRequested,
)
from agent.call.settings import WatchdogSettings
from agent.call.watchdog import Watchdog

LOUD = np.full(FRAME_SAMPLES, 5000, dtype="<i2").tobytes()
TEXT = AgentTextDelta("a1", "r1", "We are open.")
OWED = "owed"
Script = list[tuple[int, CallEvent | str]]


class Stage:
    """A call in which the agent and the caller are heard in these stretches only."""

    def __init__(self, *heard: tuple[int, int], caller: tuple[tuple[int, int], ...] = ()) -> None:
        self.caller, self.agent = VoiceTrack(), VoiceTrack()
        self.watchdog = Watchdog(WatchdogSettings(), self.caller, self.agent)
        self.heard, self.spoken = heard, caller
        self.waits: tuple[tuple[int, int], ...] = ()

    def play(self, script: Script, until_ms: int = 30_000) -> list[tuple[str, str, int]]:
        """Run every frame; return what was found: kind, repair, when (s)."""
        events = list(script)
        found: list[tuple[str, str, int]] = []
        for now_ms in range(0, until_ms, FRAME_MS):
            for track, runs in ((self.agent, self.heard), (self.caller, self.spoken)):
                if any(start <= now_ms < end for start, end in runs):
                    track.note(LOUD, now_ms)
            while events and events[0][0] <= now_ms:
                event = events.pop(0)[1]
                if isinstance(event, str):
                    self.watchdog.expect_answer(now_ms)
                else:
                    self.watchdog.receive(event, now_ms)
            is_waiting = any(start <= now_ms < end for start, end in self.waits)
            if trouble := self.watchdog.check(now_ms, is_waiting=is_waiting):
                found.append((trouble.kind, trouble.repair, now_ms // 1000))
        return found


@pytest.mark.parametrize(
    ("heard", "script", "expected"),
    [
        pytest.param(
            [(1200, 3000)],
            [(0, OWED), (900, ResponseStarted("r1")), (1000, TEXT), (1100, AgentSpeaking("r1")),
             (1500, ResponseEnded("r1", "completed")), (3000, AgentSpoke("r1"))],
            [],
            id="all is well",
        ),
        pytest.param(
            [(7000, 8000)],
            [(0, OWED), (6500, ResponseStarted("r1")), (6600, AgentSpeaking("r1")),
             (6700, ResponseEnded("r1", "completed")), (8000, AgentSpoke("r1"))],
            [("no_response", "ask_again", 6)],
            id="no response until asked again",
        ),
        pytest.param(
            [],
            [(0, OWED)],
            [("no_response", "ask_again", 6), ("no_response", "restart", 10),
             ("no_response", "give_up", 14)],
            id="nothing helps",
        ),
        pytest.param(
            [(9000, 9500)],
            [(500, ResponseStarted("r1"))],
            [("no_voice", "ask_again", 8)],
            id="a response without a sound",
        ),
        pytest.param(
            [(6000, 6500)],
            [(500, ResponseStarted("r1")), (1000, TEXT)],
            [("text_without_sound", "ask_again", 5)],
            id="words without a sound",
        ),
        pytest.param(
            [(4000, 5000)],
            [(500, ResponseStarted("r1")), (1000, AgentSpeaking("r1")),
             (1100, ResponseEnded("r1", "completed")), (3000, AgentSpoke("r1"))],
            [("mute", "ask_again", 3)],
            id="speech that was silence",
        ),
        pytest.param(
            [(1200, 3000)],
            [(500, ResponseStarted("r1")), (1000, AgentSpeaking("r1")),
             (1100, ResponseEnded("r1", "completed"))],
            [("stuck_buffer", "assume_spoken", 7)],
            id="an end that was never told",
        ),
        pytest.param(
            [(2000, 3000)],
            [(500, ResponseEnded("r1", "failed")), (1000, ResponseEnded("r2", "failed")),
             (1500, ResponseStarted("r3")), (1900, AgentSpeaking("r3")),
             (2000, ResponseEnded("r3", "completed")), (3000, AgentSpoke("r3"))],
            [("responses_failed", "ask_again", 1)],
            id="two failures in a row",
        ),
        pytest.param(
            [],
            [(500, ResponseEnded("r1", "failed")), (1000, ResponseEnded("r2", "failed")),
             (1500, ResponseEnded("r3", "failed")), (2000, ResponseEnded("r4", "failed"))],
            [("responses_failed", "ask_again", 1), ("responses_failed", "restart", 1),
             ("responses_failed", "give_up", 2)],
            id="failure without end is not waited for",
        ),
        pytest.param(
            [(8500, 9000)],
            [(500, ResponseStarted("r1")), (1000, ResponseEnded("r1", "completed"))],
            [("no_response", "ask_again", 7)],
            id="a response that says nothing",
        ),
        pytest.param(
            [],
            [(500, ResponseStarted("r1")), (600, ToolCallRequested("t", "f", "r1", "x", "{}")),
             (1000, ResponseEnded("r1", "completed"))],
            [],
            id="a tool call says nothing, rightly",
        ),
        pytest.param(
            [(1000, 1500)],
            [(500, ResponseStarted("r1")), (1000, AgentSpeaking("r1")),
             (1500, AgentInterrupted("r1")), (1510, ResponseEnded("r1", "cancelled"))],
            [],
            id="interrupted",
        ),
        pytest.param(
            [],
            [(0, OWED), (3000, CallerSpeechStarted("u1"))],
            [],
            id="the caller goes on speaking",
        ),
    ],
)  # fmt: skip
def test_silences(
    heard: list[tuple[int, int]], script: Script, expected: list[tuple[str, str, int]]
) -> None:
    """Each silence has its name and its time; what is heard ends the repairs."""
    stage = Stage(*heard)
    until_ms = 30_000 if not expected or expected[-1][1] == "give_up" else 12_000
    found = stage.play(script, until_ms)
    assert found[: len(expected)] == expected
    assert len(found) == len(expected) or expected[-1][1] == "give_up"


def test_silence_that_is_right_is_not_found() -> None:
    """While a tool runs nobody expects the agent's voice; the time counts from its end."""
    stage = Stage()
    stage.waits = ((0, 20_000),)
    assert stage.play([(0, OWED)], 27_000) == [("no_response", "ask_again", 25)]


def test_a_caller_whom_the_far_end_does_not_hear() -> None:
    """They spoke and fell silent, and no event ever said so: asked for, then given up."""
    stage = Stage(caller=((1000, 3000),))
    assert [repair for _, repair, _ in stage.play([], 20_000)] == [
        "ask_again",
        "restart",
        "give_up",
    ]
    assert Stage(caller=((1000, 1300),)).play([]) == [], "a click is not speech"


def test_rtp_that_stops_is_told_once() -> None:
    """One direction falls silent: one finding, and another only after it had come back."""
    watchdog = Watchdog(WatchdogSettings(), VoiceTrack(), VoiceTrack())
    packets = [50 * min(second, 5) for second in range(20)] + [300] + [300] * 20
    found = [
        trouble.seen["silent_ms"]
        for second, count in enumerate(packets)
        if (trouble := watchdog.count("from_caller", count, second * 1000))
    ]
    assert found == [4000, 4000]
