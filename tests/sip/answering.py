"""A small agent in a process of its own: an endpoint that answers and echoes.

PJSIP starts once per process, so tests talk to this one: events leave as JSON
lines on stdout, commands come as words on stdin.

    python -m tests.sip.answering '{"sip": {...}, "trunks": [...], "answer": true, ...}'
"""

import asyncio
import json
import os
import sys
import time
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from agent.audio.frame import SILENCE, Frame
from agent.audio.voice import is_voiced
from agent.call.ports import LegClosed, LineRefused
from sip.endpoint import SipEndpoint, open_endpoint
from sip.leg import SipLeg
from sip.settings import RouteSettings, SipSettings, TrunkSettings
from sip.stack import SipUnavailable


def tell(event: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def entries(folder: str) -> int:
    return len(list(Path(folder).iterdir()))


class Echo:
    """Says what it heard, at once; counts voiced frames."""

    def __init__(self) -> None:
        self.heard: deque[Frame] = deque(maxlen=10)
        self.frames = 0
        self.voiced = 0

    def hear_caller(self, frame: Frame) -> None:
        self.frames += 1
        self.voiced += is_voiced(frame)
        self.heard.append(frame)

    def speak_to_caller(self) -> Frame:
        return self.heard.popleft() if self.heard else SILENCE


class Broken(Echo):
    """A bridge with a fault in it."""

    def hear_caller(self, frame: Frame) -> None:
        raise RuntimeError("the bridge fell down")


class Program:
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.accepting = True
        self.legs: list[SipLeg] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def take(self, leg: SipLeg) -> None:
        self.legs.append(leg)
        self.start(self.call(leg))

    async def listen(self, leg: SipLeg) -> None:
        async for key in leg.digits():
            tell("key", key=key)
        tell("keys are over")

    async def transfer(self, leg: SipLeg, target: str) -> None:
        try:
            await leg.transfer(target)
            tell("transferred")
        except LineRefused as error:
            tell("refused", reason=str(error))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def call(self, leg: SipLeg) -> None:
        offer = leg.offer
        tell(
            "offered",
            call_id=offer.call_id,
            sip_call_id=offer.sip_call_id,
            trunk=offer.trunk,
            did=offer.did,
            caller_number=offer.caller_number,
            agent=leg.agent_name,
        )
        echo = Broken() if self.options.get("broken") else Echo()
        leg.connect(echo)
        try:
            await asyncio.sleep(self.options.get("ring_s", 0))
            if self.options.get("answer", True):
                await leg.answer()
                tell("answered")
                if self.options.get("keys"):
                    self.start(self.listen(leg))
                if (talk_s := self.options.get("hang_up_after_s")) is not None:
                    await asyncio.sleep(talk_s)
                    leg.hang_up()
                    leg.hang_up()
        except LegClosed:
            tell("gave up")
        ending = await leg.closed()
        leg.hang_up()
        leg.reject(486)
        self.legs.remove(leg)
        tell(
            "closed",
            by=ending.by,
            reason=ending.reason,
            frames=echo.frames,
            voiced=echo.voiced,
            quality=dict(leg.quality()),
        )

    async def obey(self, endpoint: SipEndpoint) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while line := (await reader.readline()).decode().strip():
            if line == "drain":
                self.accepting = False
                tell("draining")
            elif line == "hang up":
                for leg in self.legs:
                    leg.hang_up()
            elif line == "reject":
                for leg in self.legs:
                    leg.reject(503, 7)
            elif line.startswith("keys "):
                try:
                    self.legs[0].send_digits(line.removeprefix("keys "))
                    tell("sent")
                except LineRefused as error:
                    tell("refused", reason=str(error))
            elif line.startswith("transfer "):
                self.start(self.transfer(self.legs[0], line.removeprefix("transfer ")))
            elif line == "block":
                time.sleep(0.4)  # noqa: ASYNC251 - a blocked loop is what is tried
                tell("blocked")
            elif line == "count":
                usage = os.times()
                tell(
                    "counted",
                    active=endpoint.active_calls,
                    pj_calls=endpoint.pj_calls,
                    fds=entries("/proc/self/fd"),
                    threads=entries("/proc/self/task"),
                    cpu_s=usage.user + usage.system,
                    late_ticks=endpoint.late_ticks,
                    quality=[dict(leg.quality()) for leg in self.legs],
                )
            elif line == "stop":
                return

    async def main(self) -> None:
        options = self.options
        try:
            async with open_endpoint(
                SipSettings(**{"listen": "127.0.0.1:0", **options.get("sip", {})}),
                [TrunkSettings(**trunk) for trunk in options.get("trunks", [])],
                [RouteSettings(**route) for route in options.get("routes", [])],
                on_call=self.take,
                accepting=lambda: self.accepting,
                no_rtp_timeout_s=options.get("no_rtp_timeout_s", 20.0),
            ) as endpoint:
                tell(
                    "ready",
                    port=endpoint.port,
                    max_calls=endpoint.max_calls,
                    is_wheel=endpoint.is_wheel,
                )
                await self.obey(endpoint)
        except SipUnavailable as error:
            tell("unavailable", message=str(error))
        tell("stopped")


if __name__ == "__main__":
    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    import uvloop

    uvloop.run(Program(json.loads(sys.argv[1])).main())
