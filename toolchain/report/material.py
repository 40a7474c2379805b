"""What a page is made of, wherever it comes from: a run in the history, or one build.

history ─ from_history.gather ─┐
                               ├─ Material ─ page.render ─ one HTML file
build ─── from_build.gather ───┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolchain.report.figures import Row

# What a program's verdict can be here, the worst first; each has a sign of its own beside its word.
SIGNS = {
    "fail": "✗",
    "regression": "↘",
    "infra-error": "⚡",
    "inconclusive": "?",
    "pass": "✓",
}


@dataclass(frozen=True)
class Measurement:
    """One row of a run. when: ISO time of the run's begin; attempt: counted from 1."""

    run: str
    when: str
    unit: str
    row: Row
    attempt: int = 1


@dataclass(frozen=True)
class Gate:
    """What the history says of a row that passed its checks: `history.Judged`."""

    verdict: str
    reasons: Sequence[str] = ()
    notes: Sequence[str] = ()
    baseline_run: str | None = None
    first_bad_run: str | None = None


@dataclass(frozen=True)
class Program:
    """What one section of the page is about: a key of the history, on one pool.

    past: earlier runs, the oldest first. operators: of `comparison.json`, the slowest first.
    """

    key: str
    pool: str
    now: Measurement
    past: Sequence[Measurement] = ()
    gate: Gate | None = None
    operators: Sequence[Mapping[str, Any]] = ()

    @property
    def row(self) -> Row:
        return self.now.row

    @property
    def verdict(self) -> str:
        """Of the checks and of the history together; one of `SIGNS`."""
        own = str(self.row["verdict"])
        if own != "pass" or self.gate is None:
            return own
        return self.gate.verdict if self.gate.verdict in SIGNS else "pass"

    @property
    def reasons(self) -> list[str]:
        own = [str(reason) for reason in self.row.get("reasons") or ()]
        if self.gate is None or self.gate.verdict == "no baseline":
            return own
        return own + [reason for reason in self.gate.reasons if reason not in own]

    def last_pass(self) -> Measurement | None:
        """The latest earlier run in which its checks held."""
        good = [m for m in self.past if m.row.get("verdict") == "pass"]
        if self.gate is not None and self.gate.verdict == "regression" and self.gate.first_bad_run:
            runs = [m.run for m in self.past]
            if self.gate.first_bad_run in runs:  # later ones passed their checks, but not the gate
                bad = runs.index(self.gate.first_bad_run)
                good = [m for m in self.past[:bad] if m.row.get("verdict") == "pass"]
        return good[-1] if good else None


@dataclass(frozen=True)
class Attempt:
    """One try at a measurement. outcome: a verdict of a row, or what broke off the try."""

    key: str
    pool: str
    unit: str
    number: int
    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Material:
    """title: what the page calls the run. state: `done`, `running`, … or empty for a build.

    facts: of the run, by name (revision, host, …). missing: keys of the last run before this one
    that this one has not. quarantined: units that were left alone, and why. notes: what makes the
    figures of a place less steady (`comparison.json`), by device. left_out: what was not built.
    """

    title: str
    began: str
    state: str
    programs: Sequence[Program]
    facts: Mapping[str, str] = field(default_factory=dict)
    attempts: Sequence[Attempt] = ()
    missing: Sequence[str] = ()
    quarantined: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left_out: Sequence[str] = ()
