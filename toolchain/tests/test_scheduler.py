"""Work on pools of units, without devices: who gets what, what is tried again and where."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from toolchain.nightly.scheduler import STREAK, Hooks, Item, Result, Stopped, schedule

DONE = Result("done")
SCALE = 0.01  # seconds of a test for one of work


@dataclass
class Farm:
    """Hooks that remember. script: results of an item's attempts, in order; then it is done."""

    script: dict[str, list[Result]] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)  # units: each attempt breaks
    sick: set[str] = field(default_factory=set)  # units that fail their probe
    tried: list[tuple[str, str, str]] = field(default_factory=list)
    ended: dict[str, list[str]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    probed: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    attempt: Callable[..., Result] = field(init=False)  # tests put others in their places
    end: Callable[..., None] = field(init=False)

    def __post_init__(self) -> None:
        self.attempt, self.end = self.work_on, self.remember

    def work_on(self, item, unit, number):
        time.sleep(item.seconds * SCALE)
        with self.lock:
            script = self.script.get(item.key, [])
            if unit in self.bad:
                return Result("broken", f"{unit} broke")
            return script[number - item.begun - 1] if number - item.begun <= len(script) else DONE

    def probe(self, unit):
        self.probed.append(unit)
        return "does not answer" if unit in self.sick else ""

    def note(self, item, tried):
        with self.lock:
            self.tried.append((item.key, tried.unit, tried.result.state))

    def remember(self, item, tries, lost):
        with self.lock:
            assert item.key not in self.ended, "an item ends once"
            self.ended[item.key] = [one.result.state for one in tries]
            self.lost[item.key] = lost

    def run(self, items, units, stop=None, **limits):
        hooks = Hooks(self.attempt, self.probe, self.note, self.end, self.quarantined.__setitem__)
        schedule(items, units, hooks, stop or threading.Event(), **limits)

    def units_of(self, key):
        return [unit for one, unit, _ in self.tried if one == key]


def items(count, pool="p", seconds=1.0):
    return [Item(f"{pool}{k}", pool, seconds, None) for k in range(count)]


def units(count, pool="p"):
    return {pool: [f"{pool}-unit{k}" for k in range(count)]}


def test_everything_ends_once_and_a_unit_does_one_thing_at_a_time():
    farm = Farm()
    busy, most = Counter[str](), Counter[str]()
    inner = farm.attempt

    def watched(item, unit, number):
        busy[unit] += 1
        most[unit] = max(most[unit], busy[unit])
        result = inner(item, unit, number)
        busy[unit] -= 1
        return result

    farm.attempt = watched
    farm.run(items(30), units(4))
    assert len(farm.ended) == 30
    assert set(most.values()) == {1}
    assert len(most) == 4


def test_the_longest_comes_first():
    farm = Farm()
    work = [Item(str(k), "p", k, None) for k in (1, 5, 3, 4, 2)]
    farm.run(work, units(1))
    assert [key for key, _, _ in farm.tried] == ["5", "4", "3", "2", "1"]


def test_what_broke_goes_to_another_unit():
    farm = Farm(script={"p0": [Result("broken", "cut off")] * 2})
    farm.run(items(1), units(3))
    tried = farm.units_of("p0")
    assert len(tried) == len(set(tried)) == 3
    assert farm.ended["p0"] == ["broken", "broken", "done"]
    assert farm.probed == tried[:2]
    assert farm.quarantined == {}


def test_another_unit_is_waited_for_while_it_is_busy():
    farm = Farm(script={"short": [Result("broken")]})
    work = [Item("long", "p", 20, None), Item("short", "p", 1, None)]
    farm.run(work, units(2))
    assert len(set(farm.units_of("short"))) == 2


def test_a_pool_of_one_tries_again_on_the_same_unit():
    farm = Farm(script={"p0": [Result("broken")]})
    farm.run(items(1), units(1))
    assert farm.units_of("p0") == ["p-unit0", "p-unit0"]
    assert farm.ended["p0"] == ["broken", "done"]


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_retries_have_an_end(retries):
    farm = Farm(script={"p0": [Result("broken")] * 9})
    farm.run(items(1), units(5), retries=retries)
    assert farm.ended["p0"] == ["broken"] * (retries + 1)


def test_what_is_done_is_never_tried_again():
    farm = Farm(script={"p0": [Result("done", "a check failed"), DONE]})
    farm.run(items(1), units(3))
    assert farm.ended["p0"] == ["done"]


def test_what_is_undecided_is_tried_once_more():
    farm = Farm(script={"p0": [Result("again"), Result("again"), DONE]})
    farm.run(items(1), units(2))
    assert farm.ended["p0"] == ["again", "again"]
    assert farm.probed == []


def test_a_unit_that_fails_its_probe_gets_no_more_work():
    sick = "p-unit0"
    farm = Farm(bad={sick}, sick={sick})
    farm.run(items(20), units(4))
    assert farm.quarantined == {sick: "does not answer"}
    assert Counter(unit for _, unit, _ in farm.tried)[sick] == 1
    assert all(states[-1] == "done" for states in farm.ended.values())


def test_a_unit_on_which_everything_breaks_gets_no_more_work():
    """Its probe says it is well; without an end it would take, and break, all that waits."""
    farm = Farm(bad={"p-unit0"})
    farm.run(items(40), units(4))
    assert list(farm.quarantined) == ["p-unit0"]
    assert Counter(unit for _, unit, _ in farm.tried)["p-unit0"] == STREAK
    assert all(states[-1] == "done" for states in farm.ended.values())


def test_one_item_that_breaks_again_and_again_does_not_cost_the_pool_its_unit():
    farm = Farm(script={"p0": [Result("broken")] * 9})
    farm.run(items(5), units(1), retries=STREAK)
    assert farm.ended.pop("p0") == ["broken"] * (STREAK + 1)
    assert farm.ended == {f"p{k}": ["done"] for k in range(1, 5)}
    assert farm.quarantined == {}


def test_a_pool_without_units_ends_its_work_at_once_and_the_others_go_on():
    dead = {f"a-unit{k}" for k in range(2)}
    farm = Farm(bad=dead, sick=dead)
    farm.run(items(50, "a") + items(8, "b"), {**units(2, "a"), **units(2, "b")})
    assert len(farm.ended) == 58
    assert sum(1 for _, unit, _ in farm.tried if unit in dead) == 2
    assert all(states == ["done"] for key, states in farm.ended.items() if key[0] == "b")
    assert all("done" not in states for key, states in farm.ended.items() if key[0] == "a")
    assert sum(1 for why in farm.lost.values() if "no unit of its pool" in why) == 50


def test_attempts_of_an_earlier_call_are_counted_on():
    farm, numbers = Farm(), []
    inner = farm.attempt

    def counted(item, unit, number):
        numbers.append(number)
        return inner(item, unit, number)

    farm.attempt = counted
    farm.run([Item("p0", "p", 1, None, begun=3)], units(1))
    assert numbers == [4]


def test_a_defect_in_one_attempt_does_not_end_the_others():
    farm = Farm()
    inner = farm.attempt

    def faulty(item, unit, number):
        if item.key == "p3":
            raise KeyError("surprise")
        return inner(item, unit, number)

    farm.attempt = faulty
    farm.run(items(8), units(4))
    assert farm.ended.pop("p3") == ["broken"] * 3
    assert set(map(tuple, farm.ended.values())) == {("done",)}


def test_stopping_leaves_the_rest():
    farm, stop = Farm(), threading.Event()

    def attempt(_item, _unit, _number):
        if len(farm.tried) >= 5:
            stop.set()
        return DONE

    farm.attempt = attempt
    farm.run(items(100), units(4), stop)
    assert 5 <= len(farm.ended) < 15
    assert len(farm.ended) == len(farm.tried)


def test_idle_units_hear_of_a_stop():
    """One unit works, the others wait for what it may give back."""
    farm, stop = Farm(), threading.Event()

    def attempt(_item, _unit, _number):
        stop.wait(10)
        raise Stopped

    farm.attempt = attempt
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    farm.run(items(1), units(5), stop)
    assert time.monotonic() - began < 2


def test_a_journal_that_cannot_be_written_stops_everything_and_is_told():
    farm = Farm()

    def full(_item, _tries, _lost):
        raise OSError(28, "No space left on device")

    farm.end = full
    with pytest.raises(OSError, match="No space left"):
        farm.run(items(100), units(4))
    assert len(farm.tried) < 20


@pytest.mark.parametrize("seed", range(3))
def test_the_makespan_is_near_the_ideal(seed):
    """200 units in pools of several sizes, work of random lengths, random faults.

    The ideal is a bound that no order can beat: the longest item of a pool, or the time of all
    attempts made there, those that broke included, over its units. What each unit was given is
    counted, not what a busy machine made of it.
    """
    chance = random.Random(seed)
    sizes = {"a": 100, "b": 60, "c": 30, "d": 10}
    assert sum(sizes.values()) == 200
    farm, scale = Farm(), 0.02
    spent, given = defaultdict[str, list[float]](list), defaultdict[str, float](float)
    work = [
        Item(f"{pool}{k}", pool, chance.uniform(5, 40), None)
        for pool, count in sizes.items()
        for k in range(6 * count)
    ]
    faults = {item.key: chance.random() < 0.05 for item in work}
    moments = {item.key: chance.random() for item in work}

    def attempt(item, unit, number):
        broken = faults[item.key] and number == 1
        seconds = item.seconds * (moments[item.key] if broken else 1)
        time.sleep(seconds * scale)
        with farm.lock:
            spent[item.pool].append(seconds)
            given[unit] += seconds
        return Result("broken", "cut off") if broken else DONE

    farm.attempt = attempt
    farm.run(work, {pool: units(count, pool)[pool] for pool, count in sizes.items()})
    assert len(farm.ended) == len(work)
    assert sum(states.count("broken") for states in farm.ended.values()) == sum(faults.values())
    for pool, every in spent.items():
        ideal = max(max(every), sum(every) / sizes[pool])
        assert max(given[unit] for unit in units(sizes[pool], pool)[pool]) <= 1.15 * ideal
