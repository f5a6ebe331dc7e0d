"""`trunkline db upgrade`: the database's tables, brought to this version."""

import asyncio
import sys

from agent.settings import Settings
from agent.store import database


async def upgrade(settings: Settings) -> int:
    """Migrate the configured database; harmless when there is nothing to do.

    Returns:
        0, or 1 with one message on stderr.
    """
    try:
        await asyncio.to_thread(database.upgrade, settings.database)
    except database.DatabaseUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0
