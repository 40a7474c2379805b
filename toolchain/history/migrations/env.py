"""What alembic runs for a migration: on the connection, and in the transaction, of its caller."""

from __future__ import annotations

from alembic import context

from toolchain.history.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=context.config.attributes["version_table"],
    transactional_ddl=True,  # SQLite can do it, once transactions are begun by ourselves
    render_as_batch=True,
)
context.run_migrations()
