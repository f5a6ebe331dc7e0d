"""The line of a call, as its tools may use it."""

import asyncio
from dataclasses import dataclass

from agent.call.diary import Diary
from agent.call.farewell import Farewell
from agent.call.keypad import Keypad
from agent.call.ports import AgentLeg, CallerLeg, DigitsKeyed, DigitsWanted, LineRefused

_CHECK_S = 0.02


@dataclass(frozen=True, slots=True)
class PhoneLine:
    """The `Line` of one tool call; `response_id` asked for it."""

    caller: CallerLeg
    agent: AgentLeg
    keypad: Keypad
    diary: Diary
    announcement: Farewell
    response_id: str

    async def transfer(self, target: str) -> None:
        """Hand the caller to a SIP URI, once they have heard that it will happen.

        Raises:
            LineRefused: Nobody took the caller, or they spoke up before.
        """
        announcement = self.announcement
        if announcement.ask(self.response_id, self.diary.now_ms()):
            while not announcement.is_due(self.diary.now_ms(), self.agent.buffered_ms()):
                if not announcement.is_pending:
                    raise LineRefused("the caller spoke up before the transfer")
                await asyncio.sleep(_CHECK_S)
        await self.caller.transfer(target)

    def send_digits(self, digits: str) -> None:
        """Press keys towards the caller's side; see `CallerLeg.send_digits`."""
        self.caller.send_digits(digits)

    async def collect_digits(self, wanted: DigitsWanted) -> DigitsKeyed:
        """Wait for the caller's keys; until then they are nobody else's."""
        return await self.keypad.collect(wanted)

    def note(self, kind: str, **detail: object) -> None:
        """Keep something with the call, for whoever reads its log."""
        self.diary.note(kind, **detail)
