"""The database behind the call log: found, opened, migrated, or clearly refused.

::

    upgrade(settings)                        # alembic to head, before the loop starts
    async with open_database(settings) as database:
        ...                                  # database.engine

SQLite runs in WAL with `synchronous=NORMAL`: readers never wait for the
writer, a killed process loses nothing that was committed, and a power cut at
most the last moment. PostgreSQL is reached with psycopg 3, by both the
synchronous migrations and the asynchronous program.

Whatever is wrong with the database becomes one `DatabaseUnavailable` that says
which database, what is wrong and what to do; no password is ever in it.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agent.store.settings import DatabaseSettings
from agent.store.tables import dump_json

MIGRATIONS = Path(__file__).parents[2] / "migrations"
BUSY_TIMEOUT_MS = 1000
CONNECT_TIMEOUT_S = 5
FAILURES = (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError)
"""How a database that cannot be used shows; the second: every connection of the pool is taken."""
# Any number of our own: two programs that upgrade one PostgreSQL take turns.
_UPGRADE_LOCK = 0x7472756E6B


class DatabaseUnavailable(Exception):
    """The database cannot be used; the message says which, why and what to do."""


@dataclass(frozen=True, slots=True)
class Database:
    """An open database.

    Attributes:
        engine: Connections to it.
        name: Its address for people: no password in it.
        folder: Where files that belong to the database are kept: the database
            file's own folder, or the current one for PostgreSQL.
    """

    engine: AsyncEngine
    name: str
    folder: Path


@asynccontextmanager
async def open_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Connect to the database and check that this version of the code fits it.

    Raises:
        DatabaseUnavailable: It cannot be reached, read or written, or its
            tables are older or newer than this program's.
    """
    url = database_url(settings)
    _check_file(url)
    engine = create_async_engine(
        _with_driver(url, is_async=True),
        json_serializer=dump_json,
        connect_args=_connect_args(url),
        pool_pre_ping=url.get_backend_name() == "postgresql",
    )
    _prepare_sqlite(engine.sync_engine)
    try:
        with _explained(url):
            async with engine.connect() as connection:
                revision = await connection.run_sync(_current_revision)
        check_revision(revision, url)
        yield Database(engine, _shown(url), _folder(url))
    finally:
        await engine.dispose()


def upgrade(settings: DatabaseSettings, revision: str = "head") -> None:
    """Create the tables, or bring them to this program's version. Blocks.

    All or nothing, and harmless when there is nothing to do.

    Raises:
        DatabaseUnavailable: The database cannot be reached or written, or is
            newer than this program.
    """
    with _alembic(settings) as (url, config, connection):
        _refuse_newer(_current_revision(connection), url)
        command.upgrade(config, revision)


def create_if_empty(settings: DatabaseSettings) -> None:
    """Create the tables of a database that has none; leave any other as it is. Blocks.

    A newcomer's first start needs no migration; an admin's later ones are decided
    by the admin.

    Raises:
        DatabaseUnavailable: The database cannot be reached or written.
    """
    with _alembic(settings) as (_, config, connection):
        if _current_revision(connection) is None:
            command.upgrade(config, "head")


def downgrade(settings: DatabaseSettings, revision: str) -> None:
    """Take the tables back to an older revision; `base` removes them all. Blocks.

    Raises:
        DatabaseUnavailable: As for `upgrade`.
    """
    with _alembic(settings) as (url, config, connection):
        _refuse_newer(_current_revision(connection), url)
        command.downgrade(config, revision)


def check_revision(revision: str | None, url: URL) -> None:
    """Accept a database whose tables are exactly this program's.

    Args:
        revision: What the database says it is; None for an empty one.
        url: The database, for the message.

    Raises:
        DatabaseUnavailable: It is newer, or needs a migration.
    """
    _refuse_newer(revision, url)
    if revision != _scripts().get_current_head():
        found = f"is at revision {revision}" if revision else "has no tables yet"
        msg = f"database {_shown(url)} {found}: run `trunkline db upgrade`"
        raise DatabaseUnavailable(msg)


def database_url(settings: DatabaseSettings) -> URL:
    """Read the configured address.

    Raises:
        DatabaseUnavailable: It is not an address.
    """
    try:
        return sa.make_url(settings.url)
    except (sa.exc.ArgumentError, ValueError):
        # The text may hold a password: the message must not repeat it.
        msg = (
            "[database] url cannot be read as an address: "
            "expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
        )
        raise DatabaseUnavailable(msg) from None


