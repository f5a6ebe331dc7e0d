"""Sessions end before calls do: the caller hears nothing of it, or next to nothing."""

import asyncio
import re
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.embedded.engines import Engines
from agent.embedded.voice import Voice
from tests.embedded.scripted import KEY, FarEnd, scripted
from tests.fakes.trunkline import Served, serving
from tests.journeys.conftest import Speak, phone_call
from tests.sip.test_keys_and_transfer import notify
from tests.sip.wire import phone, rtp_target

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


LONG = (
    "We are open from seven in the morning until six in the evening on every day of the week, "
    "and on Sundays we bake until noon."
)
LATEST_MS = 1500


async def test_a_session_dies_in_mid_sentence(
    tmp_path: Path, engines: Engines, speak: Speak, transcribe: Callable[[bytes], str]
) -> None:
    """The caller hears the agent again soon; the new session knows what they had heard."""
    script = {
        "turns": [{"hear": "When are you open?", "answer": [{"say": LONG}]}],
        "faults": [{"at": "cue.now", "do": "drop"}],
    }
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("When are you open?"))},
        {"listen": 2500},
        {"hang_up": True},
    ]
    async with program(tmp_path, engines, script) as (served, far):
        calling = asyncio.create_task(asyncio.to_thread(phone_call, tmp_path, served.uri, steps))
        await far.sent("output_audio_buffer.started", 2)
        await asyncio.sleep(2)
        await far.cue("now")
        heard = await calling
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
        assert "Traceback" not in served.stderr
    assert not heard["reason"].startswith("timed out"), heard
    [succeeded] = events(call, "session_succeeded")
    assert succeeded["gap_ms"] < LATEST_MS
    turns = call["turns"]
    assert [turn["speaker"] for turn in turns] == ["agent", "caller", "agent", "agent"]
    cut = turns[2]
    assert cut["interrupted"]
    assert LONG.startswith(cut["heard_text"])
    assert 0 < len(cut["heard_text"]) < len(LONG)
    assert told(far, far.call_ids[1]) == [
        f"assistant: {GREETING}",
        "user: When are you open?",
        f"assistant: {cut['heard_text']}",
    ]
    again = turns[3]
    assert again["started_ms"] - cut["ended_ms"] < LATEST_MS + 1000, "the voice takes its time, too"
    assert "morning" in transcribe(heard["record"].read_bytes()[again["started_ms"] * 16 :]).lower()


async def test_a_caller_who_speaks_while_the_session_dies(
    tmp_path: Path, engines: Engines, speak: Speak
) -> None:
    """What they said is heard by the next session, from its first word."""
    script = {
        "turns": [{"answer": [{"say": "From seven."}]}],
        "faults": [{"at": "cue.now", "do": "drop"}],
        "offers": [{}, {"delay_s": 0.3}],
    }
    question = "I would like to know when you are open on Saturdays and on Sundays."
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak(question))},
        {"listen": 1500},
        {"hang_up": True},
    ]
    async with program(tmp_path, engines, script) as (served, far):
        calling = asyncio.create_task(asyncio.to_thread(phone_call, tmp_path, served.uri, steps))
        await far.sent("input_audio_buffer.speech_started")
        await asyncio.sleep(0.6)
        await far.cue("now")
        heard = await calling
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
        assert "Traceback" not in served.stderr
    assert heard["steps"][2]["onset_ms"] is not None
    [text] = [t["text"] for t in call["turns"] if t["speaker"] == "caller" and t["text"]]
    assert len(words(text) & words(question)) > len(words(question)) * 0.7, text


def said_at_the_end(heard: dict[str, Any], transcribe: Callable[[bytes], str]) -> str:
    return transcribe(heard["record"].read_bytes()[-16 * 8000 :]).lower()


async def test_no_other_session_is_to_be_had(
    tmp_path: Path, engines: Engines, transcribe: Callable[[bytes], str]
) -> None:
    """After some attempts the caller hears an apology, and the line is closed."""
    script = {"offers": [{}, {"status": 500}], "faults": [{"at": 4, "do": "drop"}]}
    steps: list[dict[str, Any]] = [{"wait_for_end": True}]
    async with program(tmp_path, engines, script, recovery__attempts="2") as (served, _):
        heard = await asyncio.to_thread(phone_call, tmp_path, served.uri, steps)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
        assert "Traceback" not in served.stderr
    assert heard["ended_by_far_end"]
    assert call["ending"]["by"] == "realtime"
    assert "status 500" in call["ending"]["reason"]
    assert len(events(call, "session_unavailable")) == 2
    assert events(call, "fallback") == [{"step": "goodbye"}]
    assert "call again" in said_at_the_end(heard, transcribe)


