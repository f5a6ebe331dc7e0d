"""A language model answers in the rules' place: over its own HTTP, and through a whole session."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from pydantic import SecretStr
from structlog.testing import capture_logs

from agent.embedded.chat import ChatModel
from agent.embedded.chat_request import Question
from agent.embedded.chat_stream import ChatFailed
from agent.embedded.engines import Engines
from agent.embedded.mind import Say
from agent.embedded.offers import Tool
from agent.embedded.response import OutOfTokens
from agent.embedded.server import RealtimeServer, web_config
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.voice import Voice
from tests.embedded.caller import open_call
from tests.embedded.model import DIE, PING, STALL, ModelServer, call, chunk, open_model, words
from tests.embedded.socket_client import SocketClient, open_socket
from tests.embedded.test_conversation import SESSION

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
ASKED = Question([{"role": "user", "content": "Hi"}])


def chat_settings(url: str, timeout_s: float = 10) -> EmbeddedSettings:
    return EmbeddedSettings(
        chat_url=url, chat_model="tiny", chat_api_key=SecretStr("sesame"), chat_timeout_s=timeout_s
    )


@asynccontextmanager
async def open_server(engines: Engines, chat_url: str, timeout_s: float = 10) -> AsyncIterator[str]:
    """An embedded server whose mind is the model at that URL."""
    engines.chat = ChatModel(chat_settings(chat_url, timeout_s))
    server = RealtimeServer(EmbeddedSettings(), engines)
    config = web_config(server.app)
    config.host, config.port = "127.0.0.1", 0
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


async def write(client: SocketClient, text: str) -> None:
    """Type what a caller would say."""
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await client.send(type="conversation.item.create", item=item)


def told(server: ModelServer, request: int = -1) -> list[tuple[str, str]]:
    """What the model was told, without the instructions."""
    messages = server.requests[request]["messages"]
    return [(m["role"], m["content"]) for m in messages if m["role"] != "system"]


# -- the model's own HTTP ----------------------------------------------------------------------


async def test_request() -> None:
    """The server is asked for its model, with the key, and its stream is read."""
    async with open_model() as server:
        server.answers = [words("Hello. ", "Yes?")]
        model = ChatModel(chat_settings(server.url))
        tools = {"weather": Tool("weather", {}, "The weather.")}
        asked = Question(ASKED.messages, tools)
        assert [part async for part in model.answer(asked)] == [Say("Hello."), Say("Yes?")]
        await model.close()
    request = server.requests[0]
    assert (request["model"], request["stream"], server.keys) == ("tiny", True, ["Bearer sesame"])
    assert request["tools"][0]["function"]["name"] == "weather"
    assert "sesame" not in json.dumps(request)


FAILURES = [
    pytest.param(400, "does not like the request", id="400"),
    pytest.param(401, "CHAT_API_KEY", id="wrong key"),
    pytest.param(404, "chat_url", id="wrong address or model"),
    pytest.param(429, "too much to do", id="too busy"),
    pytest.param(500, "its own log", id="its own fault"),
    pytest.param(["<html>"], "no event stream", id="a web page"),
    pytest.param(["data: " + "x" * 600_000], "cannot be read", id="a line without end"),
    pytest.param([DIE], "hung up", id="dies at once"),
    pytest.param([*words("We are open. It")[:-1], DIE], "hung up", id="dies in the middle"),
    pytest.param(words("We are open. It")[:-1], "broke off", id="ends in the middle"),
    pytest.param([STALL], "for 0.3 seconds", id="says nothing"),
    pytest.param([PING], "for 0.3 seconds", id="mere signs of life"),
]


@pytest.mark.parametrize(("answer", "reason"), FAILURES)
async def test_failure(answer: list[str] | int, reason: str) -> None:
    """Whatever goes wrong at the model's side is told in words, in time, and without the key."""
    async with open_model() as server:
        server.answers = [answer]
        model = ChatModel(chat_settings(server.url, 0.3))
        async with asyncio.timeout(10):
            with pytest.raises(ChatFailed, match=reason) as failed:
                [part async for part in model.answer(ASKED)]
        await model.close()
    assert "sesame" not in f"{failed.value!r} {failed.value.__cause__!r}"


