"""Responses beside the conversation, with their own input, and after a long silence."""

import asyncio
from typing import Any

import pytest

from agent.embedded.answers import STILL_THERE
from agent.embedded.engines import Engines
from agent.embedded.server import RealtimeServer
from agent.embedded.voice import Voice
from tests.embedded.caller import TIMEOUT_S, open_call
from tests.embedded.event_speech import wide
from tests.embedded.scripted import QUIET, scripted
from tests.embedded.socket_client import open_socket


def _said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


async def test_outside_the_conversation(url: str) -> None:
    """Two responses run at once outside the conversation and leave no item in it."""
    async with open_socket(url) as client:
        for purpose, question in (("a", "What is your address?"), ("b", "Are you open on Sunday?")):
            await client.send(
                type="response.create",
                response={
                    "conversation": "none",
                    "output_modalities": ["text"],
                    "metadata": {"purpose": purpose},
                    "input": [_said(question)],
                },
            )
        await client.send(
            type="response.create",
            response={"instructions": 'Say "Hello."', "output_modalities": ["text"]},
        )
        await client.wait("response.done", 3)
        done = [event for event in client.events if event["type"] == "response.done"]
        replies = {(e["response"]["metadata"] or {}).get("purpose"): e["response"] for e in done}
        assert replies["a"]["conversation_id"] is None
        assert replies[None]["conversation_id"].startswith("conv_")
        assert "Sunday" in replies["b"]["output"][0]["content"][0]["text"]
        assert replies["a"]["output"][0]["content"] != replies["b"]["output"][0]["content"]
        added = [e["item"]["id"] for e in client.events if e["type"] == "conversation.item.added"]
        assert added == [replies[None]["output"][0]["id"]]


async def test_input_replaces_what_was_said(url: str) -> None:
    """A response answers the items it is given, by value or by reference."""
    async with open_socket(url) as client:
        await client.send(
            type="conversation.item.create",
            item={"id": "item_q", **_said("Are you open on Sunday?")},
        )
        await client.send(
            type="response.create",
            response={
                "output_modalities": ["text"],
                "input": [{"type": "item_reference", "id": "item_q"}],
            },
        )
        done = await client.wait("response.done")
        assert "Sunday" in done["response"]["output"][0]["content"][0]["text"]


async def test_cancel_one_of_them(url: str) -> None:
    """response.cancel ends the response it names, and the speech of it."""
    async with open_socket(url) as client:
        text = " ".join(f"This is sentence {n}." for n in range(60))
        await client.send(
            type="response.create",
            response={"conversation": "none", "instructions": f'Say "{text}"'},
        )
        response_id = (await client.wait("response.created"))["response"]["id"]
        await client.wait("response.output_audio.delta")
        await client.send(type="response.cancel", response_id=response_id)
        done = await client.wait("response.done")
        assert (done["response"]["id"], done["response"]["status"]) == (response_id, "cancelled")
        await client.send(type="response.cancel", response_id=response_id)
        assert (await client.wait("error"))["error"]["code"] == "response_cancel_not_active"


