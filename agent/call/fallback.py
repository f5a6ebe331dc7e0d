"""What a caller gets when there is no agent: words, a person, a goodbye.

All of it comes from the phone leg alone, so that it works when nothing else does.
"""

import asyncio
from dataclasses import dataclass

from agent.audio.frame import SAMPLE_RATE_HZ
from agent.call.bridge import Bridge
from agent.call.diary import Diary
from agent.call.ports import CallerLeg, LineRefused

_CHECK_S = 0.02
_SLACK_S = 2.0
"""An announcement takes as long as the phone's clock says; a clock that stands is not waited for."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """What one trunk's callers get. Sounds are 8 kHz PCM."""

    announcement: bytes = b""
    """Heard first."""
    target: str = ""
    """Where the caller is handed to then; empty: nowhere."""
    goodbye: bytes = b""
    """Heard before the BYE when there was no announcement and nobody took the caller."""

    @property
    def takes_calls(self) -> bool:
        """Callers who find no agent are answered rather than refused."""
        return bool(self.announcement or self.target)


async def fall_back(fallback: Fallback, caller: CallerLeg, bridge: Bridge, diary: Diary) -> None:
    """Do what can be done for an answered caller; afterwards the call is to be ended."""
    if fallback.announcement:
        diary.note("fallback", step="announcement")
        await _play(fallback.announcement, bridge)
    if fallback.target:
        try:
            await caller.transfer(fallback.target)
        except LineRefused as error:
            diary.note("fallback", step="transfer", refused=str(error))
        else:
            diary.note("fallback", step="transfer")
            return
    if fallback.goodbye and not fallback.announcement:
        diary.note("fallback", step="goodbye")
        await _play(fallback.goodbye, bridge)


async def _play(pcm: bytes, bridge: Bridge) -> None:
    bridge.announce(pcm)
    try:
        async with asyncio.timeout(len(pcm) / 2 / SAMPLE_RATE_HZ + _SLACK_S):
            while bridge.is_announcing:  # noqa: ASYNC110 - the phone's clock sets no event
                await asyncio.sleep(_CHECK_S)
    except TimeoutError:
        return
