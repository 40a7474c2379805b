"""What a run has done so far, such that a kill at any moment loses nothing that was finished.

    an attempt ends      a line in <run>/attempts.jsonl
    an item ends         its files are whole, a line names the attempt that counts (synced to disk),
                         then its rows go to the history, a transaction each
    the run is resumed   lines that name an attempt whose rows are missing are made good first

So an item is finished in the moment its line is on the disk, and the history is the judge of which
rows exist: it takes each key of a run once. A thread of its own writes there: units do not wait.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from toolchain.nightly.plan import Program, Work
from toolchain.nightly.results import Place, Row, rows, without_result
from toolchain.nightly.scheduler import Item, Tried

Line = dict[str, Any]


class Attempt(Protocol):
    """One try at a key, as the history has it."""

    @property
    def key(self) -> str: ...

    @property
    def attempt(self) -> int: ...


class History(Protocol):
    """The part of `toolchain.history.History` that a run needs."""

    def finished(self, run: str) -> set[str]: ...

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
    ) -> bool: ...

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
    ) -> None: ...

    def attempts(self, run: str) -> Sequence[Attempt]: ...


class Journal:
    """Of one run; its hooks may be called from many threads.

    broken: why work ended without a result. refused: what has to be mended before it can be tried.
    """

    def __init__(self, history: History, run: str, folder: Path, work: Iterable[Work]) -> None:
        self._history, self._run, self._folder = history, run, folder
        self._work = {one.key: one for one in work}
        self._lock = threading.Lock()
        self._file = folder / "attempts.jsonl"
        self._lines: dict[str, list[Line]] = {key: [] for key in self._work}
        self._final: dict[str, int] = {}
        self.broken: dict[str, str] = {}
        self.refused: dict[str, Exception] = {}
        self._writer = ThreadPoolExecutor(1, "history")
        self._failure: BaseException | None = None
        self._load()
        self._redo()

    def left(self) -> list[Work]:
        """What has not ended yet."""
        self.flush()
        finished = self._history.finished(self._run)
        return [
            work
            for work in self._work.values()
            if not all(program.key in finished for program in work.programs)
        ]

    def begun(self, work: Work) -> int:
        """The number of its last attempt so far."""
        return max((line["number"] for line in self._lines[work.key]), default=0)

    def tries(self, work: Work) -> Sequence[Line]:
        """Its attempts so far, those before a resumption included."""
        return list(self._lines[work.key])

    def told(self, work: Work) -> str:
        """What came of it, in a word or two: `pass`, `fail, pass`, `infra-error`."""
        if work.key in self.refused:
            return "refused"
        number = self._final.get(work.key)
        lines = [one for one in self._lines[work.key] if one["number"] == number]
        verdicts = {verdict for line in lines for verdict in line["verdicts"].values()}
        return ", ".join(sorted(verdicts)) or "infra-error"

    def final(self, work: Work) -> Place | None:
        """The attempt that counts."""
        number = self._final.get(work.key)
        line = next((one for one in self._lines[work.key] if one["number"] == number), None)
        return Place(self._folder, work, line["unit"], line["number"]) if line else None

    def tried(self, item: Item[Work], tried: Tried) -> None:
        """Hook of the scheduler: after each attempt."""
        work, result = item.work, tried.result
        line = {
            "unit": tried.unit,
            "number": tried.number,
            "state": result.state,
            "reason": result.reason,
            "seconds": round(tried.seconds, 3),
            "verdicts": {},
        }
        if result.state != "broken" and result.found is None:
            place = Place(self._folder, work, tried.unit, tried.number)
            line["verdicts"] = {key: one["verdict"] for key, one in place.verdicts().items()}
        with self._lock:
            self._lines[work.key].append(line)
            self._append({"item": work.key, **line})
        self._later(self._tell, work, line, work.programs)

    def ended(self, item: Item[Work], tries: Sequence[Tried], lost: str) -> None:
        """Hook of the scheduler: the last attempt that did not break counts."""
        work = item.work
        whole = [one for one in tries if one.result.state != "broken"]
        if not whole:
            self.broken[work.key] = tries[-1].result.reason if tries and not lost else lost
            return
        if isinstance(error := whole[-1].result.found, Exception):
            self.refused[work.key] = error
            return
        with self._lock:
            self._final[work.key] = whole[-1].number
            self._append({"item": work.key, "final": whole[-1].number})
        self._later(self._record, work)

    def flush(self) -> None:
        """Wait until the history has all; raises what kept it from that."""
        self._writer.submit(lambda: None).result()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Record what ended without a result: a later resumption does not try it again."""
        self.flush()
        for key, reason in self.broken.items():
            work = self._work[key]
            tries = self._lines[key]
            unit = tries[-1]["unit"] if tries else ""
            for program in work.programs:
                row = without_result(program, work, unit, reason)
                self._put(work, program, row, {}, self.begun(work))

    def _later(self, write: Callable[..., None], *given: Any) -> None:
        """Have the history written; a failure of an earlier writing is raised."""
        if self._failure is not None:
            raise self._failure
        self._writer.submit(self._guarded, write, *given)

    def _guarded(self, write: Callable[..., None], *given: Any) -> None:
        try:
            if self._failure is None:
                write(*given)
        except BaseException as error:  # noqa: BLE001 (raised by whoever comes next)
            self._failure = error

    def _record(self, work: Work) -> None:
        place = self.final(work)
        assert place is not None
        found = rows(place)
        for program in work.programs:
            self._put(work, program, found[program.key], place.samples(program), place.number)

    def _tell(self, work: Work, line: Line, programs: Iterable[Program]) -> None:
        """An attempt at a piece of work is one at each of its programs."""
        for program in programs:
            told = _told(line, program.key)
            self._history.record_attempt(
                self._run,
                program.key,
                work.pool.name,
                told["unit"],
                told["attempt"],
                told["verdict"],
                told["reason"],
                told["seconds"],
            )

    def _put(
        self,
        work: Work,
        program: Program,
        row: Row,
        samples: Mapping[str, Any],
        attempt: int,
    ) -> None:
        lines = self._lines[work.key]
        took = {line["number"]: line["seconds"] for line in lines}.get(attempt)
        row["attempt"] = attempt  # the one that counts: a later one may have broken
        row["attempts"] = [_told(line, program.key) for line in lines]
        row["seconds"] = None if took is None else took / len(work.programs)
        self._history.record(
            self._run,
            program.key,
            row,
            samples,
            pool=work.pool.name,
            unit=row["unit"],
            attempt=attempt,
        )

    def _append(self, line: Mapping[str, Any]) -> None:
        """One write, so that a kill leaves a whole line or a part that is no JSON."""
        text = json.dumps(line, sort_keys=True) + "\n"
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab", buffering=0) as file:
            file.write(text.encode())
            os.fsync(file.fileno())

    def _load(self) -> None:
        if not self._file.exists():
            return
        content = self._file.read_bytes()
        *lines, torn = content.split(b"\n")
        if torn:  # killed while it was written; what comes next begins on a line of its own
            os.truncate(self._file, len(content) - len(torn))
        for text in lines:
            line = json.loads(text)
            key = line.pop("item")
            if key not in self._work:
                continue
            if "final" in line:
                self._final[key] = line["final"]
            else:
                self._lines[key].append(line)

    def _redo(self) -> None:
        """What is in the file and not in the history: we were killed in between."""
        known = {(one.key, one.attempt) for one in self._history.attempts(self._run)}
        for key, lines in self._lines.items():
            work = self._work[key]
            for line in lines:
                new = [one for one in work.programs if (one.key, line["number"]) not in known]
                self._tell(work, line, new)
        finished = self._history.finished(self._run)
        for key in self._final:
            if any(program.key not in finished for program in self._work[key].programs):
                self._record(self._work[key])


def _told(line: Line, key: str) -> Row:
    """An attempt as the row of one program tells of it."""
    verdict = line["verdicts"].get(key, "infra-error" if line["state"] == "broken" else "refused")
    return {
        "unit": line["unit"],
        "attempt": line["number"],
        "verdict": verdict,
        "reason": line["reason"],
        "seconds": line["seconds"],
    }
