"""Whatever a client does, in whatever order: every event is one of OpenAI's types, in its order."""

import asyncio
import base64
from collections import Counter
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.embedded.voice import Voice
from tests.embedded.caller import TIMEOUT_S, open_call
from tests.embedded.event_speech import wide
from tests.embedded.socket_client import open_socket
from tests.embedded.strict import check_event, check_orders

TEXT = {"output_modalities": ["text"]}
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather at a place.",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string"}},
        "required": ["place"],
    },
}
HEARD = {
    "type": "realtime",
    "tools": [WEATHER],
    "audio": {"input": {"transcription": {"model": "gpt-transcribe"}}},
}


def _item(text: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content, **fields}


class _Client(Protocol):
    events: list[dict[str, Any]]

    async def wait(self, kind: str, count: int = 1) -> dict[str, Any]: ...
    def kinds(self) -> list[str]: ...


async def _settled(client: _Client) -> None:
    """Wait until every response that began is done, and the limits after it are told."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            counted = Counter(client.kinds())
            if counted["response.created"] == counted["rate_limits.updated"]:
                return
            await asyncio.sleep(0.01)


def _check(client: _Client, *, over_rtp: bool) -> None:
    for event in client.events:
        check_event(event)
    check_orders(client.events, over_rtp=over_rtp)


class _Talk:
    """A conversation with everything in it; how events and speech travel is told from outside."""

    def __init__(self, client: Any, *, over_rtp: bool, voice: Voice) -> None:
        self.client = client
        self.over_rtp = over_rtp
        self.voice = voice

    async def send(self, **event: Any) -> None:
        if self.over_rtp:
            self.client.send(**event)
        else:
            await self.client.send(**event)

    async def speak(self, text: str) -> None:
        pcm = self.voice.synthesise(text) + bytes(16 * 900)
        if self.over_rtp:
            self.client.say(pcm)
        else:
            await self.client.append(wide(pcm))

    async def whole(self) -> None:
        client = self.client
        await self.send(type="session.update", session=HEARD)
        await client.wait("session.updated")
        # A spoken turn, with its words as they come.
        await self.speak(
            "What are your opening hours on Saturday, please, and what is your address?"
        )
        await client.wait("conversation.item.input_audio_transcription.completed")
        await client.wait("response.done")
        user = await client.wait("input_audio_buffer.committed")
        # A tool, its output, and the answer.
        await self.send(
            type="conversation.item.create", item=_item("What is the weather in Paris?")
        )
        await self.send(type="response.create", response=TEXT)
        call = await client.wait("response.function_call_arguments.done")
        await client.wait("response.done", 2)
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "{}"}
        await self.send(type="conversation.item.create", item=output)
        await self.send(type="response.create", response=TEXT)
        await client.wait("response.done", 3)
        # Beside the conversation, and two mistakes.
        aside = {"conversation": "none", "input": [_item("Where are you?")], **TEXT}
        await self.send(type="response.create", response=aside)
        await client.wait("response.done", 4)
        await self.send(type="response.cancel", event_id="wrong")
        assert (await client.wait("error"))["error"]["event_id"] == "wrong"
        await self.send(type="session.update", session={"type": "realtime", "temperature": 1})
        await client.wait("error", 2)
        # Cut by its limit, by the client, and by the caller.
        long = " ".join(f"This is sentence number {n} of a long speech." for n in range(30))
        say = {"instructions": f'Say "{long}"'}
        await self.send(type="response.create", response={**say, "max_output_tokens": 30})
        cut = await client.wait("response.done", 5)
        assert cut["response"]["status_details"]["reason"] == "max_output_tokens"
        await self.send(type="response.create", response=say)
        await client.wait("response.created", 6)
        await self.send(type="response.cancel")
        await client.wait("response.done", 6)
        if self.over_rtp:
            await self.send(type="output_audio_buffer.clear")
        await self.send(type="response.create", response=say)
        await client.wait("response.created", 7)
        await client.wait("response.output_audio_transcript.delta", 12)
        await self.speak("Stop, please, that is enough, thank you.")
        interrupted = await client.wait("response.done", 7)
        assert interrupted["response"]["status"] == "cancelled"
        item_id = interrupted["response"]["output"][0]["id"]
        if not self.over_rtp:
            await self.send(
                type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=10
            )
        truncated = await client.wait("conversation.item.truncated")
        if not self.over_rtp:
            assert truncated["item_id"] == item_id
        # What is kept, and what is forgotten.
        await self.send(type="conversation.item.retrieve", item_id=user["item_id"])
        kept = (await client.wait("conversation.item.retrieved"))["item"]["content"][0]
        assert kept["transcript"]
        assert ("audio" in kept) is not self.over_rtp
        await self.send(type="conversation.item.delete", item_id=user["item_id"])
        await client.wait("conversation.item.deleted")
        await self.send(type="input_audio_buffer.clear")
        await client.wait("input_audio_buffer.cleared")


async def test_over_websocket(url: str, voice: Voice) -> None:
    """A whole conversation with the audio in its events."""
    async with open_socket(url) as client:
        await _Talk(client, over_rtp=False, voice=voice).whole()
        await _settled(client)
        _check(client, over_rtp=False)
        assert "conversation.item.input_audio_transcription.delta" in client.kinds()


async def test_over_webrtc(url: str, voice: Voice) -> None:
    """A whole conversation with the audio over RTP."""
    async with open_call(url) as caller:
        await _Talk(caller, over_rtp=True, voice=voice).whole()
        await _settled(caller)
        _check(caller, over_rtp=True)
        assert "output_audio_buffer.cleared" in caller.kinds()


_SILENCE = base64.b64encode(bytes(4800)).decode()
_MOVES: list[dict[str, Any]] = [
    {"type": "session.update", "session": HEARD},
    {"type": "session.update", "session": {"type": "realtime", "tool_choice": "required"}},
    {"type": "session.update", "session": {"type": "realtime", "voice": "x"}},
    {"type": "input_audio_buffer.append", "audio": _SILENCE},
    {"type": "input_audio_buffer.append", "audio": "%"},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "conversation.item.create", "item": _item("Are you open on Sunday?")},
    {"type": "conversation.item.create", "item": _item("The weather in Rome?", id="item_a")},
    {"type": "conversation.item.create", "item": _item("No."), "previous_item_id": "root"},
    {"type": "conversation.item.create", "item": _item("Yes."), "previous_item_id": "item_a"},
    {"type": "conversation.item.retrieve", "item_id": "item_a"},
    {"type": "conversation.item.delete", "item_id": "item_a"},
    {
        "type": "conversation.item.truncate",
        "item_id": "item_a",
        "content_index": 0,
        "audio_end_ms": 1,
    },
    {"type": "response.create"},
    {"type": "response.create", "response": TEXT},
    {"type": "response.create", "response": {"max_output_tokens": 3}},
    {"type": "response.create", "response": {"tools": [WEATHER], "tool_choice": "required"}},
    {"type": "response.create", "response": {"conversation": "none", **TEXT}},
    {"type": "response.create", "response": {"input": [_item("Hello")], **TEXT}},
    {"type": "response.cancel"},
]


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(moves=st.lists(st.sampled_from(_MOVES), min_size=5, max_size=25))
async def test_any_order(url: str, moves: list[dict[str, Any]]) -> None:
    """Client events in any order, right and wrong, never break the order of the server's."""
    async with open_socket(url) as client:
        for move in moves:
            await client.send(**move)
        await client.send(type="no.such.event", event_id="last")
        async with asyncio.timeout(TIMEOUT_S):
            while not _has_answered(client.events, "last"):
                await asyncio.sleep(0.005)
        await _settled(client)
        _check(client, over_rtp=False)


