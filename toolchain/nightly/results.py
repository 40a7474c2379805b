"""Where the files of an attempt stand, and the rows that its programs have in the history.

<build>/nightly/<run>/attempt-<n>/    laid out as a build
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain import choice, racing, stats
from toolchain.bundle import Bundle
from toolchain.layout import Layout
from toolchain.nightly.plan import Program, Work
from toolchain.steps import summary

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """One attempt. run: the folder of the run. unit: that it was made on."""

    run: Path
    work: Work
    unit: str
    number: int

    def layout(self, program: Program) -> Layout:
        job = program.job
        root = self.run / f"attempt-{self.number}"
        return Layout(root, job.entry.name, job.variant_name, job.backend, job.target_name)

    def of(self, program: Program, name: str) -> Path:
        return self.layout(program).device(self.unit) / name

    def race(self, name: str) -> Path:
        return self.layout(self.work.programs[0]).race(self.unit) / name

    def verdicts(self) -> dict[str, Row]:
        """What the judge wrote, by the key of the program."""
        return {one.key: _read(self.of(one, "verdict.json")) for one in self.work.programs}

    def samples(self, program: Program) -> dict[str, Any]:
        """What was measured, with the times of each round of the race that counts."""
        found = _read(self.of(program, "samples.json"))
        name = racing.key(program.job.variant_name, program.job.backend)
        if self.work.raced and name in (race := _read(self.race("race.json")))["programs"]:
            found["wall_ns"] = [one["runs"][name]["wall_ns"] for one in racing.counted(race)]
        return found

    def comparison(self) -> dict[str, Any]:
        return _read(self.race("comparison.json"))


def rows(place: Place) -> dict[str, Row]:
    """The rows of an attempt by key, as a build's summary has them.

    Boards of a pool are one device.
    """
    work = place.work
    found = place.verdicts()
    for row in found.values():
        row |= {"unit": place.unit, "device": device(work, place.unit)}
        row["findings"] = summary.findings(row, list(found.values()))
    races = [place.comparison()] if work.raced else []
    choice.choose(list(found.values()), races)
    for race in races:
        for row in found.values():
            name = racing.key(row["variant"], row["backend"])
            row["operators"] = race["programs"].get(name, {}).get("operators", [])
            row["notes"] = race["notes"]
    return found


def device(work: Work, unit: str) -> str:
    """What a row calls the device: the boards of a pool are alike in all that is measured."""
    return work.pool.name if work.pool.emulated else unit


def without_result(program: Program, work: Work, unit: str, reason: str) -> Row:
    """The row of a program that no unit gave a result of; unit: the last that was tried, or ""."""
    job, bundle = program.job, Bundle.open(program.at.bundle)
    said = bundle.manifest
    known = {n: said[n] for n in ("recipe", "variant", "scheme", "backend", "target", "runtime")}
    load = ("delegates", "delegated_share", "undelegated", "remarks", "not_quantized")
    return {
        **known,
        "unit": unit,
        "device": device(work, unit or work.pool.name),
        "findings": [],
        "chosen": None,
        "against_float": None,
        **dict.fromkeys(stats.FIGURES),
        **stats.sizes({**said["bytes"], "bundle": program.at.bundle.stat().st_size}),
        "metric": job.entry.recipe.data.metric,
        "unchecked": [],
        "verdict": "infra-error",
        "reasons": [reason],
        "load": {name: said[name] for name in load},
        "provenance": {"bundle_sha256": bundle.sha256, "tools": said["tools"]},
    }


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found
