"""How a history is written: each call is one transaction, and may be repeated."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from toolchain.errors import UserError
from toolchain.history import addresses, columns, values
from toolchain.history.database import Database, measurement_of, number_of
from toolchain.history.models import Attempt, Base, Gate, Measurement, Quarantine, Run, Samples

RUNNING = "running"


class Writing(Database):
    def begin(self, run: str, facts: Mapping[str, str]) -> None:
        """Begin a run, or go on with one that was stopped.

        facts: `revision` (of the sources), `options`, `host`, `user` and whatever else is worth
        keeping; passwords in URLs are not kept. UserError if it goes on with other sources.
        """
        kept = {name: addresses.hidden(columns.clean(value)) for name, value in facts.items()}
        row = {
            "id": run,
            "began": _now(),
            "state": RUNNING,
            "revision": kept.get("revision", ""),
            "host": kept.get("host") or socket.gethostname(),
            "user": kept.get("user") or _user(),
            "facts": kept,
        }

        def work(connection: Connection) -> None:
            if _insert_once(connection, Run, row, "id"):
                return
            was = connection.execute(select(Run.revision).where(Run.id == run)).scalar_one()
            if was != row["revision"]:
                raise UserError(
                    f"it began with the sources {was or 'unknown'}; "
                    f"these are {row['revision'] or 'unknown'}",
                    where=f"run {run}",
                    hint="begin a new run: figures of different sources do not mix",
                )
            again = update(Run).where(Run.id == run).values(state=RUNNING, ended=None)
            connection.execute(again)

        self._write(work)

    def end(self, run: str, state: str) -> None:
        """state: what became of it, such as `complete` or `stopped`."""

        def work(connection: Connection) -> None:
            number = number_of(connection, run)
            ended = update(Run).where(Run.number == number).values(state=state, ended=_now())
            connection.execute(ended)

        self._write(work)

    def record(
        self,
        run: str,
        key: str,
        row: Mapping[str, Any],
        samples: Mapping[str, Any],
        *,
        pool: str,
        unit: str,
        attempt: int,
    ) -> bool:
        """Keep a measurement; False if this run has one under this key already.

        key: `digits/int8/xnnpack/arm64`. row: of `summary.json`. samples: raw; the times of a race
        as `wall_ns`, in ns: a list for each round that counts (`racing.counted`).
        """
        figures = columns.of(row, samples)
        figures |= {"key": key, "pool": pool, "unit": unit, "attempt": attempt, "recorded": _now()}
        packed = columns.packed(samples)

        def work(connection: Connection) -> bool:
            inside = figures | {"run": number_of(connection, run)}
            number = _insert_once(connection, Measurement, inside, "run", "key")
            if number:
                connection.execute(insert(Samples).values(measurement=number, data=packed))
            return bool(number)

        return self._write(work)

    def record_attempt(
        self,
        run: str,
        key: str,
        pool: str,
        unit: str,
        attempt: int,
        status: str,
        reason: str,
        seconds: float,
    ) -> None:
        """Keep that a unit was tried, whatever came of it."""
        row = {
            "key": key,
            "pool": pool,
            "unit": unit,
            "attempt": attempt,
            "status": status,
            "reason": columns.clean(reason),
            "seconds": seconds,
            "recorded": _now(),
        }

        def work(connection: Connection) -> None:
            connection.execute(insert(Attempt).values(run=number_of(connection, run), **row))

        self._write(work)

    def quarantine(self, run: str, unit: str, reason: str) -> None:
        """Keep that a run does without a unit; the first reason counts."""
        row = {"unit": unit, "reason": columns.clean(reason), "recorded": _now()}

        def work(connection: Connection) -> None:
            inside = row | {"run": number_of(connection, run)}
            _insert_once(connection, Quarantine, inside, "run", "unit")

        self._write(work)

    def record_gate(self, run: str, key: str, judged: values.Judged, by: str | None = None) -> None:
        """Keep what the gate said, in place of what it said before; what a person said stays."""
        row = {
            "verdict": judged.verdict,
            "reasons": [columns.clean(text) for text in judged.reasons],
            "notes": [columns.clean(text) for text in judged.notes],
            "baseline_run": judged.baseline_run,
            "first_bad_run": judged.first_bad_run,
            "new_level": judged.new_level,
            "by": by,
            "recorded": _now(),
        }

        def work(connection: Connection) -> None:
            number = measurement_of(connection, run, key)
            statement = _insert(connection, Gate).values(measurement=number, **row)
            kept = None if by else Gate.by.is_(None)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["measurement"], set_=row, where=kept
                )
            )

        self._write(work)


def _insert(connection: Connection, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An insert that knows what to do about a row that is there already."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _insert_once(
    connection: Connection, table: type[Base], row: Mapping[str, Any], *unique: str
) -> int | None:
    """The number of the new row, or None if there is one with the same `unique` columns."""
    statement = _insert(connection, table).values(**row)
    once = statement.on_conflict_do_nothing(index_elements=[*unique])
    number: int | None = connection.execute(
        once.returning(table.__table__.c.number)
    ).scalar_one_or_none()
    return number


def _now() -> datetime:
    return datetime.now(UTC)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return "unknown"
