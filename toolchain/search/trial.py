"""One candidate, tried for real: by the steps that the build itself is made of.

    quantize ─ lower ─ host ─ metric, drop, SQNR, bytes moved, bytes of the program
                          └── if it holds the limit:  package ─ measure ─ instructions or latency

Accuracy is that of the lowered program on this host, over all evaluation samples; the build's own
measurement on the device judges the chosen one again. Cost is measured with one sample: the
device's own accuracy is no question here.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain import backends, metrics, programs, pt2e, racing, schema, sensitivity, stats, traffic
from toolchain.atomic import read_json
from toolchain.errors import CheckFailed, InfraError, UserError
from toolchain.samples import load
from toolchain.schema import decode_json
from toolchain.search.choice import Limit, Tried
from toolchain.search.kept import Kept
from toolchain.search.plan import Candidate
from toolchain.simulation import WHOLE_MODEL, Simulation, operator_name
from toolchain.steps import host, lower, measure, package, quantize, race
from toolchain.steps.main import NONE, say

SENSITIVITY_SAMPLES = 16
FIGURES = (
    "metric", "drop", "sqnr_db", "min_cosine", "model_bytes", "bytes_moved", "weight_bytes_moved",
    "delegates", "undelegated", "instructions", "latency_ms", "latency", "device",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """Files of the build, and settings, as the steps take them. training: as in steps.quantize."""

    model: Path
    data: Path
    reference: Path
    target: Path
    runner: Path
    runtime: Path
    device: Path
    measure: Path
    tools: list[Path]
    folder: Path
    backend: str
    metric: str
    recipe: str
    target_name: str
    calibration: Path = NONE
    training: Mapping[str, Path] = field(default_factory=dict)

    def files(self) -> list[Path]:
        """All that results depend on, but for the source."""
        given = [self.model, self.data, self.reference, self.target, self.runner, self.runtime]
        given += [self.device, self.measure, *self.tools, self.calibration, *self.training.values()]
        return [path for path in given if path != NONE]

    def quantize(self, candidate: Candidate, here: Path) -> Path:
        """The quantized program of a candidate, in the folder `here`."""
        variant, out = here / "variant.json", here / "quantized.pt2"
        variant.write_text(json.dumps(candidate.variant()))
        quantize.run(
            model=self.model,
            variant=variant,
            backend=self.backend,
            out=out,
            notes=here / "notes.json",
            calibration=self.calibration,
            folder=self.folder,
            **self.training,
        )
        return out


class Trial:
    """Tries candidates, and keeps what was found."""

    def __init__(self, inputs: Inputs, limit: Limit, kept: Kept) -> None:
        self.inputs, self.limit, self._kept = inputs, limit, kept
        self.emulated = decode_json(schema.Device, inputs.device).emulated
        self._backend = backends.load(inputs.backend)

    def attempt(self, candidate: Candidate) -> Tried:
        """Its figures; from an earlier search if all is as it was."""
        found = self._kept.get(candidate.variant())
        if found is None or (self._wanted(candidate, found) and found["device"] is None):
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as temporary:
                found = self._found(candidate, Path(temporary))
            found["seconds"] = round(time.monotonic() - began, 1)
            self._kept.put(candidate.variant(), found)
        trouble = found["trouble"]
        passes = not trouble and self._wanted(candidate, found)
        figures = {key: found[key] for key in found if key != "trouble"}
        return Tried(candidate, figures, passes, trouble)

    def sensitive(self, candidate: Candidate) -> list[str]:
        """Names of its layers, the most sensitive first."""
        about = {"sensitive": candidate.variant()}
        found = self._kept.get(about)
        if found is None:
            say(f"which layers of {candidate.name} are the most sensitive")
            with tempfile.TemporaryDirectory() as temporary:
                quantized = programs.from_file(self.inputs.quantize(candidate, Path(temporary)))
            simulation = Simulation(quantized, pt2e.folded(self._prepared()))
            samples = programs.samples(self.inputs.data)[:SENSITIVITY_SAMPLES]
            found = {"layers": sensitivity.ranking(simulation, samples)}
            self._kept.put(about, found)
        return [name for name in found["layers"] if name != WHOLE_MODEL]  # that is all of it

    def operators(self) -> Counter[str]:
        """Of the float model as the backend takes it: `conv2d` and the like, counted."""
        graph = self._prepared().graph
        return Counter(operator_name(n) for n in graph.nodes if n.op == "call_function")

    def _prepared(self) -> Any:
        return self._backend.prepare(programs.from_file(self.inputs.model))

    def _wanted(self, candidate: Candidate, found: Mapping[str, Any]) -> bool:
        """Whether its cost is of interest: it holds the limit. Float always counts."""
        if found["metric"] is None:
            return False
        return candidate.scheme == "float" or self.limit.holds(found)

    def _found(self, candidate: Candidate, here: Path) -> dict[str, Any]:
        figures: dict[str, Any] = dict.fromkeys(FIGURES)
        try:
            figures |= self._on_this_host(candidate, here)
        except UserError as error:  # the scheme, or the backend, says that it cannot
            return figures | {"trouble": str(error)}
        labels = load(self.inputs.data).get("label")
        made, exact = load(here / "host.safetensors"), load(self.inputs.reference)
        count = len(exact["output.0"])
        quality = stats.quality(
            stats.first(made, count),
            stats.first(exact, count),
            labels,
            metrics.find(self.inputs.metric, self.inputs.folder),
        )
        figures |= {"metric": quality["accuracy"], "drop": quality["drop"]}
        figures |= {name: quality[name] for name in ("sqnr_db", "min_cosine")}
        trouble = ""
        if self._wanted(candidate, figures):
            try:
                figures |= self._on_the_device(candidate, here)
            except CheckFailed as error:
                trouble = str(error)
        return figures | {"trouble": trouble}

    def _on_this_host(self, candidate: Candidate, here: Path) -> dict[str, Any]:
        quantized = self.inputs.quantize(candidate, here)
        program = here / f"program{self._backend.SUFFIX}"
        backend = self.inputs.backend
        target = self.inputs.target if self._backend.PER_TARGET else NONE
        lower.run(
            quantized=quantized,
            backend=backend,
            target=target,
            out=program,
            report=here / "lower.json",
        )
        host.run(
            program=program,
            backend=backend,
            target=target,
            data=self.inputs.data,
            out=here / "host.safetensors",
        )
        rows = traffic.moved(programs.from_file(quantized))
        lowered = read_json(here / "lower.json")
        return {
            "model_bytes": program.stat().st_size,
            "bytes_moved": sum(row.total for row in rows),
            "weight_bytes_moved": sum(row.weights for row in rows),
            "delegates": lowered["delegates"],
            "undelegated": lowered["operators"]["undelegated"],
        }

    def _on_the_device(self, candidate: Candidate, here: Path) -> dict[str, Any]:
        """Instructions on a board, latency on a real device. CheckFailed if it does not run."""
        inputs = self.inputs
        report = here / "quantize.json"  # what stayed in float is told of the chosen one only
        report.write_text(json.dumps({"scheme": candidate.scheme, "not_quantized": []}))
        package.run(
            recipe=inputs.recipe,
            variant=candidate.name,
            backend=inputs.backend,
            target_name=inputs.target_name,
            target=inputs.target,
            program=here / f"program{self._backend.SUFFIX}",
            quantized=report,
            lowered=here / "lower.json",
            samples=inputs.data,
            expected=here / "host.safetensors",
            runner=inputs.runner,
            runtime=inputs.runtime,
            tools=inputs.tools,
            out=here / "bundle.tar",
        )
        (here / "settings.json").write_text(self._settings().canonical())
        measure.run(
            bundle=here / "bundle.tar",
            runtime=inputs.runtime,
            data=inputs.data,
            device=inputs.device,
            settings=here / "settings.json",
            out=here / "samples.json",
            outputs=here / "outputs.safetensors",
        )
        record = read_json(here / "samples.json")
        return costs(record, None if self.emulated else self._raced(here))

    def _raced(self, here: Path) -> dict[str, Any]:
        """Its times on a real device, in rounds of which the disturbed ones do not count."""
        inputs = self.inputs
        race.run(
            bundle=[here / "bundle.tar"],
            runtime=[inputs.runtime],
            samples=[here / "samples.json"],
            settings=[here / "settings.json"],
            data=inputs.data,
            device=inputs.device,
            out=here / "race.json",
        )
        found: dict[str, Any] = read_json(here / "race.json")
        return found

    def _settings(self) -> schema.Measure:
        """One sample; on a board, which counts exactly, one inference after it."""
        wanted = decode_json(schema.Measure, self.inputs.measure)
        cost = {"warmup": 0, "iterations": 1} if self.emulated else {}
        return wanted.model_copy(update={"samples": 1, "emulated_samples": 1, **cost})


def costs(record: Mapping[str, Any], raced: racing.Record | None = None) -> dict[str, Any]:
    """What a measurement says of cost; InfraError and CheckFailed for one that broke off."""
    if record["status"] == "infra-error":
        raise InfraError(record["reason"], where=record["device"]["name"])
    if record["status"] != "measured":
        raise CheckFailed(record["reason"])
    taken = record["runner"]["iterations"]
    identity = {**record["device"], "facts": record["provenance"]["device"]}
    counted = stats.instructions(taken["instructions"])
    if record["device"]["emulated"]:
        if counted is None:
            why = record["runner"].get("instructions_unavailable") or "no reason given"
            raise InfraError(f"the board counts no instructions: {why}", where=identity["name"])
        return {"instructions": counted, "device": identity}
    if raced is None or raced["status"] == "infra-error":
        raise InfraError(raced["reason"] if raced else "no race", where=identity["name"])
    (program,) = raced["programs"] or [None]
    if program is None:
        raise CheckFailed(next(iter(raced["failed"].values())))
    latency = stats.latency(racing.wall_ns(raced, program))
    identity["moved"] = racing.moved(raced)
    found = {"latency_ms": latency["p50"], "latency": latency}
    return {**found, "instructions": counted, "device": identity}
