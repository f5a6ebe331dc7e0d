"""What a language model is told: the conversation as its server's templates can take it."""

from typing import Any

import pytest

from agent.embedded.chat_request import as_heard, messages, question
from agent.embedded.offers import Tool
from agent.embedded.session_object import default_session

TOOLS = {"weather": Tool("weather", {"type": "object", "properties": {}}, "The weather.")}


def said(role: str, text: str | None) -> dict[str, Any]:
    kind = {"user": "input_audio", "assistant": "output_audio", "system": "input_text"}[role]
    key = "text" if kind == "input_text" else "transcript"
    return {
        "id": f"{role}1",
        "type": "message",
        "role": role,
        "content": [{"type": kind, key: text}],
    }


def called(call_id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "weather", "arguments": arguments}


def gave(call_id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": f"output of {call_id}"}


def brief(told: list[dict[str, Any]]) -> list[str]:
    """Each message in a word or two."""
    return [
        f"{m['role']}: "
        + (m["content"] or "")
        + "".join(f" [{c['id']} {c['function']['arguments']}]" for c in m.get("tool_calls", []))
        for m in told
    ]


@pytest.mark.parametrize(
    ("items", "told"),
    [
        pytest.param(
            [said("user", "Hi"), said("assistant", "Yes?"), said("user", "Open?")],
            ["user: Hi", "assistant: Yes?", "user: Open?"],
            id="turns",
        ),
        pytest.param(
            [said("user", "Hi"), said("user", None), said("user", "Hello?")],
            ["user: Hi\nHello?"],
            id="turns without an answer are one, silence is none",
        ),
        pytest.param(
            [said("assistant", "Hello, the bakery."), said("user", "Hi")],
            ["user: (The caller is on the line.)", "assistant: Hello, the bakery.", "user: Hi"],
            id="the caller begins, though the agent spoke first",
        ),
        pytest.param([], ["user: (The caller is on the line.)"], id="nothing said"),
        pytest.param(
            [said("user", "Rome?"), called("c1"), gave("c1"), said("assistant", "Warm.")],
            ["user: Rome?", "assistant:  [c1 {}]", "tool: output of c1", "assistant: Warm."],
            id="a call",
        ),
        pytest.param(
            [
                said("user", "Rome and Oslo?"),
                said("assistant", "Let me look."),
                called("c1"),
                called("c2"),
                gave("c2"),
                gave("c1"),
                called("c3"),
                gave("c3"),
            ],
            [
                "user: Rome and Oslo?",
                "assistant: Let me look. [c1 {}] [c2 {}]",
                "tool: output of c1",
                "tool: output of c2",
                "assistant:  [c3 {}]",
                "tool: output of c3",
            ],
            id="words and parallel calls of one answer, then another call",
        ),
        pytest.param(
            [said("user", "Rome?"), called("c1"), said("user", "Hello?")],
            ["user: Rome?\nHello?"],
            id="a call without output is left out",
        ),
        pytest.param(
            [said("user", "Rome?"), called("c1", '{"place": "Ro'), gave("c1")],
            ["user: Rome?", "assistant:  [c1 {}]", "tool: output of c1"],
            id="broken arguments would break its server",
        ),
        pytest.param(
            [said("user", "Hi"), said("system", "The caller is a regular.")],
            ["user: Hi", "system: The caller is a regular."],
            id="a note of the client's",
        ),
    ],
)
def test_messages(items: list[dict[str, Any]], told: list[str]) -> None:
    """The conversation comes in its order, in a form no chat template refuses."""
    assert brief(messages("Be kind.", items)) == ["system: Be kind.", *told]


def test_only_the_latest_is_told() -> None:
    """A long conversation keeps its instructions and its end."""
    items = [said(("user", "assistant")[n % 2], f"turn {n}") for n in range(200)]
    told = brief(messages("Be kind.", items))
    assert told[0] == "system: Be kind."
    assert told[-1] == "assistant: turn 199"
    assert len(told) < 70


@pytest.mark.parametrize(
    ("options", "wishes"),
    [
        pytest.param({}, {}, id="none"),
        pytest.param({"tool_choice": "required"}, {"tool_choice": "required"}, id="must call"),
        pytest.param(
            {"tool_choice": {"type": "function", "name": "weather"}},
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
            id="must call this",
        ),
        pytest.param({"max_output_tokens": 50}, {"max_tokens": 50}, id="most tokens"),
        pytest.param(
            {"parallel_tool_calls": False}, {"parallel_tool_calls": False}, id="one at a time"
        ),
        pytest.param(
            {"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}, id="little thought"
        ),
    ],
)
def test_wishes(options: dict[str, Any], wishes: dict[str, Any]) -> None:
    """What a client wishes of one response is passed on, in the words of chat completions."""
    asked = question({**default_session("sess_1", 0), **options}, [said("user", "Hi")], TOOLS)
    body = asked.body("tiny")
    offered = body.pop("tools")
    assert offered[0]["function"]["name"] == "weather"
    assert body.pop("messages")[-1]["content"] == "Hi"
    assert body == {"model": "tiny", "stream": True, **wishes}


def test_choice_needs_tools() -> None:
    """Without tools nothing is said of them: some servers refuse a choice of nothing."""
    session = {**default_session("sess_1", 0), "tool_choice": "none", "parallel_tool_calls": True}
    assert set(question(session, [], {}).body("tiny")) == {"model", "stream", "messages"}


@pytest.mark.parametrize(
    ("modality", "system"),
    [pytest.param("audio", "telephone", id="spoken"), pytest.param("text", "", id="written")],
)
def test_instructions(modality: str, system: str) -> None:
    """Who speaks is told to speak as on the telephone; who writes is told what the client says."""
    session = default_session("sess_1", 0)
    session |= {"instructions": "Be kind.", "output_modalities": [modality]}
    told = question(session, [], {}).messages[0]["content"]
    assert told.startswith("Be kind.")
    assert system in told
    assert (told == "Be kind.") == (modality == "text")


def test_heard() -> None:
    """Of an answer that was cut short the model is told the words that were heard."""
    items = [said("user", "Go on."), said("assistant", "Once upon a time there was a baker.")]
    heard = as_heard(items, {"assistant1": "Once upon"})
    assert brief(messages("", heard)) == ["user: Go on.", "assistant: Once upon"]
    assert brief(messages("", as_heard(items, {"assistant1": ""}))) == ["user: Go on."]
