"""Bring the tables of a database to the form that this program knows, safely beside others.

All of it is one transaction that excludes every other process: who comes second finds it done, and
a killed one leaves nothing behind.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from toolchain.errors import UserError
from toolchain.history import engines
from toolchain.history.models import Base

SCRIPTS = Path(__file__).parent / "migrations"
VERSION_TABLE = "slipway_version"  # a name of our own: others may use alembic in the same database
_LOCK = 0x51_1B_3A_79  # any number that only we ask PostgreSQL for


def upgrade(engine: Engine, where: str) -> bool:
    """Create or migrate the tables; whether there was anything to do.

    Raises UserError for a database that a newer program wrote, and for one of another program.
    """
    scripts = ScriptDirectory(str(SCRIPTS))
    with engine.connect() as connection:  # the usual case locks nobody out
        if version(connection) == scripts.get_current_head():
            return False
    with engines.writer(engine).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = version(connection)
        if found == scripts.get_current_head():
            return False
        _refuse_strange(connection, scripts, found, where)
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes |= {"connection": connection, "version_table": VERSION_TABLE}
        command.upgrade(config, "head")
    return True


def version(connection: Connection) -> str | None:
    """Of the tables; None for a new database."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _refuse_strange(
    connection: Connection, scripts: ScriptDirectory, found: str | None, where: str
) -> None:
    known = [script.revision for script in scripts.walk_revisions()]
    if found is not None and found not in known:
        raise UserError(
            f"a newer Slipway wrote it: its tables are of version {found}, this one knows "
            f"{', '.join(reversed(known))}",
            where=where,
            hint="update Slipway, or name another history",
        )
    if found is None and (
        taken := set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
    ):
        raise UserError(
            f"holds tables of another program: {', '.join(sorted(taken))}",
            where=where,
            hint="name another database",
        )
