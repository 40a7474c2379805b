"""What can be asked of a history."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, select

from toolchain.history import columns, values
from toolchain.history.database import Database, measurement_of, number_of
from toolchain.history.models import Attempt, Gate, Measurement, Quarantine, Run, Samples

Query = Select[*tuple[Any, ...]]
Found = Row[*tuple[Any, ...]]

_GATE = (
    Gate.verdict.label("gate_verdict"),
    Gate.reasons.label("gate_reasons"),
    Gate.notes,
    Gate.baseline_run,
    Gate.first_bad_run,
    Gate.new_level,
)
_ROWS: Query = (
    select(
        Run.id,
        Measurement.key,
        Measurement.pool,
        Measurement.unit,
        Measurement.attempt,
        Measurement.verdict,
        Measurement.reasons,
        Measurement.recorded,
        Measurement.row,
        Measurement.medians_ns,
        *_GATE,
    )
    .join(Run, Measurement.run == Run.number)
    .join(Gate, Gate.measurement == Measurement.number, isouter=True)
)


class Reading(Database):
    def runs(self, limit: int | None = None) -> list[values.Run]:
        """The runs, oldest first; of more than `limit` the newest."""
        query = select(*Run.__table__.c).order_by(Run.number.desc()).limit(limit)
        return [_run(one) for one in reversed(self._all(query))]

    def run(self, run: str) -> values.Run:
        """One run; UserError if there is none of this name."""

        def work(connection: Connection) -> values.Run:
            number = number_of(connection, run)
            query = select(*Run.__table__.c).where(Run.number == number)
            return _run(connection.execute(query).one())

        return self._read(work)

    def finished(self, run: str) -> set[str]:
        """The keys that a run has measured; none if it has not begun."""
        query = select(Measurement.key).join(Run).where(Run.id == run)
        return {one.key for one in self._all(query)}

    def rows(self, run: str) -> list[values.Row]:
        """The measurements of a run, in the order of their keys."""
        return self._rows(_ROWS.where(Run.id == run).order_by(Measurement.key))

    def row(self, run: str, key: str) -> values.Row | None:
        """One measurement of a run, if it is there."""
        found = self._rows(_ROWS.where(Run.id == run, Measurement.key == key))
        return found[0] if found else None

    def series(
        self, key: str, pool: str | None = None, until: str | None = None, limit: int | None = None
    ) -> list[values.Row]:
        """The measurements of a key over the runs, oldest first; of more than `limit` the newest.

        pool: only those of this pool. until: up to this run, and with it.
        """
        query = _ROWS.where(Measurement.key == key).order_by(Run.number.desc()).limit(limit)
        if pool is not None:
            query = query.where(Measurement.pool == pool)
        if until is not None:
            last = self._read(lambda connection: number_of(connection, until))
            query = query.where(Run.number <= last)
        return self._rows(query)[::-1]

    def keys(self) -> list[str]:
        """All keys that were ever measured."""
        query = select(Measurement.key).distinct().order_by(Measurement.key)
        return [one.key for one in self._all(query)]

    def samples(self, run: str, key: str) -> dict[str, Any]:
        """The raw samples of a measurement; UserError if there is none."""

        def work(connection: Connection) -> bytes:
            number = measurement_of(connection, run, key)
            query = select(Samples.data).where(Samples.measurement == number)
            return connection.execute(query).scalar_one()

        return columns.unpacked(self._read(work))

    def attempts(self, run: str) -> list[values.Attempt]:
        """All tries of a run, in their order."""
        query = (
            select(
                Run.id,
                Attempt.key,
                Attempt.pool,
                Attempt.unit,
                Attempt.attempt,
                Attempt.status,
                Attempt.reason,
                Attempt.seconds,
                Attempt.recorded,
            )
            .join(Run, Attempt.run == Run.number)
            .where(Run.id == run)
            .order_by(Attempt.number)
        )
        return [values.Attempt(*one) for one in self._all(query)]

    def quarantined(self, run: str) -> list[values.Quarantined]:
        """The units that a run did without, in the order in which they failed."""
        query = (
            select(Run.id, Quarantine.unit, Quarantine.reason, Quarantine.recorded)
            .join(Run, Quarantine.run == Run.number)
            .where(Run.id == run)
            .order_by(Quarantine.number)
        )
        return [values.Quarantined(*one) for one in self._all(query)]

    def _all(self, query: Query) -> list[Found]:
        return self._read(lambda connection: list(connection.execute(query)))

    def _rows(self, query: Query) -> list[values.Row]:
        return [_row(one) for one in self._all(query)]


def _run(one: Found) -> values.Run:
    return values.Run(
        one.id, one.began, one.ended, one.state, one.revision, one.host, one.user, one.facts
    )


def _row(one: Found) -> values.Row:
    judged = None
    if one.gate_verdict is not None:
        judged = values.Judged(
            one.gate_verdict,
            tuple(one.gate_reasons),
            tuple(one.notes),
            one.baseline_run,
            one.first_bad_run,
            one.new_level,
        )
    return values.Row(
        one.id,
        one.key,
        one.pool,
        one.unit,
        one.attempt,
        one.verdict,
        tuple(one.reasons),
        one.recorded,
        one.row,
        tuple(one.medians_ns),
        judged,
    )
