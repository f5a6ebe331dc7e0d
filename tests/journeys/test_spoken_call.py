"""A caller on a foreign SIP stack talks with the agent, and the log tells it truly."""

import json
import re
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import jiwer
import pytest

from tests.fakes.trunkline import serving
from tests.journeys.conftest import Speak, phone_call

HOURS, WEATHER, RANGE, THANKS, BYE = (
    "When are you open on Saturday?",
    "What is the weather like in Lisbon?",
    "What kinds of bread do you sell?",
    "Thank you, that is enough.",
    "No, that is all. Goodbye.",
)


def words(text: str) -> str:
    """Lower case without punctuation, as two writers of the same sentence agree on."""
    return " ".join(re.sub(r"[^a-z0-9' ]", " ", text.lower()).split())


def word_error_rate(said: str, written: str) -> float:
    """Share of words that were written wrongly."""
    return float(jiwer.wer(words(said), words(written)))


def test_a_spoken_conversation(tmp_path: Path, speak: Speak, weather_url: str) -> None:
    """Opening hours, the weather through the tool, an interruption, a goodbye heard in full."""
    config = f"""
[tools.weather]
geocoding_url = "{weather_url}/search"
forecast_url = "{weather_url}/forecast"
"""
    with serving(tmp_path, config) as served:
        heard = phone_call(
            tmp_path,
            served.uri,
            [
                {"listen": 900},
                {"say": str(speak(HOURS))},
                {"listen": 900},
                {"say": str(speak(WEATHER))},
                {"listen": 1200},
                {"say": str(speak(RANGE))},
                {"interrupt": str(speak(THANKS)), "after_ms": 900},
                {"listen": 900},
                {"say": str(speak(BYE))},
                {"wait_for_end": True},
            ],
        )
        assert heard["established"], heard
        assert len(heard["steps"]) == 10, heard
        call = served.wait_for_calls(1)[0]

    callers = [turn for turn in call["turns"] if turn["speaker"] == "caller"]
    agents = [turn for turn in call["turns"] if turn["speaker"] == "agent"]
    said = f"{HOURS} {WEATHER} {RANGE} {THANKS} {BYE}"
    written = " ".join(turn["text"] for turn in callers)
    assert word_error_rate(said, written) < 0.2, written

    spoken = " ".join(turn["text"] for turn in agents).lower()
    assert "how can i help" in agents[0]["text"].lower()
    assert "saturday" in spoken
    assert "21" in spoken
    assert "goodbye" in agents[-1]["text"].lower() or "bye" in agents[-1]["text"].lower()
    assert [turn["position"] for turn in call["turns"]] == sorted(
        turn["position"] for turn in call["turns"]
    )

    weather, hang_up = call["tool_calls"]
    assert weather["name"] == "weather"
    assert json.loads(weather["arguments"]) == {"place": "Lisbon"}
    assert "21" in str(weather["output"])
    assert weather["status"] == "completed"
    assert weather["duration_ms"] >= 0
    assert hang_up["name"] == "hang_up"

    cut = [turn for turn in agents if turn["interrupted"]]
    assert len(cut) == 1, agents
    assert cut[0]["text"].startswith(cut[0]["heard_text"])
    assert len(cut[0]["heard_text"]) < len(cut[0]["text"])
    interruption = next(step for step in heard["steps"] if "silent_after_ms" in step)
    # The far end must first hear that somebody speaks; what follows is the network's share.
    assert interruption["silent_after_ms"] < 900, heard

    assert call["ending"] == {"by": "agent", "reason": "hung up"}
    assert call["state"] == "ended"
    assert heard["ended_by_far_end"]
    latencies = [turn["latency_ms"] for turn in agents if turn["latency_ms"] is not None]
    assert latencies, agents
    assert max(latencies) < 3000


def test_the_goodbye_is_heard_in_full(tmp_path: Path, speak: Speak, transcribe: Any) -> None:
    """The line closes after the last word, not in it."""
    with serving(tmp_path) as served:
        heard = phone_call(
            tmp_path,
            served.uri,
            [{"listen": 900}, {"say": str(speak(BYE))}, {"wait_for_end": True}],
        )
        call = served.wait_for_calls(1)[0]
    farewell = call["turns"][-1]["text"]
    began_ms = heard["steps"][1]["ended_ms"]
    pcm = heard["record"].read_bytes()[began_ms * 16 :]
    assert word_error_rate(farewell, transcribe(pcm)) < 0.3
    assert call["turns"][-1]["heard_text"] == farewell
    assert not call["turns"][-1]["interrupted"]