def _has_answered(events: list[dict[str, Any]], event_id: str) -> bool:
    return any(e["type"] == "error" and e["error"]["event_id"] == event_id for e in events)


@pytest.mark.parametrize("over_rtp", [False, True], ids=["WebSocket", "WebRTC"])
async def test_transcription_session(url: str, voice: Voice, *, over_rtp: bool) -> None:
    """A session that only listens writes down what is said, and never answers."""
    session = {"type": "transcription"}
    opened = open_call(url, session) if over_rtp else open_socket(url, "intent=transcription")
    async with opened as client:
        created = (await client.wait("session.created"))["session"]
        assert created["type"] == "transcription"
        assert set(created["audio"]) == {"input"}
        talk = _Talk(client, over_rtp=over_rtp, voice=voice)
        model = {"input": {"transcription": {"model": "gpt-transcribe", "language": "en"}}}
        await talk.send(type="session.update", session={**session, "audio": model})
        updated = (await client.wait("session.updated"))["session"]
        assert updated["audio"]["input"]["transcription"]["language"] == "en"
        await talk.speak("What are your opening hours on Saturday?")
        heard = await client.wait("conversation.item.input_audio_transcription.completed")
        assert "saturday" in heard["transcript"].lower()
        for kind in ("response.create", "response.cancel", "output_audio_buffer.clear"):
            await talk.send(type=kind, event_id=kind)
        await talk.send(type="session.update", event_id="no", session={"type": "realtime"})
        await client.wait("error", 4)
        errors = [e["error"] for e in client.events if e["type"] == "error"]
        assert {(e["code"], e["param"]) for e in errors} == {
            ("invalid_value", "type"),
            ("invalid_value", "session.type"),
        }
        assert not [kind for kind in client.kinds() if kind.startswith(("response", "output"))]
        _check(client, over_rtp=over_rtp)
