"""The door and the legs, over real SIP and RTP with a real PJSIP in its own process."""

import re
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.sip.conftest import Agent
from tests.sip.wire import Phone, loud, phone, rtp_target, sdp, udp_socket

StartAgent = Callable[..., Agent]
PlaceCall = Callable[..., dict[str, Any]]

TONE = bytes([0x20, 0x2F, 0x60, 0x2F, 0x20, 0xA0, 0xAF, 0xE0, 0xAF, 0xA0]) * 16


def count_without_media(agent: Agent) -> dict[str, Any]:
    """Count once PJSIP has closed the sockets of its last call, which it does 500 ms later."""
    agent.count_idle()
    time.sleep(0.8)
    return agent.count()


def ending(agent: Agent) -> tuple[str, str]:
    closed = agent.expect("closed")
    return closed["by"], closed["reason"]


def test_caller_hangs_up(agent_with: StartAgent) -> None:
    """An INVITE rings at once, is answered, and the caller's BYE ends it."""
    agent = agent_with()
    with phone(agent.port) as caller:
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
        caller.hear(180)
        answer = caller.hear(200)
        caller.say("ACK")
        assert "RTP/AVP 0" in answer.body
        offered = agent.expect("offered")
        assert offered["did"] == "+15550100"
        assert offered["caller_number"] == "caller"
        assert offered["trunk"] == "local"
        assert offered["agent"] is None
        agent.expect("answered")
        caller.bye()
        assert ending(agent) == ("caller", "hung up")
    assert agent.count_idle()["pj_calls"] == 0


def test_agent_hangs_up(agent_with: StartAgent) -> None:
    """Hanging up, twice even, sends one BYE and ends the call."""
    agent = agent_with(hang_up_after_s=0.1)
    with phone(agent.port) as caller:
        caller.invite()
        caller.reply_ok(caller.hear("BYE"))
        assert ending(agent) == ("trunkline", "hung up")
        assert agent.count_idle()["pj_calls"] == 0


def test_hang_up_before_answer(agent_with: StartAgent) -> None:
    """Hanging up a ringing call declines it."""
    agent = agent_with(answer=False)
    with phone(agent.port) as caller:
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
        caller.hear(180)
        agent.expect("offered")
        agent.tell("hang up")
        caller.hear(603)
        caller.say("ACK")
        assert ending(agent) == ("trunkline", "hung up")


def test_reject_says_when_to_retry(agent_with: StartAgent) -> None:
    """A call the agent cannot serve is refused with a status and Retry-After."""
    agent = agent_with(answer=False)
    with phone(agent.port) as caller:
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
        agent.expect("offered")
        agent.tell("reject")
        assert caller.hear(503).header("Retry-After") == "7"
        caller.say("ACK")
        assert ending(agent) == ("trunkline", "refused with 503")


def test_cancel_while_ringing(agent_with: StartAgent) -> None:
    """CANCEL ends a ringing call with 487, and whoever waited to answer is told."""
    agent = agent_with(answer=False)
    with phone(agent.port) as caller:
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
        caller.hear(180)
        caller.say("CANCEL")
        caller.hear(487)
        caller.say("ACK")
        assert ending(agent) == ("caller", "cancelled")


def test_refer_calls_nobody(agent_with: StartAgent) -> None:
    """A caller cannot have us call a number of their choice: REFER is declined, the call goes on."""
    agent = agent_with()
    with phone(agent.port) as caller, udp_socket() as victim:
        caller.invite()
        host, port = victim.getsockname()
        caller.headers = {"Refer-To": f"<sip:+19005550100@{host}:{port}>"}
        caller.say("REFER")
        assert caller.hear(202, 603).status == 603
        victim.settimeout(0.3)
        with pytest.raises(TimeoutError):
            victim.recv(65535)
        caller.headers = {}
        caller.bye()
        assert ending(agent) == ("caller", "hung up")
    assert agent.count_idle()["pj_calls"] == 0


def test_replaces_takes_over_no_call(agent_with: StartAgent) -> None:
    """An INVITE that wants to take a running call over is declined; both are accounted for."""
    agent = agent_with()
    with phone(agent.port) as caller, phone(agent.port, from_user="thief") as thief:
        caller.invite()
        thief.headers = {"Replaces": f"{caller.call_id};from-tag=wire;to-tag={caller.to_tag}"}
        thief.say("INVITE", sdp(thief.ip, thief.rtp_port))
        assert thief.hear(200, 603).status == 603
        thief.say("ACK")
        caller.bye()
        assert ending(agent) == ("caller", "hung up")
    assert agent.count_idle()["pj_calls"] == 0


