"""One request to the Realtime API: sent again if that makes sense, its failure put in words.

Whatever goes wrong becomes `AgentUnavailable` with a reason a person can act upon. Keys
are never logged and never part of a reason.
"""

import asyncio
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from agent.call.clean import clean
from agent.call.ports import AgentUnavailable

_PAUSE_S = 0.25
_BUSY_PAUSE_S = 0.5
_LEAST_LEFT_S = 1.0
"""A second attempt with less time than this would only be cut off."""

_SOON_S = 5
_LATER_S = 60
"""After what only a person can mend; the trunk need not knock every few seconds."""
_MOST_RETRY_AFTER_S = 3600


async def exchange(
    client: httpx.AsyncClient, request: httpx.Request, expected: int, timeout_s: float
) -> httpx.Response:
    """Send a request; once more after a busy, failing or unreachable far end, if time remains.

    Args:
        client: Sends it.
        request: What to send.
        expected: The status of success.
        timeout_s: For both attempts together.

    Raises:
        AgentUnavailable: No reply, or a refusal.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    request.read()  # a multipart body streams itself once
    may_retry = True
    while True:
        # Not httpx's timeout alone: that is for each piece of a reply that may drip for hours.
        request.extensions["timeout"] = httpx.Timeout(timeout_s).as_dict()
        try:
            async with asyncio.timeout_at(deadline_s):
                reply = await client.send(request)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise AgentUnavailable("the Realtime API did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = clean(str(error), 120) or type(error).__name__
            failure = AgentUnavailable(f"the Realtime API is unreachable: {reason}")
            pause_s: float | None = _PAUSE_S
        else:
            if reply.status_code == expected:
                return reply
            failure, pause_s = refusal(reply), _pause_s(reply)
        if not may_retry or pause_s is None or loop.time() + pause_s + _LEAST_LEFT_S > deadline_s:
            raise failure
        may_retry = False
        await asyncio.sleep(pause_s)


def refusal(reply: httpx.Response) -> AgentUnavailable:
    """Put a status into words."""
    status = reply.status_code
    error = _error_of(reply)
    message = clean(str(error.get("message") or ""), 200)
    param = clean(str(error.get("param") or ""), 128)
    if param and param not in message:
        message = f"{param}: {message}"
    said = f": {message}" if message else ""
    retry_after_s = _retry_after_s(reply.headers.get("Retry-After", ""))
    if error.get("code") == "insufficient_quota":
        return AgentUnavailable(
            "the API account has no quota left: check its billing", retry_after_s or _LATER_S
        )
    default_s = _LATER_S
    if status == httpx.codes.UNAUTHORIZED:
        reason = "the API key was refused: check OPENAI_API_KEY"
    elif status == httpx.codes.FORBIDDEN:
        reason = f"the API key may not use this model or region{said}"
    elif status == httpx.codes.NOT_FOUND:
        reason = f"the Realtime API does not know this address or model{said}"
    elif status == httpx.codes.BAD_REQUEST:
        reason = f"the Realtime API refused the session{said}"
    elif status == httpx.codes.TOO_MANY_REQUESTS:
        reason, default_s = "the Realtime API is busy: its rate limit is reached", 2 * _SOON_S
    elif status >= httpx.codes.INTERNAL_SERVER_ERROR:
        reason, default_s = f"the Realtime API failed with status {status}{said}", _SOON_S
    else:
        reason, default_s = f"the Realtime API answered with status {status}{said}", _SOON_S
    return AgentUnavailable(reason, retry_after_s or default_s)


def _pause_s(reply: httpx.Response) -> float | None:
    """How long to wait before another attempt; None if it would end the same."""
    is_busy = reply.status_code == httpx.codes.TOO_MANY_REQUESTS
    if _error_of(reply).get("code") == "insufficient_quota":
        return None
    if not is_busy and reply.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
        return None
    asked_s = _retry_after_s(reply.headers.get("Retry-After", ""))
    return asked_s or (_BUSY_PAUSE_S if is_busy else _PAUSE_S)


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
