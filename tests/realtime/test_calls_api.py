"""The HTTP side of opening a session: what is asked, and what each refusal is called."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from pydantic import SecretStr

from agent.call.ports import AgentUnavailable
from agent.realtime.calls_api import CallAnswer, CallsApi
from agent.realtime.settings import RealtimeSettings

KEY = "sk-test-not-a-secret"
OFFER = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n"


def api_that(
    reply: httpx.Response | Exception, seen: list[httpx.Request] | None = None, key: str = KEY
) -> CallsApi:
    """Make a client whose far end always gives this reply."""

    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        if isinstance(reply, Exception):
            raise reply
        return reply

    settings = RealtimeSettings(
        base_url="http://127.0.0.1:9/v1/", api_key=SecretStr(key) if key else None, model="m-1"
    )
    return CallsApi(settings, httpx.AsyncClient(transport=httpx.MockTransport(handle)))


def refusal(status: int, *, code: str = "", message: str = "", **headers: str) -> httpx.Response:
    error = {"error": {"message": message, "type": "x", "param": None, "code": code}}
    return httpx.Response(
        status, json=error, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


async def test_the_offer_goes_up_whole() -> None:
    """Both parts with their types, the key as bearer, and the SDP with its last CRLF."""
    seen: list[httpx.Request] = []
    answer = httpx.Response(201, text="v=0\r\n", headers={"Location": "/v1/realtime/calls/rtc_1"})
    assert await api_that(answer, seen).create(OFFER) == CallAnswer("v=0\r\n", "rtc_1")
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
    await api_that(httpx.Response(201, text="v=0\r\n"), seen, key="").create(OFFER)
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
    await api_that(reply, seen).hang_up("rtc_u0/1")
    assert str(seen[0].url).endswith("/v1/realtime/calls/rtc_u0%2F1/hangup")


async def test_no_hang_up_without_a_name() -> None:
    """A call the far end never named cannot be hung up there."""
    seen: list[httpx.Request] = []
    await api_that(httpx.Response(200), seen).hang_up("")
    assert seen == []
