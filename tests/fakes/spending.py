"""A database that is asked what others have spent, for the call's own tests."""

import asyncio
from datetime import datetime
from decimal import Decimal

from agent.call.brakes import Spent
from agent.call.purse import SpendingUnknown


class FakeSpending:
    """Answers what the test says, or that it cannot, or never."""

    def __init__(self, day_usd: str = "0", caller_usd: str = "0") -> None:
        self.spent = Spent(Decimal(caller_usd), Decimal(day_usd))
        self.trouble = ""
        self.is_stuck = False
        self.asked: list[tuple[datetime, str]] = []

    async def since(self, day_start: datetime, payer: str) -> Spent:
        self.asked.append((day_start, payer))
        if self.is_stuck:
            await asyncio.Event().wait()
        if self.trouble:
            raise SpendingUnknown(self.trouble)
        return self.spent
