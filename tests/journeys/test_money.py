"""A day's budget over real SIP: wrapped up, ended politely, and then nobody is let in."""

import json
import wave
from pathlib import Path

import pytest
import yaml

from agent.embedded.voice import Voice
from tests.fakes.realtime import realtime
from tests.fakes.trunkline import serving
from tests.sip.wire import phone, sdp

GREETING = "Hello, what would you like to know?"
ANSWER = "Our bread is baked every morning, and it is always fresh."
GOODBYE = "I have to go now. Goodbye."
SCRIPT = {"greeting": GREETING, "turns": [{"answer": [{"say": ANSWER}]}], "otherwise": GOODBYE}

# A word costs: what is said does not depend on how fast it is said.
CONFIG = """
[realtime]
model = "far"
transcription = "ears"
[[prices]]
model = "far"
from = 2026-01-01
text_in = 0
audio_in = 0
text_out = 10000
audio_out = 0
[[prices]]
model = "ears"
from = 2026-01-01
per_minute = 0
[limits.budget]
day_usd = 0.09
"""


def test_a_day_without_money(tmp_path: Path) -> None:
    """The agent is told, says goodbye, the line closes; the next caller gets 503 until tomorrow."""
    script = tmp_path / "script.yaml"
    script.write_text(yaml.safe_dump(SCRIPT))
    with realtime("--script", str(script)) as far:
        environment = {"OPENAI_API_KEY": "any", "TRUNKLINE_REALTIME__BASE_URL": far.url}
        with serving(tmp_path, CONFIG, environment) as served:
            placed = served.run("call", served.uri, "--say", "Is your bread fresh?", "--json")
            assert placed.returncode == 0, placed.stderr
            heard = " ".join(part["text"] for part in json.loads(placed.stdout)["utterances"])
            [call] = served.wait_for_calls(1)
            with phone(served.sip_port) as caller:
                caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
                caller.hear(180)
                refusal = caller.hear(503, 200)
                caller.say("ACK")
            refused, _ = served.wait_for_calls(2)
            shown = served.run("calls", "show", call["id"])

    assert call["ending"] == {"by": "trunkline", "reason": "budget reached"}
    spoken = [turn["text"] for turn in call["turns"] if turn["speaker"] == "agent"]
    assert spoken == [GREETING, ANSWER, GOODBYE]
    assert "i have to go now" in heard.lower()
    assert call["turns"][-1]["heard_text"] == GOODBYE

    responses = [entry for entry in call["charges"] if entry["purpose"] == "response"]
    costs = [entry["cost_usd"] for entry in responses]
    assert costs == [pytest.approx(len(text) // 4 / 100) for text in spoken]
    assert call["cost_usd"] == pytest.approx(sum(costs))
    assert call["usage"]["response"]["text_out"] == sum(len(text) // 4 for text in spoken)
    kinds = [event["kind"] for event in call["events"]]
    assert kinds.index("budget_warning") < kinds.index("budget_reached")
    assert f"${call['cost_usd']:.4f}" in shown.stdout

    assert refusal.status == 503
    assert 0 < int(refusal.header("Retry-After") or 0) <= 86_400
    assert refused["ending"] == {"by": "trunkline", "reason": "the budget of the day is used up"}
    assert refused["cost_usd"] is None
    assert [event["kind"] for event in refused["events"]] == ["budget_refused"]


def test_a_day_without_money_and_with_an_announcement(tmp_path: Path, voice: Voice) -> None:
    """The next caller is answered, hears what the admin recorded, and costs nothing."""
    with wave.open(str(tmp_path / "closed.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(voice.synthesise("Please send us a letter."))
    script = tmp_path / "script.yaml"
    script.write_text(yaml.safe_dump(SCRIPT))
    config = CONFIG.replace("0.09", "0.01") + '[fallback]\nannouncement = "closed.wav"\n'
    with realtime("--script", str(script)) as far:
        environment = {"OPENAI_API_KEY": "any", "TRUNKLINE_REALTIME__BASE_URL": far.url}
        with serving(tmp_path, config, environment) as served:
            served.run("call", served.uri, "--json")
            served.wait_for_calls(1)
            placed = served.run("call", served.uri, "--json")
            assert placed.returncode == 0, placed.stderr
            heard = " ".join(part["text"] for part in json.loads(placed.stdout)["utterances"])
            call, first = served.wait_for_calls(2)
            assert "Traceback" not in served.stderr
    assert first["ending"] == {"by": "trunkline", "reason": "budget reached"}
    assert "letter" in heard.lower()
    assert call["ending"] == {"by": "trunkline", "reason": "the budget of the day is used up"}
    assert call["cost_usd"] is None
    assert [event["kind"] for event in call["events"]] == ["budget_refused", "fallback"]
