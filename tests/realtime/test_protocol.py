"""The Realtime protocol as text: what each server event means, and what we answer."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import TypeAdapter

from agent.call.events import (
    AgentError,
    AgentGone,
    AgentInterrupted,
    AgentSpeaking,
    AgentSpoke,
    AgentText,
    AgentTextDelta,
    CallerSpeechStarted,
    CallerSpeechStopped,
    CallerText,
    CallerTextDelta,
    CallerTextFailed,
    CallEvent,
    ResponseEnded,
    ResponseStarted,
    ToolCallRequested,
    TurnBegan,
    TurnTruncated,
    Usage,
    UsageReported,
)
from agent.call.history import PastNote, PastTool, PastTurn
from agent.call.ports import AgentProfile, ToolSchema
from agent.realtime.protocol import RealtimeProtocol
from agent.realtime.session import TurnDetectionSettings
from agent.realtime.settings import RealtimeSettings

SERVER: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
CLIENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)

EXAMPLES = [
    json.loads(line)
    for line in (Path(__file__).parent / "server_events.jsonl").read_text().splitlines()
]
USAGE_1 = Usage(text_in=163, text_cached=128, audio_in=27, text_out=14, audio_out=36)
USAGE_2 = Usage(text_in=150, audio_in=40, text_out=6, audio_out=14)
UNKNOWN_TURN = TurnBegan("item_u1", None, "caller")
READY = "Is order twelve ready?"
A1, A2 = TurnBegan("item_a1", None, "agent"), TurnBegan("item_a2", None, "agent")
A4 = TurnBegan("item_a4", None, "agent")

MEANINGS: dict[str, list[CallEvent]] = {
    "event_04": [AgentError("unknown_parameter", "Unknown parameter: 'session.temperature'.")],
    "event_06": [CallerSpeechStarted("item_u1")],
    "event_07": [CallerSpeechStopped("item_u1")],
    "event_08": [UNKNOWN_TURN],
    "event_11": [UNKNOWN_TURN],
    "event_12": [UNKNOWN_TURN],
    "event_13": [UNKNOWN_TURN],
    "event_15": [TurnTruncated("item_a1", 1480)],
    "event_17": [CallerTextDelta("item_u1", "Is order")],
    "event_18": [
        UNKNOWN_TURN,
        CallerText("item_u1", READY),
        UsageReported("transcription", "item_u1", "", Usage(audio_in=27, text_out=8, audio_s=2.7)),
    ],
    "event_19": [
        UNKNOWN_TURN,
        CallerText("item_u1", READY),
        UsageReported("transcription", "item_u1", "", Usage(audio_s=3)),
    ],
    "event_20": [UNKNOWN_TURN, CallerTextFailed("item_u1", "Could not transcribe.")],
    "event_22": [ResponseStarted("resp_01")],
    "event_25": [A1, AgentTextDelta("item_a1", "resp_01", "Yes,")],
    "event_0123456789abcdef": [AgentSpeaking("resp_01")],
    "event_29": [A1, AgentText("item_a1", "resp_01", "Yes, it is ready.")],
    "event_32": [
        A1,
        AgentText("item_a1", "resp_01", "Yes, it is ready."),
        UsageReported("response", "resp_01", "", USAGE_1),
        ResponseEnded("resp_01", "completed", ""),
    ],
    "event_33": [
        A2,
        AgentText("item_a2", "resp_02", "We are open from"),
        UsageReported("response", "resp_02", "", USAGE_2),
        ResponseEnded("resp_02", "cancelled", "turn_detected"),
    ],
    "event_34": [ResponseEnded("resp_03", "failed", "rate_limit_exceeded: Try again later.")],
    "event_0123456789abcde0": [AgentSpoke("resp_01")],
    "event_0123456789abcde1": [AgentInterrupted("resp_02")],
    "event_37": [A4, AgentTextDelta("item_a4", "resp_04", "Caller asked")],
    "event_38": [A4, AgentText("item_a4", "resp_04", "Caller asked for order twelve.")],
}


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda e: f"{e['type']} {e.get('event_id', '')}")
def test_each_example_of_the_reference(event: dict[str, Any]) -> None:
    """Each server event becomes the facts the call needs, and no more."""
    if event["type"] != "input_audio_buffer.dtmf_event_received":
        SERVER.validate_python(event)
    protocol = RealtimeProtocol()
    assert protocol.receive(json.dumps(event)) == MEANINGS.get(event.get("event_id", ""), [])
    assert protocol.garbage == 0


class Session:
    """A protocol in conversation; checks that everything sent is what OpenAI's types allow."""

    def __init__(self) -> None:
        self.protocol = RealtimeProtocol()

    def receive(self, event_type: str, **fields: Any) -> list[CallEvent]:
        return self.protocol.receive(json.dumps({"type": event_type, "event_id": "e", **fields}))

    def sent(self) -> list[dict[str, Any]]:
        texts = self.protocol.take_outgoing()
        for text in texts:
            CLIENT.validate_json(text)
        return [json.loads(text) for text in texts]

    def sent_types(self) -> list[str]:
        return [event["type"] for event in self.sent()]

    def response(self, response_id: str, *, done: bool = True) -> None:
        self.receive("response.created", response={"id": response_id})
        if done:
            self.receive("response.done", response={"id": response_id, "status": "completed"})

    def tool_call(
        self, tool_call_id: str, response_id: str, status: str = "completed"
    ) -> list[CallEvent]:
        item = {
            "id": f"item_{tool_call_id}",
            "type": "function_call",
            "status": status,
            "name": "weather",
            "call_id": tool_call_id,
            "arguments": '{"place":"Bonn"}',
        }
        return self.receive(
            "response.output_item.done", response_id=response_id, output_index=0, item=item
        )


