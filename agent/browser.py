"""Keys for browsers: an agent's session, opened by somebody who never sees our key.

browser -> POST /api/v1/realtime/client-secrets -> BrowserKeys -> the provider -> ek_...
browser -> its offer, with ek_... as bearer     -> the provider
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import httpx

from agent.call.ports import AgentProfile, CallOffer, ToolSchema
from agent.profiles import for_call
from agent.realtime.secrets import BrowserKey, mint_secret
from agent.realtime.session import session_of, with_own
from agent.realtime.settings import RealtimeSettings

_TRUNK = "web"


class BrowserKeys:
    """Has keys made, each for one agent's session."""

    def __init__(
        self,
        settings: RealtimeSettings,
        client: httpx.AsyncClient,
        profiles: Callable[[], Mapping[str, AgentProfile]],
        schemas: Callable[[tuple[str, ...]], tuple[ToolSchema, ...]],
    ) -> None:
        """Take what is needed.

        Args:
            settings: As the calls use them.
            client: Shared with the calls.
            profiles: Tells who answers now, by name.
            schemas: Describes tools by their names.
        """
        self._settings = settings
        self._client = client
        self._profiles = profiles
        self._schemas = schemas

    @property
    def agents(self) -> list[str]:
        """For whom there are keys; the first is meant when nobody is named."""
        return list(self._profiles())

    async def make(self, agent: str, life_s: int | None = None) -> BrowserKey:
        """Have a key made.

        Args:
            agent: One of `agents`.
            life_s: How long it can open sessions, 10 to 7200; otherwise as configured.

        Raises:
            AgentUnavailable: The provider makes none; the reason says why.
        """
        offer = CallOffer("", "", _TRUNK, "", "", 0.0)
        is_embedded = self._settings.provider == "embedded"
        profile = for_call(self._profiles()[agent], offer, {}, is_embedded=is_embedded)
        profile = replace(profile, tools=self._schemas(profile.tool_names))
        settings = with_own(self._settings, profile.own_settings)
        session = session_of(profile, settings)
        secret = await mint_secret(self._client, settings, session, life_s=life_s)
        url = settings.base_url.rstrip("/") + "/realtime/calls"
        return BrowserKey(agent, settings.model, secret.value, secret.expires_at, url)