@pytest.mark.parametrize("method", ["MESSAGE", "PUBLISH", "REFER", "REGISTER", "SUBSCRIBE"])
def test_only_calls_are_taken(agent_with: StartAgent, method: str) -> None:
    """What is no call is refused in one answer: no subscription is kept, nobody waits for ever."""
    headers = {"Event": "presence", "Expires": "3600", "Refer-To": "<sip:x@127.0.0.1:9>"}
    with phone(agent_with().port, headers=headers) as caller:
        caller.say(method)
        assert caller.hear(200, 202, 405).status == 405


@pytest.mark.parametrize("ring_s", [0.0, 0.005, 0.01, 0.02], ids=lambda s: f"after {s * 1000:g} ms")
def test_cancel_races_the_answer(agent_with: StartAgent, ring_s: float) -> None:
    """A CANCEL that crosses our 200 leaves either no call, or one that BYE ends."""
    agent = agent_with(ring_s=ring_s)
    for _ in range(5):
        with phone(agent.port) as caller:
            caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
            caller.hear(180)
            time.sleep(ring_s / 2)
            caller.to_tag, kept = "", caller.to_tag
            caller.say("CANCEL")
            caller.to_tag = kept
            final = caller.hear(487, 200)
            while "INVITE" not in str(final.header("CSeq")):
                final = caller.hear(487, 200)
            caller.say("ACK")
            if final.status == 200:
                caller.bye()
                assert ending(agent) == ("caller", "hung up")
            else:
                assert ending(agent) == ("caller", "cancelled")
    assert agent.count_idle()["pj_calls"] == 0


@pytest.mark.parametrize(
    ("user", "agent_name"),
    [
        pytest.param("+15550100", "receptionist", id="exact"),
        pytest.param("+15550199", "sales", id="prefix"),
        pytest.param("+44", None, id="nowhere"),
    ],
)
def test_routes(agent_with: StartAgent, user: str, agent_name: str | None) -> None:
    """A number reaches its agent; one that is routed nowhere gets 404 and never rings."""
    agent = agent_with(
        routes=[
            {"did": "+1555*", "agent": "sales"},
            {"did": "+15550100", "agent": "receptionist"},
        ]
    )
    with phone(agent.port, user=user) as caller:
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
        if agent_name is None:
            assert caller.hear(404, 180).status == 404
            caller.say("ACK")
        else:
            caller.hear(200)
            caller.say("ACK")
            assert agent.expect("offered")["agent"] == agent_name
            caller.bye()


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS", "REGISTER"])
def test_stranger_is_refused(agent_with: StartAgent, method: str) -> None:
    """An address no trunk allows gets 403 to whatever it asks, and nothing rings."""
    agent = agent_with(trunks=[{"name": "carrier", "allow": ["127.0.0.1"]}])
    with phone(agent.port, ip="127.0.0.2") as stranger:
        stranger.say(method, sdp(stranger.ip, stranger.rtp_port) if method == "INVITE" else "")
        assert stranger.hear(403, 180, 200).status == 403
    with phone(agent.port) as caller:
        caller.invite()
        offered = agent.expect("offered")
        assert (offered["trunk"], offered["caller_number"]) == ("carrier", "caller")
        caller.bye()


def test_stranger_with_forged_via(agent_with: StartAgent) -> None:
    """A maddr in Via does not make a stranger one of ours: it is refused all the same."""
    agent = agent_with(trunks=[{"name": "carrier", "allow": ["127.0.0.1"]}])
    with phone(agent.port, ip="127.0.0.2") as stranger:
        stranger.say("INVITE", sdp(stranger.ip, stranger.rtp_port), via_more=";maddr=127.0.0.1")
        time.sleep(0.3)
    with phone(agent.port, from_user="friend") as caller:
        caller.invite()
        assert agent.expect("offered")["caller_number"] == "friend"
        caller.bye()


def test_full_agent(agent_with: StartAgent) -> None:
    """One call more than configured gets 503 with Retry-After; a freed place is taken again."""
    agent = agent_with(sip={"max_calls": 1})
    assert agent.first["max_calls"] == 1
    with phone(agent.port) as first, phone(agent.port) as second:
        first.invite()
        second.say("INVITE", sdp(second.ip, second.rtp_port))
        refused = second.hear(503, 486, 180)
        assert refused.status == 503
        assert refused.header("Retry-After") == "5"
        second.say("ACK")
        first.bye()
        agent.expect("closed")
    with phone(agent.port) as third:
        third.invite()
        third.bye()


