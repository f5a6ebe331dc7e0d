"""Opens Realtime sessions, by whichever transport is configured."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx

from agent.call.ports import AgentProfile, CallOffer
from agent.realtime.access import safety_identifier
from agent.realtime.calls_api import CallsApi
from agent.realtime.codec import law_of
from agent.realtime.leg import RealtimeLeg
from agent.realtime.rtp_path import gather_loopback_when_alone, notice_lost_peers_sooner
from agent.realtime.session import with_own
from agent.realtime.settings import RealtimeSettings
from agent.realtime.webrtc import open_webrtc
from agent.realtime.websocket import open_websocket


class RealtimeConnector:
    """Opens Realtime sessions: the `AgentConnector` of this room."""

    def __init__(
        self,
        settings: RealtimeSettings,
        client: httpx.AsyncClient,
        *,
        safety_key: bytes = b"",
        fast: bool = True,
    ) -> None:
        """Use one HTTP client for all calls.

        Args:
            settings: `[realtime]`, with `base_url` and key as they are to be used; an
                agent's own settings go before them.
            client: Kept open by whoever made it.
            safety_key: Hides the caller's number from the provider, see `access`.
            fast: False keeps to the semi-public media path, see `rtp_path`.
        """
        self._settings = settings
        self._client = client
        self._safety_key = safety_key
        self._fast = fast
        gather_loopback_when_alone()
        notice_lost_peers_sooner()

    @asynccontextmanager
    async def open(self, profile: AgentProfile, offer: CallOffer) -> AsyncIterator[RealtimeLeg]:
        """Connect one session; entered, it can hear and speak.

        Raises:
            AgentUnavailable: It could not be opened within `connect_timeout_s`.
        """
        settings = with_own(self._settings, profile.own_settings)
        caller = safety_identifier(offer.caller_number, self._safety_key)
        api = CallsApi(settings, self._client, caller)
        opening: AbstractAsyncContextManager[RealtimeLeg]
        if settings.transport == "websocket":
            wish = settings.codec
            law = law_of(wish if wish in ("pcmu", "pcma") else offer.line_codec)
            opening = open_websocket(settings, profile, offer.call_id, law, api, caller)
        else:
            opening = open_webrtc(settings, profile, offer, api, fast=self._fast)
        async with opening as leg:
            yield leg
