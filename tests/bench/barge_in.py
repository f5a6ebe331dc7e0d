"""How fast the agent falls silent at the phone, once the far end says that the caller speaks.

The whole program and the embedded server run in processes of their own; the server's script
says again and again that the caller speaks, and goes on sending the agent's voice as if
nothing had happened: all the silence is ours. The telephone is one UDP socket that notes
when each RTP packet came, from the event on the far end's side to the first packet without
a voice.
"""

import json
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from tests.bench.measure import keep, machine, percentile
from tests.fakes.realtime import realtime
from tests.fakes.trunkline import serving
from tests.sip.wire import loud, phone, rtp_target

TIMES = 20
EVERY_S = 1.5
FIRST_S = 4.0
LONGEST_S = 1.0


def script() -> dict[str, Any]:
    """A tone without end, and a caller who is said to speak every now and then."""
    faults: list[dict[str, Any]] = []
    for number in range(TIMES):
        at, item_id = FIRST_S + number * EVERY_S, f"item_{number}"
        faults += [
            send(at, "output_audio_buffer.started", response_id=f"resp_{number}"),
            send(at + 0.5, "input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=0),
            send(at + 0.8, "input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=0),
        ]
    tone_ms = int((FIRST_S + TIMES * EVERY_S + 5) * 1000)
    return {
        "turns": [{"answer": [{"say": "A tone.", "tone_hz": 440, "tone_ms": tone_ms}]}],
        "faults": faults,
    }


def send(at: float, event_type: str, **fields: Any) -> dict[str, Any]:
    """One event of the script."""
    return {"at": at, "do": "send", "event": {"type": event_type, "event_id": "event_b", **fields}}


def listen(rtp: socket.socket, until_s: float) -> list[tuple[float, bool]]:
    """When each packet came, and whether a voice was in it."""
    packets = []
    rtp.settimeout(0.5)
    while time.time() < until_s:
        try:
            packets.append((rtp.recv(2048), time.time()))
        except TimeoutError:
            continue
    return [(at_s, loud([packet]) > 0 and is_voice(packet)) for packet, at_s in packets]


def is_voice(packet: bytes) -> bool:
    """Tell a tone from what an encoder makes of silence: small PCMU codes are large values."""
    return sum((~code & 0x7F) > 0x30 for code in packet[12:]) * 4 > len(packet) - 12


def delays_ms(events_s: Sequence[float], packets: Sequence[tuple[float, bool]]) -> list[float]:
    """From each event to the first packet after it without a voice."""
    found = []
    for event_s in events_s:
        silent = [at_s for at_s, voiced in packets if not voiced and at_s >= event_s]
        if any(voiced and event_s - 0.1 <= at_s < event_s for at_s, voiced in packets) and silent:
            found.append((silent[0] - event_s) * 1000)
    return [ms for ms in found if ms < LONGEST_S * 1000]


def measure(guard: str) -> dict[str, Any]:
    """One call with twenty interruptions."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        part, trace = folder / "script.yaml", folder / "trace.jsonl"
        part.write_text(yaml.safe_dump(script()))
        with realtime("--script", str(part), "--trace", str(trace)) as far:
            environment = {
                "OPENAI_API_KEY": "bench",
                "TRUNKLINE_REALTIME__BASE_URL": far.url,
                "TRUNKLINE_INTERRUPTION__GUARD": guard,
            }
            with (
                serving(folder, environment=environment) as served,
                phone(served.sip_port) as caller,
            ):
                target = rtp_target(caller.invite())
                lasts_s = FIRST_S + TIMES * EVERY_S + 1
                mouth = threading.Thread(target=caller.talk, args=(target, int(lasts_s * 50)))
                mouth.start()
                packets = listen(caller.rtp, time.time() + lasts_s)
                mouth.join()
                caller.bye()
        records = [json.loads(line) for line in trace.read_text().splitlines()]
    events_s = [
        datetime.fromisoformat(record["at"]).timestamp()
        for record in records
        if record.get("event", {}).get("type") == "input_audio_buffer.speech_started"
    ]
    delays = delays_ms(events_s, packets)
    return {
        "guard": guard,
        "interruptions": len(events_s),
        "measured": len(delays),
        "silence_after_ms": {
            "p50": percentile(delays, 50),
            "p95": percentile(delays, 95),
            "max": max(delays, default=None),
        },
    }


def main() -> None:
    """Measure, print a table, keep the figures."""
    console = Console()
    console.print(machine())
    rows = []
    for guard in ("off", "pause"):
        console.print(f"barge-in: guard {guard}, {TIMES} times ...")
        rows.append(measure(guard))
    table = Table("guard", "silent at the phone after p50 / p95 / max", "interruptions")
    for row in rows:
        after = row["silence_after_ms"]
        figures = " / ".join("-" if ms is None else f"{ms:.0f}" for ms in after.values())
        table.add_row(row["guard"], f"{figures} ms", f"{row['measured']} of {row['interruptions']}")
    console.print(table)
    console.print(f"written to {keep('barge_in', {'barge_in': rows})}")


if __name__ == "__main__":
    main()
