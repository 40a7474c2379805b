"""The regression gate: is a measurement worse than those before it?

    exact costs   against the last good run: more than `max_cost_increase` beyond it is a regression
    times         against the last good runs, up to ten: a regression if three in a row are beyond
                  `max_latency_increase` and a test says slower, till then inconclusive
                  (see `latency`)

A good run is one whose measurement passed its checks and this gate, of the same key and pool, in
the same surroundings: kind of unit, kernel, C library, emulator, evaluation data. Where these are
new there is no baseline, and the verdict says what changed. Sizes do not depend on them.

What the gate says is kept, so that a run that regressed is no baseline for the next one. Where a
change for the worse is wanted, a person says so: `python -m toolchain.history accept RUN KEY`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from toolchain.errors import UserError
from toolchain.history import surroundings
from toolchain.history.comparison import Comparison, Tolerances
from toolchain.history.store import History
from toolchain.history.values import Judged, Row
from toolchain.schema import Checks

LOOK_BACK = 200  # runs, for a good one and for the first bad one
GOOD = ("pass", "no baseline", "accepted")


def judge(
    history: History,
    run: str,
    key: str,
    row: Mapping[str, Any] | None = None,
    tolerances: Tolerances | None = None,
) -> Judged:
    """Judge what `run` recorded under `key`, and keep the verdict. What a person accepted stays.

    row: as it was recorded, if at hand. tolerances: the recipe's checks; without, the defaults.
    Raises UserError if the run did not record the key.
    """
    recorded = history.row(run, key)
    if recorded is None:
        raise UserError(f"run {run} has no measurement of '{key}'", hint="record it first")
    if recorded.gate and recorded.gate.verdict == "accepted":
        return recorded.gate
    series = history.series(key, recorded.pool, until=run, limit=LOOK_BACK)
    limits = tolerances or Checks()
    before = _all_judged(history, [one for one in series if one.run != run], limits)
    judged = judgement(recorded, row or recorded.row, before, limits)
    history.record_gate(run, key, judged)
    return judged


def _all_judged(history: History, rows: Sequence[Row], limits: Tolerances) -> list[Row]:
    """The rows, oldest first, where those that never were are judged now, and that is kept.

    A run that was stopped came to no gate: what is worse in it must not become a baseline.
    """
    found: list[Row] = []
    for one in rows:
        if one.verdict == "pass" and one.gate is None:
            judged = judgement(one, one.row, found, limits)
            history.record_gate(one.run, one.key, judged)
            found.append(replace(one, gate=judged))
        else:
            found.append(one)
    return found


def accept(history: History, run: str, key: str, by: str) -> None:
    """Make a measurement the baseline of later ones, though it is worse than those before it."""
    history.record_gate(run, key, Judged("accepted", (f"by {by}",), new_level=True), by=by)


def judgement(
    recorded: Row, row: Mapping[str, Any], before: Sequence[Row], limits: Tolerances
) -> Judged:
    """The verdict on a measurement from those before it, oldest first."""
    if recorded.verdict == "infra-error":
        return Judged("inconclusive", (f"not measured: {'; '.join(recorded.reasons)}",))
    good = [k for k, one in enumerate(before) if _good(one)]
    if not good:
        return Judged("no baseline", ("no earlier run passed",))
    alike = [k for k in good if not surroundings.changed(row, before[k].row)]
    found = Comparison(recorded, row, before, limits)
    found.judge_sizes(good)
    if alike:
        found.judge_costs(alike)
        found.judge_times(alike)
        found.note_accuracy(alike[-1])
    else:
        last = before[good[-1]]
        what = "; ".join(surroundings.changed(row, last.row))
        found.missing.append(f"other surroundings than in run {last.run}: {what}")
    return Judged(
        found.verdict,
        (*(text for _, text in found.worse), *found.unclear, *found.missing),
        tuple(found.notes),
        None if found.verdict == "no baseline" else before[(alike or good)[-1]].run,
        found.first_bad_run,
        found.new_level,
    )


def _good(row: Row) -> bool:
    return row.verdict == "pass" and row.gate is not None and row.gate.verdict in GOOD
