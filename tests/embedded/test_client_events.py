"""Every client event there is: what answers it, and what answers it when it is wrong."""

import json
from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest
from openai.types.realtime import RealtimeClientEvent

from tests.embedded.socket_client import SocketClient, open_socket
from tests.embedded.strict import check_event

TEXT = {"type": "input_text", "text": "Are you open on Sunday?"}
ITEM = {"id": "item_a", "type": "message", "role": "user", "content": [TEXT]}
MISSING, WRONG = "missing_required_parameter", "invalid_value"


def _item(**fields: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": {**ITEM, "id": "item_b", **fields}}


def _session(**fields: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **fields}}


def _input(**fields: Any) -> dict[str, Any]:
    return _session(audio={"input": fields})


def _truncate(**fields: Any) -> dict[str, Any]:
    event = {"item_id": "item_said", "content_index": 0, "audio_end_ms": 10}
    return {"type": "conversation.item.truncate", **event, **fields}


HONOURED: list[tuple[dict[str, Any], str]] = [
    (_session(), "session.updated"),
    ({"type": "input_audio_buffer.append", "audio": "AAAA" * 1600}, ""),
    ({"type": "input_audio_buffer.commit"}, "input_audio_buffer.committed"),
    ({"type": "input_audio_buffer.clear"}, "input_audio_buffer.cleared"),
    # Its client plays the audio itself: there is no such buffer here.
    ({"type": "output_audio_buffer.clear"}, "error"),
    ({"type": "conversation.item.create", "item": ITEM}, "conversation.item.done"),
    ({"type": "conversation.item.retrieve", "item_id": "item_a"}, "conversation.item.retrieved"),
    ({"type": "conversation.item.delete", "item_id": "item_a"}, "conversation.item.deleted"),
    ({"type": "response.create", "response": {"instructions": 'Say "One."'}}, "response.created"),
    ({"type": "response.cancel"}, "response.done"),
    ({"type": "conversation.item.truncate"}, "error"),
]


def _types() -> set[str]:
    kinds = get_args(get_args(RealtimeClientEvent)[0])
    return {get_args(kind.model_fields["type"].annotation)[0] for kind in kinds}