async def test_unreachable(free_url: str) -> None:
    """A model that is not there fails at once, and it is said what to look at."""
    model = ChatModel(chat_settings(free_url))
    async with asyncio.timeout(5):
        with pytest.raises(ChatFailed, match="is it running"):
            [part async for part in model.answer(ASKED)]
    await model.close()


async def test_out_of_tokens() -> None:
    """An answer that its limit of tokens cut says what there was."""
    async with open_model() as server:
        server.answers = [[chunk({"content": "We are open. From"}, "length"), "data: [DONE]"]]
        model = ChatModel(chat_settings(server.url))
        answer = model.answer(ASKED)
        assert [await anext(answer), await anext(answer)] == [Say("We are open."), Say("From")]
        with pytest.raises(OutOfTokens):
            await anext(answer)
        await model.close()


async def test_stopped_listening() -> None:
    """Whoever stops listening ends the request at the model's side."""
    async with open_model() as server:
        server.answers = [[*words("Well. ", "You see. ")[:2], STALL]]
        model = ChatModel(chat_settings(server.url))

        async def talk() -> None:
            async for _ in model.answer(ASKED):
                heard.set()

        heard = asyncio.Event()
        talking = asyncio.create_task(talk())
        async with asyncio.timeout(5):
            await heard.wait()
            talking.cancel()
            await server.hung_up.wait()
        await asyncio.gather(talking, return_exceptions=True)
        await model.close()


# -- through a session -------------------------------------------------------------------------


async def test_conversation_with_a_model(engines: Engines, voice: Voice) -> None:
    """On the telephone the model answers, calls a tool and is cut short; it knows what was heard.

    The greeting is said as the client wrote it, and a failure is spoken about.
    """
    story = [f"This is sentence number {number} of it. " for number in range(1, 30)]
    async with open_model() as server, open_server(engines, server.url) as url:
        server.answers = [
            call("weather", '{"place": "Rome"}'),
            words("It is warm. ", "Very warm."),
            [*words("Let me tell you a story. ", *story)[:-1], STALL],
            503,
        ]
        async with open_call(url, SESSION) as caller:
            greeting = 'Say exactly these words, and nothing else: "Hello there."'
            caller.send(type="response.create", response={"instructions": greeting})
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
            roles = [m["role"] for m in server.requests[1]["messages"]]
            assert roles == ["system", "user", "assistant", "user", "assistant", "tool"]
            assert "rome" in told(server)[2][1].lower()

            caller.say(voice.synthesise("Please tell me a story."))
            await caller.wait("output_audio_buffer.started", 3)
            caller.say(voice.synthesise("Stop, that is enough, thank you."))
            cut = await caller.wait("conversation.item.truncated")
            async with asyncio.timeout(5):
                await server.hung_up.wait()
            caller.send(type="conversation.item.retrieve", item_id=cut["item_id"])
            kept = await caller.wait("conversation.item.retrieved")
            assert kept["item"]["content"][0]["transcript"] == ""

            await caller.wait("output_audio_buffer.stopped", 3)
            assert "cannot answer just now" in caller.transcripts()[-1]
            heard = next(text for role, text in reversed(told(server)) if role == "assistant")
            assert ("Let me tell you a story. " + "".join(story)).startswith(heard)
            # Nobody says more than six words in a second.
            assert 1 <= len(heard.split()) <= 6 * (cut["audio_end_ms"] / 1000 + 1)


