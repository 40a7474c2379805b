"""Who takes part in a race, and how each takes its turn: a process of its own on this host."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors.numpy import load_file

from toolchain import backends, bootstrap, deployment
from toolchain.benchmarks import environment
from toolchain.benchmarks.conversions import Converted, last_line
from toolchain.benchmarks.products import Product
from toolchain.devices.base import Completed, Device
from toolchain.errors import CheckFailed
from toolchain.samples import Array, from_bin, to_bin

ONE, ALL = "one", "all"  # input files: the sample that is timed, and all of the evaluation
SECONDS = 1800.0  # for a turn
Report = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """Where the inputs stand, for the peers (safetensors) and for the runner (raw bytes)."""

    folder: Path

    @classmethod
    def written(cls, tensors: Mapping[str, Array], folder: Path) -> Data:
        from safetensors.numpy import save_file

        inputs = {n: array for n, array in tensors.items() if n.startswith("input.")}
        for name, some in ((ONE, {n: a[:1] for n, a in inputs.items()}), (ALL, inputs)):
            save_file(some, folder / f"{name}.safetensors")
            (folder / f"{name}.bin").write_bytes(to_bin(some))
        return cls(folder)


class Entrant(Protocol):
    """name: in the table. ours: whether it is one of Slipway's programs. bytes: of its model."""

    name: str
    ours: bool
    bytes: int

    def enter(self, device: Device) -> None:
        """Bring to the device what it runs with."""

    def outputs(self, device: Device, threads: int) -> dict[str, Array]:
        """Of all evaluation samples: `output.k` [N, …]."""

    def turn(self, device: Device, threads: int, warmup: int, iterations: int) -> Report:
        """Times and guards, as the runner reports them; CheckFailed if it does not end well."""

    def operators(self, device: Device, threads: int) -> list[dict[str, Any]]:
        """Where the time of an inference goes; empty if it does not tell."""


class Ours:
    ours = True

    def __init__(self, product: Product, data: Data, folder: str) -> None:
        self.name, self.bytes = f"slipway {product.name}", product.bytes
        self._product, self._data, self._folder = product, data, folder

    def enter(self, device: Device) -> None:
        files = {f"{name}.bin": self._data.folder / f"{name}.bin" for name in (ONE, ALL)}
        at = self._product
        deployment.send(at.bundle, at.runtime, device, files, self._folder)

    def outputs(self, device: Device, threads: int) -> dict[str, Array]:
        report = self._run(device, inputs=f"{ALL}.bin", threads=threads)
        return from_bin(self._fetched(device, "outputs.bin").read_bytes(), report["outputs"])

    def turn(self, device: Device, threads: int, warmup: int, iterations: int) -> Report:
        return self._run(
            device, inputs=f"{ONE}.bin", threads=threads, warmup=warmup, iterations=iterations
        )

    def operators(self, device: Device, threads: int) -> list[dict[str, Any]]:
        self._run(device, inputs=f"{ONE}.bin", threads=threads, warmup=8, profile="profile.bin")
        backend = backends.load(self._product.layout.backend)
        return backend.profile(self._fetched(device, "profile.bin"))

    def _run(self, device: Device, **options: Any) -> Report:
        argv = self._product.bundle.argv(outputs="outputs.bin", pin=True, **options)
        return deployment.run(device, self._folder, argv, SECONDS)

    def _fetched(self, device: Device, name: str) -> Path:
        to = self._data.folder / f"{self._folder}.{name}"
        device.get(f"{self._folder}/{name}", to)
        return to


class Theirs:
    ours = False

    def __init__(self, made: Converted, data: Data, size: int) -> None:
        self.name, self.bytes = made.name, size
        self._made, self._data = made, data

    def enter(self, device: Device) -> None:
        """It stands on this host already."""

    def outputs(self, device: Device, threads: int) -> dict[str, Array]:
        to = self._data.folder / "outputs.safetensors"
        self._run(device, ALL, threads, [f"--outputs={to}"])
        return dict(load_file(to))

    def turn(self, device: Device, threads: int, warmup: int, iterations: int) -> Report:
        return self._run(device, ONE, threads, [f"--warmup={warmup}", f"--iterations={iterations}"])

    def operators(self, device: Device, threads: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._run(device, ONE, threads, ["--profile=1"])["operators"]
        return found

    def _run(self, device: Device, inputs: str, threads: int, more: Sequence[str]) -> Report:
        argv = [
            "env", f"PYTHONPATH={bootstrap.ROOT}", "PYTHONDONTWRITEBYTECODE=1",
            str(environment.VENV / "bin" / "python"), "-m", "toolchain.benchmarks.contender",
            f"--peer={self._made.peer}", f"--model={self._made.model}", f"--threads={threads}",
            f"--inputs={self._data.folder / f'{inputs}.safetensors'}", *more,
        ]  # fmt: skip
        return report(device.run(argv, timeout=SECONDS), self.name)


def report(done: Completed, name: str) -> Report:
    """What a contender printed last; CheckFailed if it did not end well."""
    said = done.stdout.decode(errors="replace").strip().splitlines()
    if done.status:
        why = done.signal or last_line(done.stderr.decode(errors="replace"))
        raise CheckFailed(why or f"status {done.status}", where=name)
    try:
        found: Report = json.loads(said[-1])
    except (IndexError, ValueError):
        raise CheckFailed(f"gave no report: {said[-1:]}", where=name) from None
    return found