def test_full_library(start_agent: StartAgent) -> None:
    """When every call PJSIP carries is in use, the next caller is told when to retry."""
    agent = start_agent()
    if not agent.first["is_wheel"]:
        agent.stop()
        agent = start_agent(sip={"max_calls": 4})
    assert agent.first["max_calls"] == 4
    with ExitStack() as stack:
        *callers, one_more = [stack.enter_context(phone(agent.port)) for _ in range(5)]
        for caller in callers:
            caller.invite()
        one_more.say("INVITE", sdp(one_more.ip, one_more.rtp_port))
        refused = one_more.hear(503, 486, 180)
        assert (refused.status, refused.header("Retry-After")) == (503, "5")
        one_more.say("ACK")
        for caller in callers:
            caller.bye()
    assert agent.count_idle()["pj_calls"] == 0


def test_draining(start_agent: StartAgent) -> None:
    """While draining, a call goes on; new ones and OPTIONS get 503 with Retry-After."""
    agent = start_agent()
    with phone(agent.port) as talking, phone(agent.port) as late, phone(agent.port) as peer:
        peer.say("OPTIONS")
        peer.hear(200)
        talking.invite()
        agent.tell("drain")
        agent.expect("draining")
        late.say("INVITE", sdp(late.ip, late.rtp_port))
        assert late.hear(503, 180).header("Retry-After") == "5"
        late.say("ACK")
        peer.to_tag = ""
        peer.say("OPTIONS")
        assert peer.hear(503, 200).header("Retry-After") == "5"
        talking.bye()
        assert ending(agent) == ("caller", "hung up")


@pytest.mark.parametrize(
    ("payloads", "codecs", "expected"),
    [
        pytest.param("0 8", ["PCMU", "PCMA"], "0", id="PCMU first"),
        pytest.param("8 0", ["PCMU", "PCMA"], "8", id="PCMA first"),
        pytest.param("0 8", ["PCMA"], "8", id="trunk allows PCMA only"),
        pytest.param("18", ["PCMU", "PCMA"], None, id="G.729 only"),
        pytest.param("0", ["PCMA"], None, id="what the trunk does not allow"),
        pytest.param("9 3", ["PCMU", "PCMA"], None, id="G.722 and GSM"),
    ],
)
def test_codec(
    agent_with: StartAgent, payloads: str, codecs: list[str], expected: str | None
) -> None:
    """The caller's first codec that its trunk allows is taken; without one it is 488."""
    agent = agent_with(trunks=[{"name": "carrier", "allow": ["127.0.0.1"], "codecs": codecs}])
    with phone(agent.port) as caller:
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port, payloads))
        final = caller.hear(200, 488)
        caller.say("ACK")
        if expected is None:
            assert final.status == 488
        else:
            chosen = re.search(r"m=audio \d+ RTP/AVP (\d+)", final.body)
            assert chosen is not None
            assert chosen.group(1) == expected
            caller.bye()
    assert agent.count_idle()["pj_calls"] == 0


def test_nobody_waits_for_a_resolver(agent_with: StartAgent) -> None:
    """An SDP with a host's name is refused before it rings: asking DNS would halt every call."""
    agent = agent_with()
    with phone(agent.port) as caller:
        offer = sdp(caller.ip, caller.rtp_port)
        caller.say("INVITE", offer.replace(f"c=IN IP4 {caller.ip}", "c=IN IP4 slow.invalid"))
        assert caller.hear(180, 488).status == 488
        caller.say("ACK")
    assert agent.count_idle()["pj_calls"] == 0


def test_video_is_declined(agent_with: StartAgent) -> None:
    """A video call is answered with its audio; the video stream is refused with port 0."""
    agent = agent_with()
    with phone(agent.port) as caller:
        answer = caller.invite(sdp(caller.ip, caller.rtp_port, video=True))
        assert re.search(r"^m=audio [1-9]", answer.body, re.M)
        assert re.search(r"^m=video 0 ", answer.body, re.M)
        agent.expect("answered")
        caller.bye()