@pytest.mark.parametrize(
    ("response", "param"),
    [
        pytest.param({"conversation": "mine"}, "response.conversation", id="conversation"),
        pytest.param({"conversation": []}, "response.conversation", id="conversation is a list"),
        pytest.param({"input": "hello"}, "response.input", id="input is no list"),
        pytest.param({"input": [{"type": {}}]}, "item.type", id="type is an object"),
        pytest.param(
            {"input": [{"type": "message", "role": [], "content": []}]},
            "item.role",
            id="role is a list",
        ),
        pytest.param(
            {"input": [{"type": "message", "role": "user", "content": [{"type": []}]}]},
            "item.content",
            id="part type is a list",
        ),
        pytest.param(
            {"audio": {"output": {"format": {"type": []}}}},
            "response.audio.output.format",
            id="format is a list",
        ),
        pytest.param({"input": [{"type": "x"}]}, "item.type", id="unknown item"),
        pytest.param(
            {
                "input": [
                    {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_audio", "audio": "AAAA"}],
                    }
                ]
            },
            "response.input",
            id="audio that nobody has heard yet",
        ),
        pytest.param(
            {"input": [{"type": "item_reference", "id": "item_x"}]}, "item_id", id="unknown id"
        ),
        pytest.param({"metadata": {"a": 5}}, "response.metadata", id="metadata"),
        pytest.param({"tools": 5}, "response.tools", id="tools"),
        pytest.param({"max_output_tokens": 0}, "response.max_output_tokens", id="no tokens"),
        pytest.param({"audio": {"input": {}}}, "response.audio", id="audio input"),
        pytest.param(
            {"audio": {"output": {"format": {"type": "audio/mp3"}}}},
            "response.audio.output.format",
            id="format",
        ),
    ],
)
async def test_bad_response(url: str, response: dict[str, Any], param: str) -> None:
    """A response that cannot be made is refused, names the field, and nothing begins."""
    async with open_socket(url) as client:
        await client.send(type="response.create", response=response)
        assert (await client.wait("error"))["error"]["param"] == param
        assert "response.created" not in client.kinds()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("tool_choice", 5, id="tool_choice"),
        pytest.param("max_output_tokens", "many", id="max_output_tokens"),
        pytest.param(
            "audio",
            {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": -1}}},
            id="idle_timeout_ms",
        ),
    ],
)
async def test_bad_session(url: str, field: str, value: object) -> None:
    """A session field of the wrong type refuses the event and names the field."""
    async with open_socket(url) as client:
        await client.send(type="session.update", session={"type": "realtime", field: value})
        error = (await client.wait("error"))["error"]
        assert error["code"] == "invalid_value"
        assert error["param"].startswith(f"session.{field}")


async def test_idle_timeout(url: str) -> None:
    """A caller who says nothing for so long after an answer is spoken to again (S8)."""
    detection = {"type": "server_vad", "idle_timeout_ms": 300}
    session = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
    async with open_socket(url) as client:
        await client.send(type="session.update", session=session)
        await client.wait("session.updated")
        await client.append(bytes(48 * 1000))
        await client.send(type="response.create", response={"instructions": 'Say "Hello."'})
        await client.wait("response.done")
        played_ms = len(client.audio()) // 48
        await client.append(bytes(48 * (played_ms + 500)))
        triggered = await client.wait("input_audio_buffer.timeout_triggered")
        assert triggered["audio_end_ms"] - triggered["audio_start_ms"] in range(300, 400)
        await client.wait("response.done", 2)
        at = client.kinds().index("input_audio_buffer.timeout_triggered")
        assert client.kinds()[at : at + 5] == [
            "input_audio_buffer.timeout_triggered",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
        ]
        said = await client.wait("response.output_audio_transcript.done", 2)
        assert said["transcript"] == STILL_THERE


async def test_idle_after_what_needs_no_answer(engines: Engines, voice: Voice) -> None:
    """A caller who only coughed, and then says nothing, is asked all the same."""
    async with scripted(engines, QUIET, key="") as far, open_socket(far.url) as client:
        detection = {"type": "server_vad", "idle_timeout_ms": 300}
        audio = {"input": {"turn_detection": detection}}
        await client.send(type="session.update", session={"type": "realtime", "audio": audio})
        await client.append(wide(bytes(8000) + voice.synthesise("Ahem.") + bytes(16_000)))
        await client.wait("input_audio_buffer.committed")
        # No event tells that a turn needs no answer: silence goes on until it is noticed.
        async with asyncio.timeout(TIMEOUT_S):
            while "input_audio_buffer.timeout_triggered" not in client.kinds():
                await client.append(bytes(4800))
                await asyncio.sleep(0)
        await client.wait("response.done")


async def test_text_that_is_no_text(url: str, server: RealtimeServer) -> None:
    """A text message that is not UTF-8 is refused; the call and its voice go on."""
    async with open_call(url) as caller:
        sctp: Any = caller.pc.sctp
        await sctp._send(caller.channel.id, 51, b"\xff\xfe{")
        assert (await caller.wait("error"))["error"]["code"] == "invalid_event"
        caller.send(type="response.create", response={"instructions": 'Say "Still here."'})
        await caller.wait("output_audio_buffer.stopped")
        assert server.call_count == 1
