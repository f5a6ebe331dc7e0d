"""`POST /realtime/calls`: our offer for the far end's answer, over HTTPS.

    key     multipart: the offer, and the session's model
    secret  the offer alone; the secret knows its session

Source: OpenAI Realtime API, `POST /v1/realtime/calls`, both forms. Azure takes the second.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import quote

import httpx
import orjson

from agent.call.clean import clean
from agent.call.ports import AgentUnavailable
from agent.realtime.access import key_headers, secret_headers
from agent.realtime.exchange import exchange
from agent.realtime.secrets import mint_secret
from agent.realtime.settings import RealtimeSettings

_HANG_UP_TIMEOUT_S = 1
_MOST_SDP_CHARS = 100_000


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """What the far end answered: its SDP, and its id of the call ("" if it told none)."""

    sdp: str
    realtime_call_id: str


class CallsApi:
    """The calls endpoint, for one call."""

    def __init__(
        self, settings: RealtimeSettings, client: httpx.AsyncClient, safety_identifier: str = ""
    ) -> None:
        """Use `client`; whoever made it closes it.

        Args:
            settings: As they are for this call.
            client: Shared by all calls.
            safety_identifier: Stands for the caller, see `access`.
        """
        self._settings = settings
        self._client = client
        self._safety_identifier = safety_identifier
        self._url = settings.base_url.rstrip("/") + "/realtime/calls"

    async def admit(self) -> str:
        """Get the secret this call is opened with; "" where the key itself is used.

        Raises:
            AgentUnavailable: There is none to be had.
        """
        if not self._settings.uses_secrets:
            return ""
        session = {"type": "realtime"}
        secret = await mint_secret(
            self._client, self._settings, session, safety_identifier=self._safety_identifier
        )
        return secret.value

    async def create(self, offer: str, secret: str = "") -> CallAnswer:
        """Exchange an offer for an answer.

        Args:
            offer: SDP with its last CRLF.
            secret: What `admit` gave.

        Raises:
            AgentUnavailable: No answer, or a refusal.
        """
        request = self._with_secret(offer, secret) if secret else self._with_key(offer)
        reply = await exchange(
            self._client, request, httpx.codes.CREATED, self._settings.connect_timeout_s
        )
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
                # A secret may have expired by now.
                await self._client.post(url, headers=key_headers(self._settings))
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, RuntimeError):
            return  # RuntimeError: the program ends, and the shared client is closed already

    def _with_key(self, offer: str) -> httpx.Request:
        session = {"type": "realtime", "model": self._settings.model}
        return self._client.build_request(
            "POST",
            self._url,
            headers=key_headers(self._settings, self._safety_identifier),
            files={
                "sdp": (None, offer, "application/sdp"),
                "session": (None, orjson.dumps(session), "application/json"),
            },
        )

    def _with_secret(self, offer: str, secret: str) -> httpx.Request:
        headers = {**secret_headers(secret), "Content-Type": "application/sdp"}
        return self._client.build_request("POST", self._url, headers=headers, content=offer)
