"""What the history gives: values without a database behind them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Run:
    """One night, or one build that was recorded.

    began, ended: UTC; ended is None while it runs, or if it was killed. state: `running`, or what
    it ended with. revision: of the sources. facts: all that it was begun with.
    """

    id: str
    began: datetime.datetime
    ended: datetime.datetime | None
    state: str
    revision: str
    host: str
    user: str
    facts: Mapping[str, str]

    @property
    def options(self) -> str:
        """What it was asked for."""
        return self.facts.get("options", "")


@dataclass(frozen=True)
class Judged:
    """What the regression gate said of a measurement; see `gate.judge`.

    verdict: `pass`, `regression`, `no baseline`, `inconclusive`, or `accepted` by a person.
    reasons: for the verdict. notes: what else changed. new_level: earlier times are no baseline
    for later ones, since this one is faster, or was accepted.
    """

    verdict: str
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    baseline_run: str | None = None
    first_bad_run: str | None = None
    new_level: bool = False


@dataclass(frozen=True)
class Row:
    """One measurement.

    attempt: which try of this run gave it, from 1. row: as in `summary.json`, complete.
    medians_ns: of each round of its race that counts; empty without a race.
    """

    run: str
    key: str
    pool: str
    unit: str
    attempt: int
    verdict: str
    reasons: tuple[str, ...]
    recorded: datetime.datetime
    row: Mapping[str, Any] = field(repr=False)
    medians_ns: tuple[float, ...] = field(repr=False)
    gate: Judged | None = None


@dataclass(frozen=True)
class Attempt:
    """One try at a measurement on a unit, whatever came of it. seconds: that it took."""

    run: str
    key: str
    pool: str
    unit: str
    attempt: int
    status: str
    reason: str
    seconds: float
    recorded: datetime.datetime


@dataclass(frozen=True)
class Quarantined:
    """A unit that a run did without, and why."""

    run: str
    unit: str
    reason: str
    recorded: datetime.datetime
