"""Who speaks when: the agent is not stopped by a cough, and nobody is left in silence."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.embedded.engines import Engines
from tests.embedded.scripted import KEY, FarEnd, scripted
from tests.fakes.trunkline import Served, serving
from tests.journeys.conftest import Speak, phone_call
from tests.sip.test_keys_and_transfer import press, sdp_with_keys
from tests.sip.wire import phone, rtp_target

GREETING = "Good morning."
LONG = (
    "We are open from seven in the morning until six in the evening on every day of the week, "
    "and on Sundays we bake until noon."
)


@asynccontextmanager
async def program(
    folder: Path, engines: Engines, script: dict[str, Any], **extra: str
) -> AsyncIterator[tuple[Served, FarEnd]]:
    """The program, talking with a far end that plays this script."""
    async with scripted(engines, {"greeting": GREETING} | script) as far:
        environment = {
            "OPENAI_API_KEY": KEY,
            "TRUNKLINE_REALTIME__BASE_URL": far.url,
            **{f"TRUNKLINE_{name.upper()}": value for name, value in extra.items()},
        }
        started = serving(folder, environment=environment)
        served = await asyncio.to_thread(started.__enter__)
        try:
            yield served, far
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)


async def played(
    folder: Path,
    engines: Engines,
    script: dict[str, Any],
    steps: list[dict[str, Any]],
    **extra: str,
) -> tuple[dict[str, Any], dict[str, Any], FarEnd]:
    """One call: what the phone heard, what the log says, what the far end saw."""
    async with program(folder, engines, script, **extra) as (served, far):
        heard = await asyncio.to_thread(phone_call, folder, served.uri, steps)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
        assert "Traceback" not in served.stderr
    assert heard["established"], heard
    assert not heard["reason"].startswith("timed out"), heard
    return heard, call, far


def turns(call: dict[str, Any], speaker: str = "agent") -> list[dict[str, Any]]:
    return [turn for turn in call["turns"] if turn["speaker"] == speaker]


def kinds(call: dict[str, Any]) -> list[str]:
    return [event["kind"] for event in call["events"]]


@pytest.mark.parametrize(
    ("guard", "hears", "is_cut"),
    [
        pytest.param("pause", "Mm-hm.", False, id="pause: mm-hm"),
        pytest.param("pause", "", False, id="pause: a cough"),
        pytest.param("duck", "Mm-hm.", False, id="duck: mm-hm"),
        pytest.param("pause", "No, stop.", True, id="pause: words"),
        pytest.param("off", "Mm-hm.", True, id="off: mm-hm"),
    ],
)
async def test_a_sound_over_the_agent(
    tmp_path: Path,
    engines: Engines,
    speak: Speak,
    transcribe: Callable[[bytes], str],
    guard: str,
    hears: str,
    is_cut: bool,
) -> None:
    """Guarded, the agent says its sentence to the end; words stop it, and are answered."""
    script = {
        "turns": [
            {"hear": "When are you open?", "answer": [{"say": LONG}]},
            {"hear": hears, "answer": [{"say": "What else can I do?"}]},
        ],
    }
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("When are you open?"))},
        {"interrupt": str(speak("Right.")), "after_ms": 1500},
        {"listen": 2500},
        {"hang_up": True},
    ]
    heard, call, far = await played(tmp_path, engines, script, steps, interruption__guard=guard)
    agent = turns(call)
    assert agent[1]["interrupted"] is is_cut, call
    assert ("sound_ignored" in kinds(call)) is not is_cut
    assert ("barge_in" in kinds(call)) is is_cut
    whole = transcribe(heard["record"].read_bytes()).lower()
    if is_cut:
        assert agent[1]["heard_text"] == LONG[: len(agent[1]["heard_text"])]
        assert len(agent[1]["heard_text"]) < len(LONG)
        assert agent[2]["text"] == "What else can I do?"
        assert "noon" not in whole
        await far.sent("conversation.item.truncated")
    else:
        assert len(agent) == 2, "a nod is not answered"
        assert agent[1]["heard_text"] == LONG
        assert "noon" in whole


async def test_speech_that_is_announced_and_not_heard(
    tmp_path: Path, engines: Engines, speak: Speak
) -> None:
    """The model speaks, and not a sound arrives: it is asked to say it again."""
    script = {
        "turns": [
            {"answer": [{"say": "You will not hear this.", "silent": True}]},
            {"answer": [{"say": "Now you can hear me."}]},
        ]
    }
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("When are you open?"))},
        {"listen": 900},
        {"hang_up": True},
    ]
    heard, call, _ = await played(tmp_path, engines, script, steps)
    assert heard["steps"][2]["onset_ms"] is not None
    found = [event["detail"] for event in call["events"] if event["kind"] == "silence_found"]
    assert [(one["trouble"], one["repair"]) for one in found] == [("mute", "ask_again")]
    assert turns(call)[-1]["text"] == "Now you can hear me."


async def test_two_responses_fail(tmp_path: Path, engines: Engines, speak: Speak) -> None:
    """The answer fails, and so does the second attempt: the third is heard."""
    script = {
        "turns": [
            {"answer": [{"say": "One.", "silent": True}]},
            {"answer": [{"say": "Two.", "silent": True}]},
            {"answer": [{"say": "I am sorry, we are open from seven."}]},
        ],
        "faults": [
            {"at": "response.done", "nth": 2, "do": "fail_response"},
            {"at": "response.done", "nth": 3, "do": "fail_response"},
        ],
    }
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("When are you open?"))},
        {"listen": 900},
        {"hang_up": True},
    ]
    heard, call, _ = await played(tmp_path, engines, script, steps)
    said_ms = heard["steps"][1]["ended_ms"]
    assert heard["steps"][2]["onset_ms"] - said_ms < 5000
    assert kinds(call).count("response_failed") == 2
    assert "silence_found" in kinds(call)
    assert turns(call)[-1]["text"] == "I am sorry, we are open from seven."


async def test_a_far_end_that_falls_silent_for_good(
    tmp_path: Path, engines: Engines, speak: Speak
) -> None:
    """No event and no sound any more: the caller is not kept on a dead line."""
    script = {"faults": [{"at": "input_audio_buffer.committed", "do": "freeze"}]}
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("When are you open?"))},
        {"wait_for_end": True},
    ]
    extra = {"watchdog__answer_timeout_s": "2", "watchdog__repair_timeout_s": "1"}
    heard, call, _ = await played(tmp_path, engines, script, steps, **extra)
    assert heard["ended_by_far_end"]
    assert call["ending"]["by"] == "realtime"
    assert "silent" in call["ending"]["reason"]
    assert kinds(call).count("silence_found") >= 2


async def test_a_caller_who_says_nothing(tmp_path: Path, engines: Engines) -> None:
    """Asked twice, said goodbye to, and the line is free again."""
    script = {
        "turns": [
            {"answer": [{"say": "Are you still there?"}]},
            {"answer": [{"say": "Hello, are you there?"}]},
            {"answer": [{"say": "Goodbye."}]},
        ]
    }
    steps: list[dict[str, Any]] = [{"wait_for_end": True}]
    _, call, far = await played(tmp_path, engines, script, steps, idle__after_s="2")
    assert [turn["text"] for turn in turns(call)] == [
        GREETING,
        "Are you still there?",
        "Hello, are you there?",
        "Goodbye.",
    ]
    assert call["ending"] == {"by": "trunkline", "reason": "the caller was silent"}
    asked = [
        record["event"].get("response", {}).get("instructions", "")
        for record in far.trace
        if record["what"] == "received" and record["event"]["type"] == "response.create"
    ]
    assert sum("Are you still there?" in words for words in asked) == 2


async def test_where_the_wait_went(tmp_path: Path, engines: Engines, speak: Speak) -> None:
    """Every answer's latency is explained by its parts, at the caller's ear."""
    script = {"turns": [{"answer": [{"say": "From seven.", "after_s": 0.5}]}]}
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("When are you open?"))},
        {"listen": 900},
        {"hang_up": True},
    ]
    _, call, _ = await played(tmp_path, engines, script, steps)
    answer = turns(call)[-1]
    parts = [answer[f"{name}_ms"] for name in ("endpointing", "model", "network", "buffer", "tool")]
    assert sum(parts) == answer["latency_ms"]
    assert answer["endpointing_ms"] >= 300
    assert answer["model_ms"] >= 400
    assert answer["tool_ms"] == 0
    assert answer["network_ms"] + answer["buffer_ms"] < 400


async def test_a_key_stops_the_agent(tmp_path: Path, engines: Engines) -> None:
    """Pressed in mid-sentence: the agent is silent, is told of the key, and answers it."""
    script = {"turns": [{"answer": [{"say": LONG}]}], "otherwise": "You pressed five."}
    async with program(tmp_path, engines, {"greeting": None} | script) as (served, far):
        with phone(served.sip_port) as caller:
            answer = await asyncio.to_thread(caller.invite, sdp_with_keys(caller))
            target = rtp_target(answer)
            await asyncio.to_thread(caller.talk, target, 100)
            await far.sent("output_audio_buffer.started")
            at = (caller.sequence + 1) * 160
            await asyncio.to_thread(press, caller, target, "5", at)
            talking = asyncio.create_task(asyncio.to_thread(caller.talk, target, 250))
            await far.sent("conversation.item.truncated")
            note = await far.received("conversation.item.create")
            await far.sent("output_audio_buffer.started", 2)
            await talking
            await asyncio.to_thread(caller.bye)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
    assert "keys on the telephone: 5" in note["item"]["content"][0]["text"]
    first, second = turns(call)
    assert first["interrupted"]
    assert second["text"] == "You pressed five."
    assert [event["detail"] for event in call["events"] if event["kind"] == "key_pressed"] == [{}]
