"""A telephone on a SIP stack nobody here wrote (baresip), which follows a plan.

Runs as its own process, one call per run::

    python -m tests.fakes.phone PLAN.json   ->   one JSON object on stdout

The plan: `{"uri", "steps": [...], "timeout_s", "record": path}`, where a step is one of

- `{"listen": quiet_ms}`: wait until the agent has spoken and then been quiet so long;
- `{"say": path}`: speak a file of 8 kHz s16le PCM;
- `{"interrupt": path, "after_ms": n}`: speak that long after the agent's next words began;
- `{"wait_for_end": true}`: wait until the far end hangs up;
- `{"hang_up": true}`.

The result: `established`, `reason`, `steps` (per step `began_ms`, `ended_ms`, and for
listening `onset_ms`), `heard` (voiced stretches), `silent_after_ms` for an interruption
(the caller's first voiced sample to the agent's last). Everything heard is in `record`,
8 kHz s16le, in step with the times.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import baresip

from agent.audio.frame import FRAME_BYTES, FRAME_MS, SILENCE
from agent.audio.voice import VoiceTrack

_TICK_S = FRAME_MS / 1000


class Phone:
    """One call; every 20 ms it hears a frame and speaks one."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._speech = b""
        self._received = b""
        self._began_s = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self.heard = VoiceTrack()
        self.recording = bytearray()
        self.closed = asyncio.Event()
        self.reason = ""
        call.on(self._on_event)

    def _on_event(self, event: Any) -> None:
        if event.event is baresip.Event.CALL_CLOSED:
            self.reason = str(event.text or "")
            self.closed.set()

    @property
    def now_ms(self) -> int:
        return int((time.monotonic() - self._began_s) * 1000)

    @property
    def is_speaking(self) -> bool:
        return bool(self._speech)

    def start(self) -> None:
        self._began_s = time.monotonic()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        due_s = time.monotonic()
        while not self.closed.is_set():
            try:
                self._tick()
            except (baresip.AudioNotActive, baresip.AudioRestarted):
                pass
            due_s += _TICK_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    def _tick(self) -> None:
        audio = self._call.audio
        self._received += audio.read(FRAME_BYTES * 50)
        now_ms = self.now_ms
        # Kept in step with the clock: what is late moves the rest, what lacks is silence.
        while len(self._received) >= FRAME_BYTES:
            frame, self._received = self._received[:FRAME_BYTES], self._received[FRAME_BYTES:]
            self.heard.note(frame, now_ms)
            self.recording += frame
        missing = now_ms * 16 - len(self.recording)
        if missing > FRAME_BYTES * 10:
            self.recording += SILENCE * (missing // FRAME_BYTES)
        if self._speech:
            frame, self._speech = self._speech[:FRAME_BYTES], self._speech[FRAME_BYTES:]
            audio.write(frame)

    async def hang_up(self) -> None:
        await self._call.hangup()

    async def say(self, pcm: bytes) -> None:
        self._speech = pcm + bytes(-len(pcm) % FRAME_BYTES)
        while self._speech and not self.closed.is_set():
            await asyncio.sleep(_TICK_S)

    async def listen(self, quiet_ms: int) -> int | None:
        """Wait for words and the quiet after them; return when the words began."""
        began_ms = self.now_ms
        while not self.closed.is_set():
            onset_ms = self.heard.first_voiced_since(began_ms)
            if onset_ms is not None and self.now_ms - self.heard.runs[-1][1] >= quiet_ms:
                return onset_ms
            await asyncio.sleep(_TICK_S)
        return self.heard.first_voiced_since(began_ms)

    async def interrupt(self, pcm: bytes, after_ms: int) -> int:
        """Speak over the agent; return how long it went on, ms."""
        began_ms = self.now_ms
        onset_ms = None
        while onset_ms is None or self.now_ms < onset_ms + after_ms:
            onset_ms = self.heard.first_voiced_since(began_ms)
            await asyncio.sleep(_TICK_S)
        spoke_ms = self.now_ms
        await self.say(pcm)
        runs = [run for run in self.heard.runs if run[0] < spoke_ms]
        return max(0, runs[-1][1] - spoke_ms)


async def follow(phone: Phone, step: dict[str, Any]) -> dict[str, Any]:
    """Carry out one step of the plan."""
    result: dict[str, Any] = {"began_ms": phone.now_ms}
    match step:
        case {"listen": quiet_ms}:
            result["onset_ms"] = await phone.listen(quiet_ms)
        case {"interrupt": path, "after_ms": after_ms}:
            result["silent_after_ms"] = await phone.interrupt(Path(path).read_bytes(), after_ms)
        case {"say": path}:
            await phone.say(Path(path).read_bytes())
        case {"wait_for_end": True}:
            await phone.closed.wait()
        case {"hang_up": True}:
            await phone.hang_up()
        case _:
            raise ValueError(f"unknown step {step}")
    return result | {"ended_ms": phone.now_ms}


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Place the call, follow the plan, tell what happened."""
    runtime = baresip.Runtime()
    await runtime.start(
        baresip.Config(net_interface="127.0.0.1", extra_config_text="sip_listen 127.0.0.1:0\n")
    )
    result: dict[str, Any] = {"established": False, "reason": "", "steps": []}
    try:
        account = baresip.Account(
            user="alice",
            domain="127.0.0.1",
            password="",
            reg_interval=0,
            audio_codecs=tuple(plan.get("codecs", ("pcmu", "pcma"))),
        )
        ua = await baresip.UserAgent.create(runtime, account)
        try:
            call = await ua.dial(plan["uri"])
            phone = Phone(call)
            await call.wait_established(timeout=plan["timeout_s"])
        except baresip.BaresipError as error:
            result["reason"] = str(error)
            return result
        result["established"] = True
        phone.start()
        try:
            async with asyncio.timeout(plan["timeout_s"]):
                for step in plan["steps"]:
                    result["steps"].append(await follow(phone, step))
        except TimeoutError:
            result["reason"] = f"timed out in step {len(result['steps'])}"
        finally:
            await phone.stop()
            if not phone.closed.is_set():
                await call.hangup()
        result["heard"] = phone.heard.runs
        result["ended_by_far_end"] = phone.closed.is_set()
        result["reason"] = result["reason"] or phone.reason
        Path(plan["record"]).write_bytes(bytes(phone.recording))
    finally:
        await runtime.close()
    return result


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(asyncio.run(run(plan))))


if __name__ == "__main__":
    main()
