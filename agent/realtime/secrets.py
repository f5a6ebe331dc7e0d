"""`POST /realtime/client_secrets`: a key for one session, for whom the project's key is too much.

    project key + session -> ek_..., good for a minute -> one call, or one browser

The media of a call is then opened without the project's key (`auth = "ephemeral"`, and
always at Azure), and a browser gets a session with the agent's settings and nothing else.

Source: OpenAI Realtime API, `POST /v1/realtime/client_secrets`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson

from agent.call.ports import AgentUnavailable
from agent.realtime.access import key_headers
from agent.realtime.exchange import exchange
from agent.realtime.settings import RealtimeSettings

_MOST_VALUE_CHARS = 4096


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A minted secret: what to send as bearer, and until when it opens sessions."""

    value: str = field(repr=False)
    expires_at: datetime
    session: Mapping[str, Any]
    """The session it opens, as the far end completed it."""


@dataclass(frozen=True, slots=True)
class BrowserKey:
    """What a browser needs to talk to an agent."""

    agent: str
    model: str
    value: str = field(repr=False)
    expires_at: datetime
    url: str
    """Where it posts its offer."""


async def mint_secret(
    client: httpx.AsyncClient,
    settings: RealtimeSettings,
    session: Mapping[str, Any],
    *,
    safety_identifier: str = "",
    life_s: int | None = None,
) -> ClientSecret:
    """Have a secret made.

    Args:
        client: Sends the request.
        settings: Where, and with which key.
        session: The session object it shall open, without its model.
        safety_identifier: Of whom it is for; it goes with the secret.
        life_s: 10 to 7200; otherwise `realtime.secret_life_s`.

    Raises:
        AgentUnavailable: It was refused; the reason names the session's wrong field.
    """
    body = {
        "expires_after": {"anchor": "created_at", "seconds": life_s or settings.secret_life_s},
        "session": {**session, "model": settings.model},
    }
    request = client.build_request(
        "POST",
        settings.base_url.rstrip("/") + "/realtime/client_secrets",
        headers={**key_headers(settings, safety_identifier), "Content-Type": "application/json"},
        content=orjson.dumps(body),
    )
    reply = await exchange(client, request, httpx.codes.OK, settings.connect_timeout_s)
    made = _made(reply.content)
    if made is None:
        raise AgentUnavailable("the Realtime API made a secret that makes no sense")
    return made


def _made(body: bytes) -> ClientSecret | None:
    try:
        reply = orjson.loads(body)
        value, expires_at = reply["value"], datetime.fromtimestamp(reply["expires_at"], UTC)
        session = dict(reply.get("session") or {})
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError):
        return None
    is_one = isinstance(value, str) and 0 < len(value) <= _MOST_VALUE_CHARS and value.isprintable()
    return ClientSecret(value, expires_at, session) if is_one else None
