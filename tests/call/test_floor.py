"""Who has the floor, as both legs are told: made to wait, stopped, turned down, let go on."""

import pytest

from agent.audio.frame import SILENCE
from agent.call.bridge import Bridge
from agent.call.conversation import Conversation
from agent.call.diary import Diary
from agent.call.events import (
    AgentInterrupted,
    AgentSpeaking,
    CallerSpeechStarted,
    CallerSpeechStopped,
    CallerText,
    CallEvent,
    ResponseStarted,
)
from agent.call.floor import Floor
from agent.call.ports import AgentProfile
from agent.call.records import CallEventRecord, Record
from agent.call.settings import InterruptionSettings
from tests.call.test_interruption import frame
from tests.fakes.legs import FakeAgent


class Stage:
    """An agent in mid-sentence, and a caller."""

    def __init__(self, guard: str, *, yields: bool = True) -> None:
        self.agent = FakeAgent()
        self.log: list[Record] = []
        diary = Diary("c", self.log.append)
        self.bridge = Bridge(self.agent, diary.now_ms)
        self.conversation = Conversation("c", self.bridge.caller_track, self.bridge.agent_track)
        settings = InterruptionSettings.model_validate({"guard": guard})
        profile = AgentProfile("a", "", "", "marin", interruption=settings, yields=yields)
        self.floor = Floor(profile, self.agent, self.bridge, self.conversation, diary)

    def take(self, *events: tuple[int, CallEvent]) -> None:
        for now_ms, event in events:
            self.floor.receive(event, now_ms)
            self.conversation.receive(event, now_ms)

    def ear(self) -> int:
        """How loud the next frame of a steady voice is at the caller's ear."""
        self.agent.ear.append(frame(4000))
        samples = self.bridge.speak_to_caller()
        return int.from_bytes(samples[-2:], "little", signed=True)

    @property
    def notes(self) -> list[str]:
        return [record.kind for record in self.log if isinstance(record, CallEventRecord)]


SPEAKS = ((0, ResponseStarted("r1")), (10, AgentSpeaking("r1")))
COUGHS = (
    (1000, CallerSpeechStarted("u1")),
    (1500, CallerSpeechStopped("u1")),
    (1700, CallerText("u1", "")),
)
OBJECTS = (*COUGHS[:2], (1700, CallerText("u1", "No, stop.")))


@pytest.mark.parametrize(
    ("guard", "says", "did", "notes"),
    [
        pytest.param("off", COUGHS, ["flush"], ["barge_in"], id="off: a cough stops it"),
        pytest.param("pause", COUGHS, ["hold", "release"], ["sound_ignored"], id="pause: a cough"),
        pytest.param("duck", COUGHS, [], ["sound_ignored"], id="duck: a cough"),
        pytest.param(
            "pause", OBJECTS, ["hold", "interrupt", "answer"], ["barge_in"], id="pause: words"
        ),
        pytest.param("duck", OBJECTS, ["interrupt", "answer"], ["barge_in"], id="duck: words"),
    ],
)
def test_sounds_over_the_agent(
    guard: str, says: tuple[tuple[int, CallEvent], ...], did: list[str], notes: list[str]
) -> None:
    """What the agent's leg is told, and what the log says of it."""
    stage = Stage(guard)
    stage.take(*SPEAKS, *says)
    assert stage.agent.did == did
    assert stage.notes == notes
    assert not stage.floor.is_in_doubt


def test_an_agent_that_does_not_yield() -> None:
    """It says what it has to say over a caller's voice; a key stops it, and so does the far end."""
    stage = Stage("off", yields=False)
    stage.take(*SPEAKS, *OBJECTS)
    assert stage.agent.did == []
    assert stage.notes == []
    stage.floor.press("1", 2000)
    assert stage.agent.did == ["interrupt"]
    stage = Stage("off", yields=False)
    stage.take(*SPEAKS, (1000, AgentInterrupted("r1")))
    assert stage.agent.did == ["flush"]


def test_a_ducked_agent_is_a_quarter_as_loud() -> None:
    """12 dB lower from the next frame on, without a click, and back after the cough."""
    stage = Stage("duck")
    stage.take(*SPEAKS)
    assert stage.ear() == 4000
    stage.take(COUGHS[0])
    assert 1000 < stage.ear() < 1100, "glides within the frame"
    assert stage.ear() == 1004
    stage.take(*COUGHS[1:])
    stage.ear()
    assert stage.ear() == 4000
    stage.agent.ear.clear()
    assert stage.bridge.speak_to_caller() == SILENCE


def test_keys_stop_the_agent_and_are_told_to_it_together() -> None:
    """Three keys in a row: one stop, one note once no more come, one answer."""
    stage = Stage("off")
    stage.take(*SPEAKS)
    for position, key in enumerate("12#"):
        stage.floor.press(key, 1000 + position * 400)
    assert not stage.floor.look(2000)
    assert stage.floor.look(4000)
    assert stage.agent.did == [
        "interrupt",
        "note The caller pressed these keys on the telephone: 12#",
        "answer",
    ]
