"""Work on pools of units, all at once: the longest first, what broke again on another unit.

    waiting ── a unit's thread ── attempt ─┬─ done     ended
       ▲                                   ├─ again    back, once
       └───────────────────────────────────┴─ broken   back, for another unit; this one is probed

A unit that fails its probe, or on which item after item breaks, gets no more work; a pool
without units ends its work at once. Knows nothing of devices: a unit is a name.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

Work = TypeVar("Work")
State = Literal["done", "again", "broken"]
STREAK = 3  # so many items in a row that break on a unit, and it is not believed any more
_POLL = 0.2  # seconds


class Stopped(Exception):
    """An attempt was told to stop: it says nothing."""


@dataclass(frozen=True)
class Item(Generic[Work]):
    """seconds: expected. begun: attempts of an earlier call, which are not counted again."""

    key: str
    pool: str
    seconds: float
    work: Work
    begun: int = 0


@dataclass(frozen=True)
class Result:
    """What an attempt gave. found: whatever the caller makes of it."""

    state: State
    reason: str = ""
    found: Any = None


@dataclass(frozen=True)
class Tried:
    """One attempt. number: counted from 1 for each item. seconds: that it took."""

    unit: str
    number: int
    result: Result
    seconds: float


@dataclass(frozen=True)
class Hooks(Generic[Work]):
    """What is called from the threads of units, for several items at once.

    attempt: raises Stopped after `stop` was set. probe: why a unit cannot be trusted, or nothing.
    tried: after each attempt. ended: after the last one of an item, with why no further one could
    be made, if so. quarantined: a unit gets no more work, for a reason.
    """

    attempt: Callable[[Item[Work], str, int], Result]
    probe: Callable[[str], str]
    tried: Callable[[Item[Work], Tried], None]
    ended: Callable[[Item[Work], Sequence[Tried], str], None]
    quarantined: Callable[[str, str], None]


def schedule(
    items: Sequence[Item[Work]],
    units: Mapping[str, Sequence[str]],
    hooks: Hooks[Work],
    stop: threading.Event,
    *,
    retries: int = 2,
    repeats: int = 1,
) -> None:
    """Work until every item has ended, or `stop` is set.

    units: by pool. retries: attempts of an item after one that broke; repeats: after one that is
    to be made again. What a hook other than `attempt` raises stops all, and is raised here.
    """
    limits = {"broken": retries, "again": repeats}
    rooms = [
        _Room([i for i in items if i.pool == pool], names, hooks, stop, limits)
        for pool, names in units.items()
    ]
    if strangers := {item.pool for item in items} - set(units):
        raise ValueError(f"items of pools without units: {sorted(strangers)}")
    threads = [
        threading.Thread(target=room.work_on, args=(name,), name=name)
        for room in rooms
        for name in room.names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # not join(): signals are for this thread
            thread.join(_POLL)
            if stop.is_set():
                for room in rooms:
                    room.wake()
    for room in rooms:
        if room.failure is not None:
            raise room.failure


@dataclass
class _Open(Generic[Work]):
    """An item on its way."""

    item: Item[Work]
    tries: list[Tried] = field(default_factory=list)

    def broke_on(self) -> set[str]:
        return {one.unit for one in self.tries if one.result.state == "broken"}

    def count(self, state: str) -> int:
        return sum(one.result.state == state for one in self.tries)


class _Room(Generic[Work]):
    """One pool: its items and its units."""

    def __init__(
        self,
        items: Sequence[Item[Work]],
        names: Sequence[str],
        hooks: Hooks[Work],
        stop: threading.Event,
        limits: Mapping[str, int],
    ) -> None:
        self.names = names if items else ()
        self.failure: BaseException | None = None
        self._hooks, self._stop, self._limits = hooks, stop, limits
        self._waiting = [_Open(item) for item in items]
        self._running = 0
        self._trusted = set(names)
        self._changed = threading.Condition()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def work_on(self, unit: str) -> None:
        """The life of a unit's thread."""
        try:
            streak: set[str] = set()  # an item that breaks everywhere is not the unit's fault
            while (one := self._take(unit)) is not None:
                if not self._attempt(one, unit):
                    streak.clear()
                    continue
                streak.add(one.item.key)
                if reason := self._distrust(unit, len(streak)):
                    self._quarantine(unit, reason)
                    return
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 (raised again by `schedule`)
            self.failure = error
            self._stop.set()

    def _take(self, unit: str) -> _Open[Work] | None:
        """The longest item that this unit may try; None when nothing will come any more."""
        with self._changed:
            while not self._stop.is_set() and (self._waiting or self._running):
                fitting = [one for one in self._waiting if self._may(one, unit)]
                if fitting:
                    one = max(fitting, key=lambda one: one.item.seconds)
                    self._waiting.remove(one)
                    self._running += 1
                    return one
                self._changed.wait()
        return None

    def _may(self, one: _Open[Work], unit: str) -> bool:
        """What broke on a unit comes back to it only when no other one is left to try."""
        broke_on = one.broke_on()
        return unit not in broke_on or self._trusted <= broke_on

    def _attempt(self, one: _Open[Work], unit: str) -> bool:
        """Try, tell, and put the item back if it is to be tried again. Whether it broke."""
        number = one.item.begun + len(one.tries) + 1
        began = time.monotonic()
        try:
            result = self._hooks.attempt(one.item, unit, number)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 (one item's trouble must not end the others)
            text = "".join(traceback.format_exception(error)).strip()
            result = Result("broken", f"a defect of Slipway, please report it: {text}")
        tried = Tried(unit, number, result, time.monotonic() - began)
        one.tries.append(tried)
        self._hooks.tried(one.item, tried)
        state = result.state
        back = state != "done" and one.count(state) <= self._limits[state]
        if not back:
            self._hooks.ended(one.item, one.tries, "")
        with self._changed:
            self._running -= 1
            if back:
                self._waiting.append(one)
            self._changed.notify_all()
        return state == "broken"

    def _distrust(self, unit: str, streak: int) -> str:
        if reason := self._hooks.probe(unit):
            return reason
        return f"{streak} items in a row broke on it" if streak >= STREAK else ""

    def _quarantine(self, unit: str, reason: str) -> None:
        self._hooks.quarantined(unit, reason)
        with self._changed:
            self._trusted.discard(unit)
            lost, self._waiting = ([], self._waiting) if self._trusted else (self._waiting, [])
            self._changed.notify_all()
        for one in lost:
            self._hooks.ended(one.item, one.tries, "no unit of its pool is left to work on")
