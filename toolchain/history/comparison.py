"""One measurement beside those before it: what became worse, since when, and what is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from toolchain.history import costs, latency, surroundings
from toolchain.history.values import Row


class Tolerances(Protocol):
    """`schema.Checks` is one. Relative: 0.05 is five per cent."""

    @property
    def max_cost_increase(self) -> float: ...

    @property
    def max_latency_increase(self) -> float: ...


@dataclass
class Comparison:
    """recorded: what is judged. before: earlier measurements of its key and pool, oldest first.

    worse: each with the place, in `before`, of the first that shows it. unclear: what cannot be
    decided. missing: what there is no baseline for. new_level: times are to be compared with later
    nights only.
    """

    recorded: Row
    row: Mapping[str, Any]
    before: Sequence[Row]
    limits: Tolerances
    worse: list[tuple[int, str]] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    new_level: bool = False

    @property
    def verdict(self) -> str:
        if self.worse:
            return "regression"
        if self.unclear:
            return "inconclusive"
        return "no baseline" if self.missing else "pass"

    @property
    def first_bad_run(self) -> str | None:
        """The earliest run that shows any of what became worse."""
        return self._run(min(k for k, _ in self.worse)) if self.worse else None

    def judge_sizes(self, good: Sequence[int]) -> None:
        """Of the program and the bundle, whatever they ran on. good: places in `before`."""
        for cost in costs.SIZES:
            self._cost(cost, good)

    def judge_costs(self, good: Sequence[int]) -> None:
        """What is exact on an emulated board."""
        for cost in costs.ON_BOARDS:
            self._cost(cost, good)

    def judge_times(self, good: Sequence[int]) -> None:
        """Of calm races."""
        timed = [k for k in good if self._timed(self.before[k])]
        begins = [k for k in timed if (gate := self.before[k].gate) and gate.new_level]
        timed = [k for k in timed if not begins or k >= begins[-1]][-latency.NIGHTS :]
        if not self._timed(self.recorded):
            if timed:
                self.unclear.append("latency: no times that can be trusted")
            return
        if not timed:
            self.missing.append("latency: no earlier run that passed has times")
            return
        nights = [self.before[k].medians_ns for k in timed]
        allowed = self.limits.max_latency_increase

        def beyond(row: Row) -> bool | None:
            if not self._timed(row) or surroundings.changed(self.row, row.row):
                return None
            return latency.change([row.medians_ns], nights).ratio > 1 + allowed

        change = latency.change([self.recorded.medians_ns], nights)
        last = self._run(timed[-1])
        text = f"latency: {change.ratio - 1:+.1%} against {_runs(change.nights)} up to {last}"
        if change.ratio > 1 + allowed:
            found = self._since(timed[-1], beyond)
            suspects = [self.before[k].medians_ns for k in found] + [self.recorded.medians_ns]
            told = latency.change(suspects, nights)
            text += f" ({allowed:.0%} is allowed, p {told.p:.1g}"
            if latency.regressed(suspects, nights):
                self._worse(f"{text} over {_runs(len(suspects))})", found)
            elif told.slower:
                more = latency.SUSPECTS - len(suspects)
                self.unclear.append(f"{text}); to be sure: {_runs(more)} more")
            else:
                self.unclear.append(f"{text}): it may be chance")
        elif change.faster and change.ratio < 1 / (1 + allowed):
            self.new_level = True
            self.notes.append(f"{text}: the baseline of times begins anew")

    def note_accuracy(self, base: int) -> None:
        """A note; what may be lost of it is for the recipe's checks to say."""
        now, was = self.row.get("accuracy"), self.before[base].row.get("accuracy")
        if now is not None and was is not None and now != was:
            where = f"in run {self._run(base)} on the same data"
            self.notes.append(f"accuracy: {now:.4f}, was {was:.4f} {where}")

    def _cost(self, cost: costs.Cost, good: Sequence[int]) -> None:
        known = {k: was for k in good if (was := cost.of(self.before[k].row)) is not None}
        now = cost.of(self.row)
        if not known:
            return
        base = max(known)
        was, run = known[base], self._run(base)
        if now is None:
            self.unclear.append(f"{cost.name}: no figure; run {run} had one")
            return
        allowed = self.limits.max_cost_increase

        def dearer(row: Row) -> bool | None:
            value = cost.of(row.row)
            if value is None or (cost.on_board and surroundings.changed(self.row, row.row)):
                return None
            return cost.dearer(value, was, allowed)

        text = f"{cost.name}: {cost.shown(now)}, was {cost.shown(was)} in run {run}"
        text += f" ({_relative(now / was - 1)}" if was else " (from nothing"
        if cost.dearer(now, was, allowed):
            self._worse(f"{text}; {allowed:.2%} is allowed)", self._since(base, dearer))
        elif not cost.same(now, was):
            self.notes.append(f"{text})")

    def _since(self, base: int, shows: Callable[[Row], bool | None]) -> list[int]:
        """The runs after `base` from which on all show it; of those that tell.

        shows: whether a row does; None if it does not tell.
        """
        found: list[int] = []
        for k in range(len(self.before) - 1, base, -1):
            told = shows(self.before[k])
            if told is False:
                break
            if told:
                found.insert(0, k)
        return found

    def _worse(self, text: str, earlier: Sequence[int]) -> None:
        """earlier: the runs before this one that show it too, oldest first."""
        first = earlier[0] if earlier else len(self.before)
        self.worse.append((first, f"{text}, first in run {self._run(first)}"))

    def _run(self, k: int) -> str:
        return self.before[k].run if k < len(self.before) else self.recorded.run

    @staticmethod
    def _timed(row: Row) -> bool:
        return bool(row.medians_ns) and not row.row.get("latency_moved")


def _relative(change: float) -> str:
    """`+1.25%`; what would be rounded to nothing is given in parts per million."""
    return f"{change:+.2%}" if abs(change) >= 1e-4 else f"{change * 1e6:+.1f} ppm"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