def test_late_offer(agent_with: StartAgent) -> None:
    """An INVITE without SDP gets our offer in the 200; audio flows after the ACK's answer."""
    agent = agent_with()
    with phone(agent.port) as caller, udp_socket("127.0.0.2") as sprayer:
        caller.say("INVITE")
        offer = caller.hear(200)
        assert re.search(r"^m=audio \d+ RTP/AVP 0 8|^m=audio \d+ RTP/AVP 8 0", offer.body, re.M)
        caller.say("ACK", sdp(caller.ip, caller.rtp_port, "0"))
        agent.expect("answered")
        caller.talk(rtp_target(offer), 25, payload=TONE, through=sprayer)
        assert loud(caller.listen(0.1)) == 0
        caller.talk(rtp_target(offer), 50, payload=TONE)
        assert loud(caller.listen(0.3)) >= 40
        caller.bye()


@pytest.mark.parametrize("ptime_ms", [10, 20, 30, 40, 60])
def test_ptime_of_the_caller(agent_with: StartAgent, ptime_ms: int) -> None:
    """Callers may send packets of any usual length; all of their speech is heard."""
    agent = agent_with()
    payload = (TONE * 3)[: ptime_ms * 8]
    with phone(agent.port) as caller:
        target = rtp_target(caller.invite())
        agent.expect("answered")
        caller.talk(target, 600 // ptime_ms, payload=payload)
        time.sleep(0.2)
        caller.bye()
        voiced_ms = agent.expect("closed")["voiced"] * 20
        assert 520 <= voiced_ms <= 720


@pytest.mark.parametrize(
    ("display", "from_user", "user"),
    [
        pytest.param("", "%00%1b%5b31m", "+1555", id="NUL and escapes, percent-encoded"),
        pytest.param('"\udcff\x1b[2J\udcfe" ', "bob", "+1555", id="bytes that are not UTF-8"),
        pytest.param("", "%E2%80%AEgnp", "%F0%9F", id="bidi override and cut UTF-8"),
        pytest.param("", "';DROP%20TABLE%20calls;--", "a" * 900, id="SQL and a very long number"),
    ],
)
def test_hostile_headers(agent_with: StartAgent, display: str, from_user: str, user: str) -> None:
    """Whatever a caller writes into headers is harmless text by the time we hand it on."""
    agent = agent_with()
    with phone(agent.port, display=display, from_user=from_user, user=user) as caller:
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
        caller.hear(200)
        offered = agent.expect("offered")
        for text in (offered["caller_number"], offered["did"], offered["sip_call_id"]):
            text.encode()
            assert text.isprintable()
            assert len(text) <= 256
        caller.say("ACK")
        caller.bye()


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(b"\r\n\r\n", id="keep-alive"),
        pytest.param(b"\0" * 1200, id="zeros"),
        pytest.param(bytes(range(256)) * 4, id="noise"),
        pytest.param(b"INVITE sip:x SIP/2.0\r\n\r\n", id="bare INVITE"),
        pytest.param(b"INVITE sip:x@y SIP/2.0\r\nVia: x\r\nContent-Length: -5\r\n\r\n", id="lies"),
    ],
)
def test_garbage(agent_with: StartAgent, datagram: bytes) -> None:
    """Noise on the SIP port disturbs nobody."""
    agent = agent_with()
    with phone(agent.port) as caller:
        for _ in range(5):
            caller.sip.sendto(datagram, caller.agent)
        caller.invite()
        caller.bye()
        assert ending(agent) == ("caller", "hung up")


def test_caller_without_rtp(agent_with: StartAgent) -> None:
    """A caller from whom nothing is heard is hung up, with the reason."""
    agent = agent_with(no_rtp_timeout_s=1.5)
    with phone(agent.port) as caller:
        caller.invite()
        caller.reply_ok(caller.hear("BYE"))
        assert ending(agent) == ("trunkline", "no audio from the caller for 1.5 s")


def test_caller_who_falls_silent(agent_with: StartAgent) -> None:
    """A caller whose packets stop is hung up only after the timeout, counted from the last."""
    agent = agent_with(no_rtp_timeout_s=1.5)
    with phone(agent.port) as caller:
        target = rtp_target(caller.invite())
        caller.talk(target, 125)
        stopped_s = time.monotonic()
        caller.reply_ok(caller.hear("BYE"))
        assert time.monotonic() - stopped_s > 0.4
        closed = agent.expect("closed")
        assert closed["reason"] == "no audio from the caller for 1.5 s"
        assert closed["quality"]["received"]["packets"] == 125
        assert closed["quality"]["sent"]["packets"] > 100


