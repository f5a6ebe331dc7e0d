"""The log says what was said, in order, and how much of it was heard."""

from collections.abc import Sequence

import numpy as np
import pytest

from agent.audio.frame import FRAME_MS, FRAME_SAMPLES
from agent.audio.voice import VoiceTrack
from agent.call.conversation import Conversation
from agent.call.events import (
    AgentInterrupted,
    AgentSpeaking,
    AgentSpoke,
    AgentText,
    AgentTextDelta,
    CallerSpeechStarted,
    CallerSpeechStopped,
    CallerText,
    CallerTextFailed,
    CallEvent,
    TurnBegan,
    TurnTruncated,
)
from agent.call.history import History, PastTurn
from agent.call.latency import Latency
from agent.call.records import TurnRecord

LOUD = np.full(FRAME_SAMPLES, 5000, dtype="<i2").tobytes()
LONG = "We are open from seven in the morning until six in the evening every day"


def spoken(*runs: tuple[int, int]) -> VoiceTrack:
    """A track that was voiced in these stretches."""
    track = VoiceTrack()
    for start_ms, end_ms in runs:
        for at_ms in range(start_ms, end_ms, FRAME_MS):
            track.note(LOUD, at_ms)
    return track


def told(
    events: Sequence[tuple[int, CallEvent]],
    caller: VoiceTrack | None = None,
    agent: VoiceTrack | None = None,
    finish_ms: int | None = None,
) -> list[TurnRecord]:
    """Run events through a conversation; return the last state of every turn, in order."""
    conversation = Conversation("c", caller or VoiceTrack(), agent or VoiceTrack())
    rows: dict[str, TurnRecord] = {}
    for now_ms, event in events:
        if isinstance(event, CallerSpeechStarted):
            for record in conversation.cut(now_ms):
                rows[record.item_id] = record
        for record in conversation.receive(event, now_ms):
            rows[record.item_id] = record
    if finish_ms is not None:
        for record in conversation.finish(finish_ms):
            rows[record.item_id] = record
    return sorted(rows.values(), key=lambda row: row.position)


EXCHANGE: list[tuple[int, CallEvent]] = [
    (1100, CallerSpeechStarted("u1")),
    (2500, CallerSpeechStopped("u1")),
    (2510, TurnBegan("u1", None, "caller")),
    (2600, TurnBegan("a1", "u1", "agent")),
    (2620, AgentTextDelta("a1", "r1", "At seven.")),
    (2700, AgentSpeaking("r1")),
    (2800, AgentText("a1", "r1", "At seven.")),
    (2900, CallerText("u1", "When do you open?")),
    (3700, AgentSpoke("r1")),
]


def test_an_exchange() -> None:
    """Question and answer: order, words, times, and the silence between them."""
    caller, agent = spoken((1000, 2000)), spoken((2720, 3620))
    first, second = told(EXCHANGE, caller, agent)
    assert (first.speaker, first.text, first.started_ms, first.ended_ms) == (
        "caller",
        "When do you open?",
        1000,
        2000,
    )
    assert first.latency_ms is None
    assert (second.speaker, second.text, second.heard_text) == ("agent", "At seven.", "At seven.")
    assert (second.started_ms, second.ended_ms) == (2720, 3620)
    assert second.latency_ms == 720
    assert not second.interrupted


def test_a_wait_is_divided() -> None:
    """The row says where the time between question and answer went."""
    latency = Latency([(2720, 20)])
    conversation = Conversation("c", spoken((1000, 2000)), spoken((2720, 3620)), latency)
    rows: list[TurnRecord] = []
    for now_ms, event in EXCHANGE:
        latency.receive(event, now_ms)
        rows += conversation.receive(event, now_ms)
    answer = rows[-1]
    parts = (answer.endpointing_ms, answer.model_ms, answer.network_ms, answer.buffer_ms)
    assert (*parts, answer.tool_ms, answer.latency_ms) == (500, 200, 0, 20, 0, 720)


def test_order_is_the_chain_not_the_arrival() -> None:
    """A transcript that arrives late, or an item put in between, takes its own place."""
    rows = told(
        [
            (10, TurnBegan("a1", None, "agent")),
            (20, AgentText("a1", "r1", "one")),
            (30, TurnBegan("a2", "a1", "agent")),
            (40, AgentText("a2", "r2", "three")),
            (50, TurnBegan("u1", "a1", "caller")),
            (60, CallerText("u1", "two")),
        ]
    )
    assert [row.text for row in rows] == ["one", "two", "three"]
    assert [row.position for row in rows] == [0, 1, 2]


