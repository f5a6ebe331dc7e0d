"""What other processes on the same database have spent: the adapter of `OthersSpending`.

This process knows its own calls better than the database does, which hears of
them a moment later; so only the calls of the others are summed here.
"""

from datetime import datetime

import sqlalchemy as sa

from agent.call.brakes import NAMELESS, UNKNOWN_CALLER, Spent
from agent.call.purse import SpendingUnknown
from agent.store.database import FAILURES, Database, explain
from agent.store.tables import calls, storable, usd_of


class SqlSpending:
    """Sums up the call log; satisfies `agent.call.purse.OthersSpending`."""

    def __init__(self, database: Database, worker: str) -> None:
        """Read this database.

        Args:
            database: Open, and kept so by whoever opened it.
            worker: This process, whose calls are left out.
        """
        self._database = database
        self._worker = worker

    async def since(self, day_start: datetime, payer: str) -> Spent:
        """Sum up the calls of other processes that began then or later.

        Args:
            day_start: When the day began.
            payer: A caller number, or `brakes.UNKNOWN_CALLER` for all without one.

        Raises:
            SpendingUnknown: The database does not answer.
        """
        paid = calls.c.caller_number == storable(payer)
        if payer == UNKNOWN_CALLER:
            paid = sa.func.lower(calls.c.caller_number).in_(sorted(NAMELESS))
        total = sa.func.coalesce(sa.func.sum(calls.c.cost_nano_usd), 0)
        others = sa.select(total).where(
            calls.c.started_at >= day_start, calls.c.worker != self._worker
        )
        query = sa.select(others.where(paid).scalar_subquery(), others.scalar_subquery())
        try:
            async with self._database.engine.connect() as connection:
                caller, day = (await connection.execute(query)).one()
        except FAILURES as error:
            raise SpendingUnknown(explain(error, self._database.name)) from error
        return Spent(usd_of(int(caller)), usd_of(int(day)))