def test_hold_is_not_silence(agent_with: StartAgent) -> None:
    """On hold no audio is expected; back from hold the call goes on."""
    agent = agent_with(no_rtp_timeout_s=1.5)
    with phone(agent.port) as caller:
        target = rtp_target(caller.invite())
        caller.talk(target, 10)
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port, "0", direction="inactive"))
        assert "a=inactive" in caller.hear(200).body
        caller.say("ACK")
        with pytest.raises(AssertionError, match="waited"):
            caller.hear("BYE", within_s=3)
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port, "0"))
        target = rtp_target(caller.hear(200))
        caller.say("ACK")
        caller.listen(0.05)
        caller.talk(target, 40, payload=TONE)
        assert loud(caller.listen(0.3)) >= 30
        caller.bye()
        assert ending(agent) == ("caller", "hung up")


def test_sprayed_rtp(agent_with: StartAgent) -> None:
    """RTP from a foreign address is neither heard nor answered."""
    agent = agent_with()
    with phone(agent.port) as caller, udp_socket("127.0.0.2") as sprayer:
        target = rtp_target(caller.invite())
        agent.expect("answered")
        caller.talk(target, 75, payload=TONE, through=sprayer)
        assert caller.listen(0.1, through=sprayer) == []
        assert loud(caller.listen(0.1)) == 0
        caller.talk(target, 25, payload=TONE)
        assert loud(caller.listen(0.3)) >= 20
        caller.bye()
        closed = agent.expect("closed")
        assert closed["quality"]["received"]["packets"] == 25


def test_stranger_on_the_callers_address(agent_with: StartAgent) -> None:
    """Even from the caller's own address, only the signalled port is heard."""
    agent = agent_with()
    with phone(agent.port) as caller, udp_socket() as neighbour:
        target = rtp_target(caller.invite())
        caller.talk(target, 25, payload=b"\xff" * 160)
        caller.talk(target, 60, payload=TONE, through=neighbour)
        assert caller.listen(0.1, through=neighbour) == []
        caller.bye()
        assert agent.expect("closed")["voiced"] == 0


def test_asymmetric_caller(agent_with: StartAgent) -> None:
    """A caller that sends from another port than it receives on is heard within two seconds."""
    agent = agent_with()
    with phone(agent.port) as caller, udp_socket() as mouth:
        target = rtp_target(caller.invite())
        caller.talk(target, 150, payload=TONE, through=mouth)
        caller.bye()
        assert agent.expect("closed")["voiced"] >= 30


def test_fault_in_the_bridge(start_agent: StartAgent) -> None:
    """An exception in the bridge ends that call, with a traceback in the log, and no other."""
    agent = start_agent(broken=True)
    with phone(agent.port) as caller:
        caller.invite()
        caller.reply_ok(caller.hear("BYE"))
        assert ending(agent) == ("trunkline", "internal error")
        agent.count()
    agent.stop()
    assert "the bridge fell down" in "".join(agent.log)


def test_blocked_loop(start_agent: StartAgent) -> None:
    """After the loop was blocked the clock counts what was late and the call goes on."""
    agent = start_agent()
    with phone(agent.port) as caller:
        target = rtp_target(caller.invite())
        agent.tell("block")
        agent.expect("blocked")
        assert agent.count()["late_ticks"] >= 15
        caller.listen(0.05)
        caller.talk(target, 30, payload=TONE)
        assert loud(caller.listen(0.3)) >= 20
        caller.bye()


def test_port_in_use(start_agent: StartAgent) -> None:
    """A second agent on the same port says which address and what to do."""
    first = start_agent()
    second = start_agent(sip={"listen": f"127.0.0.1:{first.port}"})
    assert second.first["event"] == "unavailable"
    assert f"127.0.0.1:{first.port}" in second.first["message"]
    assert "change [sip] listen" in second.first["message"]


def test_stopping_hangs_up(start_agent: StartAgent) -> None:
    """An agent that stops says BYE to whoever is still on the line."""
    agent = start_agent()
    with phone(agent.port) as caller:
        caller.invite()
        agent.expect("answered")
        agent.tell("stop")
        caller.reply_ok(caller.hear("BYE"))
        agent.expect("stopped")