async def test_every_type_is_answered(url: str) -> None:
    """Each type of client event that OpenAI's package knows is honoured, or refused in words."""
    assert {event["type"] for event, _ in HONOURED} == _types()
    async with open_socket(url) as client:
        await client.send(**_input(turn_detection=None))
        await client.wait("session.updated")
        for event, answer in HONOURED:
            before = client.kinds().count(answer)
            await client.send(**event)
            if answer:
                await client.wait(answer, before + 1)
        errors = [e["error"] for e in client.events if e["type"] == "error"]
        assert [error["code"] for error in errors] == ["invalid_event", MISSING]


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        pytest.param(_item(id="item_said"), WRONG, "item.id", id="duplicate item id"),
        pytest.param(_item(id=5), WRONG, "item.id", id="item id is a number"),
        pytest.param(
            {**_item(), "previous_item_id": "item_x"},
            WRONG,
            "previous_item_id",
            id="unknown previous item",
        ),
        pytest.param({"type": "conversation.item.create"}, MISSING, "item", id="no item"),
        pytest.param(_item(type="mcp_call"), WRONG, "item.type", id="an item clients cannot make"),
        pytest.param(_item(role="robot"), WRONG, "item.role", id="role"),
        pytest.param(_item(content="text"), MISSING, "item.content", id="content is text"),
        pytest.param(
            _item(role="system", content=[{"type": "input_audio", "audio": "AAAA"}]),
            WRONG,
            "item.content",
            id="a system that speaks",
        ),
        pytest.param(
            _item(content=[{"type": "input_image", "image_url": "data:"}]),
            WRONG,
            "item.content",
            id="image",
        ),
        pytest.param(
            _item(content=[{"type": "input_audio"}]),
            MISSING,
            "item.content[0].audio",
            id="no audio",
        ),
        pytest.param(
            _item(content=[TEXT, {"type": "input_audio", "audio": "%"}]),
            WRONG,
            "item.content[1].audio",
            id="item audio is not base64",
        ),
        pytest.param(
            _item(content=[{"type": "input_audio", "audio": "AAAA"}]),
            WRONG,
            "item.content[0].audio",
            id="half a sample of item audio",
        ),
        pytest.param(
            _item(content=[{"type": "input_audio", "audio": "AAAA" * 1_000_000}]),
            WRONG,
            "item.content[0].audio",
            id="over a minute of item audio",
        ),
        pytest.param(
            _item(content=[{"type": "input_text", "text": "x" * 70_000}]),
            WRONG,
            "item",
            id="item too long",
        ),
        pytest.param(
            _item(type="function_call", name="a", arguments="{}", call_id=[]),
            WRONG,
            "item.call_id",
            id="call id is a list",
        ),
        pytest.param(
            _item(type="function_call_output", output="x"), MISSING, "item.call_id", id="no call id"
        ),
        pytest.param(
            _item(type="function_call_output", call_id="a", output={}),
            WRONG,
            "item.output",
            id="output is an object",
        ),
        pytest.param(
            {"type": "conversation.item.retrieve"}, MISSING, "item_id", id="retrieve none"
        ),
        pytest.param(
            {"type": "conversation.item.retrieve", "item_id": "x"},
            WRONG,
            "item_id",
            id="retrieve x",
        ),
        pytest.param({"type": "conversation.item.delete"}, MISSING, "item_id", id="delete none"),
        pytest.param(
            {"type": "conversation.item.delete", "item_id": []},
            WRONG,
            "item_id",
            id="delete a list",
        ),
        pytest.param(_truncate(audio_end_ms=10**9), WRONG, "audio_end_ms", id="truncate beyond"),
        pytest.param(_truncate(audio_end_ms=-1), WRONG, "audio_end_ms", id="truncate before"),
        pytest.param(_truncate(audio_end_ms=0.5), WRONG, "audio_end_ms", id="truncate half a ms"),
        pytest.param(_truncate(content_index=1), WRONG, "content_index", id="truncate part 1"),
        pytest.param(_truncate(item_id="item_typed"), WRONG, "item_id", id="truncate a user item"),
        pytest.param(_truncate(item_id="item_x"), WRONG, "item_id", id="truncate unknown"),
        pytest.param({"type": "session.update"}, MISSING, "session", id="no session"),
        pytest.param({"type": "session.update", "session": 5}, WRONG, "session", id="number"),
        pytest.param(
            {"type": "session.update", "session": {}}, MISSING, "session.type", id="no session type"
        ),
        pytest.param(
            {"type": "session.update", "session": {"type": "translation"}},
            WRONG,
            "session.type",
            id="session type",
        ),
        pytest.param(
            {"type": "session.update", "session": {"type": "transcription"}},
            WRONG,
            "session.type",
            id="too late to only listen",
        ),
        pytest.param(_session(model="other"), WRONG, "session.model", id="model"),
        pytest.param(_session(instructions=5), WRONG, "session.instructions", id="instructions"),
        pytest.param(
            _session(output_modalities=["audio", "text"]),
            WRONG,
            "session.output_modalities",
            id="both modalities",
        ),
        pytest.param(_session(tools={}), WRONG, "session.tools", id="tools"),
        pytest.param(
            _session(tools=[{"type": "mcp", "server_label": "x", "server_url": "y"}]),
            WRONG,
            "session.tools[0]",
            id="MCP",
        ),
        pytest.param(
            _session(tools=[{"type": "function", "name": "a", "function": {}}]),
            "unknown_parameter",
            "session.tools[0].function",
            id="a chat completions tool",
        ),
        pytest.param(_session(tool_choice="a"), WRONG, "session.tool_choice", id="tool_choice"),
        pytest.param(_session(parallel_tool_calls=1), WRONG, "session.parallel_tool_calls", id="1"),
        pytest.param(
            _session(reasoning={"effort": "much"}), WRONG, "session.reasoning.effort", id="effort"
        ),
        pytest.param(
            _session(max_output_tokens=5000), WRONG, "session.max_output_tokens", id="many tokens"
        ),
        pytest.param(
            _session(truncation={"type": "retention_ratio", "retention_ratio": 2}),
            WRONG,
            "session.truncation.retention_ratio",
            id="truncation",
        ),
        pytest.param(_session(tracing="off"), WRONG, "session.tracing", id="tracing"),
        pytest.param(_session(prompt={"id": "pmpt_1"}), WRONG, "session.prompt", id="prompt"),
        pytest.param(_session(include=["x"]), WRONG, "session.include", id="include"),
        pytest.param(
            _session(temperature=1), "unknown_parameter", "session.temperature", id="beta field"
        ),
        pytest.param(
            _input(noise_reduction={"type": "x"}),
            WRONG,
            "session.audio.input.noise_reduction.type",
            id="noise_reduction",
        ),
        pytest.param(
            _input(transcription={"model": 5}),
            WRONG,
            "session.audio.input.transcription.model",
            id="transcription model",
        ),
        pytest.param(
            _input(transcription={"speed": 5}),
            "unknown_parameter",
            "session.audio.input.transcription.speed",
            id="transcription field",
        ),
        pytest.param(
            _input(format={"type": "audio/pcm", "rate": 16000}),
            WRONG,
            "session.audio.input.format.rate",
            id="16 kHz",
        ),
        pytest.param(
            _input(turn_detection={"type": "server_vad", "threshold": 1.5}),
            WRONG,
            "session.audio.input.turn_detection.threshold",
            id="threshold",
        ),
        pytest.param(
            _input(turn_detection={"type": "semantic_vad", "threshold": 0.5}),
            "unknown_parameter",
            "session.audio.input.turn_detection.threshold",
            id="threshold of semantic_vad",
        ),
        pytest.param(
            _session(audio={"output": {"voice": "cedar"}}),
            "cannot_update_voice",
            "session.audio.output.voice",
            id="voice after it was heard",
        ),
        pytest.param(
            _session(audio={"output": {"speed": 2}}),
            WRONG,
            "session.audio.output.speed",
            id="speed",
        ),
        pytest.param({"type": "response.cancel"}, "response_cancel_not_active", None, id="cancel"),
        pytest.param(
            {"type": "response.create", "response": {"tool_choice": "required"}},
            WRONG,
            "response.tool_choice",
            id="a call without tools",
        ),
        pytest.param(
            {
                "type": "response.create",
                "response": {"tool_choice": {"type": "function", "name": "x"}},
            },
            WRONG,
            "response.tool_choice",
            id="a tool that is not there",
        ),
        pytest.param(
            {"type": "response.create", "response": {"parallel_tool_calls": "no"}},
            WRONG,
            "response.parallel_tool_calls",
            id="parallel_tool_calls",
        ),
        pytest.param(
            {"type": "input_audio_buffer.commit"},
            "input_audio_buffer_commit_empty",
            None,
            id="commit of nothing",
        ),
        pytest.param({"type": "session.close"}, WRONG, "type", id="unknown type"),
    ],
)
async def test_wrong(
    talked: tuple[SocketClient, str], event: Any, code: str, param: str | None
) -> None:
    """Each mistake has its code and names its field; it changes nothing, and the session lives on."""
    client, said = talked
    before = client.kinds()
    text = json.dumps({**event, "event_id": "mine"}).replace("item_said", said)
    await client.connection.send(text)
    error = (await client.wait("error"))["error"]
    assert (error["code"], error["param"], error["event_id"]) == (code, param, "mine")
    assert client.kinds() == [*before, "error"]
    await client.send(**_session())
    check_event(await client.wait("session.updated"))


