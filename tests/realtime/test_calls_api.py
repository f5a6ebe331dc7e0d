"""The HTTP side of opening a session: what is asked, and what each refusal is called."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr

from agent.call.ports import AgentUnavailable
from agent.realtime import exchange
from agent.realtime.calls_api import CallAnswer, CallsApi
from agent.realtime.settings import RealtimeSettings

KEY = "sk-test-not-a-secret"
OFFER = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n"


Reply = httpx.Response | Exception


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause before a second attempt is not waited for."""
    monkeypatch.setattr(exchange, "_PAUSE_S", 0.0)
    monkeypatch.setattr(exchange, "_BUSY_PAUSE_S", 0.0)


def api_that(
    *replies: Reply, seen: list[httpx.Request] | None = None, key: str = KEY, **settings: Any
) -> CallsApi:
    """Make a client whose far end gives these replies in turn, the last one for ever."""
    left = list(replies)

    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        reply = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    realtime = RealtimeSettings(
        base_url="http://127.0.0.1:9/v1/",
        api_key=SecretStr(key) if key else None,
        model="m-1",
        **settings,
    )
    client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    return CallsApi(realtime, client, "caller-hash")


def refusal(
    status: int, *, code: str = "", message: str = "", param: str | None = None, **headers: str
) -> httpx.Response:
    error = {"error": {"message": message, "type": "x", "param": param, "code": code}}
    return httpx.Response(
        status, json=error, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


async def test_the_offer_goes_up_whole() -> None:
    """Both parts with their types, the key as bearer, and the SDP with its last CRLF."""
    seen: list[httpx.Request] = []
    answer = httpx.Response(201, text="v=0\r\n", headers={"Location": "/v1/realtime/calls/rtc_1"})
    assert await api_that(answer, seen=seen).create(OFFER) == CallAnswer("v=0\r\n", "rtc_1")
    [request] = seen
    assert request.method == "POST"
    assert str(request.url) == "http://127.0.0.1:9/v1/realtime/calls"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    body = request.content.decode()
    assert f"Content-Type: application/sdp\r\n\r\n{OFFER}\r\n--" in body
    assert 'Content-Type: application/json\r\n\r\n{"type":"realtime","model":"m-1"}' in body
    assert "filename" not in body


async def test_without_a_key_no_bearer_is_sent() -> None:
    """The embedded server needs none."""
    seen: list[httpx.Request] = []
    await api_that(httpx.Response(201, text="v=0\r\n"), seen=seen, key="").create(OFFER)
    assert "Authorization" not in seen[0].headers


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        pytest.param("/v1/realtime/calls/rtc_u0_X", "rtc_u0_X", id="relative"),
        pytest.param("https://host/v1/realtime/calls/rtc_u0_X?a=b", "rtc_u0_X", id="absolute"),
        pytest.param(None, "", id="missing"),
    ],
)
async def test_call_id(location: str | None, expected: str) -> None:
    """The last segment of Location names the call; without one the call goes on nameless."""
    headers = {"Location": location} if location else {}
    reply = httpx.Response(201, text="v=0\r\n", headers=headers)
    assert (await api_that(reply).create(OFFER)).realtime_call_id == expected


@pytest.mark.parametrize(
    ("reply", "said", "retry_after_s"),
    [
        pytest.param(httpx.ConnectError("refused"), "unreachable: refused", {5}, id="unreachable"),
        pytest.param(httpx.ReadTimeout("x"), "did not answer in time", {5}, id="timeout"),
        pytest.param(
            refusal(400, code="invalid_offer", message="Bad offer."), "Bad offer.", {60}, id="400"
        ),
        pytest.param(
            refusal(400, message="No such voice.", param="session.audio.output.voice"),
            "refused the session: session.audio.output.voice: No such voice.",
            {60},
            id="400 that names a field",
        ),
        pytest.param(
            refusal(401, message=f"Incorrect API key provided: {KEY}"),
            "the API key was refused: check OPENAI_API_KEY",
            {60},
            id="401",
        ),
        pytest.param(refusal(403, message="No access."), "No access.", {60}, id="403"),
        pytest.param(refusal(404, message="No model."), "No model.", {60}, id="404"),
        pytest.param(refusal(429), "rate limit", {10}, id="429"),
        pytest.param(refusal(429, Retry_After="17"), "rate limit", {17}, id="429 in seconds"),
        pytest.param(refusal(429, Retry_After="soon"), "rate limit", {10}, id="429 nonsense"),
        pytest.param(refusal(429, Retry_After="9" * 400), "rate limit", {3600}, id="429 for ever"),
        pytest.param(refusal(429, code="insufficient_quota"), "no quota", {60}, id="no quota"),
        pytest.param(refusal(500, message="Oops."), "status 500: Oops.", {5}, id="500"),
        pytest.param(httpx.Response(503, text="<html>"), "status 503", {5}, id="503 as HTML"),
        pytest.param(httpx.Response(302), "status 302", {5}, id="a redirect"),
        pytest.param(httpx.Response(201, text="<html>"), "no SDP", {5}, id="201 with HTML"),
        pytest.param(httpx.Response(201, text=""), "no SDP", {5}, id="201 with nothing"),
    ],
)
async def test_refusals(
    reply: httpx.Response | Exception, said: str, retry_after_s: set[int]
) -> None:
    """Each failure has a reason a person can act upon, never the key, and a time to come back."""
    with pytest.raises(AgentUnavailable) as caught:
        await api_that(reply).create(OFFER)
    assert said in caught.value.reason
    assert KEY not in caught.value.reason
    assert caught.value.retry_after_s in retry_after_s


