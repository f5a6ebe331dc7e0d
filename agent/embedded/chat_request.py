"""What a language model is asked for one response: messages, tools, and how to answer.

Pure. The session, the `response` object and the items go in; what a chat
completions URL wants comes out. Chat templates are stricter than the service:
the caller has to begin, roles have to take turns, a call needs its output and
arguments that are an object. All of that is seen to here, so that a model
behind llama.cpp, Ollama or vLLM does not refuse a whole conversation for it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.embedded.items import text_of
from agent.embedded.offers import Tool

_MOST_ITEMS = 60
_ON_THE_PHONE = (
    "You are speaking on the telephone. Answer in one or two short spoken sentences, "
    "without lists, markup or emoji."
)
_NOBODY_SPOKE = "(The caller is on the line.)"


@dataclass(frozen=True, slots=True)
class Question:
    """One request to a language model.

    Attributes:
        messages: As chat completions want them.
        tools: What it may call, by name.
        wishes: Further fields of the request.
        is_spoken: The answer is for an ear; otherwise every character counts.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Mapping[str, Tool] = field(default_factory=dict)
    wishes: Mapping[str, Any] = field(default_factory=dict)
    is_spoken: bool = True

    def body(self, model: str) -> dict[str, Any]:
        """Write the whole request."""
        offered = {"tools": [_offer(tool) for tool in self.tools.values()]} if self.tools else {}
        told = list(self.messages)
        return {"model": model, "messages": told, "stream": True, **offered, **self.wishes}


def question(
    wanted: Mapping[str, Any], items: Sequence[Mapping[str, Any]], tools: Mapping[str, Tool]
) -> Question:
    """Ask for one response.

    Args:
        wanted: The session, with what the `response` object overrides in it.
        items: The context, in its order.
        tools: What may be called, by name.
    """
    is_spoken = wanted["output_modalities"] == ["audio"]
    wishes: dict[str, Any] = {}
    if tools:
        choice = wanted["tool_choice"]
        if isinstance(choice, Mapping):
            choice = {"type": "function", "function": {"name": choice["name"]}}
        if choice != "auto":
            wishes["tool_choice"] = choice
        if wanted.get("parallel_tool_calls") is not None:
            wishes["parallel_tool_calls"] = wanted["parallel_tool_calls"]
    if wanted["max_output_tokens"] != "inf":
        wishes["max_tokens"] = wanted["max_output_tokens"]
    if effort := (wanted.get("reasoning") or {}).get("effort"):
        wishes["reasoning_effort"] = effort
    instructions = wanted["instructions"]
    if is_spoken:
        instructions = f"{instructions}\n\n{_ON_THE_PHONE}".lstrip()
    return Question(messages(instructions, items), tools, wishes, is_spoken)


def messages(instructions: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write the conversation as chat completions want it.

    Args:
        instructions: For this answer.
        items: Realtime items in their order; only the latest are sent.

    Returns:
        Messages; tool calls are followed by their outputs, calls without one are left out.
    """
    outputs = {
        item["call_id"]: item["output"] for item in items if item["type"] == "function_call_output"
    }
    told: list[dict[str, Any]] = []
    given: list[dict[str, Any]] = []
    for item in items[-_MOST_ITEMS:]:
        if item["type"] == "function_call":
            if item.get("call_id") in outputs:
                _add_call(told, item)
                output = outputs[item["call_id"]]
                given.append({"role": "tool", "tool_call_id": item["call_id"], "content": output})
            continue
        told += given
        given = []
        if text := text_of(item):
            _add_text(told, item["role"], text)
    told += given
    begun = next((message["role"] for message in told if message["role"] != "system"), None)
    if begun != "user":
        told.insert(0, {"role": "user", "content": _NOBODY_SPOKE})
    return [{"role": "system", "content": instructions}, *told] if instructions else told


def _add_text(told: list[dict[str, Any]], role: str, text: str) -> None:
    last = told[-1] if told else None
    if last is None or last["role"] != role or "tool_calls" in last:
        told.append({"role": role, "content": text})
    else:
        last["content"] += f"\n{text}"


def _add_call(told: list[dict[str, Any]], item: Mapping[str, Any]) -> None:
    """Calls of one answer stand in one message, with the words that came before them."""
    if not told or told[-1]["role"] != "assistant":
        told.append({"role": "assistant", "content": None})
    function = {"name": item["name"], "arguments": _readable(item["arguments"])}
    call = {"id": item["call_id"], "type": "function", "function": function}
    told[-1].setdefault("tool_calls", []).append(call)


def _readable(arguments: str) -> str:
    """Arguments a template can read: what a model once wrote wrongly fails its server later."""
    try:
        return arguments if isinstance(json.loads(arguments), dict) else "{}"
    except (ValueError, RecursionError):
        return "{}"


def as_heard(
    items: Iterable[Mapping[str, Any]], heard: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    """Give the items the words the caller really heard of them.

    Args:
        items: As the client knows them.
        heard: By item id, of those that were cut short.
    """
    return [
        {**item, "content": [{"type": "output_audio", "transcript": heard[item["id"]]}]}
        if item["id"] in heard
        else item
        for item in items
    ]


def _offer(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}
