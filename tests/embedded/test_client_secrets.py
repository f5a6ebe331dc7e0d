"""Client secrets: a short-lived key that carries a session, for clients nobody trusts."""

from typing import Any

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from openai.types.realtime import ClientSecretCreateResponse
from pydantic import SecretStr

from agent.embedded.access import Access
from agent.embedded.replies import HttpError
from agent.embedded.server import RealtimeServer
from agent.embedded.settings import EmbeddedSettings
from tests.embedded.socket_client import open_socket

KEY = {"Authorization": "Bearer right"}


async def _offer() -> str:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio", "sendrecv")
    await pc.setLocalDescription(await pc.createOffer())
    sdp = str(pc.localDescription.sdp)
    await pc.close()
    return sdp


@pytest.fixture
def settings() -> EmbeddedSettings:
    return EmbeddedSettings(api_key=SecretStr("right"))


@pytest.fixture
async def client(url: str) -> Any:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


async def test_secret_opens_a_call(client: httpx.AsyncClient, server: RealtimeServer) -> None:
    """A secret made with the key opens a call by a raw offer, and no further secret."""
    session = {"type": "realtime", "instructions": "Be brief."}
    reply = await client.post("/realtime/client_secrets", json={"session": session}, headers=KEY)
    assert reply.status_code == 200
    secret = ClientSecretCreateResponse.model_validate(reply.json())
    assert secret.value.startswith("ek_")
    assert reply.json()["session"]["instructions"] == "Be brief."
    assert reply.json()["session"]["expires_at"] == 0
    bearer = {"Authorization": f"Bearer {secret.value}"}
    sdp = {**bearer, "Content-Type": "application/sdp"}
    opened = await client.post("/realtime/calls", content=await _offer(), headers=sdp)
    assert opened.status_code == 201
    again = await client.post("/realtime/client_secrets", json={}, headers=bearer)
    assert (again.status_code, again.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_secret_that_only_listens(client: httpx.AsyncClient, url: str) -> None:
    """A secret may be for a transcription session, which it then opens."""
    audio = {"input": {"transcription": {"model": "gpt-transcribe", "language": "en"}}}
    session = {"type": "transcription", "audio": audio}
    reply = await client.post("/realtime/client_secrets", json={"session": session}, headers=KEY)
    secret = ClientSecretCreateResponse.model_validate(reply.json())
    assert secret.session.type == "transcription"
    async with open_socket(url, "", secret.value) as listening:
        created = (await listening.wait("session.created"))["session"]
        assert created["audio"]["input"]["transcription"]["language"] == "en"
        assert created["id"] != reply.json()["session"]["id"]
        await listening.send(type="response.create")
        assert (await listening.wait("error"))["error"]["param"] == "type"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        pytest.param({"x": 1}, "unknown_parameter", "x", id="unknown field"),
        pytest.param(
            {"session": {"type": "realtime", "voice": "x"}},
            "unknown_parameter",
            "session.voice",
            id="beta session",
        ),
        pytest.param(
            {"expires_after": {"anchor": "created_at", "seconds": 9}},
            "invalid_value",
            "expires_after.seconds",
            id="too short",
        ),
        pytest.param(
            {"expires_after": {"anchor": "created_at", "seconds": 7201}},
            "invalid_value",
            "expires_after.seconds",
            id="too long",
        ),
        pytest.param(
            {"expires_after": {"anchor": "now"}}, "invalid_value", "expires_after.anchor", id="now"
        ),
        pytest.param({"expires_after": 5}, "invalid_value", "expires_after", id="no object"),
        pytest.param([], "invalid_value", None, id="no body object"),
    ],
)
async def test_bad_request(
    client: httpx.AsyncClient, body: Any, code: str, param: str | None
) -> None:
    """A request for a secret that is wrong is refused and names the field."""
    reply = await client.post("/realtime/client_secrets", json=body, headers=KEY)
    assert reply.status_code == 400
    assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == (code, param)


async def test_needs_the_key(client: httpx.AsyncClient) -> None:
    """Without the key there is no secret; an invented one opens nothing."""
    reply = await client.post("/realtime/client_secrets", json={})
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    invented = {"Authorization": "Bearer ek_invented", "Content-Type": "application/sdp"}
    reply = await client.post("/realtime/calls", content="v=0\r\n", headers=invented)
    assert reply.status_code == 401


async def test_pages_may_call(client: httpx.AsyncClient) -> None:
    """A browser may post its offer from any page, and read the Location."""
    asking = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    assert (await client.options("/realtime/calls", headers=asking)).status_code == 200
    reply = await client.post("/realtime/calls", content="", headers={**KEY, **asking})
    assert "Location" in reply.headers["access-control-expose-headers"]


def test_expiry() -> None:
    """A secret opens sessions until its time is over, and the session is each client's own."""
    access = Access(None)
    value, expires_at = access.mint({"tools": []}, 10, now_s=1000.5)
    assert expires_at == 1010
    first = access.admit(value, 1009.9)
    assert first == {"tools": []}
    first["tools"].append("mine")
    assert access.admit(value, 1009.9) == {"tools": []}
    with pytest.raises(HttpError, match="expired"):
        access.admit(value, 1010)


def test_secrets_are_bounded() -> None:
    """Someone who asks for secrets without end gets them; the oldest give way."""
    access = Access(None)
    first, _ = access.mint({}, 600, now_s=0)
    for _ in range(1000):
        last, _ = access.mint({}, 600, now_s=0)
    assert access.admit(last, 1) == {}
    with pytest.raises(HttpError):
        access.admit(first, 1)
