"""Whatever the far end does, the caller gets a plain answer, the log a reason, and nothing leaks.

The whole program runs in its own process; the Realtime API is the embedded server with
a script, in the test's; the telephone is one UDP socket.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.embedded.engines import Engines
from tests.embedded.scripted import KEY, QUIET, FarEnd, scripted
from tests.fakes.trunkline import Served, serving
from tests.sip.wire import Phone, phone, rtp_target, sdp

CONNECT_TIMEOUT_S = 2


def environment(url: str) -> dict[str, str]:
    """Talk to this Realtime API, and do not wait long for it."""
    return {
        "OPENAI_API_KEY": KEY,
        "TRUNKLINE_REALTIME__BASE_URL": url,
        "TRUNKLINE_REALTIME__CONNECT_TIMEOUT_S": str(CONNECT_TIMEOUT_S),
        "TRUNKLINE_LIMITS__NO_RTP_TIMEOUT_S": "2",
    }


@asynccontextmanager
async def program(
    folder: Path,
    engines: Engines,
    script: dict[str, Any] | None = None,
    extra: dict[str, str] | None = None,
) -> AsyncIterator[tuple[Served, FarEnd]]:
    """The program and its far end, which says nothing unless a script tells what."""
    async with scripted(engines, QUIET | (script or {})) as far:
        started = serving(folder, environment=environment(far.url) | (extra or {}))
        served = await asyncio.to_thread(started.__enter__)
        try:
            yield served, far
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)


def gauges(served: Served) -> dict[str, float]:
    """What `/metrics` says, by name."""
    text = httpx.get(f"{served.url}/metrics", timeout=5).text
    return {
        name: float(value) for name, value in re.findall(r"^(trunkline_\S+) (\S+)$", text, re.M)
    }


def settled(served: Served, before: dict[str, float], timeout_s: float = 10) -> dict[str, float]:
    """Wait until calls, PJSIP calls, tasks and sockets are as before; fail if they stay.

    `before` is taken after the first call: pools of connections and threads are filled then.
    """
    # The database keeps connections of its own, each a thread and two files.
    spare = {"calls": 0, "pjsip_calls": 0, "udp_sockets": 0, "tasks": 0, "threads": 4}
    deadline_s = time.monotonic() + timeout_s
    while True:
        now = gauges(served)
        more = {name: now[f"trunkline_{name}"] - before[f"trunkline_{name}"] for name in spare}
        if all(value <= spare[name] for name, value in more.items()):
            return now
        assert time.monotonic() < deadline_s, f"left behind: {more}"
        time.sleep(0.1)


def refused_call(served: Served) -> tuple[int, str | None]:
    """INVITE; return the final status and its Retry-After. It rings first."""
    with phone(served.sip_port) as caller:
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
        caller.hear(180)
        answer = caller.hear(500, 503, 200, within_s=CONNECT_TIMEOUT_S + 3)
        caller.say("ACK")
        return answer.status, answer.header("Retry-After")


def ignored(kind: str) -> dict[str, Any]:
    return {"faults": [{"at": kind, "do": "ignore"}]}


@pytest.mark.parametrize(
    ("script", "reason", "retry_after"),
    [
        pytest.param(
            {"offers": [{"status": 401, "error": {"code": "invalid_api_key"}}]},
            "OPENAI_API_KEY",
            None,
            id="401",
        ),
        pytest.param(
            {"offers": [{"status": 429, "headers": {"Retry-After": 17}}]},
            "rate limit",
            "17",
            id="429, Retry-After",
        ),
        pytest.param({"offers": [{"status": 500}]}, "500", None, id="500"),
        pytest.param(
            {"offers": [{"silent": True}]}, "did not answer within 2 s", None, id="no reply"
        ),
        pytest.param({"offers": [{"answer": "v=0 nonsense"}]}, "SDP", None, id="nonsense SDP"),
        pytest.param(
            {"channel": False}, "data channel did not open within 2 s", None, id="no channel"
        ),
        pytest.param(
            ignored("session.update"), "not acknowledged within 2 s", None, id="no session"
        ),
    ],
)
async def test_no_session_no_answer(
    tmp_path: Path, engines: Engines, script: dict[str, Any], reason: str, retry_after: str | None
) -> None:
    """It rings, then 503 with Retry-After; the log says why; the next call is treated alike."""
    async with program(tmp_path, engines, script) as (served, _):
        before: dict[str, float] = {}
        for number in range(3):
            status, wait_s = await asyncio.to_thread(refused_call, served)
            assert status == 503
            assert wait_s is not None
            assert retry_after in (None, wait_s)
            calls = await asyncio.to_thread(served.wait_for_calls, number + 1)
            before = before or await asyncio.to_thread(gauges, served)
        await asyncio.to_thread(settled, served, before)
        assert "Traceback" not in served.stderr
        assert KEY not in served.stderr
    for call in calls:
        assert call["ending"]["by"] == "realtime"
        assert reason in call["ending"]["reason"]
        assert call["answered_at"] is None


async def test_nobody_listens_at_the_realtime_address(tmp_path: Path, engines: Engines) -> None:
    """An unreachable API is named, at once."""
    async with scripted(engines, QUIET) as far:
        url = far.url
    with serving(tmp_path, environment=environment(url)) as served:
        status, wait_s = await asyncio.to_thread(refused_call, served)
        call = served.wait_for_calls(1)[0]
    assert status == 503
    assert wait_s is not None
    assert "cannot be reached" in call["ending"]["reason"] or "reach" in call["ending"]["reason"]


def answered(served: Served, caller: Phone) -> tuple[str, int]:
    """Place the call; return where RTP goes."""
    return rtp_target(caller.invite())


ODD: list[dict[str, Any]] = [
    {"text": "not json"}, {"hex": "fffe"}, {"text": "[]"}, {"text": "null"},
    {"text": '{"type":7}'}, {"event": {"type": "brand.new.event"}},
    {"event": {"type": "response.created"}}, {"event": {"type": "response.done", "response": None}},
    {"event": {"type": "error", "error": {"type": "x", "message": "odd"}}},
    {"event": {"type": "x"}, "size_bytes": 200_000}, {"text": "[" * 5000},
    {"event": {"type": "input_audio_buffer.speech_started", "event_id": "e", "item_id": "u1"}},
    {"event": {"type": "input_audio_buffer.speech_started", "event_id": "e", "item_id": "u1"}},
]  # fmt: skip


def greets(tone_ms: int) -> dict[str, Any]:
    """The greeting is one word, and its voice a tone."""
    return {"turns": [{"answer": [_tone("Hello", tone_ms)]}]}


def _tone(text: str, tone_ms: int) -> dict[str, Any]:
    return {"say": text, "tone_hz": 440, "tone_ms": tone_ms}


async def test_odd_events_do_not_end_a_call(tmp_path: Path, engines: Engines) -> None:
    """Garbage, unknown, oversized and duplicate events pass by; the conversation goes on."""
    faults = [{"at": "response.create", "do": "send", **odd} for odd in ODD]
    script = {**greets(400), "faults": faults}
    async with program(tmp_path, engines, script) as (served, far):
        with phone(served.sip_port) as caller:
            target = await asyncio.to_thread(answered, served, caller)
            await far.sent("output_audio_buffer.stopped")
            await asyncio.to_thread(caller.talk, target, 25)
            heard = await asyncio.to_thread(caller.listen, 0.1)
            await asyncio.to_thread(caller.bye)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
        assert "Traceback" not in served.stderr
    assert call["ending"] == {"by": "caller", "reason": "hung up"}
    assert len(heard) > 10
    assert any(event["kind"] == "agent_error" for event in call["events"])


async def test_the_far_end_goes(tmp_path: Path, engines: Engines) -> None:
    """A session that closes ends the call with BYE and a reason."""
    script = {"faults": [{"at": "response.create", "do": "drop"}]}
    async with program(tmp_path, engines, script) as (served, _):
        before: dict[str, float] = {}
        for number in range(2):
            with phone(served.sip_port) as caller:
                await asyncio.to_thread(answered, served, caller)
                bye = await asyncio.to_thread(caller.hear, "BYE", within_s=20)
                caller.reply_ok(bye)
            call = (await asyncio.to_thread(served.wait_for_calls, number + 1))[0]
            before = before or await asyncio.to_thread(gauges, served)
        await asyncio.to_thread(settled, served, before)
    assert call["ending"]["by"] == "realtime"


async def test_a_caller_who_sends_nothing(tmp_path: Path, engines: Engines) -> None:
    """No RTP at all: the call is ended with that reason, and the Realtime session with it."""
    async with program(tmp_path, engines) as (served, far):
        with phone(served.sip_port) as caller:
            await asyncio.to_thread(answered, served, caller)
            bye = await asyncio.to_thread(caller.hear, "BYE", within_s=10)
            caller.reply_ok(bye)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
        assert far.hung_up == far.call_ids
    assert call["ending"] == {"by": "trunkline", "reason": "no audio from the caller for 2 s"}


async def test_strangers_and_hostile_names(tmp_path: Path, engines: Engines) -> None:
    """Header values that try to break out are stored as text; a foreign number is 404."""
    config = '[[routes]]\ndid = "+1555*"\nagent = "receptionist"\n'
    name = "\x1b[31m'; DROP TABLE calls;--<script>alert(1)</script>\u202e"
    (tmp_path / "trunkline.toml").write_text(config)
    async with scripted(engines, QUIET) as far:
        with serving(tmp_path, config, environment(far.url)) as served:
            with phone(served.sip_port, user="+4930") as caller:
                caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
                assert (await asyncio.to_thread(caller.hear, 404)).status == 404
                caller.say("ACK")
            headers = {"X-Note": name, "User-Agent": name}
            with phone(served.sip_port, from_user="a%00%1b31mb", headers=headers) as caller:
                await asyncio.to_thread(caller.invite)
                await asyncio.to_thread(caller.bye)
            calls = await asyncio.to_thread(served.wait_for_calls, 1)
            assert "\x1b[31m'" not in served.stderr
            assert "Traceback" not in served.stderr
    assert all(char.isprintable() for char in calls[0]["caller_number"])


async def test_twenty_calls_leave_nothing(tmp_path: Path, engines: Engines) -> None:
    """Twenty calls, four at a time, ended in every way: all counts fall back."""

    def one_call(served: Served, number: int) -> None:
        with phone(served.sip_port) as caller:
            if number % 4 == 3:
                caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
                caller.hear(180)
                caller.say("CANCEL")
                caller.hear(487, 200)
                return
            target = rtp_target(caller.invite())
            caller.talk(target, 10)
            caller.bye()

    async with program(tmp_path, engines, greets(200)) as (served, _):
        before: dict[str, float] = {}
        for batch in range(5):
            await asyncio.gather(
                *(asyncio.to_thread(one_call, served, batch * 4 + n) for n in range(4))
            )
            calls = await asyncio.to_thread(served.wait_for_calls, batch * 4 + 4)
            before = before or await asyncio.to_thread(gauges, served)
        after = await asyncio.to_thread(settled, served, before)
        assert "Traceback" not in served.stderr
    assert after["trunkline_calls"] == after["trunkline_pjsip_calls"] == 0
    assert after["trunkline_journal_dropped"] == 0
    assert {call["ending"]["reason"] for call in calls} <= {"hung up", "cancelled"}


async def test_killed_in_mid_call(tmp_path: Path, engines: Engines) -> None:
    """A process killed with -9 loses at most the last second, and leaves no call open."""
    async with scripted(engines, greets(200)) as far:
        with (
            serving(tmp_path, environment=environment(far.url)) as served,
            phone(served.sip_port) as caller,
        ):
            await asyncio.to_thread(caller.invite)
            await far.sent("output_audio_buffer.stopped")
            await asyncio.sleep(1.2)
            os.kill(served.process.pid, signal.SIGKILL)
            served.process.wait()
        with serving(tmp_path, environment=environment(far.url)) as served:
            call = served.wait_for_calls(1)[0]
    assert call["ending"] == {"by": "trunkline", "reason": "process ended"}
    assert [turn["text"] for turn in call["turns"]] == ["Hello"]


async def test_draining(tmp_path: Path, engines: Engines) -> None:
    """SIGTERM: new calls get 503, the running one is given its time, then ended; exit 0."""
    extra = {"TRUNKLINE_LIMITS__DRAIN_TIMEOUT_S": "2"}
    async with program(tmp_path, engines, extra=extra) as (served, _):
        with phone(served.sip_port) as caller, phone(served.sip_port) as late:
            await asyncio.to_thread(caller.invite)
            served.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            late.say("INVITE", sdp(late.ip, late.rtp_port))
            refusal = await asyncio.to_thread(late.hear, 503)
            assert refusal.header("Retry-After")
            bye = await asyncio.to_thread(caller.hear, "BYE", within_s=6)
            caller.reply_ok(bye)
        assert await asyncio.to_thread(served.process.wait, 10) == 0
    with serving(tmp_path) as served:
        assert served.wait_for_calls(1)[0]["ending"]["reason"] == "shutting down"


async def test_sighup_changes_who_answers(tmp_path: Path, engines: Engines) -> None:
    """A new greeting needs no restart, and a broken file changes nothing."""
    greeting = '[[agents]]\nname = "a"\ngreeting = "%s"\n'

    async def greeted(served: Served, far: FarEnd) -> str:
        with phone(served.sip_port) as caller:
            await asyncio.to_thread(caller.invite)
            event = await far.received("response.create", len(far.call_ids))
            await asyncio.to_thread(caller.bye)
        return str(event["response"]["instructions"])

    async with scripted(engines, QUIET) as far:
        with serving(tmp_path, greeting % "One", environment(far.url)) as served:
            assert "One" in await greeted(served, far)
            for text, expected in ((greeting % "Two", "Two"), ("[broken", "Two")):
                served.config.write_text(text)
                served.process.send_signal(signal.SIGHUP)
                await asyncio.sleep(0.5)
                assert expected in await greeted(served, far)
            assert "not reloaded" in served.stderr