PROFILE = AgentProfile(
    "receptionist",
    "You answer the phone.",
    "Hello, this is the bakery.",
    "marin",
    (ToolSchema("weather", "Tells the weather.", {"type": "object", "properties": {}}),),
)


def test_session_update_sets_what_we_rely_on() -> None:
    """Voice, tools, turn-taking and transcription are set, and ready waits for the answer."""
    session = Session()
    settings_ = RealtimeSettings(
        turn_detection=TurnDetectionSettings(threshold=0.7, silence_duration_ms=300)
    )
    session.receive("session.updated", session={"type": "realtime"})
    session.protocol.configure(PROFILE, settings_)
    assert not session.protocol.is_ready
    [update] = session.sent()
    assert update["session"] == {
        "type": "realtime",
        "instructions": "You answer the phone.",
        "output_modalities": ["audio"],
        "tool_choice": "auto",
        "tools": [
            {
                "type": "function",
                "name": "weather",
                "description": "Tells the weather.",
                "parameters": {"type": "object", "properties": {}},
            }
        ],
        "audio": {
            "input": {
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.7,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 300,
                    "create_response": True,
                    "interrupt_response": True,
                },
                "transcription": {"model": "gpt-transcribe"},
            },
            "output": {"voice": "marin"},
        },
    }
    session.receive("session.created", session={"type": "realtime"})
    assert not session.protocol.is_ready
    session.receive("session.updated", session={"type": "realtime"})
    assert session.protocol.is_ready


def test_a_refused_session_says_why() -> None:
    """The far end's own words come out when it does not take our settings."""
    session = Session()
    session.protocol.configure(PROFILE, RealtimeSettings())
    [update] = session.sent()
    error = {"code": "invalid_value", "message": "No such voice.", "event_id": update["event_id"]}
    assert session.receive("error", error=error) == [AgentError("invalid_value", "No such voice.")]
    assert session.protocol.refusal == "No such voice."