async def test_an_announcement_in_place_of_an_agent(
    tmp_path: Path, engines: Engines, voice: Voice, transcribe: Callable[[bytes], str]
) -> None:
    """A caller who finds no agent hears what the admin recorded, instead of a 503."""
    with wave.open(str(tmp_path / "closed.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(voice.synthesise("Please send us a letter."))
    config = '[fallback]\nannouncement = "closed.wav"\n'
    steps: list[dict[str, Any]] = [{"wait_for_end": True}]
    async with program(tmp_path, engines, {"offers": [{"status": 401}]}, config) as (served, _):
        heard = await asyncio.to_thread(phone_call, tmp_path, served.uri, steps)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
        assert "Traceback" not in served.stderr
    assert heard["established"]
    assert "letter" in transcribe(heard["record"].read_bytes()).lower()
    assert call["ending"]["by"] == "realtime"
    assert "OPENAI_API_KEY" in call["ending"]["reason"]
    assert events(call, "fallback") == [{"step": "announcement"}]


@pytest.mark.parametrize(
    ("status", "steps"),
    [
        pytest.param("200 OK", [{"step": "transfer"}], id="taken"),
        pytest.param(
            "486 Busy Here",
            [{"step": "transfer", "refused": "486 Busy Here"}, {"step": "goodbye"}],
            id="busy: an apology",
        ),
    ],
)
async def test_a_person_in_place_of_an_agent(
    tmp_path: Path, engines: Engines, status: str, steps: list[dict[str, Any]]
) -> None:
    """Without an agent the caller is handed to somebody, by the trunk's own setting."""
    config = """
[[trunks]]
name = "carrier"
allow = ["127.0.0.1"]
fallback = {transfer = "sip:reception@127.0.0.1:9"}
"""

    def call_and_take(served: Served) -> str:
        with phone(served.sip_port) as caller:
            target = rtp_target(caller.invite())
            refer = caller.hear("REFER")
            caller.reply(refer, "202 Accepted")
            notify(caller, refer, status, "terminated")
            caller.talk(target, 100)
            caller.reply_ok(caller.hear("BYE", within_s=12))
            return refer.header("Refer-To") or ""

    async with program(tmp_path, engines, {"offers": [{"status": 500}]}, config) as (served, _):
        refer_to = await asyncio.to_thread(call_and_take, served)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
        assert "Traceback" not in served.stderr
    assert "sip:reception@127.0.0.1:9" in refer_to
    assert call["ending"]["by"] == "realtime"
    assert events(call, "fallback") == steps


async def test_the_standby_takes_over(tmp_path: Path, engines: Engines, speak: Speak) -> None:
    """When the first provider is gone for good, another goes on with the conversation."""
    other_script = {"turns": [{"answer": [{"say": "We close at six."}]}]}
    first_script = {
        "turns": [{"hear": "When are you open?", "answer": [{"say": "From seven."}]}],
        "offers": [{}, {"status": 500}],
        "faults": [{"at": "response.done", "nth": 2, "after_s": 1.2, "do": "drop"}],
    }
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("When are you open?"))},
        {"listen": 4000},
        {"say": str(speak("And when do you close?"))},
        {"listen": 1500},
        {"hang_up": True},
    ]
    async with scripted(engines, other_script, key="") as other:
        config = f'[realtime.standby]\nbase_url = "{other.url}"\nmodel = "other-model"\n'
        async with program(tmp_path, engines, first_script, config, recovery__attempts="1") as (
            served,
            _,
        ):
            heard = await asyncio.to_thread(phone_call, tmp_path, served.uri, steps)
            call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
            assert "Traceback" not in served.stderr
        past = told(other, other.call_ids[0])
    assert not heard["reason"].startswith("timed out"), heard
    assert past == [
        f"assistant: {GREETING}",
        "user: When are you open?",
        "assistant: From seven.",
    ]
    [succeeded] = events(call, "session_succeeded")
    assert succeeded["provider"] == "standby"
    assert call["turns"][-1]["text"] == "We close at six."
    assert call["ending"] == {"by": "caller", "reason": "hung up"}


async def test_the_standby_answers_when_the_first_refuses(tmp_path: Path, engines: Engines) -> None:
    """A caller who rings while the first provider is down notices nothing."""
    steps: list[dict[str, Any]] = [{"listen": 700}, {"hang_up": True}]
    async with scripted(engines, {"greeting": "Hello from the other."}, key="") as other:
        config = f'[realtime.standby]\nbase_url = "{other.url}"\n'
        async with program(
            tmp_path,
            engines,
            {"offers": [{"silent": True}]},
            config,
            realtime__connect_timeout_s="4",
        ) as (served, _):
            heard = await asyncio.to_thread(phone_call, tmp_path, served.uri, steps)
            call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
    assert heard["established"]
    assert call["turns"][0]["text"] == "Hello from the other."
    assert call["answer_delay_ms"] < 4000
    assert events(call, "session_unavailable")[0]["place"] == 0
