"""Keys and transfers over real SIP and RTP."""

import re
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.sip.conftest import Agent
from tests.sip.wire import Message, Phone, phone, rtp_target, sdp

StartAgent = Callable[..., Agent]

WITH_KEYS = ["a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15"]
EVENTS = "0123456789*#ABCD"


def sdp_with_keys(caller: Phone) -> str:
    return sdp(caller.ip, caller.rtp_port, "0 101") + "\r\n".join(WITH_KEYS) + "\r\n"


def press(caller: Phone, to: tuple[str, int], key: str, at: int) -> None:
    """One key as RFC 4733 has it: the beginning, a step, and the end three times."""
    for step, (ends, duration) in enumerate([(0, 160), (0, 320), (1, 480), (1, 480), (1, 480)]):
        caller.sequence += 1
        marker = 0x80 if step == 0 else 0
        header = struct.pack(">BBHII", 0x80, 101 | marker, caller.sequence & 0xFFFF, at, 4711)
        event = struct.pack(">BBH", EVENTS.index(key), (ends << 7) | 10, duration)
        caller.rtp.sendto(header + event, to)
        time.sleep(0.02)


def keys_heard(packets: list[bytes]) -> str:
    """Which keys a stretch of RTP presses: each event once, by its timestamp."""
    pressed: dict[int, str] = {}
    for packet in packets:
        if packet[1] & 0x7F == 101:
            pressed[int.from_bytes(packet[4:8], "big")] = EVENTS[packet[12]]
    return "".join(pressed.values())


def collect(agent: Agent, count: int) -> str:
    return "".join(agent.expect("key")["key"] for _ in range(count))


def test_keys_of_the_caller(agent_with: StartAgent) -> None:
    """Each key pressed is told once, in order, whatever repeats on the wire."""
    agent = agent_with(keys=True)
    with phone(agent.port) as caller:
        answer = caller.invite(sdp_with_keys(caller))
        agent.expect("answered")
        assert "telephone-event" in answer.body
        target = rtp_target(answer)
        caller.talk(target, 5)
        for number, key in enumerate("12*#D"):
            press(caller, target, key, 10_000 + 2_000 * number)
        assert collect(agent, 5) == "12*#D"
        caller.bye()
        agent.expect("keys are over")
        agent.expect("closed")


@pytest.mark.parametrize(
    ("body", "key"),
    [
        pytest.param("Signal=5\r\nDuration=160\r\n", "5", id="plain"),
        pytest.param("Signal= #\r\nDuration= 160\r\n", "#", id="with a space"),
    ],
)
def test_keys_by_info(agent_with: StartAgent, body: str, key: str) -> None:
    """A key told by INFO (application/dtmf-relay) is a key, too."""
    agent = agent_with(keys=True)
    with phone(agent.port) as caller:
        caller.invite()
        agent.expect("answered")
        caller.say("INFO", body, content_type="application/dtmf-relay")
        caller.hear(200)
        assert collect(agent, 1) == key
        caller.bye()
        agent.expect("closed")


def test_we_press_keys(agent_with: StartAgent) -> None:
    """Keys we send arrive as RFC 4733 events, one after the other."""
    agent = agent_with(keys=True)
    with phone(agent.port) as caller:
        answer = caller.invite(sdp_with_keys(caller))
        agent.expect("answered")
        caller.talk(rtp_target(answer), 3)
        agent.tell("keys 42#")
        agent.expect("sent")
        assert keys_heard(caller.listen(2.0)) == "42#"
        caller.bye()
        agent.expect("closed")


def test_a_caller_who_takes_no_keys(agent_with: StartAgent) -> None:
    """Where the far end offered no telephone-event, pressing is refused in words."""
    agent = agent_with(keys=True)
    with phone(agent.port) as caller:
        caller.invite()
        agent.expect("answered")
        agent.tell("keys 42#")
        assert "takes no keys" in agent.expect("refused")["reason"]
        caller.bye()
        agent.expect("closed")


