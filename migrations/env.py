"""Runs the migrations on the connection that `agent.store.database` hands over.

There is no alembic.ini: the address of the database comes from Trunkline's own
configuration (`trunkline db upgrade`), and everything of one upgrade happens in
that connection's transaction, all or nothing. Nothing is printed.
"""

from alembic import context
from sqlalchemy import Connection

from agent.store.tables import metadata


def migrate(connection: Connection) -> None:
    """Bring the database on this connection to the revision alembic was asked for."""
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()


migrate(context.config.attributes["connection"])
