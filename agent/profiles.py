"""Who answers a call, as configured: `[[agents]]`, with what the call itself adds.

    Settings -> profiles_of -> AgentProfile (by name) -> for_call(offer) -> AgentProfile

Pure; a reload makes new profiles, and running calls keep theirs.
"""

from collections.abc import Mapping
from dataclasses import replace

from agent.call.instructions import fill_in
from agent.call.ports import AgentProfile, CallOffer
from agent.realtime.session import with_own
from agent.realtime.standby import standby_settings
from agent.settings import AgentSettings, Settings


def profiles_of(settings: Settings) -> dict[str, AgentProfile]:
    """Describe every agent, by name; the first answers what names nobody."""
    return {agent.name: _profile_of(agent, settings) for agent in settings.answering_agents}


def _profile_of(agent: AgentSettings, settings: Settings) -> AgentProfile:
    own = agent.own()
    session = with_own(settings.realtime, own)
    return AgentProfile(
        name=agent.name,
        instructions=agent.instructions,
        greeting=agent.greeting,
        voice=session.voice,
        tool_names=agent.tools,
        tool_filler=agent.tool_filler,
        timezone=agent.timezone,
        interruption=agent.interruption or settings.interruption,
        idle=agent.idle or settings.idle,
        watchdog=settings.watchdog,
        yields=session.turn_detection.interrupt_response,
        initial_message=agent.initial_message,
        own_settings=own,
    )


def regions_of(settings: Settings) -> dict[str, str]:
    """Tell which trunks have a provider's address of their own, by name."""
    return {trunk.name: trunk.base_url for trunk in settings.trunks if trunk.base_url}


def addresses_of(settings: Settings) -> set[str]:
    """Name every provider's address that a call may go to; the embedded server has none."""
    found = set()
    if settings.provider != "embedded":
        sessions = [with_own(settings.realtime, agent.own()) for agent in settings.answering_agents]
        found = {session.base_url for session in sessions} | set(regions_of(settings).values())
    standby = settings.realtime.standby
    if standby is not None and (standby.provider or settings.provider) != "embedded":
        found.add(standby_settings(settings.realtime, standby).base_url)
    return found


def for_call(
    profile: AgentProfile, offer: CallOffer, regions: Mapping[str, str], *, is_embedded: bool
) -> AgentProfile:
    """Fill in what only the call knows: its facts, and the region of its trunk.

    Args:
        profile: As configured.
        offer: The call.
        regions: See `regions_of`; an agent's own address goes before its trunk's.
        is_embedded: The server is on this machine, whatever address is configured.
    """
    own = dict(profile.own_settings)
    if offer.trunk in regions:
        own.setdefault("base_url", regions[offer.trunk])
    if is_embedded:
        own.pop("base_url", None)
    return replace(
        profile,
        instructions=fill_in(profile.instructions, offer, profile.name),
        initial_message=fill_in(profile.initial_message, offer, profile.name),
        own_settings=own,
    )
