"""`POST /realtime/calls`: our offer for the far end's answer, over HTTPS.

One shared client keeps the connection warm between calls. Whatever goes wrong
becomes `AgentUnavailable` with a reason a person can act upon. The key is never
logged and never part of a reason.

Source: OpenAI Realtime API, `POST /v1/realtime/calls`, the multipart form.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from agent.call.clean import clean
from agent.call.ports import AgentUnavailable
from agent.realtime.settings import RealtimeSettings

_HANG_UP_TIMEOUT_S = 1
_MOST_SDP_CHARS = 100_000
_SOON_S = 5
_LATER_S = 60
"""After what only a person can mend; the trunk need not knock every few seconds."""
_MOST_RETRY_AFTER_S = 3600


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """What the far end answered: its SDP, and its id of the call ("" if it told none)."""

    sdp: str
    realtime_call_id: str


class CallsApi:
    """The calls endpoint of one Realtime API."""

    def __init__(self, settings: RealtimeSettings, client: httpx.AsyncClient) -> None:
        """Use `client` for every call; whoever made it closes it."""
        self._settings = settings
        self._client = client
        self._url = settings.base_url.rstrip("/") + "/realtime/calls"

    async def create(self, offer: str) -> CallAnswer:
        """Exchange an offer for an answer.

        Args:
            offer: SDP with its last CRLF.

        Raises:
            AgentUnavailable: No answer, or a refusal.
        """
        session = {"type": "realtime", "model": self._settings.model}
        try:
            reply = await self._client.post(
                self._url,
                headers=self._headers(),
                files={
                    "sdp": (None, offer, "application/sdp"),
                    "session": (None, orjson.dumps(session), "application/json"),
                },
                timeout=self._settings.connect_timeout_s,
            )
        except httpx.TimeoutException as error:
            raise AgentUnavailable("the Realtime API did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = clean(str(error), 120) or type(error).__name__
            raise AgentUnavailable(f"the Realtime API is unreachable: {reason}") from error
        if reply.status_code != httpx.codes.CREATED:
            raise _refusal(reply)
        # The service labels its SDP text/plain; only the content counts.
        if not reply.text.startswith("v=0") or len(reply.text) > _MOST_SDP_CHARS:
            raise AgentUnavailable("the Realtime API answered 201 with something that is no SDP")
        path = reply.headers.get("Location", "").partition("?")[0]
        return CallAnswer(reply.text, clean(path.rstrip("/").rpartition("/")[2], 128))

    async def hang_up(self, realtime_call_id: str) -> None:
        """Tell the far end that the call is over; at most one second, and no matter if it fails."""
        if not realtime_call_id:
            return
        url = f"{self._url}/{quote(realtime_call_id, safe='')}/hangup"
        try:
            async with asyncio.timeout(_HANG_UP_TIMEOUT_S):
                await self._client.post(url, headers=self._headers())
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, RuntimeError):
            return  # RuntimeError: the program ends, and the shared client is closed already

    def _headers(self) -> dict[str, str]:
        key = self._settings.api_key
        return {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}


def _refusal(reply: httpx.Response) -> AgentUnavailable:
    """Put a status into words."""
    status = reply.status_code
    error = _error_of(reply)
    message = clean(str(error.get("message") or ""), 200)
    said = f": {message}" if message else ""
    retry_after_s = _retry_after_s(reply.headers.get("Retry-After", ""))
    if error.get("code") == "insufficient_quota":
        return AgentUnavailable(
            "the API account has no quota left: check its billing", retry_after_s or _LATER_S
        )
    if status == httpx.codes.UNAUTHORIZED:
        reason, default_s = "the API key was refused: check OPENAI_API_KEY", _LATER_S
    elif status == httpx.codes.FORBIDDEN:
        reason, default_s = f"the API key may not use this model or region{said}", _LATER_S
    elif status == httpx.codes.NOT_FOUND:
        reason, default_s = (
            f"the Realtime API does not know this address or model{said}",
            _LATER_S,
        )
    elif status == httpx.codes.TOO_MANY_REQUESTS:
        reason, default_s = "the Realtime API is busy: its rate limit is reached", 2 * _SOON_S
    elif status >= httpx.codes.INTERNAL_SERVER_ERROR:
        reason, default_s = f"the Realtime API failed with status {status}{said}", _SOON_S
    elif status == httpx.codes.BAD_REQUEST:
        reason, default_s = f"the Realtime API refused the session{said}", _LATER_S
    else:
        reason, default_s = f"the Realtime API answered with status {status}{said}", _SOON_S
    return AgentUnavailable(reason, retry_after_s or default_s)


def _error_of(reply: httpx.Response) -> dict[str, Any]:
    try:
        body = orjson.loads(reply.content)
    except orjson.JSONDecodeError:
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _retry_after_s(value: str) -> int:
    """Read a Retry-After header (RFC 9110, 10.2.3); 0 if there is none to read."""
    if value.isdecimal():
        seconds = int(value[:9])
    else:
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return 0
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        seconds = int((until - datetime.now(UTC)).total_seconds()) + 1
    return min(max(seconds, 1), _MOST_RETRY_AFTER_S)
