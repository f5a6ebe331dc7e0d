"""A language model answers in the rules' place: as it streams, in words and in tool calls."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from pydantic import SecretStr

from agent.embedded.chat import ChatFailed, ChatModel, Reading, messages
from agent.embedded.engines import Engines
from agent.embedded.mind import CallTool, Say, Step
from agent.embedded.offers import Tool
from agent.embedded.server import RealtimeServer
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.voice import Voice
from tests.embedded.caller import open_call
from tests.embedded.model import STALL, call, open_model, words
from tests.embedded.test_conversation import SESSION

TOOLS = {"weather": Tool("weather", {"type": "object", "properties": {}}, "The weather.")}


def read(lines: list[str]) -> list[Step]:
    reading = Reading(TOOLS)
    return [step for line in lines for step in reading.line(line)] + reading.end()


@pytest.mark.parametrize(
    ("lines", "steps"),
    [
        pytest.param(
            words("We are", " open. Do", " come", " by!"),
            [Say("We are open."), Say("Do come by!")],
            id="sentences",
        ),
        pytest.param(
            words("It is 7", ".5 degrees. ", "Fine."),
            [Say("It is 7.5 degrees."), Say("Fine.")],
            id="a number is no end",
        ),
        pytest.param(words("**Yes**, `we` do."), [Say("Yes, we do.")], id="no markup"),
        pytest.param(
            call("weather", '{"pla', 'ce": "Rome"}'),
            [CallTool("weather", {"place": "Rome"})],
            id="a call in pieces",
        ),
        pytest.param(
            [*words("Let me look.")[:1], *call("weather")],
            [Say("Let me look."), CallTool("weather", {})],
            id="words and a call",
        ),
        pytest.param([": keep-alive", "", *words("Hi.")], [Say("Hi.")], id="comments"),
        pytest.param(['data: {"choices": []}', *words("Hi.")], [Say("Hi.")], id="no choice"),
    ],
)
def test_reading(lines: list[str], steps: list[Step]) -> None:
    """A stream becomes sentences and calls."""
    assert read(lines) == steps


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["data: {"], id="no JSON"),
        pytest.param(["data: 7"], id="no object"),
        pytest.param(['data: {"choices": [{"delta": {"content": 7}}]}'], id="no text"),
        pytest.param(['data: {"error": {"message": "out of memory"}}'], id="an error"),
        pytest.param(call("rm"), id="an unknown tool"),
        pytest.param(call("weather", "{"), id="broken arguments"),
        pytest.param(call("weather", "[]"), id="odd arguments"),
        pytest.param(["data: [DONE]"], id="nothing"),
    ],
)
def test_nonsense(lines: list[str]) -> None:
    """What no model should send is one kind of failure."""
    with pytest.raises(ChatFailed):
        read(lines)


def test_sentences_come_early() -> None:
    """The first sentence is told as soon as the second begins."""
    reading = Reading(TOOLS)
    told = [reading.line(line) for line in words("We are open. ", "Today", " until six.")]
    assert told == [[], [Say("We are open.")], [], []]


def test_endless_answer() -> None:
    """A model that never stops is stopped."""
    reading = Reading({})
    for _ in range(2000):
        reading.line(words("And on. ")[0])
        if reading.is_done:
            break
    assert reading.is_done


def test_messages() -> None:
    """The model is told everything said so far, each call with its output."""
    items: list[dict[str, Any]] = [
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": "Hi"}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        },
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "7"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_audio", "transcript": "Seven degrees."}],
        },
    ]
    told = messages("Be kind.", items, "Say goodbye.")
    assert [message["role"] for message in told] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "system",
    ]
    assert told[0]["content"].startswith("Be kind.")
    assert told[2]["tool_calls"][0]["id"] == told[3]["tool_call_id"] == "c1"
    assert told[-1]["content"] == "Say goodbye."


def chat_settings(url: str) -> EmbeddedSettings:
    return EmbeddedSettings(chat_url=url, chat_model="tiny", chat_api_key=SecretStr("sesame"))


async def test_request() -> None:
    """The server is asked for its model, with the key, and its stream is read."""
    async with open_model() as server:
        server.answers = [words("Hello. ", "Yes?"), 500]
        model = ChatModel(chat_settings(server.url))
        asked = messages("Be kind.", [])
        assert [step async for step in model.answer(asked, TOOLS)] == [Say("Hello."), Say("Yes?")]
        with pytest.raises(ChatFailed, match="500"):
            [step async for step in model.answer(asked, {})]
        await model.close()
    first, second = server.requests
    assert (first["model"], first["stream"], server.keys[0]) == ("tiny", True, "Bearer sesame")
    assert first["tools"][0]["function"]["name"] == "weather"
    assert "tools" not in second
    assert "sesame" not in json.dumps(server.requests)


async def test_conversation_with_a_model(engines: Engines, voice: Voice) -> None:
    """On the telephone the model answers, calls a tool and is cut short; its failure is spoken."""
    async with open_model() as server, open_server(engines, server.url) as url:
        server.answers = [
            call("weather", '{"place": "Rome"}'),
            words("It is warm. ", "Very warm."),
            [*words("Let me tell you a story. ", *["It goes on and on. "] * 20)[:-1], STALL],
            503,
        ]
        async with open_call(url, SESSION) as caller:
            caller.send(type="response.create", response={"instructions": 'Say "Hello there."'})
            await caller.wait("output_audio_buffer.stopped")
            assert caller.transcripts() == ["Hello there."]
            assert server.requests == []

            caller.say(voice.synthesise("What is the weather like in Rome?"))
            called = await caller.wait("response.function_call_arguments.done")
            assert json.loads(called["arguments"]) == {"place": "Rome"}
            await caller.wait("response.done", 2)
            item = {"type": "function_call_output", "call_id": called["call_id"], "output": "28"}
            caller.send(type="conversation.item.create", item=item)
            caller.send(type="response.create")
            await caller.wait("output_audio_buffer.stopped", 2)
            assert caller.transcripts()[-1] == "It is warm. Very warm."
            told = server.requests[1]["messages"]
            assert [m["role"] for m in told[-3:]] == ["user", "assistant", "tool"]
            assert "rome" in told[-3]["content"].lower()

            caller.say(voice.synthesise("Please tell me a story."))
            await caller.wait("output_audio_buffer.started", 3)
            caller.say(voice.synthesise("Stop, that is enough, thank you."))
            await caller.wait("output_audio_buffer.cleared")
            async with asyncio.timeout(5):
                await server.hung_up.wait()

            await caller.wait("output_audio_buffer.stopped", 3)
            assert "cannot answer just now" in caller.transcripts()[-1]


@asynccontextmanager
async def open_server(engines: Engines, chat_url: str) -> AsyncIterator[str]:
    """An embedded server whose mind is the model at that URL."""
    engines.chat = ChatModel(chat_settings(chat_url))
    server = RealtimeServer(EmbeddedSettings(), engines)
    config = uvicorn.Config(
        server.app, host="127.0.0.1", port=0, ws="none", lifespan="off", log_config=None
    )
    web = uvicorn.Server(config)
    try:
        async with server.running():
            serving = asyncio.create_task(web.serve())
            async with asyncio.timeout(5):
                while not web.started:
                    await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}/v1"
            web.should_exit = True
            await serving
    finally:
        await engines.chat.close()
        engines.chat = None


async def test_unreachable(free_url: str) -> None:
    """A model that is not there fails at once."""
    model = ChatModel(chat_settings(free_url))
    async with asyncio.timeout(5):
        with pytest.raises(ChatFailed):
            [step async for step in model.answer(messages("", []), {})]
    await model.close()


async def test_stopped_listening() -> None:
    """Whoever stops listening ends the request at the model's side."""
    async with open_model() as server:
        server.answers = [[*words("Well. ", "You see. ")[:2], STALL]]
        model = ChatModel(chat_settings(server.url))

        async def talk() -> None:
            async for _ in model.answer(messages("", []), {}):
                heard.set()

        heard = asyncio.Event()
        talking = asyncio.create_task(talk())
        async with asyncio.timeout(5):
            await heard.wait()
            talking.cancel()
            await server.hung_up.wait()
        await asyncio.gather(talking, return_exceptions=True)
        await model.close()


@pytest.fixture
def free_url() -> str:
    """An address nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/v1"
