"""Transactions on a history's database, tried again where a server was lost on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from toolchain.errors import UserError, nearest
from toolchain.history import addresses, engines, migrate
from toolchain.history.models import Measurement, Run

PAUSES = (0.5, 2.0, 5.0, 10.0)  # seconds before what a lost connection broke is tried again
Result = TypeVar("Result")


class Database:
    """An open database, migrated to the tables of this program. For use by any thread.

    create: make an SQLite file that is not there. Raises UserError if it cannot be opened.
    """

    def __init__(self, url: str = addresses.DEFAULT, *, create: bool = True) -> None:
        self._url = addresses.parse(url)
        self.where = addresses.shown(self._url)
        if file := addresses.file_of(self._url):
            _found(file, self.where, create)
        with engines.told(self._url, opening=True):
            self._engine = engines.make(self._url)
            self._writer = engines.writer(self._engine)
            try:
                self.migrated = migrate.upgrade(self._engine, self.where)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back; it opens again when it is used."""
        self._engine.dispose()

    def _read(self, work: Callable[[Connection], Result]) -> Result:
        return self._tried(self._engine, work)

    def _write(self, work: Callable[[Connection], Result]) -> Result:
        return self._tried(self._writer, work)

    def _tried(self, engine: Engine, work: Callable[[Connection], Result]) -> Result:
        """`work` in one transaction; again on a new connection, if this one was lost."""
        with engines.told(self._url):
            for pause in PAUSES:
                try:
                    with engine.begin() as connection:
                        return work(connection)
                except SQLAlchemyError as error:
                    if not engines.lost(error):
                        raise
                    time.sleep(pause)
            with engine.begin() as connection:
                return work(connection)


def number_of(connection: Connection, run: str) -> int:
    """The number of a run; UserError if there is none of this name."""
    number = connection.execute(select(Run.number).where(Run.id == run)).scalar_one_or_none()
    if number is None:
        known = connection.execute(select(Run.id).order_by(Run.number.desc()).limit(10))
        raise UserError(f"there is no run '{run}'", hint=nearest(run, known.scalars()))
    return number


def measurement_of(connection: Connection, run: str, key: str) -> int:
    """The number of a measurement; UserError if the run has none of this key."""
    inside = number_of(connection, run)
    query = select(Measurement.number).where(Measurement.run == inside, Measurement.key == key)
    number = connection.execute(query).scalar_one_or_none()
    if number is None:
        known = connection.execute(select(Measurement.key).where(Measurement.run == inside))
        raise UserError(f"run {run} did not measure '{key}'", hint=nearest(key, known.scalars()))
    return number


def _found(file: Path, where: str, create: bool) -> None:
    """Refuse an SQLite file that cannot be there, in words that name the folder."""
    if not create and not file.exists():
        raise UserError(
            "there is no history yet", where=where, hint="scripts/nightly makes one; or --history="
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder cannot be made: {error.strerror}",
            where=str(file.parent),
            hint="name another file for the history",
        ) from None
