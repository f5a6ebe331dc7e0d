"""A caller and an agent with a script, for the call's own tests.

They stand on the two sides of `agent.call.handler.Call` and keep what they were
told, in order. Real PJSIP and real aiortc take their places in tests/journeys.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from agent.audio.frame import SILENCE, Frame
from agent.call.events import AgentGone, CallEvent
from agent.call.history import Past
from agent.call.ports import (
    AgentProfile,
    AgentUnavailable,
    CallOffer,
    LegClosed,
    LineRefused,
    MediaPort,
)
from agent.call.records import Ending


class FakeCaller:
    """A telephone that is told what to do by the test."""

    def __init__(self, call_id: str = "call-1") -> None:
        self.offer = CallOffer(
            call_id=call_id,
            sip_call_id="sip-1",
            trunk="loopback",
            did="agent",
            caller_number="alice",
            received_s=0.0,
        )
        self.did: list[str] = []
        self.media: MediaPort | None = None
        self.keys: asyncio.Queue[str] = asyncio.Queue()
        self.refuses = ""
        self._closed: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def connect(self, media: MediaPort) -> None:
        self.media = media

    async def answer(self) -> None:
        if self._closed.done():
            raise LegClosed
        self.did.append("200")

    def reject(self, status: int, retry_after_s: int | None = None) -> None:
        self.did.append(f"{status} Retry-After {retry_after_s}" if retry_after_s else str(status))
        self._close(Ending("trunkline", f"rejected with {status}"))

    def hang_up(self) -> None:
        if not self._closed.done():
            self.did.append("BYE")
            self._close(Ending("trunkline", "hung up"))

    async def digits(self) -> AsyncIterator[str]:
        while True:
            yield await self.keys.get()

    def send_digits(self, digits: str) -> None:
        if self.refuses:
            raise LineRefused(self.refuses)
        self.did.append(f"keys {digits}")

    async def transfer(self, target: str) -> None:
        self.did.append(f"REFER {target}")
        if self.refuses:
            raise LineRefused(self.refuses)

    async def closed(self) -> Ending:
        return await asyncio.shield(self._closed)

    def quality(self) -> Mapping[str, object]:
        return {"rx_packets": 1}

    def go(self, ending: Ending) -> None:
        """The far end hangs up."""
        self._close(ending)

    def _close(self, ending: Ending) -> None:
        if not self._closed.done():
            self._closed.set_result(ending)


class FakeAgent:
    """A model that emits the events a test puts into `script`."""

    def __init__(self, realtime_call_id: str = "rtc_fake", lasts_s: float | None = None) -> None:
        self.realtime_call_id = realtime_call_id
        self.lasts_s = lasts_s
        self.past: list[Past] = []
        self.script: asyncio.Queue[CallEvent] = asyncio.Queue()
        self.did: list[str] = []
        self.ear: list[Frame] = []
        self.waiting_ms = 0

    def write_frame(self, frame: Frame) -> None:
        del frame

    def read_frame(self) -> Frame:
        return self.ear.pop(0) if self.ear else SILENCE

    def flush(self) -> int:
        self.did.append("flush")
        dropped_ms = len(self.ear) * 20
        self.ear.clear()
        return dropped_ms

    def interrupt(self) -> int:
        self.did.append("interrupt")
        dropped_ms = len(self.ear) * 20
        self.ear.clear()
        return dropped_ms

    def hold(self, is_held: bool) -> None:
        self.did.append("hold" if is_held else "release")

    def answer(self) -> None:
        self.did.append("answer")

    def note(self, text: str) -> None:
        self.did.append(f"note {text}")

    def recall(self, past: Sequence[Past]) -> None:
        self.past = list(past)

    def buffered_ms(self) -> int:
        return self.waiting_ms

    def waited_ms(self) -> int:
        return 0

    async def events(self) -> AsyncIterator[CallEvent]:
        while True:
            event = await self.script.get()
            yield event
            if isinstance(event, AgentGone):
                return

    def quality(self) -> Mapping[str, object]:
        return {"packets_received": 2}

    def greet(self, greeting: str) -> None:
        self.did.append(f"greet {greeting}")

    def speak(self, instructions: str) -> None:
        self.did.append(f"speak {instructions}")

    def give_tool_output(self, tool_call_id: str, output: str, *, reply: bool = True) -> None:
        self.did.append(f"output {tool_call_id} {output} reply={reply}")


class FakeConnector:
    """Hands out its agents one after the other, late, never or not at all."""

    def __init__(
        self, *agents: FakeAgent, error: AgentUnavailable | None = None, delay_s: float = 0
    ) -> None:
        self._agents = list(agents)
        self.error = error
        self._delay_s = delay_s
        self.open_count = 0

    @asynccontextmanager
    async def open(self, profile: AgentProfile, offer: CallOffer) -> AsyncIterator[FakeAgent]:
        del profile, offer
        await asyncio.sleep(self._delay_s)
        if self.error is not None:
            raise self.error
        if not self._agents:
            raise AgentUnavailable("no agent is left")
        self.open_count += 1
        try:
            yield self._agents.pop(0)
        finally:
            self.open_count -= 1
