"""Sessions end before calls do: the caller hears nothing of it, or next to nothing."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.embedded.engines import Engines
from tests.embedded.scripted import KEY, FarEnd, scripted
from tests.fakes.trunkline import Served, serving
from tests.journeys.conftest import Speak, phone_call

GREETING = "Good morning."


@asynccontextmanager
async def program(
    folder: Path,
    engines: Engines,
    script: dict[str, Any],
    config: str = "",
    *,
    session_limit_s: float = 3600,
    **extra: str,
) -> AsyncIterator[tuple[Served, FarEnd]]:
    """The program, talking with a far end that plays this script in every session."""
    whole = {"greeting": GREETING} | script
    async with scripted(engines, whole, session_limit_s=session_limit_s) as far:
        environment = {
            "OPENAI_API_KEY": KEY,
            "TRUNKLINE_REALTIME__BASE_URL": far.url,
            "TRUNKLINE_IDLE__AFTER_S": "0",
            **{f"TRUNKLINE_{name.upper()}": value for name, value in extra.items()},
        }
        started = serving(folder, config, environment=environment)
        served = await asyncio.to_thread(started.__enter__)
        try:
            yield served, far
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)


def events(call: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event["detail"] for event in call["events"] if event["kind"] == kind]


def told(far: FarEnd, session_id: str) -> list[str]:
    """What a session was told of the past, in order."""
    items = [
        record["event"]["item"]
        for record in far.trace
        if record["session_id"] == session_id
        and record["what"] == "received"
        and record["event"]["type"] == "conversation.item.create"
    ]
    return [
        f"{item['role']}: {item['content'][0]['text']}"
        if item["type"] == "message"
        else f"{item['type']}: {item.get('name') or item.get('output')}"
        for item in items
    ]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


QUESTIONS = (
    "When are you open?", "Where are you?", "What is the weather?", "Do you have rye bread?",
    "How much is a roll?", "Are you open on Sunday?", "Can I order a cake?", "Do you have coffee?",
    "Is there a car park?", "Do you take cards?", "When do you close?",
)  # fmt: skip


async def test_sixty_five_minutes(tmp_path: Path, engines: Engines, speak: Speak) -> None:
    """A call of more than six session limits: six rollovers, no gap, and not a word is lost."""
    script = {"turns": [{"answer": [{"say": "One moment."}]}] * len(QUESTIONS)}
    steps: list[dict[str, Any]] = [{"listen": 700}]
    for question in QUESTIONS:
        steps += [{"say": str(speak(question))}, {"listen": 2000}]
    steps += [{"hang_up": True}]
    async with program(
        tmp_path, engines, script, session_limit_s=12, recovery__session_margin_s="6"
    ) as (served, far):
        heard = await asyncio.to_thread(phone_call, tmp_path, served.uri, steps, 90)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
        assert "Traceback" not in served.stderr
    assert not heard["reason"].startswith("timed out"), heard
    assert call["ending"] == {"by": "caller", "reason": "hung up"}
    switches = events(call, "session_succeeded")
    assert len(switches) >= 6
    assert [switch["gap_ms"] for switch in switches] == [0] * len(switches)
    assert [switch["realtime_call_id"] for switch in switches] == far.call_ids[1:][: len(switches)]
    turns = call["turns"]
    assert [turn["speaker"] for turn in turns] == ["agent"] + ["caller", "agent"] * len(QUESTIONS)
    assert all(turn["heard_text"] == turn["text"] != "" for turn in turns)
    for turn, question in zip(turns[1::2], QUESTIONS, strict=True):
        assert len(words(turn["text"]) & words(question)) > len(words(question)) / 2, turn["text"]
    assert len({turn["item_id"] for turn in turns}) == len(turns)
    said = [("user: " if t["speaker"] == "caller" else "assistant: ") + t["text"] for t in turns]
    for number, session_id in enumerate(far.call_ids[1 : len(switches) + 1]):
        past = told(far, session_id)
        assert past == said[: len(past)], f"session {number + 2}"
    assert len(past) > len(said) / 2
