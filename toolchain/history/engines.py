"""Connections to a history's database, and its troubles as messages.

SQLite: a write-ahead log, so that readers do not wait for writers; foreign keys; transactions that
write begin as such, so that two processes queue instead of failing half-way; each commit is on the
disk before it returns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from toolchain.errors import InfraError, SlipwayError, UserError
from toolchain.history.addresses import hidden, shown

LOCKED_SECONDS = 60  # that a process waits for others that write to the same file
CONNECT_SECONDS = 10  # for a server to answer
_WRITES = "history_writes"


def make(url: URL) -> Engine:
    """An engine whose connections are made as needed, by any thread."""
    if url.drivername == "sqlite":
        engine = create_engine(url, connect_args={"timeout": LOCKED_SECONDS})
        event.listen(engine, "connect", _prepared)
        event.listen(engine, "begin", _begun)
        return engine
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
    return create_engine(url, pool_pre_ping=True, connect_args=patience)


def writer(engine: Engine) -> Engine:
    """The same engine, for transactions that write."""
    return engine.execution_options(**{_WRITES: True})


def _prepared(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # or Python begins transactions where it thinks fit
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _begun(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def told(url: URL, *, opening: bool = False) -> Iterator[None]:
    """Turn the database's errors into messages. opening: what is wrong is the user's to mend."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _explained(error, url, opening) from None


def lost(error: SQLAlchemyError) -> bool:
    """Whether the server went away, or is not back yet: the same may work on a new connection."""
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    return error.connection_invalidated or isinstance(error, OperationalError)


def _explained(error: SQLAlchemyError, url: URL, opening: bool) -> SlipwayError:
    cause: Any = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None)
    where = shown(url)
    if code is not None:
        return _of_sqlite(code & 0xFF, str(cause), where)
    said = _without_secrets(str(cause), url).strip()
    message = said.splitlines()[0] if said else type(cause).__name__
    if opening:
        return UserError(
            f"the database cannot be used: {message}",
            where=where,
            hint="check the URL and that the server runs; it looks like "
            "postgresql://USER@HOST:5432/DATABASE",
        )
    return InfraError(f"the database failed: {message}", where=where)


def _of_sqlite(code: int, said: str, where: str) -> SlipwayError:
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return UserError(
            f"the file is damaged, or no SQLite database: {said}",
            where=where,
            hint="put back a copy, or move it away and a new history begins",
        )
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return UserError(
            f"the file or its folder cannot be written: {said}",
            where=where,
            hint="name another one, or make the folder writable: SQLite writes beside the file",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return InfraError(
            f"another process has been writing to it for {LOCKED_SECONDS} s", where=where
        )
    return InfraError(f"the database failed: {said}", where=where)


def _without_secrets(text: str, url: URL) -> str:
    if url.password:
        text = text.replace(str(url.password), "***")
    return hidden(text)