async def test_truncated_by_the_client(engines: Engines) -> None:
    """Where the client plays the voice, the model is told the words that the client played."""
    async with open_model() as server, open_server(engines, server.url) as url:
        server.answers = [words("We bake bread. ", "And cake, and pies."), words("Yes.")]
        async with open_socket(url) as client:
            await write(client, "What do you bake?")
            await client.send(type="response.create")
            done = await client.wait("response.done")
            item_id = done["response"]["output"][0]["id"]
            await client.send(
                type="conversation.item.truncate",
                item_id=item_id,
                content_index=0,
                audio_end_ms=900,
            )
            await client.wait("conversation.item.truncated")
            await write(client, "Cake?")
            await client.send(type="response.create")
            await client.wait("response.done", 2)
    heard = told(server)[1][1]
    assert heard
    assert "We bake bread. And".startswith(heard)


async def test_response_of_its_own(engines: Engines) -> None:
    """A response with its own context, wording and tools is asked for exactly so; nothing stays."""
    async with open_model() as server, open_server(engines, server.url) as url:
        answers = ['{"topic_name": ', '"bread"}'], ["Bread."], ["Hello."], ["Rye."]
        server.answers = [words(*answer) for answer in answers]
        async with open_socket(url) as client:
            session = {"type": "realtime", "instructions": "Be kind.", "tools": [WEATHER]}
            await client.send(type="session.update", session=session)
            await write(client, "Do you have rye bread?")
            aside = {
                "conversation": "none",
                "output_modalities": ["text"],
                "instructions": "Name the topic: answer in JSON.",
                "tools": [],
                "max_output_tokens": 300,
                "metadata": {"purpose": "topic"},
            }
            await client.send(type="response.create", response=aside)
            done = await client.wait("response.done")
            assert done["response"]["metadata"] == {"purpose": "topic"}
            written = done["response"]["output"][0]["content"][0]["text"]
            assert json.loads(written) == {"topic_name": "bread"}
            asked = server.requests[-1]
            assert asked["messages"] == [
                {"role": "system", "content": "Name the topic: answer in JSON."},
                {"role": "user", "content": "Do you have rye bread?"},
            ]
            assert asked["max_tokens"] == 300
            assert "tools" not in asked

            question = await client.wait("conversation.item.done")
            content = [{"type": "input_text", "text": "And what else?"}]
            given = [
                {"type": "item_reference", "id": question["item"]["id"]},
                {"type": "message", "role": "user", "content": content},
            ]
            choice = {"type": "function", "name": "weather"}
            own = {"input": given, "output_modalities": ["text"], "tool_choice": choice}
            await client.send(type="response.create", response=own)
            await client.wait("response.done", 2)
            assert told(server) == [("user", "Do you have rye bread?\nAnd what else?")]
            named = {"type": "function", "function": {"name": "weather"}}
            assert server.requests[-1]["tool_choice"] == named

            nothing = {"input": [], "conversation": "none"}
            await client.send(type="response.create", response=nothing)
            await client.wait("response.done", 3)
            assert told(server) == [("user", "(The caller is on the line.)")]

            await client.send(type="response.create")
            await client.wait("response.done", 4)
            assert told(server) == [("user", "Do you have rye bread?"), ("assistant", "Bread.")]


async def test_tool_calls(engines: Engines) -> None:
    """Parallel calls and broken arguments reach the client; what it gives back reaches the model."""
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '{"place": "Rome"}'}},
        {"index": 1, "id": "b", "function": {"name": "weather", "arguments": '{"place": '}},
    ]
    stream = [*[chunk({"tool_calls": [piece]}) for piece in pieces], chunk({}, "tool_calls")]
    async with open_model() as server, open_server(engines, server.url) as url:
        server.answers = [stream, words("It is warm in Rome.")]
        async with open_socket(url) as client:
            await client.send(
                type="session.update", session={"type": "realtime", "tools": [WEATHER]}
            )
            await write(client, "Rome and what was it?")
            await client.send(type="response.create")
            done = await client.wait("response.done")
            calls = done["response"]["output"]
            assert [c["arguments"] for c in calls] == ['{"place": "Rome"}', '{"place": ']
            for made, output in zip(calls, ("28 degrees", "error: broken JSON"), strict=True):
                item = {
                    "type": "function_call_output",
                    "call_id": made["call_id"],
                    "output": output,
                }
                await client.send(type="conversation.item.create", item=item)
            await client.send(type="response.create")
            await client.wait("response.done", 2)
    asking, first, second = server.requests[1]["messages"][-3:]
    arguments = [c["function"]["arguments"] for c in asking["tool_calls"]]
    assert arguments == ['{"place": "Rome"}', "{}"]
    assert [first["content"], second["content"]] == ["28 degrees", "error: broken JSON"]
    assert [first["tool_call_id"], second["tool_call_id"]] == [c["call_id"] for c in calls]


