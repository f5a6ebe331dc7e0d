"""Tools while somebody is on the line: keys, messages, transfers, waiting."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.embedded.engines import Engines
from tests.embedded.scripted import KEY, scripted
from tests.fakes.trunkline import Served, serving
from tests.journeys.conftest import Speak, phone_call
from tests.sip.test_keys_and_transfer import notify, press, sdp_with_keys
from tests.sip.wire import Phone, phone, rtp_target

Ulaw = Callable[[bytes], bytes]

CONFIG = """
[[tools.transfer.targets]]
name = "kitchen"
uri = "sip:kitchen@127.0.0.1:9"

[[agents]]
name = "receptionist"
tools = ["hang_up", "transfer", "collect_digits", "take_message"]
"""


@asynccontextmanager
async def program(
    folder: Path, engines: Engines, script: dict[str, Any], config: str
) -> AsyncIterator[Served]:
    """The program with these tools, talking with a far end that plays this script."""
    async with scripted(engines, {"greeting": "Hello."} | script) as far:
        environment = {"OPENAI_API_KEY": KEY, "TRUNKLINE_REALTIME__BASE_URL": far.url}
        started = serving(folder, config, environment)
        served = await asyncio.to_thread(started.__enter__)
        try:
            yield served
            assert "Traceback" not in served.stderr
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)


@contextmanager
def speaking(caller: Phone, to: tuple[str, int], speech: bytes) -> Iterator[None]:
    """Send PCMU in real time: a pause, the speech, and silence until the block is left."""
    is_over = threading.Event()
    sound = b"\xff" * 160 * 100 + speech

    def run() -> None:
        frames = [sound[at : at + 160].ljust(160, b"\xff") for at in range(0, len(sound), 160)]
        for frame in frames:
            if is_over.is_set():
                return
            caller.talk(to, 1, payload=frame)
        while not is_over.is_set():
            caller.talk(to, 1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def tool_calls(call: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {tool["name"]: tool for tool in call["tool_calls"]}


@pytest.mark.parametrize("answer", ["202 Accepted", "603 Decline"], ids=["taken", "refused"])
async def test_a_transfer(
    tmp_path: Path, engines: Engines, speak: Speak, ulaw: Ulaw, answer: str
) -> None:
    """The caller hears that they are put through, and then is; or the agent goes on."""
    words = "I will put you through to the kitchen."
    script = {
        "turns": [
            {
                "answer": [
                    {"say": words},
                    {"call": "transfer", "arguments": {"to": "kitchen"}},
                    {"say": "Nobody is there."},
                ]
            }
        ]
    }

    def talk(served: Served) -> None:
        with phone(served.sip_port) as caller:
            target = rtp_target(caller.invite(sdp_with_keys(caller)))
            speech = ulaw(speak("Can I speak to somebody in the kitchen?").read_bytes())
            with speaking(caller, target, speech):
                refer = caller.hear("REFER", within_s=30)
                assert "kitchen@127.0.0.1:9" in (refer.header("Refer-To") or "")
                caller.reply(refer, answer)
                if answer.startswith("202"):
                    notify(caller, refer, "200 OK", "terminated")
                    caller.reply_ok(caller.hear("BYE"))
                else:
                    time.sleep(3)
                    caller.bye()

    async with program(tmp_path, engines, script, CONFIG) as served:
        await asyncio.to_thread(talk, served)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
    said = next(turn for turn in call["turns"] if turn["text"] == words)
    assert said["heard_text"] == words
    assert not said["interrupted"]
    row = tool_calls(call)["transfer"]
    assert row["started_ms"] + row["duration_ms"] > said["ended_ms"]
    if answer.startswith("202"):
        assert call["ending"] == {"by": "agent", "reason": "transferred to kitchen"}
        assert row["status"] == "completed"
    else:
        assert call["ending"] == {"by": "caller", "reason": "hung up"}
        assert (row["status"], row["error"]) == ("failed", "kitchen: 603 Decline")
        assert call["turns"][-1]["text"] == "Nobody is there."


async def test_keys_and_a_message(
    tmp_path: Path, engines: Engines, speak: Speak, ulaw: Ulaw
) -> None:
    """Keys typed when asked for are the tool's alone; the message is in the call's detail."""
    message = {"message": "Two loaves for Friday.", "name": "Ann"}
    script = {
        "turns": [
            {
                "answer": [
                    {"call": "collect_digits", "arguments": {"count": 4, "timeout_s": 20}},
                    {"call": "take_message", "arguments": message},
                    {"say": "Thank you."},
                ]
            }
        ]
    }

    def talk(served: Served) -> None:
        with phone(served.sip_port) as caller:
            target = rtp_target(caller.invite(sdp_with_keys(caller)))
            with speaking(caller, target, ulaw(speak("I want to leave a message.").read_bytes())):
                served.wait_for_tool("collect_digits")
            for number, key in enumerate("4711"):
                press(caller, target, key, 1_000_000 + 2_000 * number)
            with speaking(caller, target, b""):
                served.wait_for_tool("take_message", "completed")
            caller.bye()

    async with program(tmp_path, engines, script, CONFIG) as served:
        await asyncio.to_thread(talk, served)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
    assert tool_calls(call)["collect_digits"]["output"] == '{"digits":"4711","status":"complete"}'
    kept = [event["detail"] for event in call["events"] if event["kind"] == "message_taken"]
    assert kept == [message]
    assert "key_pressed" not in [event["kind"] for event in call["events"]]


class _Slow(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(4)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing: a test's output is its assertions."""


@pytest.fixture
def slow_url() -> Iterator[str]:
    """A service that takes four seconds."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_waiting_for_a_slow_service(
    tmp_path: Path, engines: Engines, speak: Speak, slow_url: str
) -> None:
    """Four seconds of a tool are not four seconds of silence: a soft tone is heard."""
    config = f"""
[[tools.http]]
name = "stock"
description = "Look into the store."
url = "{slow_url}/stock"
timeout_s = 10
allow_private = true

[[agents]]
name = "receptionist"
tools = ["stock"]
"""
    script = {"turns": [{"answer": [{"call": "stock"}, {"say": "There are two loaves left."}]}]}
    steps: list[dict[str, Any]] = [
        {"listen": 700},
        {"say": str(speak("How many loaves are left?"))},
        {"listen": 3000},
        {"hang_up": True},
    ]
    async with program(tmp_path, engines, script, config) as served:
        heard = await asyncio.to_thread(phone_call, tmp_path, served.uri, steps)
        call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
    row = tool_calls(call)["stock"]
    assert (row["status"], row["output"]) == ("completed", "{}")
    assert row["duration_ms"] >= 4000
    assert 1000 <= row["silence_ms"] <= row["duration_ms"] - 1500
    asked_ms = heard["steps"][1]["ended_ms"]
    runs = [run for run in heard["heard"] if run[0] > asked_ms]
    assert len(runs) >= 3, "two beeps and the answer"
    assert max(after[0] - before[1] for before, after in pairwise(runs)) < 2200
    assert call["turns"][-1]["text"] == "There are two loaves left."
