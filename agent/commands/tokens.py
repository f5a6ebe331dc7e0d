"""`trunkline tokens create`: an API token, printed this once."""

import sys

from agent.settings import Settings
from agent.store.database import DatabaseUnavailable, open_database
from agent.store.tokens import ROLES, TokenError, Tokens


async def create_token(settings: Settings, *, role: str, name: str) -> int:
    """Make a token and print it, alone on a line, so that a script can take it.

    Returns:
        0; 2 for a role that there is not; 1 for a name that is taken or a
        database that cannot be used. Each with one message on stderr.
    """
    if role not in ROLES:
        print(f"--role: found {role!r}, accepted: {', '.join(ROLES)}", file=sys.stderr)
        return 2
    try:
        async with open_database(settings.database) as database:
            token = await Tokens(database).create(name, role)
    except (DatabaseUnavailable, TokenError) as error:
        print(error, file=sys.stderr)
        return 1
    print(token)
    return 0
