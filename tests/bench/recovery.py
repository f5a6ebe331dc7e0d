"""How long the caller hears nothing when the session dies in mid-sentence.

The whole program and the embedded server run in processes of their own; the server's script
speaks a tone without end and drops every session after three seconds. The telephone is one
UDP socket that notes when each RTP packet came: a gap is the time between the last packet
of the tone and the first of the next session's. What the log says the call was without a
session is shown beside it; the rest is the model's way to its first sound.
"""

import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from tests.bench.barge_in import listen
from tests.bench.measure import keep, machine, percentile
from tests.fakes.realtime import realtime
from tests.fakes.trunkline import serving
from tests.sip.wire import phone, rtp_target

LOSSES = 12
SESSION_S = 3
LEAST_GAP_S = 0.1


def script() -> dict[str, Any]:
    """A tone without end, in sessions that are dropped."""
    tone = {"say": "A tone.", "tone_hz": 440, "tone_ms": 60_000}
    return {"turns": [{"answer": [tone]}], "faults": [{"at": SESSION_S, "do": "drop"}]}


def gaps_ms(packets: Sequence[tuple[float, bool]]) -> list[float]:
    """The silences between two stretches of the tone."""
    voiced_s = [at_s for at_s, voiced in packets if voiced]
    return [(b - a) * 1000 for a, b in pairwise(voiced_s) if b - a > LEAST_GAP_S]


def measure() -> dict[str, Any]:
    """One call that loses its session again and again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        part = folder / "script.yaml"
        part.write_text(yaml.safe_dump(script()))
        with realtime("--script", str(part)) as far:
            environment = {
                "OPENAI_API_KEY": "bench",
                "TRUNKLINE_REALTIME__BASE_URL": far.url,
                "TRUNKLINE_RECOVERY__ATTEMPTS": "20",
                "TRUNKLINE_RECOVERY__BACKOFF_S": "0",
            }
            with (
                serving(folder, environment=environment) as served,
                phone(served.sip_port) as caller,
            ):
                target = rtp_target(caller.invite())
                lasts_s = LOSSES * (SESSION_S + 0.5)
                mouth = threading.Thread(target=caller.talk, args=(target, int(lasts_s * 50)))
                mouth.start()
                packets = listen(caller.rtp, time.time() + lasts_s)
                mouth.join()
                caller.bye()
                events = served.wait_for_calls(1)[0]["events"]
    found = [e["detail"]["gap_ms"] for e in events if e["kind"] == "session_succeeded"]
    gaps = gaps_ms(packets)
    return {
        "losses": sum(event["kind"] == "session_lost" for event in events),
        "without_session_ms": {"p50": percentile(found, 50), "max": max(found, default=None)},
        "silent_at_phone_ms": {"p50": percentile(gaps, 50), "max": max(gaps, default=None)},
    }


def main() -> None:
    """Measure, print a table, keep the figures."""
    console = Console()
    console.print(machine())
    console.print(f"recovery: {LOSSES} sessions lost in mid-sentence ...")
    row = measure()
    table = Table("", "p50 / max")
    for title, key in (
        ("without a session", "without_session_ms"),
        ("silent at the phone", "silent_at_phone_ms"),
    ):
        figures = (row[key][name] for name in ("p50", "max"))
        table.add_row(
            title, " / ".join("-" if ms is None else f"{ms:.0f}" for ms in figures) + " ms"
        )
    console.print(table)
    console.print(f"written to {keep('recovery', {'recovery': row})}")


if __name__ == "__main__":
    main()
