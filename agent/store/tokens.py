"""Who may read the call log: API tokens, and the first one that lets an admin in.

A token is `tl_` and 256 random bits. The database keeps only its HMAC-SHA256,
so a copy of the database lets nobody in. The HMAC key is a fixed label, not a
secret: what protects a token is that nobody can guess 256 bits, and a secret
key would have to be shared by every program on this database.

The admin token is different: it comes from configuration, or is made at the
first start and kept in a file only we may read. It is compared in memory and
never enters the database.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, cast, get_args

import sqlalchemy as sa
import structlog
from pydantic import SecretStr

from agent.store.database import FAILURES, Database, DatabaseUnavailable, explain
from agent.store.kept_secret import kept_secret
from agent.store.tables import api_tokens, storable

log = structlog.get_logger()

Role = Literal["viewer", "reviewer", "operator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

TOKEN_FILE = "trunkline.token"  # noqa: S105  (a file's name)
_PREFIX = "tl_"
_HMAC_KEY = b"trunkline api token, 1"
_ADMIN = "admin"
# Often enough to find tokens nobody needs, seldom enough to cost nothing.
_NOTE_USE_EVERY = timedelta(minutes=1)


class TokenError(Exception):
    """A token cannot be made; the message says why and what is accepted."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose token it was."""

    name: str
    role: Role


class Tokens:
    """Makes and recognises API tokens.

    Args:
        database: Where the hashes are kept.
        admin_token: The one that always works; None when only the database counts.
    """

    def __init__(self, database: Database, admin_token: SecretStr | None = None) -> None:
        self._database = database
        self._admin_hash = _hash(admin_token.get_secret_value()) if admin_token else None
        self._used_at: dict[str, datetime] = {}

    async def create(self, name: str, role: Role) -> str:
        """Make a token and return it: the only time that anybody sees it.

        Raises:
            TokenError: The name is empty or taken.
            DatabaseUnavailable: The database does not answer.
        """
        if not name.strip() or name == _ADMIN:
            msg = f"token name: found {name!r}, accepted: any text but {_ADMIN!r}, which is taken"
            raise TokenError(msg)
        token = _PREFIX + secrets.token_urlsafe(32)
        row = {
            "name": name,
            "role": role,
            "token_hash": _hash(token),
            "created_at": datetime.now(UTC),
        }
        try:
            async with self._database.engine.begin() as connection:
                await connection.execute(sa.insert(api_tokens).values(row))
        except sa.exc.IntegrityError:
            msg = f"token name: {name!r} is taken, choose another"
            raise TokenError(msg) from None
        except FAILURES as error:
            raise DatabaseUnavailable(explain(error, self._database.name)) from error
        return token

    async def verify(self, token: str) -> Identity | None:
        """Tell whose token this is; None if it is nobody's.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        token_hash = _hash(token)
        if self._admin_hash is not None and hmac.compare_digest(token_hash, self._admin_hash):
            return Identity(_ADMIN, "admin")
        if not token.startswith(_PREFIX):
            return None
        query = sa.select(api_tokens.c.name, api_tokens.c.role).where(
            api_tokens.c.token_hash == token_hash
        )
        try:
            async with self._database.engine.connect() as connection:
                row = (await connection.execute(query)).one_or_none()
        except FAILURES as error:
            raise DatabaseUnavailable(explain(error, self._database.name)) from error
        if row is None:
            return None
        await self._note_use(row.name, datetime.now(UTC))
        return Identity(row.name, cast("Role", row.role))

    async def _note_use(self, name: str, now: datetime) -> None:
        last = self._used_at.get(name)
        if last is not None and now - last < _NOTE_USE_EVERY:
            return
        self._used_at[name] = now
        try:
            async with self._database.engine.begin() as connection:
                await connection.execute(
                    sa.update(api_tokens).where(api_tokens.c.name == name).values(last_used_at=now)
                )
        except FAILURES as error:
            # Whoever reads must not be turned away because this could not be noted.
            log.debug("! use of a token not noted", reason=explain(error, self._database.name))


async def open_tokens(
    database: Database, configured: SecretStr | None
) -> tuple[Tokens, str | None]:
    """Make ready to recognise tokens.

    Args:
        database: An open database.
        configured: The admin token from the configuration. Without one, the one
            kept in `trunkline.token` beside the database is used, or made.

    Returns:
        The tokens, and the admin token if it was made just now: show it once.

    Raises:
        SecretFileUnavailable: The token's file cannot be written or read.
    """
    if configured is not None and configured.get_secret_value():
        return Tokens(database, configured), None
    kept, is_new = kept_secret(
        database.folder / TOKEN_FILE,
        lambda: _PREFIX + secrets.token_urlsafe(32),
        what="admin token",
        instead="TRUNKLINE_ADMIN_TOKEN",
    )
    return Tokens(database, kept), kept.get_secret_value() if is_new else None


def _hash(token: str) -> str:
    return hmac.new(_HMAC_KEY, storable(token).encode(), hashlib.sha256).hexdigest()