def _folder(url: URL) -> Path:
    if url.get_backend_name() == "sqlite":
        return Path(url.database or "").parent
    return Path()


def _shown(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(Path(url.database or "").absolute())
    # Anything after the question mark may name a password too.
    hidden = url.set(query={key: url.query[key] for key in ("host",) if key in url.query})
    return hidden.render_as_string(hide_password=True)


def _with_driver(url: URL, *, is_async: bool) -> URL:
    if url.get_backend_name() == "sqlite":
        return url.set(drivername="sqlite+aiosqlite" if is_async else "sqlite+pysqlite")
    return url.set(drivername="postgresql+psycopg")


def _connect_args(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": BUSY_TIMEOUT_MS / 1000}
    # A server that vanished without a word is noticed, instead of waited for by the hour.
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    }


def _prepare_sqlite(engine: Engine, begin: str = "BEGIN") -> None:
    """Set WAL and foreign keys, and let SQLAlchemy say where transactions begin.

    Python's own driver begins late and not before DDL or SAVEPOINT; with
    `isolation_level` None it keeps out of it.
    Source: SQLAlchemy, "SQLite: Serializable isolation / Savepoints / Transactional DDL".
    """
    if engine.dialect.name != "sqlite":
        return

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _check_file(url: URL) -> None:
    """Say what is wrong with a SQLite file in words SQLite itself does not have."""
    if url.get_backend_name() != "sqlite":
        return
    if url.query or "\0" in (url.database or "") or url.database == ":memory:":
        msg = "[database] url: SQLite takes the path of one file and nothing else: sqlite:///FILE"
        raise DatabaseUnavailable(msg)
    path = Path(url.database or "").absolute()
    # WAL writes two more files beside the database.
    if not path.parent.is_dir():
        wrong = f"folder {path.parent} does not exist: create it, or change [database] url"
    elif path.is_dir():
        wrong = "it is a folder: name a file in [database] url"
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        wrong = f"no permission to write in folder {path.parent}: {_who()} needs it"
    elif path.exists() and not os.access(path, os.R_OK | os.W_OK):
        wrong = f"no permission to read and write the file: {_who()} needs it"
    else:
        return
    msg = f"database {path}: {wrong}"
    raise DatabaseUnavailable(msg)


def _who() -> str:
    return f"user id {os.geteuid()}"


@contextmanager
def _explained(url: URL) -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise DatabaseUnavailable(explain(error, _shown(url))) from error


def explain(error: Exception, name: str) -> str:
    """Say in one line which database failed, how, and what may help."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig else error
    # psycopg reports every address it tried, a line each.
    text = " ".join(str(cause).split())
    if isinstance(cause, sqlite3.DatabaseError) and "not a database" in text:
        help_text = "the file is something else: move it away, or change [database] url"
    elif "readonly" in text or "read-only" in text:
        help_text = "give this program permission to write there"
    elif "locked" in text:
        help_text = "another program holds it: end that one, or wait"
    elif "password" in text or "authentication" in text:
        help_text = "check user and password in [database] url"
    elif "does not exist" in text:
        help_text = "create it first, or change [database] url"
    else:
        help_text = "check that it runs and that [database] url is right"
    return f"database {name}: {text}: {help_text}"


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(revision: str | None, url: URL) -> None:
    if revision is None or revision in {script.revision for script in _scripts().walk_revisions()}:
        return
    msg = (
        f"database {_shown(url)} is newer than this program: its revision {revision} is unknown "
        "here. Start the newer Trunkline, or restore a backup made before its upgrade"
    )
    raise DatabaseUnavailable(msg)


def _config() -> Config:
    if not MIGRATIONS.is_dir():
        msg = f"the migrations are missing: expected them in {MIGRATIONS}"
        raise DatabaseUnavailable(msg)
    config = Config()
    # `%` would be taken for interpolation by alembic's configuration parser.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@contextmanager
def _alembic(settings: DatabaseSettings) -> Iterator[tuple[URL, Config, Connection]]:
    """Hold one transaction for a migration; nobody else migrates meanwhile."""
    url = database_url(settings)
    config = _config()
    _check_file(url)
    engine = sa.create_engine(_with_driver(url, is_async=False), connect_args=_connect_args(url))
    _prepare_sqlite(engine, begin="BEGIN IMMEDIATE")
    try:
        with _explained(url), engine.begin() as connection:
            if url.get_backend_name() == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
            config.attributes["connection"] = connection
            yield url, config, connection
    finally:
        engine.dispose()
