"""`[realtime.standby]`: who is asked for a session when the first provider has none.

The same agent, at another address, with another model or another voice: what the
stand-by sets goes before what `[realtime]` and the agent have.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from agent.call.ports import AgentConnector, AgentProfile, AgentSession, CallOffer
from agent.realtime.settings import RealtimeSettings, StandbySettings

_OF_THE_FIRST = ("base_url", "model")
"""What an agent has of its own with one provider means nothing to another."""


def standby_settings(realtime: RealtimeSettings, standby: StandbySettings) -> RealtimeSettings:
    """Describe the stand-by as if it were the first."""
    changes = {**standby.own(), "standby": None}
    if standby.provider is not None:
        changes["provider"] = standby.provider
    if standby.api_key is not None:
        changes["api_key"] = standby.api_key
    return realtime.model_copy(update=changes)


class StandbyConnector:
    """The `AgentConnector` of the stand-by."""

    def __init__(self, connector: AgentConnector, own: Mapping[str, Any]) -> None:
        """Ask `connector`, which knows the stand-by's address and key.

        Args:
            connector: Opens sessions there.
            own: What the stand-by sets of a session.
        """
        self._connector = connector
        self._own = dict(own)

    def open(
        self, profile: AgentProfile, offer: CallOffer
    ) -> AbstractAsyncContextManager[AgentSession]:
        """Connect one session; see `AgentConnector.open`."""
        return self._connector.open(standing_by(profile, self._own), offer)


def standing_by(profile: AgentProfile, own: Mapping[str, Any]) -> AgentProfile:
    """Describe an agent as the stand-by knows it; `own` is what that sets of a session."""
    kept = {k: v for k, v in profile.own_settings.items() if k not in _OF_THE_FIRST}
    voice = own.get("voice", profile.voice)
    return replace(profile, own_settings={**kept, **own}, voice=voice)
