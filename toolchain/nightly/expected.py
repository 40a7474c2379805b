"""How long a piece of work will take, about: what is longest is begun first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from toolchain.devices.pool import Pool
from toolchain.nightly import journal
from toolchain.nightly.plan import Program, Work

# A guess where there is no history. Only the order counts: connecting, then so much for each MB of
# the program and sample. (On an emulated board it is between 0.05 s, integers, and 1 s, floats.)
BASE_SECONDS, SECONDS_PER_MB = 5.0, 0.3


NIGHTS = 3  # so many are looked at

Lasts = Mapping[tuple[str, str], float]


class Row(Protocol):
    """A measurement of the history."""

    @property
    def key(self) -> str: ...

    @property
    def pool(self) -> str: ...

    @property
    def row(self) -> Mapping[str, Any]: ...


class Run(Protocol):
    """A night of the history."""

    @property
    def id(self) -> str: ...


class History(journal.History, Protocol):
    """The part of `toolchain.history.History` that is asked here."""

    def runs(self, limit: int | None = None) -> Sequence[Run]: ...

    def rows(self, run: str) -> Sequence[Row]: ...


def lasts(history: History) -> Lasts:
    """Seconds that programs took the last time, by key and pool."""
    found: dict[tuple[str, str], float] = {}
    for run in history.runs(limit=NIGHTS):  # the oldest first
        for row in history.rows(run.id):
            if (known := row.row.get("seconds")) is not None:
                found[row.key, row.pool] = float(known)
    return found


def seconds(work: Work, known: Lasts) -> float:
    """As long as the last time, or by the sizes of the programs."""
    pool = work.pool
    return sum(known.get((one.key, pool.name)) or _guessed(one, pool) for one in work.programs)


def _guessed(program: Program, pool: Pool) -> float:
    how = program.job.measure
    samples = how.emulated_samples if pool.emulated else how.samples
    megabytes = program.at.bundle.stat().st_size / 1e6
    return BASE_SECONDS + SECONDS_PER_MB * megabytes * ((samples or 1) + how.iterations)
