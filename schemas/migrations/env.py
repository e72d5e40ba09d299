"""What Alembic runs for a command: the migrations, on the connection and in the transaction of who called."""

from __future__ import annotations

from alembic import context

from schemas.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    transactional_ddl=True,  # SQLite's tables come and go with the transaction too, though Alembic does not count on it
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
