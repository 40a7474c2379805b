"""The material of a page about one run of the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from toolchain import stats
from toolchain.errors import UserError
from toolchain.report.figures import get
from toolchain.report.material import Attempt, Gate, Material, Measurement, Program
from toolchain.steps import summary

if TYPE_CHECKING:
    from toolchain.history import History, Judged, Row, Run

NIGHTS = 60  # of a trend; more would not be told apart
LISTED = 5  # runs, in a message
# Of the facts of a run, those that have a place of their own.
PLACED = ("revision", "host", "user", "run")
# Without these in a row its findings cannot be told; one of an earlier version may lack some.
NEEDED = {*stats.FIGURES, *summary.KEY, "load", "scheme", "metric", "model_bytes"}
Value = Mapping[str, Any]


def gather(history: History, run: str, left_out: Sequence[str] = ()) -> Material:
    """What the history tells of `run`, up to and with it; UserError if there is no such run."""
    runs = history.runs()
    known = {one.id: one for one in runs}
    if run not in known:
        last = ", ".join(one.id for one in runs[-LISTED:]) or "none"
        raise UserError(
            f"has no run '{run}'", where=f"history {history.where}", hint=f"its last ones: {last}"
        )
    this = known[run]
    rows = history.rows(run)
    values = _with_findings([_value(row) for row in rows])
    notes: dict[str, dict[str, None]] = {}
    for row in rows:
        notes.setdefault(row.unit, {}).update(dict.fromkeys(get(row.row, "notes") or ()))
    return Material(
        title=f"run {run}",
        began=_iso(this.began),
        state=this.state,
        programs=[
            _program(history, row, value, known) for row, value in zip(rows, values, strict=True)
        ],
        facts=_facts(this),
        attempts=[
            Attempt(one.key, one.pool, one.unit, one.attempt, one.status, one.reason)
            for one in history.attempts(run)
        ],
        missing=_missing(history, runs, this, {row.key for row in rows}),
        quarantined={one.unit: one.reason for one in history.quarantined(run)},
        notes={unit: list(told) for unit, told in notes.items()},
        left_out=left_out,
    )


def _facts(run: Run) -> dict[str, str]:
    told = {"revision": run.revision, "host": run.host, "user": run.user}
    told |= {name: str(value) for name, value in run.facts.items() if name not in PLACED}
    if run.ended:
        told["took"] = str(run.ended.replace(microsecond=0) - run.began.replace(microsecond=0))
    return {name: value for name, value in told.items() if value}


def _with_findings(values: Sequence[Value]) -> list[Value]:
    """The rows with what is only found beside the others, such as a float program that is smaller.

    What their race showed stands in their own findings.
    """
    whole = [dict(value) for value in values if value.keys() >= NEEDED]
    found: list[Value] = []
    for value in values:
        told = summary.findings(dict(value), whole) if value.keys() >= NEEDED else []
        own = [text for text in value.get("findings") or () if text not in told]
        found.append({**value, "findings": told + own})
    return found


def _program(history: History, row: Row, value: Value, runs: Mapping[str, Run]) -> Program:
    series = history.series(row.key, row.pool, until=row.run, limit=NIGHTS)
    past = [_measurement(one, _value(one), runs) for one in series if one.run != row.run]
    now, operators = _measurement(row, value, runs), get(value, "operators") or ()
    return Program(row.key, row.pool, now, past, _gate(row.gate), operators)


def _measurement(row: Row, value: Value, runs: Mapping[str, Run]) -> Measurement:
    began = runs[row.run].began if row.run in runs else row.recorded
    return Measurement(row.run, _iso(began), row.unit, value, row.attempt)


def _value(row: Row) -> Value:
    """With the gate's word too: of a run before as of this one."""
    worse = row.verdict == "pass" and row.gate and row.gate.verdict == "regression"
    verdict = "regression" if worse else row.verdict
    return {**row.row, "verdict": verdict, "reasons": list(row.reasons)}


def _gate(judged: Judged | None) -> Gate | None:
    if judged is None:
        return None
    return Gate(
        judged.verdict, judged.reasons, judged.notes, judged.baseline_run, judged.first_bad_run
    )


def _missing(history: History, runs: Sequence[Run], this: Run, keys: set[str]) -> list[str]:
    """Keys of the last run before this one that was asked for the same."""
    earlier = runs[: [one.id for one in runs].index(this.id)]
    same = [one for one in earlier if one.options == this.options]
    return sorted(history.finished(same[-1].id) - keys) if same else []


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
