"""What clients do while faults happen: push a bundle, or measure one."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from safetensors.numpy import load_file, save_file

from toolchain import bundle as bundles
from toolchain import schema
from toolchain.atomic import read_json
from toolchain.bundle import Bundle
from toolchain.devices import deploy, lease, trees
from toolchain.devices.ssh import SshDevice
from toolchain.samples import from_bin
from toolchain.steps import measure
from toolchain.tests.campaign.benches import Bench, connect

SLOT = "camera"
TTL = 1.0  # seconds: how long a client that is gone keeps the device
WAIT = 20.0
KEEP = deploy.Keep(trees=3)


@dataclass(frozen=True)
class Product:
    """A bundle of a build, the description of its runtime beside its libraries."""

    bundle: Path
    runtime: Path

    @classmethod
    def of_build(cls, bundle: Path) -> Product:
        """bundle: build/<recipe>/<variant>/<backend>/<target>/bundle.tar."""
        target, build = bundle.parent.name, bundle.parents[4]
        name = Bundle.open(bundle).manifest["runtime"]["name"]
        return cls(bundle, build / "runtime" / target / name / "runtime.json")

    @property
    def tree(self) -> str:
        """Its digest on a device."""
        return trees.of_bundle(Bundle.open(self.bundle), self.runtime).digest

    def other(self, to: Path, chance: random.Random) -> Product:
        """The same with some hundred kB that no device has seen."""
        packed = Bundle.open(self.bundle)
        files = {name: packed.read(name) for name in packed.manifest["files"]}
        files["weights.bin"] = chance.randbytes(chance.randint(1_000, 400_000))
        manifest = {**packed.manifest, "files": {**packed.manifest["files"]}}
        data = files["weights.bin"]
        manifest["files"]["weights.bin"] = {"bytes": len(data), "sha256": bundles.digest(data)}
        to.write_bytes(bundles.write(files, manifest))
        return Product(to, self.runtime)


def push(unit: schema.Device, product: Product, thorough: bool = False) -> deploy.Pushed:
    with lease.leased(unit, ttl=TTL, wait=WAIT, say=_nothing) as device:
        assert isinstance(device, SshDevice)
        return placed(device, product, thorough)


def placed(device: SshDevice, product: Product, thorough: bool = False) -> deploy.Pushed:
    packed = Bundle.open(product.bundle)
    return deploy.push(device, SLOT, packed, product.runtime, KEEP, thorough)


def measured(unit: schema.Device, product: Product, folder: Path) -> str:
    """The status of a measurement by the step itself. AssertionError if its outputs are wrong."""
    packed = Bundle.open(product.bundle)
    folder.mkdir(exist_ok=True)
    (folder / "device.json").write_text(unit.canonical())
    (folder / "measure.json").write_text(schema.Measure(iterations=2, pin=False).canonical())
    save_file(_samples(packed), folder / "data.safetensors")
    brief = functools.partial(lease.leased, ttl=TTL)
    with mock.patch.object(lease, "leased", brief), mock.patch.object(measure, "show"):
        measure.run(
            bundle=product.bundle,
            runtime=product.runtime,
            data=folder / "data.safetensors",
            device=folder / "device.json",
            settings=folder / "measure.json",
            out=folder / "samples.json",
            outputs=folder / "outputs.safetensors",
        )
    status = str(read_json(folder / "samples.json")["status"])
    if status == "measured":
        specs = read_json(folder / "samples.json")["runner"]["outputs"]
        exact = from_bin(packed.read(bundles.SELF_TEST_EXPECTED), specs)
        for name, made in load_file(folder / "outputs.safetensors").items():
            np.testing.assert_allclose(made, exact[name], rtol=1e-3, atol=1e-3)
    return status


def _samples(packed: Bundle) -> dict[str, np.ndarray]:
    specs = packed.manifest["inputs"]
    return from_bin(packed.read(bundles.SELF_TEST_INPUTS), specs, "input.")


def look(device: SshDevice) -> tuple[str | None, list[str]]:
    """The digest of the slot's tree, if it has one, and the names of its damaged files."""
    there = {slot.name: slot for slot in deploy.slots(device)}
    if SLOT not in there:
        return None, []
    return there[SLOT].current, deploy.verify(device, SLOT)


@contextmanager
def freed(bench: Bench) -> Iterator[SshDevice]:
    """The device, held. What is left of a lease is at most TTL, in seconds of the device's own.

    An emulated board's seconds are longer than ours when this host is busy.
    """
    with connect(bench) as device:
        holder = lease.status(device)
        assert holder is None or holder.left <= TTL
        with lease.hold(device, ttl=60, wait=WAIT, say=_nothing):
            yield device


def _nothing(_line: str) -> None:
    pass


def described(unit: schema.Device, product: Product) -> str:
    """For a client that is a process of its own."""
    paths = {"bundle": str(product.bundle), "runtime": str(product.runtime)}
    return json.dumps({"unit": unit.model_dump(mode="json"), **paths})