def test_the_greeting_is_not_clipped(tmp_path: Path, transcribe: Any) -> None:
    """The first word of the greeting reaches the ear whole."""
    with serving(tmp_path) as served:
        heard = phone_call(tmp_path, served.uri, [{"listen": 900}, {"hang_up": True}])
        call = served.wait_for_calls(1)[0]
    greeting = "Hello, this is the bakery. How can I help?"
    assert word_error_rate(greeting, transcribe(heard["record"].read_bytes())) < 0.2
    assert call["turns"][0]["text"] == greeting
    assert call["ending"] == {"by": "caller", "reason": "hung up"}


SIPP_TALKS = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="a caller with one question">
  <send retrans="500"><![CDATA[
    INVITE sip:agent@[remote_ip]:[remote_port] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: <sip:sipp@[local_ip]:[local_port]>;tag=[call_number]
    To: <sip:agent@[remote_ip]:[remote_port]>
    Call-ID: [call_id]
    CSeq: 1 INVITE
    Contact: <sip:sipp@[local_ip]:[local_port]>
    Max-Forwards: 70
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=- 1 1 IN IP4 [local_ip]
    s=-
    c=IN IP4 [media_ip]
    t=0 0
    m=audio [auto_media_port] RTP/AVP 0
    a=rtpmap:0 PCMU/8000
  ]]></send>
  <recv response="100" optional="true"/>
  <recv response="180"/>
  <recv response="200" rtd="true" rrs="true"/>
  <send><![CDATA[
    ACK [next_url] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: <sip:sipp@[local_ip]:[local_port]>;tag=[call_number]
    To: <sip:agent@[remote_ip]:[remote_port]>[peer_tag_param]
    Call-ID: [call_id]
    CSeq: 1 ACK
    Max-Forwards: 70
    Content-Length: 0
  ]]></send>
  <nop><action><exec rtp_stream="SPEECH,1,0"/></action></nop>
  <pause milliseconds="9000"/>
  <send retrans="500"><![CDATA[
    BYE [next_url] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: <sip:sipp@[local_ip]:[local_port]>;tag=[call_number]
    To: <sip:agent@[remote_ip]:[remote_port]>[peer_tag_param]
    Call-ID: [call_id]
    CSeq: 2 BYE
    Max-Forwards: 70
    Content-Length: 0
  ]]></send>
  <recv response="200"/>
</scenario>
"""


def test_sipp_places_a_call_with_rtp(tmp_path: Path, speak: Speak, ulaw: Any) -> None:
    """A question played by SIPp is answered, and its transcript is in the table by itself."""
    speech = tmp_path / "speech.ulaw"
    silence = bytes(16000 * 4)
    speech.write_bytes(ulaw(silence + speak(HOURS).read_bytes() + silence))
    scenario = tmp_path / "talks.xml"
    scenario.write_text(SIPP_TALKS.replace("SPEECH", str(speech)))
    with serving(tmp_path) as served:
        done = subprocess.run(
            ["sipp", f"127.0.0.1:{served.sip_port}", "-sf", str(scenario), "-m", "1",
             "-i", "127.0.0.1", "-nostdin", "-timeout", "30s"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        call = served.wait_for_calls(1)[0]
        with sqlite3.connect(tmp_path / "trunkline.db") as database:
            rows = database.execute(
                "SELECT text FROM turns WHERE speaker = 'caller' ORDER BY position"
            ).fetchall()
        database.close()
    assert word_error_rate(HOURS, " ".join(row[0] for row in rows)) < 0.2
    assert "saturday" in call["turns"][-1]["text"].lower()
    assert call["ending"] == {"by": "caller", "reason": "hung up"}
    assert call["quality"]


@pytest.mark.parametrize("reply", ["transcript on the terminal", "json"])
def test_trunkline_call_and_calls_show(tmp_path: Path, reply: str) -> None:
    """The project's own caller and the log on the terminal tell the same story."""
    as_json = ["--json"] if reply == "json" else []
    with serving(tmp_path) as served:
        placed = served.run("call", served.uri, "--say", HOURS, *as_json)
        assert placed.returncode == 0, placed.stderr
        call = served.wait_for_calls(1)[0]
        shown = served.run("calls", "show", call["id"], *as_json)
        listed = served.run("calls", "list", *as_json)
    assert "Saturday" in placed.stdout
    assert shown.returncode == listed.returncode == 0, shown.stderr + listed.stderr
    assert "Saturday" in shown.stdout
    assert call["id"] in listed.stdout


def test_a_key_of_the_embedded_server(tmp_path: Path) -> None:
    """A key that only clients of the embedded server know: ours is one of them."""
    with serving(tmp_path, environment={"TRUNKLINE_EMBEDDED__API_KEY": "for-this-test"}) as served:
        placed = served.run("call", served.uri)
        assert placed.returncode == 0, placed.stderr
        assert "bakery" in served.wait_for_calls(1)[0]["turns"][0]["text"]