def notify(caller: Phone, refer: Message, status: str, state: str) -> None:
    """Tell how a transfer goes on (RFC 3515, 2.4.5)."""
    event = f"refer;id={(refer.header('CSeq') or '1').split()[0]}"
    caller.headers = {"Event": event, "Subscription-State": state}
    caller.say("NOTIFY", f"SIP/2.0 {status}\r\n", content_type="message/sipfrag")
    caller.headers = {}
    caller.hear(200)


def transfer(agent: Agent, caller: Phone) -> Message:
    caller.invite()
    agent.expect("answered")
    agent.tell("transfer sip:sales@127.0.0.1:9")
    return caller.hear("REFER")


def accept(caller: Phone, refer: Message) -> None:
    tag = re.search(r"^From:.*", refer.text, re.M | re.I)
    assert tag is not None
    caller.reply(refer, "202 Accepted")


@pytest.mark.parametrize(
    "told",
    [
        pytest.param([("100 Trying", "active"), ("200 OK", "terminated")], id="trying, then taken"),
        pytest.param([("180 Ringing", "active"), ("200 OK", "terminated")], id="ringing, taken"),
        pytest.param([("200 OK", "terminated;reason=noresource")], id="taken at once"),
    ],
)
def test_a_transfer_that_works(agent_with: StartAgent, told: list[tuple[str, str]]) -> None:
    """REFER names the target; told that somebody answered, the transfer is done."""
    agent = agent_with(keys=True)
    with phone(agent.port) as caller:
        refer = transfer(agent, caller)
        assert "sip:sales@127.0.0.1:9" in (refer.header("Refer-To") or "")
        accept(caller, refer)
        for status, state in told:
            notify(caller, refer, status, state)
        agent.expect("transferred")
        caller.bye()
        agent.expect("closed")
    assert agent.count_idle()["pj_calls"] == 0


@pytest.mark.parametrize(
    ("answer", "told", "reason"),
    [
        pytest.param("603 Decline", [], "603", id="refused"),
        pytest.param("405 Method Not Allowed", [], "405", id="not known"),
        pytest.param("202 Accepted", [("486 Busy Here", "terminated")], "486", id="busy"),
        pytest.param(
            "202 Accepted",
            [("100 Trying", "active"), ("100 Trying", "terminated;reason=giveup")],
            "stopped telling",
            id="given up",
        ),
    ],
)
def test_a_transfer_that_fails(
    agent_with: StartAgent, answer: str, told: list[tuple[str, str]], reason: str
) -> None:
    """Whoever asked is told why, and the caller is still there."""
    agent = agent_with(keys=True)
    with phone(agent.port) as caller:
        refer = transfer(agent, caller)
        caller.reply(refer, answer)
        for status, state in told:
            notify(caller, refer, status, state)
        assert reason in agent.expect("refused")["reason"]
        agent.tell("transfer sip:again@127.0.0.1:9")
        caller.reply(caller.hear("REFER"), "603 Decline")
        agent.expect("refused")
        caller.bye()
        closed: dict[str, Any] = agent.expect("closed")
        assert (closed["by"], closed["reason"]) == ("caller", "hung up")


def test_a_caller_who_leaves_with_the_transfer(agent_with: StartAgent) -> None:
    """A far end that says BYE while it transfers has transferred: the log says so."""
    agent = agent_with(keys=True)
    with phone(agent.port) as caller:
        refer = transfer(agent, caller)
        accept(caller, refer)
        notify(caller, refer, "100 Trying", "active")
        caller.bye()
        closed = agent.expect("closed")
        assert (closed["by"], closed["reason"]) == ("agent", "transferred")
    assert agent.count_idle()["pj_calls"] == 0


@pytest.mark.parametrize("target", ["no uri", "sip:", "sip:a b@c"])
def test_a_target_that_is_none(agent_with: StartAgent, target: str) -> None:
    """What is no SIP address is refused before anything is sent."""
    agent = agent_with(keys=True)
    with phone(agent.port) as caller:
        caller.invite()
        agent.expect("answered")
        agent.tell(f"transfer {target}")
        assert agent.expect("refused")["reason"]
        caller.bye()
        agent.expect("closed")
