"""However a session travels, callers cannot tell: heard whole, stopped at once, hung up after the goodbye."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.embedded.engines import Engines
from tests.journeys.conftest import Speak
from tests.journeys.test_rollover import told as told_past
from tests.journeys.test_turns import GREETING, LONG, kinds, played, turns

WAYS = [
    pytest.param({"realtime__transport": "websocket"}, id="WebSocket"),
    pytest.param({"realtime__codec": "auto"}, id="the caller's law over WebRTC"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("guard", ["off", "pause"])
async def test_a_caller_who_interrupts(
    tmp_path: Path,
    engines: Engines,
    speak: Speak,
    transcribe: Callable[[bytes], str],
    way: dict[str, str],
    guard: str,
) -> None:
    """The agent is cut off in its sentence, the log and the far end know where, and it answers."""
    script = {
        "turns": [
            {"hear": "When are you open?", "answer": [{"say": LONG}]},
            {"hear": "No, stop.", "answer": [{"say": "What else can I do?"}]},
        ],
    }
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("When are you open?"))},
        {"interrupt": str(speak("No, please stop.")), "after_ms": 1500},
        {"listen": 2500},
        {"hang_up": True},
    ]
    way = {**way, "interruption__guard": guard}
    heard, call, far = await played(tmp_path, engines, script, steps, **way)
    greeting, cut, answer = turns(call)
    assert greeting["heard_text"] == greeting["text"] == GREETING
    assert not greeting["interrupted"]
    assert cut["interrupted"]
    assert 0 < len(cut["heard_text"]) < len(LONG)
    assert LONG.startswith(cut["heard_text"])
    assert answer["text"] == "What else can I do?"
    assert "barge_in" in kinds(call)
    told = [
        record["event"]
        for record in far.trace
        if record.get("event", {}).get("type") == "conversation.item.truncated"
    ][-1]
    spoken_ms = cut["ended_ms"] - cut["started_ms"]
    # What the far end remembers is what the ear had, but for frames on their way and silence.
    assert abs(told["audio_end_ms"] - spoken_ms) < 400
    whole = transcribe(heard["record"].read_bytes()).lower()
    assert "good morning" in whole
    assert "noon" not in whole
    assert "what else" in whole


@pytest.mark.parametrize("way", WAYS)
async def test_a_goodbye_is_heard_before_the_line_is_closed(
    tmp_path: Path,
    engines: Engines,
    speak: Speak,
    transcribe: Callable[[bytes], str],
    way: dict[str, str],
) -> None:
    """The far end was done long ago; the line stays open until the last word was at the ear."""
    goodbye = "Thank you very much for your call. Have a wonderful day, and goodbye."
    script = {"turns": [{"answer": [{"say": goodbye}, {"call": "hang_up"}]}]}
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("That is all."))},
        {"wait_for_end": True},
    ]
    heard, call, _ = await played(tmp_path, engines, script, steps, **way)
    assert call["ending"] == {"by": "agent", "reason": "hung up"}
    assert turns(call)[-1]["heard_text"] == goodbye
    assert "goodbye" in transcribe(heard["record"].read_bytes()).lower()


async def test_a_socket_that_dies_in_mid_sentence(
    tmp_path: Path, engines: Engines, speak: Speak, transcribe: Callable[[bytes], str]
) -> None:
    """Another session takes over, knows what was heard, and the caller hears it speak."""
    script = {
        "turns": [{"hear": "When are you open?", "answer": [{"say": LONG}]}],
        "faults": [{"at": "response.done", "nth": 2, "after_s": 1, "do": "drop"}],
    }
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("When are you open?"))},
        {"listen": 2500},
        {"hang_up": True},
    ]
    way = {"realtime__transport": "websocket"}
    heard, call, far = await played(tmp_path, engines, script, steps, **way)
    assert kinds(call).count("session_succeeded") == 1
    greeting, cut, again = turns(call)
    assert not greeting["interrupted"]
    assert cut["interrupted"]
    assert 0 < len(cut["heard_text"]) < len(LONG)
    assert LONG.startswith(cut["heard_text"])
    assert again["heard_text"] == GREETING, "what this far end says first, in every session"
    whole = transcribe(heard["record"].read_bytes()[again["started_ms"] * 16 :]).lower()
    assert "good morning" in whole
    first, second = (record["session_id"] for record in far.trace if record["what"] == "opened")
    assert first != second
    assert told_past(far, second) == [
        f"assistant: {GREETING}",
        "user: When are you open?",
        f"assistant: {cut['heard_text']}",
    ]
    assert call["ending"] == {"by": "caller", "reason": "hung up"}
