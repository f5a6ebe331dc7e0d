"""`make bench`: what a call costs and how long people wait, on this machine, over loopback.

Two parts, each with the whole program in a process of its own:

- *conversation*: `trunkline call` talks with the embedded server; answer delay and
  turn latency as a caller feels them, one call at a time and four at once;
- *media*: four callers talk through an echoing Realtime peer; CPU of `serve` alone,
  round trip of the audio.

CPU is user plus system time of the process by /proc, in % of one core; per call is what
it uses above the idle process. Cores may be shared: compare ratios, not absolutes.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.measure import cpu_s, keep, machine, percentile, rss_mb
from tests.fakes.realtime import realtime
from tests.fakes.trunkline import Served, plain_environment, serving

SAY = ("When are you open on Saturday?", "What kinds of bread do you sell?")
MEDIA_S = 20
WARM_UP_S = 4
ECHO = Path(__file__).parents[1] / "data" / "scripts" / "echo.yaml"


def start(served: Served, module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start one of our callers beside the program."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=served.folder,
        env=plain_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def results(callers: Sequence[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """Wait for callers; the JSON of those that came through."""
    found = []
    for caller in callers:
        out, _ = caller.communicate(timeout=120)
        if caller.returncode == 0:
            found.append(json.loads(out))
    return found


def conversation(at_once: int, rounds: int) -> dict[str, Any]:
    """Talk with the embedded server."""
    reports: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as served:
        say = [argument for text in SAY for argument in ("--say", text)]
        for _ in range(rounds):
            callers = [
                start(served, "agent.main", "call", served.uri, *say, "--json")
                for _ in range(at_once)
            ]
            reports += results(callers)
    latencies = [ms for report in reports for ms in report["turn_latency_ms"] if ms is not None]
    answers = [report["answer_delay_ms"] for report in reports]
    return {
        "calls_at_once": at_once,
        "calls": len(reports),
        "answer_delay_ms": {"p50": percentile(answers, 50), "max": max(answers, default=None)},
        "turn_latency_ms": {
            "p50": percentile(latencies, 50),
            "p95": percentile(latencies, 95),
            "n": len(latencies),
        },
    }


def media(calls: int) -> dict[str, Any]:
    """Talk through an echo; measure the program's own CPU and the way there and back."""
    with realtime("--script", str(ECHO)) as peer, tempfile.TemporaryDirectory() as folder:
        environment = {
            "TRUNKLINE_REALTIME__PROVIDER": "openai",
            "TRUNKLINE_REALTIME__BASE_URL": peer.url,
            "OPENAI_API_KEY": "bench",
        }
        with serving(Path(folder), environment=environment) as served:
            pid = served.process.pid
            time.sleep(3)
            idle_mb = rss_mb(pid)
            idle_s, began_s = cpu_s(pid), time.monotonic()
            time.sleep(5)
            idle = (cpu_s(pid) - idle_s) / (time.monotonic() - began_s) * 100
            callers = [
                start(served, "tests.bench.talker", served.uri, str(MEDIA_S + WARM_UP_S))
                for _ in range(calls)
            ]
            time.sleep(WARM_UP_S)
            used_s, began_s = cpu_s(pid), time.monotonic()
            time.sleep(MEDIA_S - 2)
            used = (cpu_s(pid) - used_s) / (time.monotonic() - began_s) * 100
            busy_mb = rss_mb(pid)
            reports = results(callers)
    trips = [ms for report in reports for ms in report["round_trip_ms"]]
    return {
        "calls": len(reports),
        "cpu_percent": round(used, 1),
        "idle_cpu_percent": round(idle, 1),
        "cpu_percent_per_call": round((used - idle) / max(1, len(reports)), 2),
        "idle_mb": round(idle_mb, 1),
        "mb_per_call": round((busy_mb - idle_mb) / max(1, len(reports)), 2),
        "round_trip_ms": {"p50": percentile(trips, 50), "p95": percentile(trips, 95)},
        "bursts": sum(report["bursts"] for report in reports),
        "echoes": len(trips),
        "answer_delay_ms": statistics.median([report["answer_delay_ms"] for report in reports]),
        "longest_gap_ms": max(report["longest_gap_ms"] for report in reports),
    }


def main() -> None:
    """Measure, print tables, keep the figures."""
    console = Console()
    console.print(machine())
    talks = []
    for at_once, rounds in ((1, 4), (4, 1)):
        console.print(f"conversation: {at_once} at once ...")
        talks.append(conversation(at_once, rounds))
    table = Table("calls at once", "answer delay p50 / max", "turn latency p50 / p95", "turns")
    for row in talks:
        answer, turn = row["answer_delay_ms"], row["turn_latency_ms"]
        table.add_row(
            str(row["calls_at_once"]),
            f"{answer['p50']} / {answer['max']} ms",
            f"{turn['p50']} / {turn['p95']} ms",
            str(turn["n"]),
        )
    console.print(table)
    streams = []
    for calls in (1, 4):
        console.print(f"media: {calls} calls for {MEDIA_S} s ...")
        streams.append(media(calls))
    table = Table(
        "calls", "CPU per call", "round trip p50 / p95", "memory per call", "answer delay"
    )
    for row in streams:
        trip = row["round_trip_ms"]
        table.add_row(
            str(row["calls"]),
            f"{row['cpu_percent']} / {row['idle_cpu_percent']} % of a core",
            f"{trip['p50']} / {trip['p95']} ms",
            f"{row['cpu_percent_per_call']} %, {row['mb_per_call']} MB",
            f"{row['answer_delay_ms']:.0f} ms",
        )
    console.print(table)
    console.print(f"written to {keep('loopback', {'conversation': talks, 'media': streams})}")


if __name__ == "__main__":
    main()
