"""Who is asked for a session, and what callers get when nobody has one.

    [realtime], [realtime.standby] -> connectors_of -> in the order they are asked
    [fallback], trunks' fallback   -> fallbacks_of  -> by trunk, sounds read

Made once, at the start.
"""

from collections.abc import Callable
from pathlib import Path

import httpx

from agent.audio.wav import read_wav
from agent.call.fallback import Fallback
from agent.call.ports import AgentConnector
from agent.call.settings import FallbackSettings
from agent.realtime.connector import RealtimeConnector
from agent.realtime.settings import RealtimeSettings
from agent.realtime.standby import StandbyConnector, standby_settings
from agent.settings import Settings

_GOODBYE = Path(__file__).with_name("goodbye.wav")
"""The last words when nothing else can speak, said by the embedded server's voice at 8 kHz."""


def connectors_of(
    realtime: RealtimeSettings, client: httpx.AsyncClient, safety_key: bytes, embedded_url: str
) -> list[AgentConnector]:
    """Say who is asked for a session, the first and the stand-by.

    Args:
        realtime: `[realtime]`, with `base_url` as it is to be used.
        client: For all of them.
        safety_key: See `RealtimeConnector`.
        embedded_url: Where the embedded server is, if one of them is it.
    """
    standby = realtime.standby
    if standby is None:
        return [RealtimeConnector(realtime, client, safety_key=safety_key)]
    # Callers wait for both no longer than for one.
    share = {"connect_timeout_s": realtime.connect_timeout_s / 2}
    first = realtime.model_copy(update=share)
    other = standby_settings(realtime, standby).model_copy(update=share)
    own = standby.own()
    if standby.provider == "embedded":
        own["base_url"] = embedded_url
    return [
        RealtimeConnector(first, client, safety_key=safety_key),
        StandbyConnector(RealtimeConnector(other, client, safety_key=safety_key), own),
    ]


def fallbacks_of(settings: Settings) -> Callable[[str], Fallback]:
    """Tell, by the name of their trunk, what callers get when there is no agent."""
    goodbye = read_wav(_GOODBYE)

    def read(found: FallbackSettings) -> Fallback:
        pcm = read_wav(found.announcement) if found.announcement else b""
        return Fallback(pcm, found.transfer, goodbye)

    default = read(settings.fallback)
    own = {trunk.name: read(trunk.fallback) for trunk in settings.trunks if trunk.fallback}
    return lambda trunk: own.get(trunk, default)
