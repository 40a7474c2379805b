"""Let the programs of a recipe take turns on one real device, and keep each time that was taken."""

from __future__ import annotations

import datetime
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain import deployment, quiet, racing, rounds
from toolchain.atomic import read_json, write_json
from toolchain.bundle import Bundle
from toolchain.devices import lease
from toolchain.devices.base import Device
from toolchain.errors import CheckFailed, InfraError, show
from toolchain.samples import load, to_bin
from toolchain.schema import Device as Unit
from toolchain.schema import Measure, decode_json
from toolchain.steps.main import say, step
from toolchain.steps.measure import WAIT_SECONDS

SCHEMA = 1
TTL_SECONDS = 180.0  # of the lease: each heartbeat is work for the device
INPUTS, OUTPUTS = "evaluation.bin", "outputs.bin"
# A turn of a small model takes more inferences than asked for, until it lasts so long: a shorter
# one would be over before the kernel's clock ticks, and nothing that disturbs it would show.
TURN_NS, TURN_MOST = 100_000_000, 4096


@dataclass(frozen=True)
class Program:
    """One that takes part.

    folder: in the device's work folder. ns: of an inference, about.
    """

    key: str
    bundle: Bundle
    runtime: Path
    how: Measure
    folder: str
    ns: int

    def turn(self, device: Device, wanted: int) -> Mapping[str, Any]:
        """One of `wanted` turns: the runner's report."""
        least = math.ceil(self.how.latency_samples / wanted)
        count = max(least, min(TURN_MOST, TURN_NS // max(1, self.ns)))
        argv = self.bundle.argv(
            inputs=INPUTS,
            outputs=OUTPUTS,
            threads=self.how.threads,
            warmup=max(self.how.warmup, rounds.warmup(count)),
            iterations=count,
            pin=self.how.pin,
        )
        return deployment.run(device, self.folder, argv, self.how.timeout)


def run(
    *,
    bundle: list[Path],
    runtime: list[Path],
    samples: list[Path],
    settings: list[Path],
    data: Path,
    device: Path,
    out: Path,
) -> None:
    """Race those `bundle`s whose measurement, in `samples`, went well.

    runtime, settings: of each, as in the measure step. data: its first sample is the input.
    """
    unit = decode_json(Unit, device)
    measured = [read_json(path) for path in samples]
    entered = [
        Program(
            racing.key(one["variant"], one["backend"]),
            Bundle.open(path),
            libraries,
            decode_json(Measure, how),
            f"p{k}",
            min(one["runner"]["iterations"]["wall_ns"]),
        )
        for k, (one, path, libraries, how) in enumerate(
            zip(measured, bundle, runtime, settings, strict=True)
        )
        if one["status"] == "measured"
    ]
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "device": unit.name,
        "taken_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wanted_rounds": 0,
        "rounds": [],
        "failed": {},
        "facts": {},
    }
    try:
        if entered:
            record |= _raced(entered, load(data), unit)
        record |= {"status": "measured", "reason": ""}
    except InfraError as error:
        record |= {"status": "infra-error", "reason": str(error)}
        show(InfraError(record["reason"], where=f"race on {unit.name}"))
    record["programs"] = {
        one.key: {"bundle_sha256": one.bundle.sha256, "measure": one.how.model_dump(mode="json")}
        for one in entered
        if one.key not in record["failed"]
    }
    write_json(out, record)


def _raced(entered: Sequence[Program], data: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    first = {name: array[:1] for name, array in data.items() if name.startswith("input.")}
    wanted = max(one.how.rounds for one in entered)
    with (
        _alone(unit),
        lease.leased(unit, wait=WAIT_SECONDS, ttl=TTL_SECONDS, say=say) as device,
        tempfile.TemporaryDirectory() as temporary,
    ):
        inputs = Path(temporary) / INPUTS
        inputs.write_bytes(to_bin(first, "input."))
        for one in entered:
            deployment.send(one.bundle, one.runtime, device, {INPUTS: inputs}, one.folder)
        turns = {one.key: _turn_of(one, device, wanted) for one in entered}
        return rounds.taken(turns, device, wanted=wanted, say=say)


@contextmanager
def _alone(unit: Unit) -> Iterator[None]:
    """While nothing else of ours works on this host, if the unit is this host.

    Before the lease: a step that has the lease ends, one that waits for it does not. Whoever keeps
    it for a whole build goes first, though: each step of that build would wait for us, who wait.
    """
    if unit.driver != "local":
        yield
        return
    with lease.leased(unit, wait=WAIT_SECONDS, say=say):
        pass
    with quiet.alone(lambda: say("waiting until nothing else of ours works here")):
        yield


def _turn_of(one: Program, device: Device, wanted: int) -> rounds.Turn:
    def turn() -> Mapping[str, Any]:
        try:
            return one.turn(device, wanted)
        except CheckFailed:
            deployment.refuse_damaged(one.bundle, one.runtime, device, one.folder)
            raise

    return turn


if __name__ == "__main__":
    step(run)