@pytest.fixture
async def talked(url: str) -> AsyncIterator[tuple[SocketClient, str]]:
    """A session with an item that was typed, and the id of one that was spoken."""
    async with open_socket(url) as client:
        await client.send(type="conversation.item.create", item={**ITEM, "id": "item_typed"})
        await client.send(type="response.create", response={"instructions": 'Say "One."'})
        done = await client.wait("response.done")
        await client.wait("rate_limits.updated")
        said = done["response"]["output"][0]["id"]
        yield client, said


SETTABLE: list[tuple[str, Any]] = [
    ("instructions", "Be kind."),
    ("output_modalities", ["text"]),
    ("tools", [{"type": "function", "name": "a", "description": "b", "parameters": {}}]),
    ("tool_choice", {"type": "function", "name": "a"}),
    ("parallel_tool_calls", False),
    ("reasoning", {"effort": "low"}),
    ("max_output_tokens", 4096),
    ("truncation", {"type": "retention_ratio", "retention_ratio": 0.8}),
    ("tracing", "auto"),
    ("prompt", None),
    ("include", ["item.input_audio_transcription.logprobs"]),
]


async def test_every_session_field(url: str) -> None:
    """Each field is taken and echoed, at its place, in a session of OpenAI's type."""
    async with open_socket(url) as client:
        for number, (field, value) in enumerate(SETTABLE, 1):
            await client.send(**_session(**{field: value}))
            updated = await client.wait("session.updated", number)
            assert updated["session"][field] == value
            check_event(updated)
        audio = {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {
                    "model": "gpt-realtime-whisper",
                    "languages": ["en"],
                    "keywords": ["rye"],
                    "prompt": "A bakery.",
                    "delay": "low",
                },
                "noise_reduction": {"type": "near_field"},
                "turn_detection": {
                    "type": "semantic_vad",
                    "eagerness": "high",
                    "create_response": False,
                    "interrupt_response": True,
                },
            },
            "output": {"format": {"type": "audio/pcma"}, "voice": "cedar", "speed": 1.25},
        }
        await client.send(**_session(audio=audio))
        updated = await client.wait("session.updated", len(SETTABLE) + 1)
        assert updated["session"]["audio"] == audio
        check_event(updated)
