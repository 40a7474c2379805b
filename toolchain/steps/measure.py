"""Put a bundle on a device, run the evaluation samples and the cost measurement there.

Writes what happened in every case, since "the device broke" and "the program broke" are results
too; the build takes a result with status `infra-error` for missing and measures again.
"""

from __future__ import annotations

import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save

from toolchain import devices
from toolchain.atomic import write_bytes, write_json
from toolchain.bundle import Bundle, digest
from toolchain.devices.base import Completed, Device
from toolchain.errors import CheckFailed, InfraError, show
from toolchain.samples import from_bin, to_bin
from toolchain.schema import Device as Unit
from toolchain.schema import Measure, decode_json
from toolchain.steps.main import say, step

SCHEMA = 1
FILE_TROUBLE = 5  # the runner's status for files that cannot be read or written: a full disk
LOAD_FACTS = ("delegates", "delegated_share", "undelegated", "not_quantized")
INPUTS, OUTPUTS = "evaluation.bin", "outputs.bin"


def run(
    *, bundle: Path, data: Path, device: Path, settings: Path, out: Path, outputs: Path
) -> None:
    """Measure `bundle` on the device described by `device`, with the samples in `data`."""
    unit, how = decode_json(Unit, device), decode_json(Measure, settings)
    packed = Bundle.open(bundle)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        **{n: packed.manifest[n] for n in ("recipe", "variant", "scheme", "backend", "target")},
        "bytes": {**packed.manifest["bytes"], "bundle": bundle.stat().st_size},
        "load": {name: packed.manifest[name] for name in LOAD_FACTS},
        "device": {"name": unit.name, "emulated": unit.driver == "qemu"},
        "provenance": {
            "bundle_sha256": packed.sha256,
            "evaluation_sha256": digest(data.read_bytes()),
            "tools": packed.manifest["tools"],
            "taken_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    }
    found: dict[str, Any] = {}
    try:
        with devices.connect(unit) as connected:
            record["provenance"]["device"] = facts = connected.facts()
            refuse_unfit(packed, facts)
            found = _measured(packed, load_file(data), connected, how)
        record |= {"status": "measured", "reason": "", **found.pop("record")}
    except CheckFailed as error:
        record |= {"status": "failed", "reason": str(error)}
    except InfraError as error:
        record |= {"status": "infra-error", "reason": str(error)}
    if record["status"] != "measured":
        show(InfraError(record["reason"], where=f"{unit.name}: {bundle}"))
    write_bytes(outputs, save(found.get("outputs", {})))
    write_json(out, record)


def refuse_unfit(bundle: Bundle, facts: dict[str, str]) -> None:
    """Raise InfraError if the device cannot load the bundle: another machine, or too old a libc."""
    arch, floor = bundle.manifest["arch"], bundle.manifest["abi_floor"]["glibc"]
    if facts["machine"] != arch:
        raise InfraError(f"the bundle is for {arch}, the device is {facts['machine']}")
    if _version(facts["libc"]) < _version(floor):
        raise InfraError(f"the bundle needs glibc {floor}, the device has {facts['libc']}")


def _measured(bundle: Bundle, data: dict[str, Any], device: Device, how: Measure) -> dict[str, Any]:
    available = len(data["input.0"])
    limit = how.emulated_samples if device.emulated and how.emulated_samples else how.samples
    count = min(available, limit or available)
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        bundle.extract(here / "bundle")
        inputs = {n: a[:count] for n, a in data.items() if n.startswith("input.")}
        (here / INPUTS).write_bytes(to_bin(inputs, "input."))
        files = {n: here / "bundle" / n for n in bundle.manifest["files"]}
        device.put({**files, INPUTS: here / INPUTS})
        argv = bundle.argv(
            inputs=INPUTS,
            outputs=OUTPUTS,
            threads=how.threads,
            warmup=how.warmup,
            iterations=how.iterations,
        )
        say(f"{device.name}: {count} of {available} samples, {how.iterations} iterations")
        done = device.run(argv, timeout=how.timeout)
        report = _report(done)
        device.get(OUTPUTS, here / OUTPUTS)
        outputs = from_bin((here / OUTPUTS).read_bytes(), report["outputs"])
    return {
        "outputs": outputs,
        "record": {"samples": count, "samples_available": available, "runner": report},
    }


def _report(done: Completed) -> dict[str, Any]:
    """What the runner printed; CheckFailed if it did not end well: that is the product's fault."""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    last = said[-1] if said else "it said nothing"
    if done.signal:
        raise CheckFailed(f"the runner was killed by {done.signal} on the device; last: {last}")
    if done.status == FILE_TROUBLE:
        raise InfraError(f"the runner could not read or write its files: {last}")
    if done.status and not last.startswith("runner: "):  # the loader or the shell spoke, not ours
        raise InfraError(f"the runner did not start (status {done.status}): {last}")
    if done.status:
        raise CheckFailed(f"the runner ended with status {done.status} on the device: {last}")
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise CheckFailed(f"the runner gave no report: {done.stdout[:200]!r}") from None
    return report


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


if __name__ == "__main__":
    step(run)