def test_caller_turn_with_late_transcript() -> None:
    """A turn takes its place when it is committed; its text comes later and begins nothing anew."""
    session = Session()
    item = {"id": "u1", "type": "message", "role": "user", "content": []}
    facts = [
        *session.receive("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=1),
        *session.receive("input_audio_buffer.speech_stopped", item_id="u1", audio_end_ms=2),
        *session.receive("input_audio_buffer.committed", item_id="u1", previous_item_id="a0"),
        *session.receive("conversation.item.added", item=item, previous_item_id="a0"),
        *session.receive("conversation.item.done", item=item, previous_item_id=None),
        *session.receive("response.created", response={"id": "r1"}),
        *session.receive(
            "conversation.item.input_audio_transcription.completed",
            item_id="u1",
            content_index=0,
            transcript=" Two rolls.\u202e ",
            usage={"type": "duration", "seconds": 1},
        ),
    ]
    assert facts == [
        CallerSpeechStarted("u1"),
        CallerSpeechStopped("u1"),
        TurnBegan("u1", "a0", "caller"),
        ResponseStarted("r1"),
        CallerText("u1", "Two rolls."),
        UsageReported("transcription", "u1", "", Usage(audio_s=1)),
    ]


def test_deltas_keep_the_blanks_between_words() -> None:
    """Pieces put together read like the whole."""
    session = Session()
    ids = {"item_id": "a1", "response_id": "r1", "output_index": 0, "content_index": 0}
    pieces = ["We", " are ", "", " ", "open\n", "now."]
    facts = [
        fact
        for piece in pieces
        for fact in session.receive("response.output_audio_transcript.delta", delta=piece, **ids)
    ]
    texts = [fact.text for fact in facts if isinstance(fact, AgentTextDelta)]
    assert "".join(texts) == "We are  open now."


def test_two_parts_make_one_text() -> None:
    """An item with two parts is told whole."""
    session = Session()
    ids = {"item_id": "a1", "response_id": "r1", "output_index": 0}
    name = "response.output_audio_transcript.done"
    session.receive(name, content_index=0, transcript="One moment.", **ids)
    facts = session.receive(name, content_index=1, transcript="It is ready.", **ids)
    assert facts == [AgentText("a1", "r1", "One moment. It is ready.")]


def test_a_tool_call_is_asked_for_once() -> None:
    """However often the far end repeats a completed call, it is run once."""
    session = Session()
    session.response("r1", done=False)
    expected = ToolCallRequested("c1", "item_c1", "r1", "weather", '{"place":"Bonn"}')
    assert session.tool_call("c1", "r1") == [TurnBegan("item_c1", None, None), expected]
    assert session.tool_call("c1", "r1") == []
    output = [{"id": "item_c1", "type": "function_call", "status": "completed", "call_id": "c1"}]
    done = session.receive(
        "response.done", response={"id": "r1", "status": "completed", "output": output}
    )
    assert not [fact for fact in done if isinstance(fact, ToolCallRequested)]


def test_arguments_may_come_apart_from_their_item() -> None:
    """An item without arguments takes those of its own event."""
    session = Session()
    session.response("r1", done=False)
    session.receive(
        "response.function_call_arguments.done",
        item_id="f1",
        response_id="r1",
        call_id="c1",
        name="weather",
        arguments='{"a":1}',
    )
    item = {"id": "f1", "type": "function_call", "name": "weather", "call_id": "c1"}
    facts = session.receive("response.output_item.done", response_id="r1", item=item)
    assert facts[-1] == ToolCallRequested("c1", "f1", "r1", "weather", '{"a":1}')


def test_a_cut_tool_call_is_not_run() -> None:
    """An interrupted response may hold half an argument; nobody acts on it."""
    session = Session()
    session.response("r1", done=False)
    assert session.tool_call("c1", "r1", status="incomplete") == []


def test_one_reply_after_all_outputs_and_the_end_of_the_response() -> None:
    """Two tools of one response: both outputs go at once, and one reply is asked for at the end."""
    session = Session()
    session.response("r1", done=False)
    session.tool_call("c1", "r1")
    session.tool_call("c2", "r1")
    session.protocol.give_tool_output("c1", "sunny")
    assert session.sent_types() == ["conversation.item.create"]
    session.receive("response.done", response={"id": "r1", "status": "completed"})
    assert session.sent_types() == []
    session.protocol.give_tool_output("c2", "rainy")
    [item, create] = session.sent()
    assert item["item"] == {"type": "function_call_output", "call_id": "c2", "output": "rainy"}
    assert create["type"] == "response.create"
    session.protocol.give_tool_output("c2", "rainy")
    assert session.sent_types() == []


def test_output_before_the_end_of_the_response_waits_with_the_reply() -> None:
    """A fast tool's output goes up at once; the reply is asked for when the response is over."""
    session = Session()
    session.response("r1", done=False)
    session.tool_call("c1", "r1")
    session.protocol.give_tool_output("c1", "sunny")
    assert session.sent_types() == ["conversation.item.create"]
    session.receive("response.done", response={"id": "r1", "status": "completed"})
    assert session.sent_types() == ["response.create"]


def test_no_reply_when_none_is_wanted() -> None:
    """After hang_up the agent is not made to speak again."""
    session = Session()
    session.response("r1", done=False)
    session.tool_call("c1", "r1")
    session.response("r1")
    session.protocol.give_tool_output("c1", "ok", reply=False)
    assert session.sent_types() == ["conversation.item.create"]


def test_the_reply_waits_for_the_caller_and_their_answer() -> None:
    """A caller who speaks during a slow tool is answered first, then hears the tool's result."""
    session = Session()
    session.response("r1", done=False)
    session.tool_call("c1", "r1")
    session.receive("response.done", response={"id": "r1", "status": "completed"})
    session.receive("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=1)
    session.protocol.give_tool_output("c1", "sunny")
    assert session.sent_types() == ["conversation.item.create"]
    session.receive("response.created", response={"id": "r2"})
    session.receive("input_audio_buffer.speech_stopped", item_id="u2", audio_end_ms=2)
    assert session.sent_types() == []
    session.receive("response.done", response={"id": "r2", "status": "completed"})
    assert session.sent_types() == ["response.create"]


@pytest.mark.parametrize("created_first", [True, False])
def test_a_refused_request_is_made_again(created_first: bool) -> None:
    """When the far end began a response first, ours follows it, exactly once."""
    session = Session()
    session.protocol.speak("Say goodbye.")
    [create] = session.sent()
    code = "conversation_already_has_active_response"
    error = {"code": code, "message": "busy", "event_id": create["event_id"]}
    if created_first:
        session.receive("response.created", response={"id": "r9"})
        assert session.receive("error", error=error) == []
    else:
        assert session.receive("error", error=error) == []
        session.receive("response.created", response={"id": "r9"})
    assert session.sent_types() == []
    session.receive("response.done", response={"id": "r9", "status": "completed"})
    [again] = session.sent()
    assert again["response"] == {"instructions": "Say goodbye.", "tool_choice": "none"}


def test_a_response_whose_end_was_lost_holds_up_nothing() -> None:
    """What waits to be said is said after the next response, not never."""
    session = Session()
    session.response("r1", done=False)
    session.protocol.speak("Say goodbye.")
    session.response("r2")
    assert session.sent_types() == ["response.create"]


def fail(session: Session, response_id: str) -> None:
    session.receive("response.created", response={"id": response_id})
    session.receive("response.done", response={"id": response_id, "status": "failed"})


def test_a_failed_greeting_is_asked_for_again() -> None:
    """The caller must not sit in silence because the far end stumbled; but only once in a row."""
    session = Session()
    session.protocol.greet("Hello!")
    [create] = session.sent()
    fail(session, "r1")
    [again] = session.sent()
    assert again["response"] == create["response"]
    fail(session, "r2")
    assert session.sent_types() == []


def test_a_request_the_far_end_stumbles_over_is_made_again() -> None:
    """An internal error there is no reason for silence here; but only once in a row."""
    session = Session()
    session.protocol.greet("Hello!")
    for _ in range(2):
        [create] = session.sent()
        assert "Hello!" in create["response"]["instructions"]
        error = {"type": "server_error", "message": "?", "event_id": create["event_id"]}
        assert session.receive("error", error=error) == [AgentError("server_error", "?")]
    assert session.sent_types() == []


def test_a_failed_reply_is_asked_for_again() -> None:
    """A reply the far end began by itself is asked for without new instructions."""
    session = Session()
    session.protocol.greet("Hello!")
    session.receive("response.created", response={"id": "r1"})
    session.receive("response.done", response={"id": "r1", "status": "completed"})
    session.sent()
    fail(session, "r2")
    [again] = session.sent()
    assert again["type"] == "response.create"
    assert "response" not in again


def test_a_failed_reply_is_left_to_a_caller_who_speaks() -> None:
    """Who speaks gets an answer to that; the failed one is not asked for as well."""
    session = Session()
    session.receive("response.created", response={"id": "r1"})
    session.receive("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=1)
    session.receive("response.done", response={"id": "r1", "status": "failed"})
    session.receive("input_audio_buffer.speech_stopped", item_id="u1", audio_end_ms=2)
    assert session.sent_types() == []


@pytest.mark.parametrize("event_id", ["ours", None])
def test_a_request_that_fails_does_not_block_the_next(event_id: str | None) -> None:
    """An error about one response.create is told, and the next one is sent."""
    session = Session()
    session.protocol.speak("One.")
    session.protocol.speak("Two.")
    [create] = session.sent()
    about = create["event_id"] if event_id else None
    error = {"code": "invalid_value", "message": "no", "event_id": about}
    assert session.receive("error", error=error) == [AgentError("invalid_value", "no")]
    [second] = session.sent()
    assert second["response"] == {"instructions": "Two.", "tool_choice": "none"}


@pytest.mark.parametrize(
    "event_type", ["input_audio_buffer.speech_stopped", "input_audio_buffer.cleared"]
)
def test_a_patient_request_waits_for_the_caller(event_type: str) -> None:
    """What is not urgent is asked for once the caller has stopped speaking."""
    session = Session()
    session.receive("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=1)
    session.protocol.speak("Say goodbye.")
    assert session.sent_types() == []
    session.receive(event_type, item_id="u1", audio_end_ms=2)
    assert session.sent_types() == ["response.create"]


def test_requests_stand_in_line() -> None:
    """One response at a time, in the order they were asked for."""
    session = Session()
    session.protocol.greet("Hello.")
    session.protocol.speak("Say more.")
    [greeting] = session.sent()
    assert '"Hello."' in greeting["response"]["instructions"]
    session.response("r1", done=False)
    assert session.sent_types() == []
    session.receive("response.done", response={"id": "r1", "status": "completed"})
    assert session.sent_types() == ["response.create"]


def test_the_greeting_does_not_wait_for_the_caller() -> None:
    """A caller who says hello into the ringing is greeted all the same."""
    session = Session()
    session.receive("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=1)
    session.protocol.greet("Hello.")
    assert session.sent_types() == ["response.create"]


def test_an_interrupted_response_is_stopped_where_it_is() -> None:
    """Made and heard: both end; nothing is asked of a far end that is silent."""
    session = Session()
    session.protocol.interrupt()
    assert session.sent() == []
    session.response("r1", done=False)
    session.receive("output_audio_buffer.started", response_id="r1")
    session.protocol.interrupt()
    cancel, clear = session.sent()
    assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "r1")
    assert clear["type"] == "output_audio_buffer.clear"
    session.receive("output_audio_buffer.cleared", response_id="r1")
    session.receive("response.done", response={"id": "r1", "status": "cancelled"})
    session.protocol.interrupt()
    assert session.sent() == []


def test_the_far_end_remembers_only_what_the_ear_was_given() -> None:
    """It had sent a second more while the voice was held: that is taken back, once."""
    session = Session()
    session.response("r1", done=False)
    session.receive("output_audio_buffer.started", response_id="r1")
    session.protocol.interrupt(1000)
    session.sent()
    cut = {"item_id": "a1", "content_index": 0, "audio_end_ms": 2500}
    assert session.receive("conversation.item.truncated", **cut) == [TurnTruncated("a1", 1500)]
    (event,) = session.sent()
    assert (event["type"], event["item_id"]) == ("conversation.item.truncate", "a1")
    assert event["audio_end_ms"] == 1500
    cut["audio_end_ms"] = 1500
    assert session.receive("conversation.item.truncated", **cut) == [TurnTruncated("a1", 1500)]
    assert session.sent() == []


def test_a_response_that_is_on_its_way_is_stopped_when_it_begins() -> None:
    """Interrupted between the request and its response: the caller does not hear it."""
    session = Session()
    session.protocol.answer()
    session.protocol.speak("Say more.")
    assert session.sent_types() == ["response.create"]
    session.protocol.interrupt()
    assert session.sent() == []
    session.response("r1", done=False)
    assert session.sent_types() == ["response.cancel"]
    session.receive("response.done", response={"id": "r1", "status": "cancelled"})
    assert session.sent() == [], "what was asked for before the interruption is forgotten"
    session.protocol.answer()
    assert session.sent_types() == ["response.create"]


def test_a_stop_that_comes_too_late_is_no_error() -> None:
    """The response ended by itself meanwhile."""
    session = Session()
    error = {"type": "invalid_request_error", "code": "response_cancel_not_active"}
    assert session.receive("error", error={**error, "message": "None active."}) == []


def test_an_answer_is_asked_for_once() -> None:
    """However many sounds made up the turn, it waits for the response before it, and comes once."""
    session = Session()
    session.response("r1", done=False)
    session.protocol.answer()
    session.protocol.answer()
    assert session.sent() == []
    session.receive("response.done", response={"id": "r1", "status": "completed"})
    assert session.sent_types() == ["response.create"]
    session.response("r2")
    assert session.sent() == []


def test_a_fact_nobody_said_is_a_system_item() -> None:
    """Keys the caller pressed reach the model without being somebody's words."""
    session = Session()
    session.protocol.note("The caller pressed 5.")
    (event,) = session.sent()
    assert event["item"]["role"] == "system"
    assert event["item"]["content"] == [{"type": "input_text", "text": "The caller pressed 5."}]


def test_a_fresh_session_is_told_the_past() -> None:
    """Who said what, what was noted and what tools gave: in order, and nothing is asked for."""
    session = Session()
    session.protocol.recall(
        [
            PastTurn("agent", "Good morning."),
            PastNote("The caller pressed 5."),
            PastTurn("caller", "How is the weather?"),
            PastTool("c1", "weather", '{"place":"Bonn"}', "sunny"),
            PastTool("c2", "weather", '{"place":"Rome"}'),
        ]
    )
    events = session.sent()
    assert {event["type"] for event in events} == {"conversation.item.create"}
    assert all("previous_item_id" not in event for event in events), "each follows the last"
    items = [event["item"] for event in events]
    ids = [item.pop("id") for item in items]
    assert len(set(ids)) == len(ids)

    def message(role: str, kind: str, text: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}

    def call(call_id: str, place: str) -> dict[str, Any]:
        arguments = f'{{"place":"{place}"}}'
        whose = {"type": "function_call", "call_id": call_id}
        return whose | {"name": "weather", "arguments": arguments}

    assert items == [
        message("assistant", "output_text", "Good morning."),
        message("system", "input_text", "The caller pressed 5."),
        message("user", "input_text", "How is the weather?"),
        call("c1", "Bonn"),
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        call("c2", "Rome"),
    ]
    for item_id, item in zip(ids, items, strict=True):
        told = session.receive("conversation.item.added", item={"id": item_id, **item})
        assert told == [], "a turn of the past does not begin once more"

    session.protocol.give_tool_output("c2", "rainy")
    output, create = session.sent()
    assert output["item"] == {"type": "function_call_output", "call_id": "c2", "output": "rainy"}
    assert create["type"] == "response.create"


@pytest.mark.parametrize(
    ("status", "usage", "expected"),
    [
        pytest.param("completed", {"output_tokens": 2}, [Usage(other_out=2)], id="told"),
        pytest.param("cancelled", {"output_tokens": 2}, [Usage(other_out=2)], id="cut short"),
        pytest.param("completed", None, [None], id="worked and did not say"),
        pytest.param("failed", None, [], id="never worked"),
    ],
)
def test_each_response_is_paid_once(
    status: str, usage: dict[str, Any] | None, expected: list[Usage | None]
) -> None:
    """What a response used is reported under the configured model, however often it is told."""
    session = Session()
    session.protocol.configure(PROFILE, RealtimeSettings(model="gpt-x"))
    reports = []
    for _ in range(2):
        facts = session.receive(
            "response.done", response={"id": "r1", "status": status, "usage": usage}
        )
        reports += [fact for fact in facts if isinstance(fact, UsageReported)]
    assert reports == [UsageReported("response", "r1", "gpt-x", usage) for usage in expected]


def test_each_transcription_is_paid_once() -> None:
    """The transcription has its own model; the embedded server has its own name for both."""
    session = Session()
    session.protocol.configure(PROFILE, RealtimeSettings(provider="embedded"))
    reports = []
    for _ in range(2):
        facts = session.receive(
            "conversation.item.input_audio_transcription.completed",
            item_id="u1",
            content_index=0,
            transcript="Yes.",
            usage={"type": "duration", "seconds": 3},
        )
        reports += [fact for fact in facts if isinstance(fact, UsageReported)]
    assert reports == [UsageReported("transcription", "u1", "embedded", Usage(audio_s=3))]


def test_an_expired_session_is_gone() -> None:
    """After 60 minutes the far end says so, and the call can end with a reason."""
    [gone] = Session().receive("error", error={"code": "session_expired", "message": "over"})
    assert isinstance(gone, AgentGone)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("not json", id="not JSON"),
        pytest.param('"text"', id="not an object"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"a":' * 5_000 + "1" + "}" * 5_000, id="deep object"),
        pytest.param("{}", id="no type"),
        pytest.param('{"type":7}', id="type is a number"),
        pytest.param('{"type":"response.created"}', id="no response"),
        pytest.param('{"type":"response.created","response":{"id":7}}', id="id is a number"),
        pytest.param('{"type":"response.done","response":[]}', id="response is a list"),
        pytest.param('{"type":"input_audio_buffer.speech_started"}', id="no item_id"),
        pytest.param(
            '{"type":"conversation.item.truncated","item_id":"a","audio_end_ms":"x"}',
            id="milliseconds are text",
        ),
        pytest.param(
            '{"type":"response.output_text.delta","item_id":"a","response_id":"r","delta":null}',
            id="delta is null",
        ),
        pytest.param('{"type":"error","error":"no"}', id="error is text"),
        pytest.param('{"type":"' + "x" * 1_000_001 + '"}', id="a megabyte"),
        pytest.param("\ud800", id="lone surrogate"),
    ],
)
def test_garbage_is_counted_and_survived(text: str) -> None:
    """Nothing a far end sends ends the session."""
    session = Session()
    assert session.protocol.receive(text) == []
    assert session.protocol.garbage == 1
    assert session.receive("response.created", response={"id": "r1"}) == [ResponseStarted("r1")]


def test_what_is_large_is_cut() -> None:
    """A transcript of 200 kB and one with escapes reach the log short and harmless."""
    session = Session()
    name = "conversation.item.input_audio_transcription.completed"
    facts = session.receive(name, item_id="u1", transcript="\u001b[2J" + "x" * 200_000)
    text = facts[1]
    assert isinstance(text, CallerText)
    assert len(text.text) <= 8_000
    assert "\x1b" not in text.text


def test_unknown_events_are_ignored() -> None:
    """Tomorrow's events are no garbage."""
    session = Session()
    assert session.receive("brand.new.event", x=1) == []
    assert session.protocol.garbage == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = sorted({key for event in EXAMPLES for key in event} - {"type"})
TYPES = sorted({event["type"] for event in EXAMPLES})
PARTS = sorted(
    {key for event in EXAMPLES for part in event.values() if isinstance(part, dict) for key in part}
)


@settings(max_examples=300, deadline=None, database=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(TYPES),
            st.dictionaries(
                st.sampled_from(FIELDS),
                JSON | st.dictionaries(st.sampled_from(PARTS), JSON, max_size=6),
                max_size=6,
            ),
        ),
        max_size=6,
    )
)
def test_no_event_raises(events: list[tuple[str, dict[str, Any]]]) -> None:
    """Right names with wrong contents, in any order: never an exception, only facts or a count."""
    protocol = RealtimeProtocol()
    protocol.configure(PROFILE, RealtimeSettings())
    for kind, fields in events:
        protocol.receive(json.dumps({**fields, "type": kind}))
    for text in protocol.take_outgoing():
        CLIENT.validate_json(text)


@settings(max_examples=200, deadline=None, database=None)
@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    """Any text at all."""
    RealtimeProtocol().receive(text)


@settings(max_examples=50, deadline=None, database=None)
@given(st.sampled_from(EXAMPLES), st.data())
def test_missing_and_changed_fields(event: dict[str, Any], data: st.DataObject) -> None:
    """A real event with one field missing or of another kind is survived."""
    changed = json.loads(json.dumps(event))
    where = changed
    while True:
        key = data.draw(st.sampled_from(sorted(where)))
        if isinstance(where[key], dict) and where[key] and data.draw(st.booleans()):
            where = where[key]
            continue
        if data.draw(st.booleans()):
            del where[key]
        else:
            where[key] = data.draw(JSON)
        break
    RealtimeProtocol().receive(json.dumps(changed))
