"""From programs to verdicts: the runtime, the bundle, the device, the race, the judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from toolchain import backends, devices, runtimes, tools
from toolchain.engine import ROOT, Engine
from toolchain.graph import sources
from toolchain.jobs import Job
from toolchain.layout import Layout

INSPECTING = ("iced-x86", "pyelftools")  # another version may see more in what is packed


@dataclass(frozen=True)
class Place:
    """A job and where its files stand."""

    job: Job
    at: Layout

    @property
    def on_device(self) -> Path:
        return self.at.device(self.job.device.name)

    @property
    def race(self) -> Path:
        return self.at.race(self.job.device.name)

    @property
    def runtime(self) -> Path:
        return self.at.runtime(backends.load(self.job.backend).RUNTIME.name)


def bundle(engine: Engine, place: Place) -> None:
    """The runtime of the backend on the target, and the bundle of one program for it."""
    job, at = place.job, place.at
    _runtime(engine, place)
    engine.step(
        "package",
        f"{job.entry.name} {job.variant_name} {job.backend} {job.target_name}",
        {"out": at.bundle},
        {
            "target": at.target_spec,
            "program": at.program / f"program{backends.load(job.backend).SUFFIX}",
            "quantized": at.program / "quantize.json",
            "lowered": at.program / "lower.json",
            "samples": at.recipe / "evaluation.safetensors",
            "expected": at.program / "host.safetensors",
            "runner": place.runtime / "runner",
            "runtime": place.runtime / "runtime.json",
            "tools": [sources.python_tools(engine), sources.compiler(engine, job)],
        },
        {
            "recipe": job.entry.name,
            "variant": job.variant_name,
            "backend": job.backend,
            "target-name": job.target_name,
        },
        needs=[
            Path(str(backends.load(job.backend).__file__)),
            engine.text(engine.build / "tools/inspection.json", tools.packages(INSPECTING)),
        ],
    )
    engine.goal("bundles", at.bundle)


def _runtime(engine: Engine, place: Place) -> None:
    """Runner and libraries: of the installed package, or of its wheel for another architecture."""
    job, runtime = place.job, backends.load(place.job.backend).RUNTIME
    target = engine.text(place.at.target_spec, job.target.canonical())
    version = metadata.version(runtime.package)
    inputs: dict[str, Path | Sequence[Path]] = {"target": target}
    if not runtimes.is_native(job.target.arch):
        inputs["wheel"] = place.runtime / "sdk.whl"
        engine.step(
            "runtime",
            f"{job.target_name} {runtime.name}",
            {"out": place.runtime / "sdk.whl"},
            {"target": target},
            {"runtime": runtime.name, "version": version},
        )
    engine.step(
        "runner",
        f"{job.target_name} {runtime.name}",
        {"out": place.runtime / "runner", "report": place.runtime / "runtime.json"},
        {**inputs, "source": [sources.near(file) for file in runtime.sources()]},
        {"runtime": runtime.name, "version": version},
        needs=[sources.compiler(engine, job)],
        also=[place.runtime / "lib" / name for name in runtime.libraries],
        shared=not runtime.apart,  # hundreds of MB that are copied in seconds
    )


def measurement(engine: Engine, place: Place, remeasure: bool) -> None:
    """One program on its device: outputs, cost, operators."""
    job, at = place.job, place.at
    outputs = {
        "out": place.on_device / "samples.json",
        "outputs": place.on_device / "outputs.safetensors",
    }
    if not job.device.emulated:  # where there is no time, operators have none
        outputs["profile"] = place.on_device / "profile.bin"
    engine.step(
        "measure",
        _who(job),
        outputs,
        {
            "bundle": at.bundle,
            "runtime": place.runtime / "runtime.json",
            "data": at.recipe / "evaluation.safetensors",
            "device": sources.device(engine, job),
            "settings": sources.measure(engine, job, at.on_target),
        },
        needs=devices.depends_on(job.device),
        stale=remeasure or _broke(place.on_device / "samples.json"),
        shared=False,
        heavy=job.device.emulated,
        alone=sources.alone(job),
    )


def race(engine: Engine, places: Sequence[Place], remeasure: bool) -> None:
    """Programs of one recipe against each other on one real device, and what came of it."""
    first, job = places[0], places[0].job
    measured = [place.on_device / "samples.json" for place in places]
    engine.step(
        "race",
        f"{job.entry.name} {job.device.name}",
        {"out": first.race / "race.json"},
        {
            "bundle": [place.at.bundle for place in places],
            "runtime": [place.runtime / "runtime.json" for place in places],
            "samples": measured,
            "data": first.at.recipe / "evaluation.safetensors",
            "settings": [sources.measure(engine, p.job, p.at.on_target) for p in places],
            "device": sources.device(engine, job),
        },
        needs=devices.depends_on(job.device),
        stale=remeasure or _broke(first.race / "race.json") or _disturbed(first.race),
        shared=False,
        alone=sources.alone(job),
    )
    engine.step(
        "compare",
        f"{job.entry.name} {job.device.name}",
        {"out": first.race / "comparison.json"},
        {
            "race": first.race / "race.json",
            "samples": measured,
            "outputs": [place.on_device / "outputs.safetensors" for place in places],
            "profile": [place.on_device / "profile.bin" for place in places],
        },
        needs=sorted({Path(str(backends.load(place.job.backend).__file__)) for place in places}),
        shared=False,
    )


def verdict(engine: Engine, place: Place) -> Path:
    """The limits of the recipe, held against what was measured."""
    job, at, at_device = place.job, place.at, place.on_device
    folder, metric = sources.folder(job), job.entry.recipe.data.metric
    inputs = {
        "samples": at_device / "samples.json",
        "outputs": at_device / "outputs.safetensors",
        "data": at.recipe / "evaluation.safetensors",
        "reference": at.recipe / "reference.safetensors",
        "host": at.program / "host.safetensors",
        "checks": engine.text(at.on_target / "spec/checks.json", job.checks.canonical()),
    }
    if not job.device.emulated:
        inputs["race"] = place.race / "race.json"
    engine.step(
        "judge",
        _who(job),
        {"out": at_device / "verdict.json"},
        inputs,
        {"metric": metric, "folder": str(folder), "recipe-sha256": job.recipe_sha256},
        needs=[
            engine.text(at.folder_note, str(folder)),
            *sorted((ROOT / "device_tests").glob("*.py")),
            *sources.metric(job),
        ],
    )
    return at_device / "verdict.json"


def _who(job: Job) -> str:
    return f"{job.entry.name} {job.variant_name} {job.backend} {job.device.name}"


def _disturbed(race: Path) -> bool:
    """Whether the last race says nothing of its times: the next build tries again."""
    try:
        return bool(json.loads((race / "comparison.json").read_bytes())["moved"])
    except (OSError, ValueError, KeyError):
        return False


def _broke(record: Path) -> bool:
    """Whether the last measurement ended in an infra-error: such a result is never kept."""
    try:
        return bool(json.loads(record.read_bytes())["status"] == "infra-error")
    except (OSError, ValueError, KeyError):
        return False
