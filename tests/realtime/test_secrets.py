"""Keys that are good for one session, and callers without their numbers."""

import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from agent.call.ports import AgentProfile, AgentUnavailable, CallOffer
from agent.embedded.engines import Engines
from agent.realtime.access import safety_identifier
from agent.realtime.connector import RealtimeConnector
from agent.realtime.secrets import mint_secret
from agent.realtime.session import session_of
from agent.realtime.settings import RealtimeSettings
from tests.embedded.scripted import KEY, QUIET, scripted

PROFILE = AgentProfile("receptionist", "You answer the phone.", "Hello.", "marin")
OFFER = CallOffer("call_1", "sip_1", "trunk", "100", "+15550199", 0.0)


def settings_for(url: str, **changes: Any) -> RealtimeSettings:
    return RealtimeSettings(base_url=url, api_key=SecretStr(KEY), connect_timeout_s=5, **changes)


async def test_a_call_with_a_secret_of_its_own(engines: Engines) -> None:
    """A call that is opened with a secret talks like any other."""
    async with scripted(engines, {"greeting": "Good day."}) as far, httpx.AsyncClient() as client:
        settings = settings_for(far.url, auth="ephemeral", model="m-7")
        async with RealtimeConnector(settings, client).open(PROFILE, OFFER) as leg:
            leg.greet("Hello.")
            said = await far.sent("response.output_audio_transcript.done")
            opened = next(record for record in far.trace if record["what"] == "opened")
    assert said["transcript"] == "Good day."
    assert opened["session"]["model"] == "m-7"


async def test_a_secret_carries_its_session(engines: Engines) -> None:
    """Whoever opens a call with it gets this session, and the project's key is not in it."""
    profile = AgentProfile("talker", "You sell bread.", "Hello.", "cedar")
    async with scripted(engines, QUIET) as far, httpx.AsyncClient() as client:
        settings = settings_for(far.url)
        before = datetime.now(UTC)
        secret = await mint_secret(client, settings, session_of(profile, settings), life_s=30)
        assert 25 < (secret.expires_at - before).total_seconds() < 35
        assert secret.value.startswith("ek_")
        assert secret.session["instructions"] == "You sell bread."
        assert KEY not in repr(secret) + str(secret.session)
        assert secret.value not in repr(secret)


async def test_a_refused_session_names_the_field(engines: Engines) -> None:
    """What the far end does not take is known by name before a caller is connected."""
    async with scripted(engines, QUIET) as far, httpx.AsyncClient() as client:
        settings = settings_for(far.url, prompt={"id": "pmpt_1"})
        with pytest.raises(AgentUnavailable, match=r"session\.prompt"):
            await mint_secret(client, settings, session_of(PROFILE, settings))
        with pytest.raises(AgentUnavailable, match=r"the session was refused: session\.prompt"):
            async with RealtimeConnector(settings, client).open(PROFILE, OFFER):
                pass


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="HTML"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"value": 5, "expires_at": 1}', id="a number for a secret"),
        pytest.param(b'{"value": "", "expires_at": 1}', id="an empty secret"),
        pytest.param(b'{"value": "ek\\r\\nX: y", "expires_at": 1}', id="a secret that is a header"),
        pytest.param(b'{"value": "ek_1"}', id="no end"),
        pytest.param(b'{"value": "ek_1", "expires_at": 1e99}', id="no end in this world"),
        pytest.param(b'{"value": "ek_1", "expires_at": 1, "session": 3}', id="a wrong session"),
    ],
)
async def test_a_secret_that_makes_no_sense(body: bytes) -> None:
    """Whatever comes back is either a secret or a reason."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(AgentUnavailable, match="makes no sense"):
            await mint_secret(client, settings_for("http://127.0.0.1:9/v1"), {"type": "realtime"})


def test_callers_are_told_apart_without_their_numbers() -> None:
    """The same caller is the same hash; without the key it cannot be guessed from the number."""
    first = safety_identifier("+15550199", b"key")
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert first == safety_identifier("+15550199", b"key")
    assert first != safety_identifier("+15550100", b"key")
    assert first != safety_identifier("+15550199", b"other")
    assert safety_identifier("+1555\ud800", b"key")


@pytest.mark.parametrize("number", ["", "anonymous", "Anonymous", "unavailable"])
def test_callers_who_hide_are_nobody(number: str) -> None:
    """One hash for all of them would let each pay for what another does."""
    assert safety_identifier(number, b"key") == ""
    assert safety_identifier("+15550199", b"") == ""
