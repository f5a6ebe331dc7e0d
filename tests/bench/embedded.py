"""`make bench`, the embedded server: how soon it answers, what a session costs, what it keeps.

    python -m tests.bench.embedded

The server is `trunkline realtime` in a process of its own; the callers are here, over
WebRTC with Opus, and speak in real time with the project's own voice:

- *answers*: from the caller's last voiced frame sent to the agent's first voiced frame
  received, minus the silence that ends a turn by configuration. Callers pause for a
  random moment between turns, and stop the agent before it has said everything;
- *cost*: CPU and memory of the server while they talk;
- *memory*: what is resident after so many short sessions, when none is open.
"""

import asyncio
import contextlib
import gc
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiortc.exceptions import InvalidStateError
from rich.console import Console
from rich.table import Table

from agent.audio.frame import FRAME_MS
from agent.embedded.voice import Voice
from agent.realtime.rtp_path import gather_loopback_when_alone
from tests.bench.measure import cpu_s, keep, machine, machine_cpu_s, percentile, rss_mb
from tests.embedded.caller import TIMEOUT_S, Caller, open_call
from tests.fakes.realtime import realtime

QUESTIONS = ("When are you open?", "How much is an apple pie?", "Where are you?", "Thank you.")
SILENCE_MS = 500
TARGET_P50_MS, TARGET_P95_MS = 150, 250
TALKS = ((1, 40, 0.0), (10, 6, 2.0))
"""How many sessions at once, how many turns each has, how long its caller listens.

Ten callers who never listened would talk as much as thirty who do.
"""
MEMORY_MARKS = (20, 200, 400)
"""The allocator's arenas fill during the first 200; what grows over the next 200 is ours."""
MEMORY_AT_ONCE = 5
WARM_UP_SESSIONS = 5
SETTLE_S = 2
FLAT_KB_PER_SESSION = 20
"""Growth that still counts as flat: a session kept by mistake would cost hundreds."""
STARTED = "output_audio_buffer.started"
ENDED = ("output_audio_buffer.cleared", "output_audio_buffer.stopped")
UNANSWERED = (TimeoutError, InvalidStateError)
"""What a turn ends with that nobody answered in time, or whose session is gone."""
SESSION: dict[str, Any] = {
    "type": "realtime",
    "instructions": "You answer the phone for a bakery. Be brief.",
    "audio": {
        "input": {
            "transcription": {"model": "gpt-transcribe"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": SILENCE_MS},
        }
    },
}


@dataclass
class Callers:
    """Everybody who talks with one server.

    Attributes:
        url: Where it is.
        pid: Whose CPU and memory is measured.
        speech: 8 kHz PCM of each question.
    """

    url: str
    pid: int
    speech: Sequence[bytes]

    async def turn(self, caller: Caller, number: int, listen_s: float = 0) -> int:
        """Ask one question, hear the answer begin, and stop it then; ms beyond the silence.

        Raises:
            TimeoutError: No answer came.
        """
        caller.say(self.speech[number % len(self.speech)])
        async with asyncio.timeout(TIMEOUT_S):
            while caller.speaking:
                await asyncio.sleep(FRAME_MS / 1000)
            said_ms = caller.spoken.runs[-1][1] - FRAME_MS
            while (heard_ms := caller.listened.first_voiced_since(said_ms)) is None:
                await asyncio.sleep(FRAME_MS / 1000)
            await asyncio.sleep(listen_s)
            caller.send(type="output_audio_buffer.clear")
            while caller.kinds().count(STARTED) > sum(map(caller.kinds().count, ENDED)):
                await asyncio.sleep(FRAME_MS / 1000)
        return heard_ms - said_ms - SILENCE_MS

    async def talk(self, turns: int, listen_s: float, seed: int) -> list[int]:
        """Hold one session; the delays of the turns that were answered."""
        chance = random.Random(seed)
        delays = []
        async with open_call(self.url, SESSION) as caller:
            for number in range(turns):
                await asyncio.sleep(chance.uniform(0.3, 1.2))
                with contextlib.suppress(*UNANSWERED):
                    delays.append(await self.turn(caller, seed + number, listen_s))
        return delays

    async def talk_at_once(self, sessions: int, turns: int, listen_s: float) -> dict[str, Any]:
        """Hold so many sessions; the delays, and what the server used."""
        idle_mb = most_mb = rss_mb(self.pid)
        loop = asyncio.get_running_loop()
        used_s, ours_s, all_s, began_s = (
            cpu_s(self.pid),
            cpu_s(os.getpid()),
            machine_cpu_s(),
            loop.time(),
        )
        async with asyncio.TaskGroup() as tasks:
            talks = {
                tasks.create_task(self.talk(turns, listen_s, seed)) for seed in range(sessions)
            }
            talking = talks
            while talking:
                _, talking = await asyncio.wait(talking, timeout=0.5)
                most_mb = max(most_mb, rss_mb(self.pid))
        percent = 100 / (loop.time() - began_s)
        used = (cpu_s(self.pid) - used_s) * percent
        ours = (cpu_s(os.getpid()) - ours_s) * percent
        others = (machine_cpu_s() - all_s) * percent - used - ours
        delays = [ms for talk in talks for ms in talk.result()]
        return {
            "sessions": sessions,
            "turns": sessions * turns,
            "unanswered": sessions * turns - len(delays),
            "answer_ms": {"p50": percentile(delays, 50), "p95": percentile(delays, 95)},
            "cpu_percent": round(used, 1),
            "callers_cpu_percent": round(ours, 1),
            "other_work_cpu_percent": round(others, 1),
            "cpu_percent_per_session": round(used / sessions, 2),
            "mb_per_session": round((most_mb - idle_mb) / sessions, 2),
        }

    async def visit(self, sessions: int) -> float:
        """Hold so many short sessions, a few at a time; MB resident when all are over."""
        coming = iter(range(sessions))

        async def visitor() -> None:
            for number in coming:
                async with open_call(self.url, SESSION) as caller:
                    with contextlib.suppress(*UNANSWERED):
                        await self.turn(caller, number)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(MEMORY_AT_ONCE):
                tasks.create_task(visitor())
        await asyncio.sleep(SETTLE_S)
        return rss_mb(self.pid)


async def answers(speech: Sequence[bytes], say: Callable[[str], None]) -> dict[str, Any]:
    """Talk with one server, alone and at once."""
    rows = []
    with realtime() as served:
        callers = Callers(served.url, served.process.pid, speech)
        load_s, load_mb = served.load_s, rss_mb(served.process.pid)
        await callers.visit(WARM_UP_SESSIONS)
        for sessions, turns, listen_s in TALKS:
            say(f"answers: {sessions} sessions at once, {turns} turns each ...")
            rows.append(await callers.talk_at_once(sessions, turns, listen_s))
    return {"load_s": round(load_s, 2), "load_mb": round(load_mb, 1), "rows": rows}


async def memory(speech: Sequence[bytes], say: Callable[[str], None]) -> dict[str, Any]:
    """Hold many sessions, one after another, and see what stays."""
    marks: list[dict[str, float]] = []
    with realtime() as served:
        callers = Callers(served.url, served.process.pid, speech)
        held = 0
        for mark in MEMORY_MARKS:
            say(f"memory: up to {mark} sessions ...")
            resident_mb = await callers.visit(mark - held)
            held = mark
            marks.append({"sessions": mark, "mb": round(resident_mb, 1)})
    first, last = marks[-2:]
    grown_kb = (last["mb"] - first["mb"]) * 1000 / (last["sessions"] - first["sessions"])
    return {
        "marks": marks,
        "grown_kb_per_session": round(grown_kb, 1),
    }


def verdict(is_met: bool) -> str:
    """How a table says it."""
    return "met" if is_met else "[bold]not met[/bold]"


def print_answers(console: Console, figures: dict[str, Any]) -> None:
    """The first part as a table."""
    console.print(f"engines loaded in {figures['load_s']} s, {figures['load_mb']} MB resident")
    table = Table(
        *("sessions", "answer p50 / p95", f"{TARGET_P50_MS} / {TARGET_P95_MS} ms", "answered"),
        *("CPU a session", "memory a session", "other work"),
    )
    for row in figures["rows"]:
        p50, p95 = row["answer_ms"]["p50"], row["answer_ms"]["p95"]
        is_met = not row["unanswered"] and p50 <= TARGET_P50_MS and p95 <= TARGET_P95_MS
        table.add_row(
            str(row["sessions"]),
            f"{p50} / {p95} ms",
            verdict(is_met),
            f"{row['turns'] - row['unanswered']} of {row['turns']}",
            f"{row['cpu_percent_per_session']} % of a core",
            f"{row['mb_per_session']} MB",
            f"{row['other_work_cpu_percent']:.0f} % of a core",
        )
    console.print(table)


def print_memory(console: Console, figures: dict[str, Any]) -> None:
    """The second part as a table."""
    table = Table("after sessions", "resident")
    for mark in figures["marks"]:
        table.add_row(str(mark["sessions"]), f"{mark['mb']} MB")
    console.print(table)
    grown_kb = figures["grown_kb_per_session"]
    console.print(
        f"grown by {grown_kb} kB a session over the last {MEMORY_MARKS[-1] - MEMORY_MARKS[-2]} "
        f"(target: at most {FLAT_KB_PER_SESSION} kB): {verdict(grown_kb <= FLAT_KB_PER_SESSION)}"
    )


def main() -> None:
    """Measure, print tables, keep the figures."""
    console = Console()
    console.print(machine())
    gather_loopback_when_alone()
    voice = Voice()
    speech = [voice.synthesise(question) for question in QUESTIONS]
    # Our own pauses would be taken for the server's.
    gc.collect()
    gc.freeze()
    answered = asyncio.run(answers(speech, console.print))
    print_answers(console, answered)
    kept = asyncio.run(memory(speech, console.print))
    print_memory(console, kept)
    console.print(f"written to {keep('embedded', {'answers': answered, 'memory': kept})}")


if __name__ == "__main__":
    main()
