"""Migrations make exactly the tables the code means, up and down, on both databases."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from agent.store.database import DatabaseUnavailable, downgrade, open_database, upgrade
from agent.store.settings import DatabaseSettings
from agent.store.tables import metadata


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def test_up_and_down(database_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Up makes what the code expects, down removes all of it, and neither prints a word."""
    settings = DatabaseSettings(url=database_url)
    upgrade(settings)
    upgrade(settings)
    with connected(database_url) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    downgrade(settings, "base")
    with connected(database_url) as connection:
        assert set(sa.inspect(connection).get_table_names()) == {"alembic_version"}
    upgrade(settings)
    with connected(database_url) as connection:
        assert set(metadata.tables) < set(sa.inspect(connection).get_table_names())
    assert capfd.readouterr() == ("", "")


async def test_without_tables(database_url: str) -> None:
    """A database that was never migrated is refused with the command that helps."""
    with pytest.raises(DatabaseUnavailable, match="has no tables yet: run `trunkline db upgrade`"):
        await opened(DatabaseSettings(url=database_url))


async def test_newer_database(settings: DatabaseSettings) -> None:
    """A database from a newer version is neither opened, migrated nor changed."""
    with connected(settings.url) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseUnavailable, match=r"newer than this program: its revision 9999"):
        await opened(settings)
    with pytest.raises(DatabaseUnavailable, match="newer than this program"):
        upgrade(settings)
    with connected(settings.url) as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "9999"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("sqlite:///{tmp}/none/x.db", "folder .*/none does not exist", id="no folder"),
        pytest.param("sqlite:///{tmp}", "it is a folder", id="a folder"),
        pytest.param("sqlite:///{tmp}/text", "file is not a database", id="not a database"),
        pytest.param(
            "postgresql://me:hidden@127.0.0.1:{port}/x", r"me:\*\*\*@.*refused", id="nobody listens"
        ),
        pytest.param("sqlite:///{tmp}/x.db?mode=ro", "path of one file", id="options"),
        pytest.param("sqlite:///:memory:", "path of one file", id="memory"),
        pytest.param("sqlite:///{tmp}/\0.db", "path of one file", id="NUL"),
        pytest.param("postgresql://me:hidden@[::1/x", "cannot be read as an address", id="no url"),
        pytest.param("postgresql://me:hidden@h:port/x", "cannot be read as an", id="no port"),
    ],
)
async def test_unusable(url: str, expected: str, tmp_path: Path) -> None:
    """Whatever is wrong is one message: which database, what is wrong, never the password."""
    (tmp_path / "text").write_text("This is not a database, but it is long enough to look." * 20)
    with socket.socket() as taken:
        # Bound but not listening: nobody else takes the port, and connecting is refused.
        taken.bind(("127.0.0.1", 0))
        settings = DatabaseSettings(url=url.format(tmp=tmp_path, port=taken.getsockname()[1]))
        for use in (opened, migrated):
            with pytest.raises(DatabaseUnavailable, match=expected) as refused:
                await use(settings)
            assert "hidden" not in str(refused.value)
            assert "\n" not in str(refused.value)


async def opened(settings: DatabaseSettings) -> None:
    async with open_database(settings):
        pass


async def migrated(settings: DatabaseSettings) -> None:
    upgrade(settings)


_AS_NOBODY = """
import os, sys
from agent.store.database import DatabaseUnavailable, upgrade
from agent.store.settings import DatabaseSettings
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    upgrade(DatabaseSettings(url=sys.argv[1]))
except DatabaseUnavailable as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "expected"),
    [
        pytest.param(0o555, None, "no permission to write in folder", id="folder"),
        pytest.param(0o777, 0o444, "no permission to read and write the file", id="file"),
    ],
)
def test_no_permission(folder_mode: int, file_mode: int | None, expected: str) -> None:
    """A place we may not write is named, with who needs the permission."""
    # Not in pytest's folder: nobody else may enter that at all.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if file_mode is not None:
            (folder / "calls.db").touch(file_mode)
            (folder / "calls.db").chmod(file_mode)
        folder.chmod(folder_mode)
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, f"sqlite:///{folder}/calls.db"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        folder.chmod(0o700)
    who = 65534 if os.geteuid() == 0 else os.geteuid()
    assert expected in done.stdout
    assert f"user id {who} needs it" in done.stdout
    assert str(folder) in done.stdout