async def test_limit_of_tokens(engines: Engines) -> None:
    """An answer that its limit cut is spoken as far as it goes, and called incomplete."""
    async with open_model() as server, open_server(engines, server.url) as url:
        server.answers = [[chunk({"content": "We are open. From"}, "length"), "data: [DONE]"]]
        async with open_socket(url) as client:
            await write(client, "Are you open?")
            await client.send(type="response.create", response={"max_output_tokens": 4000})
            done = await client.wait("response.done")
    assert server.requests[0]["max_tokens"] == 4000
    assert done["response"]["status"] == "incomplete"
    assert done["response"]["status_details"]["reason"] == "max_output_tokens"
    said = done["response"]["output"][0]
    assert (said["status"], said["content"][0]["transcript"]) == ("incomplete", "We are open. From")


async def test_first_sentence_comes_first(engines: Engines) -> None:
    """The first sentence is heard while the model is still busy with the rest."""
    async with open_model() as server, open_server(engines, server.url) as url:
        server.answers = [[*words("We are open. ", "Until ")[:-1], STALL]]
        async with open_socket(url) as client:
            await write(client, "Are you open?")
            await client.send(type="response.create")
            delta = await client.wait("response.output_audio_transcript.delta")
            assert delta["delta"] == "We are open."
            assert client.audio()
            assert "response.done" not in client.kinds()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(401, "server_error", id="wrong key"),
        pytest.param(429, "rate_limit_exceeded", id="too busy"),
        pytest.param([STALL], "language_model_failed", id="says nothing"),
        pytest.param([*words("We are")[:-1], DIE], "language_model_failed", id="dies"),
        pytest.param(words(""), "language_model_failed", id="an empty answer"),
    ],
)
async def test_failure_is_spoken(engines: Engines, answer: list[str] | int, code: str) -> None:
    """A caller hears one apology in time; the client sees the failure; the next turn is answered."""
    with capture_logs() as logs:
        async with open_model() as server, open_server(engines, server.url, 0.5) as url:
            server.answers = [answer, 500, 500, words("Yes, we are.")]
            async with open_socket(url) as client:
                await write(client, "Are you open?")
                await client.send(type="response.create")
                failed = await client.wait("response.done")
                assert failed["response"]["status"] == "failed"
                error = failed["response"]["status_details"]["error"]
                assert error["code"] == code
                assert error["message"].startswith("The language model did not answer")
                assert "cannot answer just now" in json.dumps(failed["response"]["output"])
                assert client.audio()

                await client.send(type="response.create")
                again = await client.wait("response.done", 2)
                assert (again["response"]["status"], again["response"]["output"]) == ("failed", [])

                written = {"output_modalities": ["text"], "conversation": "none"}
                await client.send(type="response.create", response=written)
                aside = await client.wait("response.done", 3)
                assert (aside["response"]["status"], aside["response"]["output"]) == ("failed", [])

                await write(client, "Hello?")
                await client.send(type="response.create")
                done = await client.wait("response.done", 4)
                assert done["response"]["status"] == "completed"
                assert "Yes, we are." in json.dumps(done["response"]["output"])
                assert "sesame" not in json.dumps(client.events)
    assert "did not answer" in str(logs)
    assert "sesame" not in str(logs)


@pytest.fixture
def free_url() -> str:
    """An address nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/v1"
