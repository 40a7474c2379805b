"""A farm for tests: the nightly's own plan, journal and scheduler, over fakes that break on demand.

    planned = farm.plan(folder, {"arm64@pi5": 12}, items=40)
    night = farm.night(planned, history, run, folder, farm.Fakes(folder, planned, seconds=…))

The fakes are `FakeDevice`s: files go there, a command runs for the time that the work takes, and
their operations break by chance. What a measurement would give is written beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from toolchain import bundle, catalog, jobs
from toolchain.atomic import write_json
from toolchain.devices.fake import FakeDevice
from toolchain.devices.pool import Pool
from toolchain.errors import InfraError
from toolchain.history import History
from toolchain.nightly import plan as planning
from toolchain.nightly.attempt import Attempts, result
from toolchain.nightly.night import Night
from toolchain.nightly.options import Options
from toolchain.nightly.plan import Plan, Program, Work
from toolchain.nightly.results import Place, without_result
from toolchain.nightly.scheduler import Result, Stopped
from toolchain.nightly.steps import Steps
from toolchain.schema import Device
from toolchain.tests.projects import write_recipe

RUN = "2026-11-21T19-30-00Z-12ab"
TARGETS = Path(__file__).parents[2] / "targets"
MANIFEST = {
    "schema": bundle.SCHEMA,
    "files": {},
    "recipe": "tiny",
    "variant": "int8",
    "scheme": "int8_static",
    "backend": "xnnpack",
    "target": "arm64",
    "arch": "aarch64",
    "runtime": {"name": "executorch", "apart": False, "bytes": 1, "digest": "0" * 64},
    "bytes": {"program": 1000, "runner": 10, "total": 1010},
    "delegates": 1,
    "delegated_share": 1.0,
    "undelegated": {},
    "remarks": [],
    "not_quantized": {},
    "tools": {},
}


def job(folder: Path) -> jobs.Job:
    """One job of a small recipe, whose bundle is a file that says what it is."""
    write_recipe(folder / "recipes/tiny")
    known = catalog.read(folder / "recipes", TARGETS)
    return jobs.plan(
        known,
        targets=["arm64"],
        recipes=[],
        variants=["int8"],
        backend_names=[],
        device_names=[],
        devices_file=folder / "none",
    ).jobs[0]


def program(one: jobs.Job, folder: Path, number: int) -> Program:
    named = replace(one, variant_name=f"v{number}")
    at = named.layout(folder / "build")
    at.bundle.parent.mkdir(parents=True, exist_ok=True)
    if not at.bundle.exists():
        at.bundle.write_bytes(bundle.write({}, MANIFEST))
    return Program(f"tiny/v{number}/xnnpack/arm64", named, at)


def units(name: str, count: int, driver: str = "ssh") -> Pool:
    made = tuple(
        Device.model_validate({"name": f"{name}-{k}", "driver": driver, "host": "h", "cpu": "c"})
        for k in range(count)
    )
    return Pool(name, None, made[0].name, made)


def plan(folder: Path, sizes: Mapping[str, int], items: int, programs: int = 2) -> Plan:
    """Pools of so many units, `items` of work for each unit of them, of so many programs each."""
    one, pools, work, number = job(folder), [], [], 0
    for name, count in sizes.items():
        pools.append(units(name, count))
        for k in range(items * count):
            own = tuple(program(one, folder, number + n) for n in range(programs))
            number += programs
            work.append(Work(f"tiny-{k}/arm64@{name}", pools[-1], own))
    return Plan(tuple(pools), tuple(work), ())


@dataclass
class Fakes:
    """Attempts on fake devices.

    seconds: of the work on an item. broken: whether this attempt at it breaks. verdict: of it.
    ledger: a line for each attempt that begins, and for each that is over.
    """

    run: Path
    stopping: Callable[[], bool] = lambda: False
    seconds: Callable[[str], float] = lambda _key: 0.0
    broken: Callable[[str, str, int], bool] = lambda _key, _unit, _number: False
    verdict: Callable[[str, int], str] = lambda _key, _number: "pass"
    ledger: Path | None = None

    def __call__(self, item, unit, number):
        place = Place(self.run, item.work, unit, number)
        self.note("begin", item.key, unit)
        fault = self.broken(item.key, unit, number)
        operation = random.Random(f"{item.key} {number}").randint(1, 3)
        try:
            with FakeDevice(unit, {operation: "lost"} if fault else {}) as device:
                device.put({"bundle.tar": item.work.programs[0].at.bundle})
                seconds = self.seconds(item.key)
                device.run(["sleep", f"{seconds:.3f}"], timeout=seconds + 60)
                device.get("bundle.tar", place.of(item.work.programs[0], "sent.tar"))
        except InfraError as error:
            self.note("broke", item.key, unit)
            return Result("broken", str(error))
        if self.stopping():
            raise Stopped
        for one in item.work.programs:
            self._write(place, one, self.verdict(one.key, number))
        self._race(place)
        self.note("over", item.key, unit)
        return result(place)

    def note(self, what: str, key: str, unit: str) -> None:
        if self.ledger is None:
            return
        line = json.dumps([what, key, unit, time.time()]) + "\n"
        handle = os.open(self.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def _write(self, place: Place, one: Program, verdict: str) -> None:
        row = without_result(one, place.work, place.unit, "")
        reasons = [] if verdict == "pass" else [f"it is {verdict}"]
        row |= {"variant": one.job.variant_name, "verdict": verdict, "reasons": reasons}
        figure = hashlib.sha256(f"{one.key} {place.unit} {place.number}".encode()).hexdigest()
        write_json(place.of(one, "samples.json"), {"status": "measured", "figure": figure})
        write_json(place.of(one, "verdict.json"), row)

    def _race(self, place: Place) -> None:
        if not place.work.raced:
            return
        write_json(place.race("race.json"), {"programs": {}, "rounds": [], "wanted_rounds": 0})
        told: dict = {"recipe": "tiny", "target": "arm64", "device": place.unit, "moved": []}
        told |= {"notes": [], "programs": {}, "backends": [], "pays": []}
        write_json(place.race("comparison.json"), told)


def well(_unit: Device, _timeout: float) -> SimpleNamespace:
    return SimpleNamespace(healthy=True, reasons=())


def night(planned, history, run, folder, attempt, steps=None, probe=well, lasts=None) -> Night:
    return Night(planned, history, run, folder, steps or Steps(), probe, attempt, lasts)


def boards(folder: Path, build: Path, recipes: Path, count: int, times: int) -> Plan:
    """Emulated boards for the bundles of a real build, each measured so many times."""
    words = (f"qemu:cortex-a72*{count}",)
    asked = Options(
        target=("arm64",),
        variant=("all",),
        device=words,
        recipes=recipes,
        devices=folder / "none",
        build=build,
        history="",
    )
    whole = planning.plan(catalog.read(recipes, TARGETS), asked)
    built = [work for work in whole.work if work.programs[0].at.bundle.exists()]
    work = []
    for again in range(times):
        for one in built:
            (own,) = one.programs
            named = replace(own.job, variant_name=f"{own.job.variant_name}.{again}")
            key = f"{own.key}.{again}"
            work.append(Work(key, one.pool, (Program(key, named, own.at),)))
    return Plan(whole.pools, tuple(work), ())


def ordered(given: Mapping[str, Any]) -> Plan:
    """The plan of a session of `main`."""
    folder = Path(given["folder"])
    made = plan(folder, given["pools"], given["items"], programs=2)
    if not given["boards"]:
        return made
    places = Path(given["build"]), Path(given["recipes"])
    real = boards(folder, *places, given["boards"], given["times"])
    return Plan(made.pools + real.pools, made.work + real.work, ())


def main(words: list[str]) -> None:
    """One session of a run that may be killed at any moment: `farm.py '{"folder": …}'`.

    Writes ledger (see `Fakes`) and, when all is done, stats.json into the folder.
    """
    given = json.loads(words[0])
    folder, chance = Path(given["folder"]), given["chance"]
    made = ordered(given)
    steps = Steps()
    chances = random.Random(0)
    low, high = given["seconds"]
    fakes = Fakes(
        folder / "run",
        steps.stopping.is_set,
        seconds=lambda key: random.Random(key).uniform(low, high),
        broken=lambda key, unit, number: random.Random(f"{key} {unit} {number}").random() < chance,
        ledger=folder / "ledger",
    )
    units = {unit.name: unit for pool in made.pools for unit in pool.units}
    real_ones = Attempts(steps, folder / "run", units)

    def attempt(item, unit, number):
        if not item.pool.startswith("qemu:"):
            return fakes(item, unit, number)
        fakes.note("begin", item.key, unit)
        result = real_ones(item, unit, number)
        fakes.note("over" if result.state == "done" else "broke", item.key, unit)
        return result

    with History(str(folder / "history.sqlite")) as history:
        history.begin(RUN, {"revision": "r", "options": "o"})
        lasts = {  # of a night before, which was not quite like this one
            (one.key, work.pool.name): fakes.seconds(work.key) * chances.uniform(0.9, 1.1)
            for work in made.work
            for one in work.programs
        }
        one = night(made, history, RUN, folder / "run", attempt, steps, lasts=lasts)
        began, before = time.time(), _machine()
        one.work(3)
        one.journal.close()
        history.end(RUN, "complete")
    own, children = (
        resource.getrusage(resource.RUSAGE_SELF),
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )
    stats = {
        "began": began,
        "ended": time.time(),
        "own_cpu": own.ru_utime + own.ru_stime,
        "children_cpu": children.ru_utime + children.ru_stime,
        "rss_mb": own.ru_maxrss / 1024,
        "torch": "torch" in sys.modules,
        "machine": [b - a for a, b in zip(before, _machine(), strict=True)],
        "broken": one.journal.broken,
        "refused": {key: str(error) for key, error in one.journal.refused.items()},
    }
    write_json(folder / "stats.json", stats)
    spans = makespans(folder, made)
    for name, (span, ideal) in spans.items():
        print(f"{name}: {span:.1f} s, ideal {ideal:.1f} s: {span / ideal:.3f}")
    whole, least = (max(pair[k] for pair in spans.values()) for k in (0, 1))
    print(f"all: {whole:.1f} s, ideal {least:.1f} s: {whole / least:.3f}")


def makespans(folder: Path, planned: Plan) -> dict[str, tuple[float, float]]:
    """Of each pool: the seconds until its last item was over, and the least that they could be.

    That is the longest attempt, or all attempts of the pool, those that broke included, over its
    units: no order of the same attempts ends sooner.
    """
    pool_of = {work.key: work.pool for work in planned.work}
    began = json.loads((folder / "stats.json").read_bytes())["began"]
    open_at: dict[tuple[str, str], float] = {}
    spent: dict[str, list[float]] = {}
    last: dict[str, float] = {}
    for line in (folder / "ledger").read_text().splitlines():
        what, key, unit, moment = json.loads(line)
        if what == "begin":
            open_at[key, unit] = moment
            continue
        name = pool_of[key].name
        spent.setdefault(name, []).append(moment - open_at.pop((key, unit)))
        last[name] = moment - began
    counts = {pool.name: len(pool.units) for pool in planned.pools}
    return {name: (last[name], max(max(s), sum(s) / counts[name])) for name, s in spent.items()}


def _machine() -> tuple[float, float]:
    """CPU seconds of this machine since its start: at work, idle."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, (ticks[3] + ticks[4]) / hertz


if __name__ == "__main__":
    main(sys.argv[1:])
