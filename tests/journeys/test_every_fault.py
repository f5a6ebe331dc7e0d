"""One call through everything that can go wrong at the far end, one thing after the other."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.embedded.engines import Engines
from tests.embedded.scripted import KEY, scripted
from tests.fakes.trunkline import serving
from tests.journeys.conftest import Speak
from tests.sip.wire import Phone, phone, rtp_target

FAULTS: dict[str, dict[str, Any]] = {
    "garbage": {"do": "send", "text": "no JSON"},
    "not text": {"do": "send", "hex": "fffe00"},
    "news": {"do": "send", "event": {"type": "brand.new.event"}, "size_bytes": 200_000},
    "an error": {
        "do": "send",
        "event": {"type": "error", "error": {"type": "server_error", "code": "x", "message": "x"}},
    },
    "loss": {"do": "lose", "every": 10},
    "doubles": {"do": "duplicate", "every": 5},
    "disorder": {"do": "reorder", "every": 7},
    "jitter": {"do": "jitter", "every": 1, "delay_ms": 40},
    "bursts": {"do": "delay", "every": 20, "delay_ms": 200},
    "drop": {"do": "drop"},
    "mute": {"do": "mute"},
    "expire": {"do": "expire"},
    "freeze": {"do": "freeze"},
    "vanish": {"do": "vanish"},
}
FATAL = {"drop", "mute", "expire", "freeze", "vanish"}
PATIENCE_S = 12
LEAST_PACKETS = 18
"""Half a second of the agent, less what gets lost."""


def script() -> dict[str, Any]:
    """Every turn is answered by half a second of a tone; each fault strikes at its cue."""
    answer = [{"say": "Beep.", "tone_hz": 440, "tone_ms": 500}]
    by_events = [
        {"at": "response.created", "nth": 2, "do": "repeat"},
        {"at": "response.output_audio_transcript.done", "nth": 2, "do": "hold"},
        {"at": "response.done", "nth": 3, "do": "omit"},
        {"at": "response.done", "nth": 4, "do": "fail_response"},
        {"at": "response.create", "nth": 6, "do": "ignore"},
    ]
    cued = [{"at": f"cue.{name.replace(' ', '_')}", **fault} for name, fault in FAULTS.items()]
    return {
        "turns": [{"hear": "Hello?", "answer": answer}] * 40,
        # Some sessions are not to be had at the first attempt.
        "offers": [{}, {"status": 500}, {}, {"answer": "no SDP"}, {}, {"delay_s": 0.5}],
        "faults": by_events + cued,
    }


def is_voice(packet: bytes) -> bool:
    """More than 4000 of 32767 in PCMU: the agent's tone, not the beep between two sessions."""
    return min(byte | 0x80 for byte in packet[12:]) < 0xB0


class Handset:
    """A telephone that sends sound all the time, and counts the agent's loud packets."""

    def __init__(self, caller: Phone, target: tuple[str, int]) -> None:
        self._caller = caller
        self._target = target

    def say(self, speech: bytes) -> None:
        for at in range(0, len(speech), 160):
            self._caller.talk(self._target, 1, payload=speech[at : at + 160].ljust(160, b"\xff"))

    def hears(self) -> int:
        """Wait a fifth of a second; tell how many packets of voice came in it."""
        self._caller.talk(self._target, 10)
        return sum(map(is_voice, self._caller.listen(0.01)))

    def hears_an_answer(self) -> bool:
        """Wait for more of a voice than a beep, and for the quiet after it."""
        until_s = time.monotonic() + PATIENCE_S
        packets = quiet = 0
        while time.monotonic() < until_s and not (packets >= LEAST_PACKETS and quiet >= 4):
            heard = self.hears()
            packets, quiet = packets + heard, 0 if heard else quiet + 1
        return packets >= LEAST_PACKETS


async def test_a_call_through_every_fault(
    tmp_path: Path, engines: Engines, speak: Speak, ulaw: Callable[[bytes], bytes]
) -> None:
    """Whatever fails, the caller is answered soon, and in the end every row is there."""
    question = ulaw(speak("Hello, can you still hear me at all?").read_bytes())
    environment = {
        "OPENAI_API_KEY": KEY,
        "TRUNKLINE_IDLE__AFTER_S": "0",
        "TRUNKLINE_WATCHDOG__ANSWER_TIMEOUT_S": "2",
        "TRUNKLINE_WATCHDOG__VOICE_TIMEOUT_S": "2",
        "TRUNKLINE_WATCHDOG__SOUND_TIMEOUT_S": "2",
        "TRUNKLINE_WATCHDOG__REPAIR_TIMEOUT_S": "2",
        # Sessions that die within half a minute of each other are failed attempts.
        "TRUNKLINE_RECOVERY__ATTEMPTS": "10",
        "TRUNKLINE_RECOVERY__BACKOFF_S": "0.01",
    }
    unanswered = []
    async with scripted(engines, script()) as far:
        environment["TRUNKLINE_REALTIME__BASE_URL"] = far.url
        started = serving(tmp_path, environment=environment)
        served = await asyncio.to_thread(started.__enter__)
        try:
            with phone(served.sip_port) as caller:
                handset = Handset(caller, rtp_target(await asyncio.to_thread(caller.invite)))
                assert await asyncio.to_thread(handset.hears_an_answer), "no greeting"
                for fault in FAULTS:
                    await far.command(type=f"cue.{fault.replace(' ', '_')}")
                    for _ in range(2):  # as people do
                        await asyncio.to_thread(handset.say, question)
                        if await asyncio.to_thread(handset.hears_an_answer):
                            break
                    else:
                        unanswered.append(fault)
                await asyncio.to_thread(caller.bye)
            call = (await asyncio.to_thread(served.wait_for_calls, 1))[0]
            assert "Traceback" not in served.stderr
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)
    kinds = Counter(event["kind"] for event in call["events"])
    assert unanswered == []
    assert call["ending"] == {"by": "caller", "reason": "hung up"}
    assert kinds["session_succeeded"] >= len(FATAL)
    assert kinds["session_unavailable"] >= 1
    turns = call["turns"]
    assert len({turn["item_id"] for turn in turns}) == len(turns)
    assert [turn["position"] for turn in turns] == sorted(turn["position"] for turn in turns)
    assert all(turn["ended_ms"] is not None for turn in turns)
    assert sum(turn["speaker"] == "caller" for turn in turns) >= len(FAULTS) - len(FATAL)
    assert sum(bool(turn["heard_text"]) for turn in turns if turn["speaker"] == "agent") >= len(
        FAULTS
    )
    assert call["quality"]["agent"]["sessions"] == kinds["session_succeeded"] + 1
    assert call["usage"]
