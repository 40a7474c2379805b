"""One run: what is left of it, given to all units at once, and told line by line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from toolchain.nightly import expected
from toolchain.nightly.attempt import Attempts
from toolchain.nightly.journal import Journal
from toolchain.nightly.plan import Plan, Work
from toolchain.nightly.scheduler import Hooks, Item, Result, Tried, schedule
from toolchain.nightly.steps import Steps
from toolchain.schema import Device
from toolchain.steps.main import say

PROBE_SECONDS = 60.0
Attempt = Callable[[Item[Work], str, int], Result]


class Health(Protocol):
    """What a probe found."""

    @property
    def healthy(self) -> bool: ...

    @property
    def reasons(self) -> Sequence[str]: ...


class History(expected.History, Protocol):
    """The part of `toolchain.history.History` that a run needs."""

    def quarantine(self, run: str, unit: str, reason: str) -> None: ...


class Night:
    """probe: whether a unit can be trusted, within so many seconds.

    attempt, lasts: instead of those with real steps, and of the history's; for tests.
    """

    def __init__(
        self,
        planned: Plan,
        history: History,
        run: str,
        folder: Path,
        steps: Steps,
        probe: Callable[[Device, float], Health],
        attempt: Attempt | None = None,
        lasts: expected.Lasts | None = None,
    ) -> None:
        self._history, self._run, self._steps, self._probe_unit = history, run, steps, probe
        self._units = {unit.name: unit for pool in planned.pools for unit in pool.units}
        self._pools = {pool.name: [unit.name for unit in pool.units] for pool in planned.pools}
        self._attempt = attempt or Attempts(steps, folder, self._units)
        self._work = planned.work
        self._lasts = expected.lasts(history) if lasts is None else lasts
        self._lock = threading.Lock()
        self.journal = Journal(history, run, folder, planned.work)
        self._left = self.journal.left()
        self._ended = len(self._work) - len(self._left)

    def told(self) -> str:
        """`40 items, 3 of them measured already, on 12 units`."""
        already = f", {self._ended} of them measured already," if self._ended else ""
        return f"{_many(len(self._work), 'item')}{already} on {_many(len(self._units), 'unit')}"

    def work(self, retries: int) -> None:
        """Until all items have ended, or the steps were stopped."""
        items = [
            Item(
                work.key,
                work.pool.name,
                expected.seconds(work, self._lasts),
                work,
                self.journal.begun(work),
            )
            for work in self._left
        ]
        hooks = Hooks(self._attempt, self._probe, self._tried, self._did, self._quarantined)
        schedule(items, self._pools, hooks, self._steps.stopping, retries=retries)
        self.journal.flush()

    def _probe(self, unit: str) -> str:
        try:
            found = self._probe_unit(self._units[unit], PROBE_SECONDS)
        except Exception as error:  # noqa: BLE001 (the units that can be probed go on)
            return f"its health probe broke: {error!r}"
        return "" if found.healthy else "; ".join(found.reasons) or "it failed its health probe"

    def _tried(self, item: Item[Work], tried: Tried) -> None:
        self.journal.tried(item, tried)
        if tried.result.state != "done":
            what = "undecided" if tried.result.state == "again" else "infra-error"
            self._say(f"{what}: {item.key} on {tried.unit}: {tried.result.reason}")

    def _did(self, item: Item[Work], tries: Sequence[Tried], lost: str) -> None:
        self.journal.ended(item, tries, lost)
        with self._lock:
            self._ended += 1
            told = self.journal.told(item.work)
            say(f"[{self._ended}/{len(self._work)}] {told}: {item.key}")

    def _quarantined(self, unit: str, reason: str) -> None:
        self._history.quarantine(self._run, unit, reason)
        self._say(f"quarantined: {unit}: {reason}")

    def _say(self, text: str) -> None:
        """A line at a time, from many threads."""
        with self._lock:
            say(text)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
