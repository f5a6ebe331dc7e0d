"""What a client may demand of one response: a call, no call, so many tokens; and speech it brings."""

import base64
import json
from datetime import datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agent.embedded.event_audio import decode_item
from agent.embedded.json_schema import fits
from agent.embedded.offers import Offer, Tool, ToolCall, demanded_call
from agent.embedded.recordings import MOST_KEPT_MS, Recordings
from agent.embedded.voice import Voice
from tests.embedded.event_speech import wide
from tests.embedded.socket_client import SocketClient, open_socket
from tests.embedded.strict import check_event, check_orders

FRIDAY = datetime(2026, 11, 20, 10, 0)  # noqa: DTZ001 - a wall clock
TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _function(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": _object(**properties)}


ORDER = _function("order_status", order_number=TEXT)
MOOD = _function("note_mood", mood={"type": "string", "enum": ["glad", "cross"]}, since=WHOLE)


async def _ask(client: SocketClient, text: str, **response: Any) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await client.send(type="conversation.item.create", item=item)
    await client.send(type="response.create", response={"output_modalities": ["text"], **response})
    done: dict[str, Any] = (await client.wait("response.done"))["response"]
    return done


@pytest.mark.parametrize(
    ("choice", "text", "called"),
    [
        pytest.param(
            "required",
            "I am cross about order 4 7 2.",
            ("order_status", {"order_number": "472"}),
            id="required: the tool that suits",
        ),
        pytest.param(
            "required",
            "Good morning.",
            ("order_status", {"order_number": "Good morning."}),
            id="required: any, if none suits",
        ),
        pytest.param(
            {"type": "function", "name": "note_mood"},
            "Where is order 472? I am cross.",
            ("note_mood", {"mood": "cross", "since": 472}),
            id="named",
        ),
        pytest.param("none", "What is the status of order 4 7 2?", None, id="none"),
        pytest.param(
            "auto",
            "What is the status of order 4 7 2?",
            ("order_status", {"order_number": "472"}),
            id="auto",
        ),
    ],
)
async def test_tool_choice(
    url: str, choice: Any, text: str, called: tuple[str, dict[str, Any]] | None
) -> None:
    """A client can demand a call, demand a certain one, or forbid them all."""
    async with open_socket(url) as client:
        response = await _ask(client, text, tools=[ORDER, MOOD], tool_choice=choice)
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        assert [(c["name"], json.loads(c["arguments"])) for c in calls] == (
            [called] if called else []
        )
        assert response["status"] == "completed"


async def test_demanded_by_the_session(url: str) -> None:
    """What the session demands holds for every response, until one has a wish of its own."""
    async with open_socket(url) as client:
        session = {"type": "realtime", "tools": [ORDER], "tool_choice": "required"}
        await client.send(type="session.update", session=session)
        response = await _ask(client, "My order is 815.")
        assert response["output"][0]["name"] == "order_status"
        await client.send(type="response.create", response={"tool_choice": "none"})
        assert (await client.wait("response.done", 2))["response"]["output"][0]["type"] == "message"


SCHEMAS = [
    pytest.param(_object(names={"type": "array", "items": TEXT}), id="list of texts"),
    pytest.param(
        _object(counts={"type": "array", "items": {**WHOLE, "minimum": 3}, "minItems": 2}),
        id="list of numbers",
    ),
    pytest.param(
        _object(
            rolls={
                "type": "array",
                "items": {"type": "string", "enum": ["rye", "wheat"]},
                "uniqueItems": True,
                "minItems": 1,
            }
        ),
        id="list of choices",
    ),
    pytest.param(
        _object(address=_object(street=TEXT, zip={"type": "string", "pattern": r"^\d{5}$"})),
        id="object",
    ),
    pytest.param(
        {
            **_object(items={"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1}),
            "$defs": {"line": _object(what=TEXT, count={**WHOLE, "maximum": 9})},
        },
        id="list of objects by reference",
    ),
    pytest.param(
        _object(code={"type": "string", "pattern": "^[A-Z]+$", "maxLength": 4}), id="code"
    ),
    pytest.param(_object(mail={"type": "string", "format": "email"}), id="address"),
    pytest.param(_object(day={"type": "string", "format": "date"}), id="date"),
    pytest.param(_object(many={"type": ["integer", "null"], "minimum": 50}), id="at least 50"),
    pytest.param(_object(flag={"type": "boolean"}, nothing={"type": "null"}), id="flag, nothing"),
    pytest.param(_object(one={"anyOf": [{"type": "null"}, WHOLE]}), id="or nothing"),
    pytest.param(_object(fixed={"const": {"a": [1]}}), id="constant"),
    pytest.param(_object(half={"type": "number", "multipleOf": 0.5}), id="halves"),
    pytest.param({}, id="no schema"),
    pytest.param({"type": "object", "required": ["q"]}, id="required, not described"),
]
SAID = "Two rolls of rye and 1 of wheat to 12345 Springfield, for anna at mill dot org"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_demanded_arguments_fit(schema: dict[str, Any]) -> None:
    """A call that is demanded carries arguments its schema accepts, whatever was said."""
    tool = Tool("t", schema)
    for said in ([SAID], ["erm"], []):
        called = demanded_call(Offer({"t": tool}, frozenset({"t"})), said, FRIDAY)
        if called is not None:
            Draft202012Validator(schema).validate(called[1])
        assert called is not None or said != [SAID] or schema["properties"].keys() & {"code"}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_given_arguments_fit(schema: dict[str, Any]) -> None:
    """What callers answer to questions is only taken where the schema accepts it."""
    call = ToolCall(Tool("t", schema), SAID, FRIDAY)
    for _ in range(4):
        if call.missing() is None:
            Draft202012Validator(schema).validate(call.arguments)
            break
        call.hear(SAID, FRIDAY)
    for name, value in call.arguments.items():
        Draft202012Validator({**schema, "required": []}).validate({name: value})


def test_a_list_is_answered_in_words() -> None:
    """A caller who is asked for several things may name them all at once."""
    schema = _object(rolls={"type": "array", "items": {"type": "string", "enum": ["rye", "oat"]}})
    assert ToolCall(Tool("t", schema), "One oat and one rye.", FRIDAY).arguments == {
        "rolls": ["rye", "oat"]
    }
    call = ToolCall(Tool("t", _object(names={"type": "array", "items": TEXT})), "Hello", FRIDAY)
    assert call.missing() is not None
    assert call.hear("Anna, Ben and Carla", FRIDAY)
    assert call.arguments == {"names": ["anna ben", "carla"]}


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("^(a+)+$", id="a group repeated"),
        pytest.param("(", id="broken"),
        pytest.param("a*a*a*a*b", id="many stars"),
        pytest.param("x" * 500, id="long"),
    ],
)
def test_no_pattern_takes_long(pattern: str) -> None:
    """A stranger's pattern that could hold up the server fits nothing."""
    assert not fits("a" * 50_000, {"type": "string", "pattern": pattern})


@pytest.mark.parametrize(
    ("modality", "kind"),
    [
        pytest.param("text", "output_text", id="text"),
        pytest.param("audio", "output_audio", id="speech"),
    ],
)
async def test_token_limit(url: str, modality: str, kind: str) -> None:
    """A response that reaches its limit is incomplete, and its item holds what was said."""
    text = " ".join(f"This is sentence number {n}." for n in range(30))
    async with open_socket(url) as client:
        wish = {"instructions": f'Say "{text}"', "output_modalities": [modality]}
        await client.send(type="response.create", response={**wish, "max_output_tokens": 20})
        response = (await client.wait("response.done"))["response"]
        assert response["status"] == "incomplete"
        assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
        (item,) = response["output"]
        (part,) = item["content"]
        assert (item["status"], part["type"]) == ("incomplete", kind)
        said = part.get("text") or part["transcript"]
        assert text.startswith(said)
        assert 0 < len(said) < 100
        assert response["usage"]["output_tokens"] <= 20
        await client.wait("rate_limits.updated")
        await client.send(type="response.create", response={**wish, "max_output_tokens": "inf"})
        assert (await client.wait("response.done", 2))["response"]["status"] == "completed"
        await client.wait("rate_limits.updated", 2)
        for event in client.events:
            check_event(event)
        check_orders(client.events, over_rtp=False)


async def test_a_call_is_never_cut(url: str) -> None:
    """A call that does not fit the limit is left out: half of its arguments help nobody."""
    async with open_socket(url) as client:
        wish = {"tools": [ORDER], "tool_choice": "required", "max_output_tokens": 2}
        response = await _ask(client, "My order is 815.", **wish)
        assert (response["status"], response["output"]) == ("incomplete", [])


async def test_spoken_item(url: str, voice: Voice) -> None:
    """A user item that brings its audio is understood, answered, told in words and kept."""
    audio = base64.b64encode(wide(voice.synthesise("Are you open on Sunday?"))).decode()
    heard = {"input": {"transcription": {"model": "gpt-transcribe"}}}
    async with open_socket(url) as client:
        await client.send(type="session.update", session={"type": "realtime", "audio": heard})
        content = [{"type": "input_audio", "audio": audio}]
        item = {"id": "item_a", "type": "message", "role": "user", "content": content}
        await client.send(type="conversation.item.create", item=item)
        await client.send(type="response.create", response={"output_modalities": ["text"]})
        added = await client.wait("conversation.item.added")
        assert added["item"]["content"] == [{"type": "input_audio", "transcript": None}]
        told = await client.wait("conversation.item.input_audio_transcription.completed")
        assert (told["item_id"], "sunday" in told["transcript"].lower()) == ("item_a", True)
        answer = (await client.wait("response.done"))["response"]["output"][0]["content"][0]
        assert "Sunday" in answer["text"]
        await client.send(type="conversation.item.retrieve", item_id="item_a")
        (part,) = (await client.wait("conversation.item.retrieved"))["item"]["content"]
        assert part["transcript"] == told["transcript"]
        # It went through 8 kHz and back; the length stays.
        assert abs(len(part["audio"]) - len(audio)) < 100
        for event in client.events:
            check_event(event)


async def test_what_was_appended_is_kept(url: str, voice: Voice) -> None:
    """The audio of a committed turn can be had again, until its item is deleted."""
    question = wide(voice.synthesise("Hello there."))
    off = {"input": {"turn_detection": None}}
    async with open_socket(url) as client:
        await client.send(type="session.update", session={"type": "realtime", "audio": off})
        await client.append(question)
        await client.send(type="input_audio_buffer.commit")
        item_id = (await client.wait("input_audio_buffer.committed"))["item_id"]
        await client.send(type="conversation.item.retrieve", item_id=item_id)
        (part,) = (await client.wait("conversation.item.retrieved"))["item"]["content"]
        pcm = decode_item(part["audio"], {"type": "audio/pcm"}, "audio")
        assert abs(len(pcm) - len(question) // 3) < 16 * 64


def test_recordings_are_bounded() -> None:
    """Who speaks for an hour has the last two minutes kept."""
    kept = Recordings()
    minute = bytes(MOST_KEPT_MS * 8)
    for number in range(60):
        kept.keep(f"item_{number}", 0, minute)
    assert [kept.find(f"item_{number}", 0) is not None for number in (57, 58, 59)] == [0, 1, 1]
    kept.forget("item_59")
    assert kept.find("item_59", 0) is None


async def test_one_call_at_a_time(url: str) -> None:
    """Without parallel calls a response ends with its first."""
    async with open_socket(url) as client:
        response = await _ask(
            client,
            "Goodbye.",
            tools=[{"type": "function", "name": "hang_up"}],
            parallel_tool_calls=False,
        )
        assert [item["type"] for item in response["output"]] == ["message", "function_call"]