def test_tool_items_hold_their_place_without_being_turns() -> None:
    """A tool call between two turns leaves a gap in the positions and no row."""
    rows = told(
        [
            (10, TurnBegan("u1", None, "caller")),
            (20, TurnBegan("f1", "u1", None)),
            (30, TurnBegan("a1", "f1", "agent")),
            (40, AgentText("a1", "r1", "Sunny.")),
        ]
    )
    assert [(row.item_id, row.position) for row in rows] == [("u1", 0), ("a1", 2)]


def test_barge_in_cuts_what_was_heard() -> None:
    """The caller spoke over the agent: only the words count that were heard."""
    events: list[tuple[int, CallEvent]] = [
        (0, TurnBegan("a1", None, "agent")),
        (10, AgentText("a1", "r1", LONG)),
        (20, AgentSpeaking("r1")),
        (2040, CallerSpeechStarted("u1")),
        (2050, AgentInterrupted("r1")),
    ]
    row = told(events, spoken((1900, 2040)), spoken((40, 2040)))[0]
    assert row.interrupted
    assert row.text == LONG
    assert row.heard_text == "We are open from seven in the"
    assert row.ended_ms == 2040


def test_what_the_far_end_never_sent_was_not_heard() -> None:
    """A truncation shorter than what we thought to have played has the last word."""
    row = told(
        [
            (0, TurnBegan("a1", None, "agent")),
            (10, AgentText("a1", "r1", LONG)),
            (20, AgentSpeaking("r1")),
            (2040, CallerSpeechStarted("u1")),
            (2060, TurnTruncated("a1", 1000)),
        ],
        agent=spoken((40, 2040)),
    )[0]
    assert row.heard_text == "We are open"


def test_the_pace_of_the_voice_is_learnt() -> None:
    """After a slow sentence, fewer words are believed to have been heard of the next."""
    slow = "a" * 60
    events: list[tuple[int, CallEvent]] = [
        (10, AgentText("a1", "r1", slow)),
        (20, AgentSpeaking("r1")),
        (8040, AgentSpoke("r1")),
        (8100, AgentText("a2", "r2", LONG)),
        (8110, AgentSpeaking("r2")),
        (10_200, CallerSpeechStarted("u1")),
    ]
    rows = told(events, agent=spoken((40, 8040), (8200, 10_200)))
    assert rows[1].heard_text == "We are open from"


def test_waiting_is_no_time_of_speech() -> None:
    """An agent that was made to wait for a second has said no more meanwhile."""
    conversation = Conversation("c", VoiceTrack(), spoken((40, 1040), (2040, 3040)))
    conversation.receive(AgentText("a1", "r1", LONG), 10)
    conversation.receive(AgentSpeaking("r1"), 20)
    conversation.hold(1040, is_held=True)
    conversation.hold(2040, is_held=False)
    (row,) = conversation.cut(3040)
    assert (row.heard_text, row.ended_ms) == ("We are open from seven in the", 3040)


def test_a_caller_who_hangs_up_in_mid_sentence_heard_half() -> None:
    """The call's end cuts the agent as a barge-in does."""
    row = told(
        [
            (0, TurnBegan("a1", None, "agent")),
            (10, AgentText("a1", "r1", LONG)),
            (20, AgentSpeaking("r1")),
        ],
        agent=spoken((40, 1040)),
        finish_ms=1040,
    )[0]
    assert row.interrupted
    assert row.heard_text == "We are open"


def test_a_second_answer_has_no_latency() -> None:
    """After a tool the agent speaks again; the caller's question is not counted twice."""
    rows = told(
        [
            *EXCHANGE,
            (3800, TurnBegan("a2", "a1", "agent")),
            (3810, AgentTextDelta("a2", "r2", "And it is sunny.")),
            (3900, AgentSpeaking("r2")),
            (5000, AgentSpoke("r2")),
        ],
        spoken((1000, 2000)),
        spoken((2720, 3620), (3920, 4900)),
    )
    assert [row.latency_ms for row in rows] == [None, 720, None]
    assert rows[2].started_ms == 3920


BEFORE: list[tuple[int, CallEvent]] = [
    (0, AgentText("a1", "r1", "Good morning.")),
    (20, AgentSpeaking("r1")),
    (1040, AgentSpoke("r1")),
]


