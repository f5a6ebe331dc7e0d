"""What the agent's side of a call costs, by transport and codec.

So many sessions of one process are read from and written to every 20 ms, as the phone's
clock does it; the far end is a process of its own and speaks all the time. CPU is this
process's, everything included but the telephone: encryption, codec, playout, events.
"""

import asyncio
import gc
import logging
import tempfile
import time
import timeit
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import structlog
import uvloop
import yaml
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from agent.audio.frame import FRAME_BYTES, FRAME_MS, SAMPLE_RATE_HZ, Frame
from agent.call.ports import AgentProfile, CallOffer
from agent.realtime.codec import Codec, open_codec
from agent.realtime.connector import RealtimeConnector
from agent.realtime.settings import RealtimeSettings
from tests.bench.measure import keep, machine
from tests.fakes.realtime import realtime

WAYS: dict[str, dict[str, Any]] = {
    "webrtc, opus": {"codec": "opus"},
    "webrtc, pcmu": {"codec": "pcmu"},
    "websocket, pcmu": {"transport": "websocket", "codec": "pcmu"},
}
CALLS = (1, 10)
WARM_UP_S = 3
MEASURED_S = 8
TICK_S = FRAME_MS / 1000
SCRIPT = {
    "turns": [{"answer": [{"say": "A tone.", "tone_hz": 300, "tone_ms": 60_000}]}] * 3,
}


def noise() -> list[Frame]:
    """A second of noise at the level of a voice: no codec has it easy."""
    pcm = np.random.default_rng(1).normal(0, 1500, SAMPLE_RATE_HZ).astype("<i2").tobytes()
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]


async def tick(legs: list[Any], seconds: float) -> None:
    """Do what the phone's clock does: a frame up, a frame down, fifty times a second."""
    loop = asyncio.get_running_loop()
    said = noise()
    due_s = loop.time()
    for number in range(int(seconds / TICK_S)):
        for leg in legs:
            leg.write_frame(said[number % len(said)])
            leg.read_frame()
        due_s += TICK_S
        await asyncio.sleep(max(0.0, due_s - loop.time()))


async def measure(url: str, way: str, calls: int) -> dict[str, Any]:
    """CPU of so many sessions, and of the clock alone."""
    settings = RealtimeSettings(base_url=url, api_key=SecretStr("bench"), **WAYS[way])
    profile = AgentProfile("bench", "Speak.", "A tone.", "marin")
    offer = CallOffer("", "", "", "", "", 0.0, line_codec="PCMU")
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        connector = RealtimeConnector(settings, client)
        legs = []
        for number in range(calls):
            call = replace(offer, call_id=f"bench-{number}")
            legs.append(await stack.enter_async_context(connector.open(profile, call)))
            legs[-1].greet("A tone.")
        gc.collect()
        gc.freeze()
        await tick(legs, WARM_UP_S)
        cpu_s, wall_s = time.process_time(), time.monotonic()
        await tick(legs, MEASURED_S)
        share = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
        quality = legs[0].quality()
    gc.unfreeze()
    return {
        "way": way,
        "calls": calls,
        "cpu_percent_per_call": round(share / calls * 100, 3),
        "us_per_frame": round(share / calls * TICK_S * 1e6, 1),
        "concealed": quality["concealed"],
    }


def codec_us(codec: Codec) -> dict[str, float]:
    """How long one frame takes each way, in us, on noise."""
    frames = noise()
    payloads = [codec.encode(frame) for frame in frames]

    def each(work: Any, values: list[bytes]) -> float:
        times = timeit.repeat(lambda: [work(value) for value in values], number=1, repeat=20)
        return round(min(times) / len(values) * 1e6, 2)

    return {"encode_us": each(codec.encode, frames), "decode_us": each(codec.decode, payloads)}


def main() -> None:
    """Measure, print a table, keep the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = Console()
    console.print(machine())
    rows = []
    with tempfile.TemporaryDirectory() as name:
        part = Path(name) / "script.yaml"
        part.write_text(yaml.safe_dump(SCRIPT))
        with realtime("--script", str(part)) as far:
            for way in WAYS:
                for calls in CALLS:
                    console.print(f"{way}: {calls} calls for {MEASURED_S} s ...")
                    rows.append(uvloop.run(measure(far.url, way, calls)))
    table = Table("agent's side", "calls", "CPU per call", "per frame", "concealed")
    for row in rows:
        table.add_row(
            row["way"],
            str(row["calls"]),
            f"{row['cpu_percent_per_call']} % of a core",
            f"{row['us_per_frame']} us",
            str(row["concealed"]),
        )
    console.print(table)
    codecs = {name: codec_us(open_codec(name)) for name in ("opus", "pcmu", "pcma")}
    table = Table("codec", "encode 20 ms", "decode 20 ms")
    for codec, cost in codecs.items():
        table.add_row(codec, f"{cost['encode_us']} us", f"{cost['decode_us']} us")
    console.print(table)
    console.print(f"written to {keep('legs', {'legs': rows, 'codecs': codecs})}")


if __name__ == "__main__":
    main()
