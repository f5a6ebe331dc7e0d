"""A far end that is gone without a word is noticed in seconds; one that only pauses is left alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from pydantic import SecretStr

from agent.call.events import AgentGone
from agent.call.ports import AgentProfile, CallOffer
from agent.embedded.engines import Engines
from agent.realtime.connector import RealtimeConnector
from agent.realtime.leg import RealtimeLeg
from agent.realtime.pulse import Pulse
from agent.realtime.rtp_path import RtpPath
from agent.realtime.settings import RealtimeSettings
from tests.embedded.scripted import KEY, QUIET, scripted

OFFER = CallOffer("call_1", "sip_1", "trunk", "100", "200", 0.0)
PROFILE = AgentProfile("receptionist", "You answer the phone.", "Hello.", "marin")
TICK_S = 0.25


def asked_at(flow: str) -> list[float]:
    """When the far end is asked, if it sends in the quarters of a second marked with a dot."""
    pulse, packets, asked = Pulse(), 0, []
    for tick, mark in enumerate(flow):
        packets += 12 * (mark == ".")
        if pulse.look(tick * TICK_S, packets):
            asked.append(tick * TICK_S)
    return asked


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        pytest.param("........", [], id="flows"),
        pytest.param("....    ", [1.75], id="stops"),
        pytest.param("....                 ", [1.75], id="once in a silence"),
        pytest.param("....      ....     ", [1.75, 4.25], id="once in every silence"),
        pytest.param("....   ....", [], id="a short gap"),
        pytest.param("        ", [], id="has not begun"),
        pytest.param(".        ", [], id="a lone packet is no flow"),
        pytest.param(".      .      .      ", [], id="lone packets are no flow"),
    ],
)
def test_when_to_ask(flow: str, expected: list[float]) -> None:
    """A silence after a flow is worth one question, a second after it began."""
    assert asked_at(flow) == expected


@asynccontextmanager
async def talking(engines: Engines, fault: dict[str, object]) -> AsyncIterator[RealtimeLeg]:
    """A session whose far end has been heard for a second when the fault strikes."""
    async with scripted(engines, QUIET | {"faults": [{"at": "cue.go", **fault}]}) as far:
        settings = RealtimeSettings(base_url=far.url, api_key=SecretStr(KEY))
        async with (
            httpx.AsyncClient() as client,
            RealtimeConnector(settings, client).open(PROFILE, OFFER) as leg,
        ):
            while int(str(leg.quality()["packets_received"])) < 60:
                await asyncio.sleep(0.02)
            await far.cue("go")
            yield leg


async def test_a_far_end_that_only_pauses(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its voice stops and the connection does not: it is asked, answers, and the call goes on."""
    answers: asyncio.Queue[bool] = asyncio.Queue()
    ask = RtpPath.is_answered

    async def noted(path: RtpPath) -> bool:
        is_answered = await ask(path)
        answers.put_nowait(is_answered)
        return is_answered

    monkeypatch.setattr(RtpPath, "is_answered", noted)
    async with talking(engines, {"do": "lose", "every": 1}) as leg, asyncio.timeout(12):
        assert await answers.get()
        leg.note("still there")
        assert leg.quality()["messages_unsent"] == 0


async def test_a_pulled_cable_is_noticed_in_seconds(engines: Engines) -> None:
    """The far end vanishes while the line is open: the call is told long before consent ends."""
    async with talking(engines, {"do": "vanish"}) as leg, asyncio.timeout(11):
        # A second of silence, the question three times; consent by itself takes 12 s at least.
        gone = [event async for event in leg.events() if isinstance(event, AgentGone)]
    assert gone == [AgentGone("the far end fell silent and does not answer")]