@pytest.mark.parametrize(
    ("events", "sound", "heard"),
    [
        pytest.param(
            [(2010, AgentSpeaking("r2")), (3000, AgentSpoke("r2"))], [], "", id="not a sound"
        ),
        pytest.param(
            [
                (2010, AgentSpeaking("r2")),
                (3000, AgentSpoke("r2")),
                (3010, AgentText("a2", "r2", "Yes.")),
            ],
            [],
            "",
            id="not a sound, and its words come late",
        ),
        pytest.param([], [], "", id="text alone"),
        pytest.param(
            [(2010, AgentSpeaking("r2")), (2200, AgentSpoke("r2"))],
            [(2100, 2160)],
            "Yes.",
            id="three frames",
        ),
        pytest.param(
            [(2600, AgentSpeaking("r2")), (2610, AgentSpoke("r2"))],
            [(2100, 2160)],
            "Yes.",
            id="three frames, announced late",
        ),
        pytest.param([(3000, AgentSpoke("r2"))], [(2100, 2800)], "Yes.", id="never announced"),
    ],
)
def test_only_what_gave_a_sound_was_heard(
    events: list[tuple[int, CallEvent]], sound: list[tuple[int, int]], heard: str
) -> None:
    """A turn that reached no ear keeps its words, but nobody heard them: nor are they replayed."""
    conversation = Conversation("c", VoiceTrack(), spoken((40, 1000), *sound))
    records: list[TurnRecord] = []
    for now_ms, event in [*BEFORE, (2000, AgentText("a2", "r2", "Yes.")), *events]:
        records += conversation.receive(event, now_ms)
    replayed = History().told(conversation.chain)
    row = (records + conversation.finish(4000))[-1]
    assert (row.item_id, row.text, row.heard_text) == ("a2", "Yes.", heard)
    assert row.ended_ms is not None
    assert row.ended_ms >= row.started_ms
    said = ["Good morning.", heard] if heard else ["Good morning."]
    assert replayed == [PastTurn("agent", text) for text in said]


def test_an_answer_without_a_sound_ends_no_wait() -> None:
    """Who hears nothing until they are answered again has waited from their own last word."""
    again: list[tuple[int, CallEvent]] = [
        (5000, TurnBegan("a2", "a1", "agent")),
        (5010, AgentText("a2", "r2", "At seven.")),
        (5020, AgentSpeaking("r2")),
        (6000, AgentSpoke("r2")),
    ]
    ear = VoiceTrack()
    conversation = Conversation("c", spoken((1000, 2000)), ear)
    for now_ms, event in EXCHANGE:
        conversation.receive(event, now_ms)
    ear.note(LOUD, 5040)
    rows = [row for now_ms, event in again for row in conversation.receive(event, now_ms)]
    assert (rows[-1].item_id, rows[-1].latency_ms) == ("a2", 5040 - 2000)


def test_two_turns_of_one_response_share_its_sound() -> None:
    """The second of them was heard as much as the first."""
    rows = told(
        [
            (0, AgentText("a1", "r1", "Good morning.")),
            (10, AgentText("a2", "r1", "This is the bakery.")),
            (20, AgentSpeaking("r1")),
            (2000, AgentSpoke("r1")),
        ],
        agent=spoken((40, 1960)),
    )
    assert [row.heard_text for row in rows] == ["Good morning.", "This is the bakery."]


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(CallerTextFailed("u1", "unintelligible"), id="failed"),
        pytest.param(CallerText("u1", ""), id="empty"),
    ],
)
def test_a_turn_nobody_understood_is_still_a_turn(event: CallEvent) -> None:
    """Sound that gave no words keeps its row, so that the log hides nothing."""
    rows = told([(10, TurnBegan("u1", None, "caller")), (20, event)])
    assert [(row.item_id, row.text) for row in rows] == [("u1", "")]


def test_long_sentences_do_not_flood_the_log() -> None:
    """A hundred deltas are a handful of writes, and the last word is in."""
    conversation = Conversation("c", VoiceTrack(), VoiceTrack())
    writes = []
    for number in range(100):
        writes += conversation.receive(AgentTextDelta("a1", "r1", "word "), number)
    writes += conversation.receive(AgentText("a1", "r1", "word " * 100), 200)
    writes += conversation.finish(300)
    assert len(writes) < 25
    assert writes[-1].text == "word " * 100
