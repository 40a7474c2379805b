"""What a run gave: held against the runs before, and told to people and machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from toolchain.atomic import write_json
from toolchain.errors import UserError
from toolchain.history import History, Judged
from toolchain.nightly import junit
from toolchain.nightly.plan import Program
from toolchain.schema import Checks
from toolchain.steps import summary

Row = dict[str, Any]
EXIT = {**summary.EXIT, "regression": summary.EXIT["fail"]}


@dataclass(frozen=True)
class Outcome:
    """rows: by key; a `pass` that is worse than before is a `regression` here."""

    rows: Mapping[str, Row]
    quarantined: Mapping[str, str]
    left_out: Sequence[str]


class Gate(Protocol):
    """`history.gate.judge`."""

    def __call__(
        self, history: History, run: str, key: str, row: Mapping[str, Any], tolerances: Checks
    ) -> Judged: ...


def gather(
    history: History, run: str, programs: Sequence[Program], left_out: Sequence[str], judge: Gate
) -> Outcome:
    """The rows of a run, judged against the history (where `judge` keeps what it says)."""
    rows: dict[str, Row] = {}
    for program in programs:
        if (kept := history.row(run, program.key)) is None:
            continue  # it was refused: something has to be mended first
        row = dict(kept.row)
        if row["verdict"] == "pass":
            judged = judge(history, run, program.key, row, program.job.checks)
            row["gate"] = asdict(judged)
            if judged.verdict == "regression":
                row |= {"verdict": "regression", "reasons": list(judged.reasons)}
            else:  # nothing was found, or nothing could be: that is not the same
                told = [f"against earlier runs: {judged.verdict}: {r}" for r in judged.reasons]
                row["findings"] = row["findings"] + told
        rows[program.key] = row
    quarantined = {one.unit: one.reason for one in history.quarantined(run)}
    return Outcome(rows, quarantined, left_out)


def tell(outcome: Outcome, history: History, run: str, folder: Path) -> str:
    """Write summary.json, junit.xml and report.html of the run; the page for the terminal."""
    from toolchain import report

    rows = list(outcome.rows.values())
    for row in rows:  # now that all programs of a recipe are known
        chosen = [text for text in row["findings"] if text not in summary.findings(row, [row])]
        row["findings"] = summary.findings(row, rows) + [
            text for text in chosen if text not in summary.findings(row, rows)
        ]
        row["findings"] += [
            _tried(one) for one in row["attempts"] if one["attempt"] != row["attempt"]
        ]
    write_json(folder / "summary.json", rows)
    about = history.run(run)
    facts = {"run": run, "revision": about.revision, "options": about.options}
    junit.write(outcome.rows, facts, about.began, folder / "junit.xml")
    report.write(history, run, folder / "report.html", outcome.left_out)
    notes = [f"Left out: {reason}" for reason in outcome.left_out]
    notes += [f"Quarantined: {unit}: {reason}" for unit, reason in outcome.quarantined.items()]
    return summary.page(rows, folder / "summary.json", notes) if rows else "\n".join(notes)


def status(outcome: Outcome, refused: Mapping[str, Exception]) -> int:
    """Of the process: 2 if something has to be mended, else that of the worst verdict."""
    if refused:
        return UserError.exit_status
    verdicts = {row["verdict"] for row in outcome.rows.values()}
    return max((EXIT[verdict] for verdict in verdicts), key=_rank, default=0)


def worst(*codes: int) -> int:
    return max(codes, key=_rank)


def _rank(code: int) -> int:
    """As in a build: a failed check is worse than a device that broke."""
    return [0, 3, 1, 2].index(code) if code in range(4) else code


def _tried(one: Mapping[str, Any]) -> str:
    why = f" ({one['reason'].splitlines()[0]})" if one["reason"] else ""
    return f"attempt {one['attempt']} on {one['unit']} does not count: {one['verdict']}{why}"
