"""A test caller in a process of its own: says a tone, prints what came of the call.

python -m tests.sip.calling '{"uri": "sip:x@127.0.0.1:5060", "tone_ms": 500, ...}'
"""

import json
import math
import struct
import sys
from typing import Any

from agent.audio.voice import is_voiced
from sip.probe import CallRefused, open_probe


def tone(duration_ms: int, hz: int = 440, level: int = 8000) -> bytes:
    count = duration_ms * 8
    return struct.pack(
        f"<{count}h", *(int(level * math.sin(2 * math.pi * hz * i / 8000)) for i in range(count))
    )


async def main(options: dict[str, Any]) -> dict[str, Any]:
    try:
        async with open_probe(
            options["uri"],
            source_ip=options.get("source_ip", "127.0.0.1"),
            caller=options.get("caller", "probe"),
            answer_timeout_s=options.get("answer_timeout_s", 5),
        ) as probe:
            round_trips = []
            for _ in range(options.get("tones", 1)):
                await probe.wait_until_quiet(300, 3)
                began_ms = probe.now_ms
                probe.say(tone(options.get("tone_ms", 400)))
                onset_ms = await probe.wait_until_heard(began_ms, 3)
                await probe.wait_until_said()
                await probe.wait_until_quiet(300, 3)
                if onset_ms is not None and probe.last_spoken_ms is not None:
                    round_trips.append(probe.heard.voice.runs[-1][0] - probe.spoken.runs[-1][0])
            if options.get("stay"):
                await probe.closed()
            probe.hang_up()
            ending = await probe.closed()
            return {
                "answered": True,
                "answer_delay_ms": probe.answer_delay_ms,
                "ringing_delay_ms": probe.ringing_delay_ms,
                "round_trips_ms": round_trips,
                "voiced_frames": sum(is_voiced(frame) for _, frame in probe.heard.frames),
                "frames": len(probe.heard.frames),
                "peak": max(
                    abs(s) for _, f in probe.heard.frames for s in struct.unpack("<160h", f)
                ),
                "by": ending.by,
                "reason": ending.reason,
            }
    except CallRefused as refusal:
        return {"answered": False, "status": refusal.status, "reason": refusal.reason}


if __name__ == "__main__":
    import uvloop

    sys.stdout.write(json.dumps(uvloop.run(main(json.loads(sys.argv[1])))) + "\n")