@pytest.mark.parametrize(
    ("suffix", "sip"),
    [
        pytest.param("", {}, id="UDP"),
        pytest.param(";transport=tcp", {"tcp": "on"}, id="TCP"),
    ],
)
def test_echo(
    agent_with: StartAgent, place_call: PlaceCall, suffix: str, sip: dict[str, Any]
) -> None:
    """A tone sent comes back whole, as loud as it was, within 100 ms.

    Counted in frames, and of two tones the faster: a stall of the machine is not ours.
    """
    agent = agent_with(sip=sip)
    call = place_call(uri=f"sip:bakery@127.0.0.1:{agent.port}{suffix}", tones=2)
    assert call["answered"]
    assert call["ringing_delay_ms"] <= call["answer_delay_ms"] < 500
    assert 0 < min(call["round_trips_ms"]) < 100
    assert 2 * 19 <= call["voiced_frames"] <= 2 * 22
    assert 7500 < call["peak"] < 8500
    assert (call["by"], ending(agent)) == ("caller", ("caller", "hung up"))


def test_probe_is_refused(agent_with: StartAgent, place_call: PlaceCall) -> None:
    """The test caller reports why it was not answered."""
    agent = agent_with(routes=[{"did": "+1555*", "agent": "sales"}])
    call = place_call(uri=f"sip:nobody@127.0.0.1:{agent.port}")
    assert (call["answered"], call["status"]) == (False, 404)


def test_probe_is_hung_up(agent_with: StartAgent, place_call: PlaceCall) -> None:
    """The test caller notices that the agent ended the call."""
    agent = agent_with(hang_up_after_s=1.5)
    call = place_call(uri=f"sip:x@127.0.0.1:{agent.port}", tone_ms=100, stay=True)
    assert call["by"] == "trunkline"


def test_probe_gives_up(agent_with: StartAgent, place_call: PlaceCall) -> None:
    """A call that rings too long is cancelled."""
    agent = agent_with(answer=False)
    call = place_call(uri=f"sip:x@127.0.0.1:{agent.port}", answer_timeout_s=0.5)
    assert (call["answered"], call["status"]) == (False, 0)
    assert ending(agent) == ("caller", "cancelled")


def test_fifty_calls_leave_nothing(start_agent: StartAgent) -> None:
    """Fifty calls by SIPp, one after another, leave no PJSIP call and no descriptor."""
    agent = start_agent()
    with phone(agent.port) as caller:
        caller.invite()
        caller.bye()
    before = count_without_media(agent)
    with udp_socket() as free:
        local_port = free.getsockname()[1]
    done = subprocess.run(
        f"sipp -sn uac 127.0.0.1:{agent.port} -i 127.0.0.1 -p {local_port}"
        " -m 50 -l 1 -r 50 -d 20 -timeout 25s -nostdin".split(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    after = count_without_media(agent)
    assert (after["active"], after["pj_calls"]) == (0, 0)
    assert after["fds"] <= before["fds"]
    assert after["threads"] <= before["threads"]


def test_burst_of_cancelled_calls(start_agent: StartAgent) -> None:
    """A hundred INVITEs each cancelled at once do not end the process, and calls work after."""
    agent = start_agent(answer=False)
    for _ in range(100):
        with phone(agent.port) as caller:
            caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
            if caller.hear(180, 503).status == 180:
                caller.to_tag = ""
                caller.say("CANCEL")
                caller.hear(487)
            caller.say("ACK")
    time.sleep(0.7)
    with phone(agent.port) as caller:
        caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
        caller.hear(180)
        caller.say("CANCEL")
        caller.hear(487)
        caller.say("ACK")
    assert agent.count_idle()["pj_calls"] == 0


def test_slots_are_taken_again_at_once(start_agent: StartAgent) -> None:
    """A call that follows hard upon another in the same slot of PJSIP lives its own life."""
    agent = start_agent()
    last: Phone | None = None
    with ExitStack() as stack:
        for _ in range(40):
            caller = stack.enter_context(phone(agent.port))
            if last is not None:
                last.say("BYE")
            caller.say("INVITE", sdp(caller.ip, caller.rtp_port))
            answer = caller.hear(200, 503)
            caller.say("ACK")
            if answer.status == 503:  # PJSIP's sockets of the last second are too many
                time.sleep(0.7)
                last = None
                continue
            target = rtp_target(answer)
            last = caller
        assert last is not None
        time.sleep(0.7)
        last.listen(0.05)
        last.talk(target, 30, payload=TONE)
        assert loud(last.listen(0.3)) >= 20
        last.bye()
    assert agent.count_idle()["pj_calls"] == 0
    assert agent.count()["active"] == 0
