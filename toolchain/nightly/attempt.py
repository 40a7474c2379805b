"""One attempt at a piece of work on one unit: measure each program, race them, judge."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from toolchain import devices
from toolchain.atomic import read_json, write_bytes
from toolchain.devices import lease
from toolchain.devices.local import LocalDevice
from toolchain.devices.unix import UnixDevice
from toolchain.errors import InfraError, SlipwayError, UserError
from toolchain.layout import device_folder
from toolchain.nightly.plan import Program, Work
from toolchain.nightly.results import Place
from toolchain.nightly.scheduler import Item, Result, Stopped
from toolchain.nightly.steps import Steps
from toolchain.schema import Device, Frozen
from toolchain.steps.race import TTL_SECONDS

Text = Path | str
PATIENCE = 3600.0  # seconds that a unit is waited for while somebody else works there
LOOK = 5.0  # seconds between two looks


class Attempts:
    """Makes attempts; results go below the folder of the run. units: by their names."""

    def __init__(self, steps: Steps, run: Path, units: Mapping[str, Device]) -> None:
        self._steps, self._run, self._units = steps, run, units

    def __call__(self, item: Item[Work], unit: str, number: int) -> Result:
        """`broken` if the device, the network or a tool was at fault; `again` if a race of programs
        of which none failed was too disturbed to decide on."""
        place = Place(self._run, item.work, unit, number)
        try:
            self._on_unit(place)
            if item.work.raced:
                self._compare(place)
            for program in item.work.programs:
                self._judge(place, program)
        except UserError as error:  # something to mend: no unit can help
            return Result("done", str(error), error)
        except (SlipwayError, OSError) as error:
            return Result("broken", str(error))
        return result(place)

    def _on_unit(self, place: Place) -> None:
        """All that needs the unit. What is to be mended there is another unit's chance."""
        raced = place.work.raced
        try:
            with self._held(place.unit) if raced else nullcontext() as token:
                self._measure(place, token)
                if raced:
                    self._race(place, token)
        except UserError as error:  # its key, its entry in ~/.ssh/config, its place in a lab
            raise InfraError(str(error)) from error

    @contextmanager
    def _held(self, name: str) -> Iterator[str | None]:
        """A unit leased for all steps of the attempt: the token of the lease, if there is one.

        Not this host, where a race waits for all steps at work, those that wait for a lease too.
        """
        with devices.connect(self._units[name]) as device:
            if not isinstance(device, UnixDevice) or isinstance(device, LocalDevice):
                yield None
                return
            end, ours = time.monotonic() + PATIENCE, os.environ.get(lease.TOKEN)
            while (holder := lease.status(device)) and holder.left > 0 and holder.token != ours:
                if self._steps.stopping.wait(LOOK):
                    raise Stopped
                if time.monotonic() > end:
                    break
            with lease.hold(device, wait=LOOK, ttl=TTL_SECONDS) as mine:
                yield mine.token

    def _measure(self, place: Place, token: str | None) -> None:
        for program in place.work.programs:
            files = {
                name: place.of(program, name) for name in ("samples.json", "outputs.safetensors")
            }
            options: dict[str, Text] = {
                "bundle": program.at.bundle,
                "runtime": program.runtime,
                "data": program.at.recipe / "evaluation.safetensors",
                "device": self._device(place.unit),
                "settings": self._spec(place, program, "measure", program.job.measure),
                "out": files["samples.json"],
                "outputs": files["outputs.safetensors"],
            }
            if place.work.raced:
                options["profile"] = place.of(program, "profile.bin")
            self._steps.run("measure", options, place.of(program, "log.txt"), token=token)
            _refuse_broken(files["samples.json"])

    def _race(self, place: Place, token: str | None) -> None:
        programs = place.work.programs
        options: dict[str, Text | list[Path]] = {
            "bundle": [one.at.bundle for one in programs],
            "runtime": [one.runtime for one in programs],
            "samples": [place.of(one, "samples.json") for one in programs],
            "settings": [self._spec(place, p, "measure", p.job.measure) for p in programs],
            "data": programs[0].at.recipe / "evaluation.safetensors",
            "device": self._device(place.unit),
            "out": place.race("race.json"),
        }
        self._steps.run("race", options, place.race("log.txt"), token=token)
        _refuse_broken(place.race("race.json"))

    def _compare(self, place: Place) -> None:
        programs = place.work.programs
        options: dict[str, Text | list[Path]] = {
            "race": place.race("race.json"),
            "samples": [place.of(one, "samples.json") for one in programs],
            "outputs": [place.of(one, "outputs.safetensors") for one in programs],
            "profile": [place.of(one, "profile.bin") for one in programs],
            "out": place.race("comparison.json"),
        }
        self._steps.run("compare", options, place.race("log.txt"))

    def _judge(self, place: Place, program: Program) -> None:
        job, at = program.job, program.at
        options: dict[str, Text] = {
            "samples": place.of(program, "samples.json"),
            "outputs": place.of(program, "outputs.safetensors"),
            "data": at.recipe / "evaluation.safetensors",
            "reference": at.recipe / "reference.safetensors",
            "host": at.program / "host.safetensors",
            "checks": self._spec(place, program, "checks", job.checks),
            "metric": job.entry.recipe.data.metric,
            "folder": str(job.entry.folder),
            "recipe-sha256": job.recipe_sha256,
            "out": place.of(program, "verdict.json"),
        }
        if place.work.raced:
            options["race"] = place.race("race.json")
        self._steps.run("judge", options, place.of(program, "log.txt"))

    def _device(self, unit: str) -> Path:
        path = self._run / f"devices/{device_folder(unit)}.json"
        return _written(path, self._units[unit])

    def _spec(self, place: Place, program: Program, name: str, value: Frozen) -> Path:
        return _written(place.layout(program).on_target / f"spec/{name}.json", value)


def _written(path: Path, value: Frozen) -> Path:
    write_bytes(path, value.canonical().encode())
    return path


def _refuse_broken(record: Path) -> None:
    found = read_json(record)
    if found["status"] == "infra-error":
        raise InfraError(found["reason"])


def result(place: Place) -> Result:
    """What the verdicts of an attempt mean for whether there is another."""
    rows = place.verdicts().values()
    verdicts = {row["verdict"] for row in rows}
    reasons = [reason for row in rows for reason in row["reasons"]]
    if "infra-error" in verdicts:
        return Result("broken", "; ".join(dict.fromkeys(reasons)))
    undecided = place.work.raced and "inconclusive" in verdicts and "fail" not in verdicts
    return Result("again" if undecided else "done", "; ".join(dict.fromkeys(reasons)))
