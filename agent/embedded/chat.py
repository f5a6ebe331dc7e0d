"""A language model as the mind: any OpenAI-compatible chat completions URL.

    conversation items -> messages() -> POST, streamed -> Reading -> Say, sentence by sentence
                                                                 -> CallTool, at the end

llama.cpp, Ollama and vLLM speak this. `Reading` decides and knows no network;
`ChatModel` does the I/O. Whoever stops iterating ends the request: the caller
who barges in costs the model nothing more. A failure is one exception,
`ChatFailed`, and is spoken about by the rules.
"""

import json
import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

import httpx

from agent.embedded.mind import CallTool, Say, Step
from agent.embedded.offers import Tool
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.voice import sentences

_CONNECT_TIMEOUT_S = 3
# A small machine reads a long prompt for a while before the first word.
_READ_TIMEOUT_S = 20
_MOST_ITEMS = 60
# Two minutes of speech; a model that goes on after that is lost.
_MOST_CHARS = 2000
_MOST_LINE_CHARS = 256 * 1024
_MARKUP = re.compile(r"[*#`_~|]+")
_ON_THE_PHONE = (
    "You are speaking on the telephone. Answer in one or two short spoken sentences, "
    "without lists, markup or emoji."
)


class ChatFailed(Exception):
    """The language model did not answer; the text says why."""


def messages(
    instructions: str, items: Sequence[Mapping[str, Any]], wish: str = ""
) -> list[dict[str, Any]]:
    """Write the conversation as chat completions want it.

    Args:
        instructions: The session's.
        items: Realtime items in their order; only the latest are sent.
        wish: `response.instructions`, for this answer alone.

    Returns:
        Messages; each tool call is followed by its output, calls without one are left out.
    """
    outputs = {
        item["call_id"]: item["output"] for item in items if item["type"] == "function_call_output"
    }
    told: list[dict[str, Any]] = [
        {"role": "system", "content": f"{instructions}\n\n{_ON_THE_PHONE}"}
    ]
    for item in items[-_MOST_ITEMS:]:
        if item["type"] == "message":
            parts = (part.get("text") or part.get("transcript") or "" for part in item["content"])
            if text := " ".join(part for part in parts if part):
                told.append({"role": item["role"], "content": text})
        elif item["type"] == "function_call" and item.get("call_id") in outputs:
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            told.append({"role": "assistant", "content": None, "tool_calls": [call]})
            output = outputs[item["call_id"]]
            told.append({"role": "tool", "tool_call_id": item["call_id"], "content": output})
    if wish:
        told.append({"role": "system", "content": wish})
    return told


class Reading:
    """One streamed answer as it comes in. Pure: lines in, steps out.

    Args:
        tools: What the model may call; anything else it calls is a failure.
    """

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._text = ""
        self._chars = 0
        self._calls: dict[int, list[str]] = {}
        self.is_done = False

    def line(self, line: str) -> list[Step]:
        """Take one line of the event stream.

        Raises:
            ChatFailed: It is none that a model sends.
        """
        if not line.startswith("data:"):
            return []
        data = line[5:].strip()
        if data == "[DONE]":
            self.is_done = True
            return []
        try:
            chunk = json.loads(data)
            if chunk.get("error"):
                raise ChatFailed("it reported an error")
            deltas = [choice.get("delta") or {} for choice in (chunk.get("choices") or [])[:1]]
            for delta in deltas:
                for call in delta.get("tool_calls") or []:
                    self._add_call(call)
            return self._add_text("".join(delta.get("content") or "" for delta in deltas))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ChatFailed("its stream cannot be read") from error

    def _add_call(self, piece: Mapping[str, Any]) -> None:
        call = self._calls.setdefault(int(piece.get("index") or 0), ["", ""])
        function = piece.get("function") or {}
        call[0] += function.get("name") or ""
        call[1] += function.get("arguments") or ""

    def _add_text(self, text: str) -> list[Step]:
        self._chars += len(text)
        if self._chars > _MOST_CHARS:
            self.is_done = True
            return []
        self._text += text
        *whole, rest = sentences(self._text) or [""]
        if whole:
            # A sentence ends where the next begins, so the last one stays open.
            self._text = rest + self._text[len(self._text.rstrip()) :]
        return _said(whole)

    def end(self) -> list[Step]:
        """Nothing more comes: the last sentence, then the calls.

        Raises:
            ChatFailed: It called a tool that is not offered, or said nothing at all.
        """
        steps = _said(sentences(self._text))
        for _, (name, text) in sorted(self._calls.items()):
            try:
                arguments = json.loads(text or "{}")
            except (ValueError, RecursionError) as error:
                raise ChatFailed("the arguments of its tool call are not JSON") from error
            if name not in self._tools or not isinstance(arguments, dict):
                raise ChatFailed("it called a tool that is not offered")
            steps.append(CallTool(name, arguments))
        if not steps and not self._chars:
            raise ChatFailed("it said nothing")
        return steps


def _said(texts: Iterable[str]) -> list[Step]:
    plain = (" ".join(_MARKUP.sub("", text).split()) for text in texts)
    return [Say(text) for text in plain if text]


class ChatModel:
    """The model behind `[embedded] chat_url`, shared by all sessions. Close it at the end.

    Args:
        settings: With a `chat_url`.
    """

    def __init__(self, settings: EmbeddedSettings) -> None:
        base = settings.chat_url.rstrip("/")
        self._url = base if base.endswith("/chat/completions") else f"{base}/chat/completions"
        self._model = settings.chat_model
        self._headers = {}
        if settings.chat_api_key is not None:
            self._headers["Authorization"] = f"Bearer {settings.chat_api_key.get_secret_value()}"
        # Such a model runs beside us or next door: no proxy stands between.
        self._client = httpx.AsyncClient(
            trust_env=False,
            timeout=httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
        )

    async def answer(
        self, conversation: list[dict[str, Any]], tools: Mapping[str, Tool]
    ) -> AsyncGenerator[Step, None]:
        """Answer, each sentence as soon as it is whole.

        Args:
            conversation: From `messages`.
            tools: What the client offers, by name.

        Yields:
            `Say` per sentence, then `CallTool` per call.

        Raises:
            ChatFailed: It cannot be reached, refuses, stalls or sends nonsense.
        """
        request: dict[str, Any] = {
            "model": self._model,
            "messages": conversation,
            "stream": True,
        }
        if tools:
            request["tools"] = [_offer(tool) for tool in tools.values()]
        reading = Reading(tools)
        try:
            async with self._client.stream(
                "POST", self._url, json=request, headers=self._headers
            ) as reply:
                if reply.status_code != httpx.codes.OK:
                    raise ChatFailed(f"it replied with status {reply.status_code}")
                async for line in reply.aiter_lines():
                    if len(line) > _MOST_LINE_CHARS:
                        raise ChatFailed("its stream cannot be read")
                    for step in reading.line(line):
                        yield step
                    if reading.is_done:
                        break
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ChatFailed(str(error) or type(error).__name__) from error
        for step in reading.end():
            yield step

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()


def _offer(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}