async def test_a_date_to_come_back_at() -> None:
    """Retry-After may be a moment instead of a span (RFC 9110, 10.2.3)."""
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)
    with pytest.raises(AgentUnavailable) as caught:
        await api_that(refusal(429, Retry_After=in_a_minute)).create(OFFER)
    assert 30 <= caught.value.retry_after_s <= 61


ANSWER = httpx.Response(201, text="v=0\r\n", headers={"Location": "/v1/realtime/calls/rtc_1"})


@pytest.mark.parametrize(
    ("first", "attempts"),
    [
        pytest.param(httpx.ConnectError("refused"), 2, id="unreachable"),
        pytest.param(httpx.RemoteProtocolError("closed"), 2, id="a connection that had died"),
        pytest.param(refusal(429), 2, id="429"),
        pytest.param(refusal(503), 2, id="503"),
        pytest.param(refusal(429, Retry_After="17"), 1, id="429 for longer than there is"),
        pytest.param(refusal(429, code="insufficient_quota"), 1, id="no quota"),
        pytest.param(httpx.ReadTimeout("x"), 1, id="timeout"),
        pytest.param(refusal(400), 1, id="400"),
        pytest.param(refusal(401), 1, id="401"),
    ],
)
async def test_one_more_attempt(first: Reply, attempts: int) -> None:
    """What may be over in a moment is tried once more, whole; the rest is told at once."""
    seen: list[httpx.Request] = []
    api = api_that(first, ANSWER, seen=seen)
    if attempts == 1:
        with pytest.raises(AgentUnavailable):
            await api.create(OFFER)
    else:
        assert await api.create(OFFER) == CallAnswer("v=0\r\n", "rtc_1")
    assert len(seen) == attempts
    assert seen[-1].content == seen[0].content
    assert OFFER.encode() in seen[-1].content


async def test_no_third_attempt() -> None:
    """A far end that stays busy is told so after the second."""
    seen: list[httpx.Request] = []
    with pytest.raises(AgentUnavailable, match="rate limit"):
        await api_that(refusal(429), seen=seen).create(OFFER)
    assert len(seen) == 2


async def test_no_second_attempt_without_time() -> None:
    """An attempt that could only be cut off is not made."""
    seen: list[httpx.Request] = []
    with pytest.raises(AgentUnavailable):
        await api_that(refusal(503), seen=seen, connect_timeout_s=0.5).create(OFFER)
    assert len(seen) == 1


async def test_a_reply_that_drips() -> None:
    """A byte now and then keeps a connection alive, and no caller."""
    is_over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"v")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.transport.abort()
        is_over.set()

    async with asyncio.timeout(10), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with httpx.AsyncClient() as client:
            api = CallsApi(RealtimeSettings(base_url=url, connect_timeout_s=0.3), client)
            with pytest.raises(AgentUnavailable, match="did not answer in time"):
                await api.create(OFFER)
        await is_over.wait()
        await asyncio.sleep(0)  # the transport is closed in the turn after


SECRET = httpx.Response(200, json={"value": "ek_1", "expires_at": 1795250600})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param(
            {"auth": "ephemeral", "organization": "org-1", "project": "proj-1"},
            {
                "authorization": f"Bearer {KEY}",
                "openai-organization": "org-1",
                "openai-project": "proj-1",
                "openai-safety-identifier": "caller-hash",
            },
            id="ephemeral",
        ),
        pytest.param({"provider": "azure"}, {"api-key": KEY}, id="azure"),
    ],
)
async def test_a_secret_for_every_call(settings: dict[str, Any], expected: dict[str, str]) -> None:
    """The key gets a secret for this model; the offer goes up with the secret alone."""
    seen: list[httpx.Request] = []
    api = api_that(SECRET, ANSWER, seen=seen, **settings)
    secret = await api.admit()
    assert await api.create(OFFER, secret) == CallAnswer("v=0\r\n", "rtc_1")
    minting, opening = seen
    assert minting.url.path == "/v1/realtime/client_secrets"
    sent = {k: v for k, v in minting.headers.items() if k in expected or k == "authorization"}
    assert sent == expected
    assert orjson.loads(minting.content) == {
        "expires_after": {"anchor": "created_at", "seconds": 60},
        "session": {"type": "realtime", "model": "m-1"},
    }
    assert opening.url.path == "/v1/realtime/calls"
    assert opening.headers["Authorization"] == "Bearer ek_1"
    assert opening.headers["Content-Type"] == "application/sdp"
    assert opening.content == OFFER.encode()
    assert KEY not in str(opening.headers.raw)


async def test_with_the_key_no_secret_is_made() -> None:
    """The key itself saves a round trip; it says for whom it is used."""
    seen: list[httpx.Request] = []
    api = api_that(ANSWER, seen=seen, project="proj-1")
    assert await api.admit() == ""
    await api.create(OFFER)
    [request] = seen
    assert request.headers["OpenAI-Project"] == "proj-1"
    assert request.headers["OpenAI-Safety-Identifier"] == "caller-hash"
    assert "OpenAI-Organization" not in request.headers


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(httpx.Response(200), id="done"),
        pytest.param(httpx.Response(404), id="over already"),
        pytest.param(httpx.ConnectError("refused"), id="unreachable"),
    ],
)
async def test_hang_up_never_fails(reply: httpx.Response | Exception) -> None:
    """The end of a call does not depend on the far end's manners."""
    seen: list[httpx.Request] = []
    await api_that(reply, seen=seen).hang_up("rtc_u0/1")
    assert str(seen[0].url).endswith("/v1/realtime/calls/rtc_u0%2F1/hangup")


async def test_no_hang_up_without_a_name() -> None:
    """A call the far end never named cannot be hung up there."""
    seen: list[httpx.Request] = []
    await api_that(httpx.Response(200), seen=seen).hang_up("")
    assert seen == []
