"""Put a bundle on a device, run the evaluation samples and the cost measurement there.

Writes what happened in every case, since "the device broke" and "the program broke" are results
too; the build takes a result with status `infra-error` for missing and measures again.
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from toolchain import deployment
from toolchain.atomic import write_bytes, write_json
from toolchain.bundle import Bundle, digest
from toolchain.devices import lease, preflight
from toolchain.devices.base import Device
from toolchain.errors import CheckFailed, InfraError, show
from toolchain.samples import from_bin, load, to_bin
from toolchain.schema import Device as Unit
from toolchain.schema import Measure, decode_json
from toolchain.steps.main import NONE, say, step

SCHEMA = 2
LOAD_FACTS = ("delegates", "delegated_share", "undelegated", "remarks", "not_quantized")
WAIT_SECONDS = 1800.0  # for whoever has the device
INPUTS, OUTPUTS, PROFILE = "evaluation.bin", "outputs.bin", "profile.bin"


def run(
    *,
    bundle: Path,
    runtime: Path,
    data: Path,
    device: Path,
    settings: Path,
    out: Path,
    outputs: Path,
    profile: Path = NONE,
) -> None:
    """Measure `bundle` on the device described by `device`, with the samples in `data`.

    runtime: description of the bundle's runtime, with its libraries in `lib` beside it.
    profile: where the operators' times go, as the runner wrote them; if they are wanted.
    """
    unit, how = decode_json(Unit, device), decode_json(Measure, settings)
    packed = Bundle.open(bundle)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        **{n: packed.manifest[n] for n in ("recipe", "variant", "scheme", "backend", "target")},
        "bytes": {**packed.manifest["bytes"], "bundle": bundle.stat().st_size},
        "runtime": packed.manifest["runtime"],
        "load": {name: packed.manifest[name] for name in LOAD_FACTS},
        "device": {"name": unit.name, "emulated": unit.emulated},
        "provenance": {
            "bundle_sha256": packed.sha256,
            "evaluation_sha256": digest(data.read_bytes()),
            "tools": packed.manifest["tools"],
            "taken_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    }
    found: dict[str, Any] = {}
    try:
        with lease.leased(unit, wait=WAIT_SECONDS, say=say) as connected:
            facts = connected.facts()
            record["provenance"]["device"] = preflight.lasting(facts)
            preflight.check(packed.manifest, facts)
            try:
                found = _measured(packed, runtime, load(data), connected, how, profile != NONE)
            except CheckFailed:
                deployment.refuse_damaged(packed, runtime, connected)
                raise
        record |= {"status": "measured", "reason": "", **found.pop("record")}
    except CheckFailed as error:
        record |= {"status": "failed", "reason": str(error)}
    except InfraError as error:
        record |= {"status": "infra-error", "reason": str(error)}
    if record["status"] != "measured":
        show(InfraError(record["reason"], where=f"{unit.name}: {bundle}"))
    write_bytes(outputs, save(found.get("outputs", {})))
    if profile != NONE:
        write_bytes(profile, found.get("profile", b""))
    write_json(out, record)


def _measured(
    bundle: Bundle,
    runtime: Path,
    data: dict[str, Any],
    device: Device,
    how: Measure,
    profiled: bool,
) -> dict[str, Any]:
    available = len(data["input.0"])
    limit = how.emulated_samples if device.emulated and how.emulated_samples else how.samples
    count = min(available, limit or available)
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        inputs = {n: a[:count] for n, a in data.items() if n.startswith("input.")}
        (here / INPUTS).write_bytes(to_bin(inputs, "input."))
        # An emulated board has no disk that ages, and would hash a large runtime for a minute.
        thorough = not device.emulated
        deployment.send(bundle, runtime, device, {INPUTS: here / INPUTS}, thorough=thorough)
        argv = bundle.argv(
            inputs=INPUTS,
            outputs=OUTPUTS,
            threads=how.threads,
            warmup=how.warmup,
            iterations=how.iterations,
            pin=how.pin and not device.emulated,
            profile=PROFILE if profiled else None,
        )
        say(f"{device.name}: {count} of {available} samples, {how.iterations} iterations")
        report = deployment.report(device.run(argv, timeout=how.timeout))
        device.get(OUTPUTS, here / OUTPUTS)
        outputs = from_bin((here / OUTPUTS).read_bytes(), report["outputs"])
        times = b""
        if profiled:
            device.get(PROFILE, here / PROFILE)
            times = (here / PROFILE).read_bytes()
    record = {"samples": count, "samples_available": available, "runner": report}
    return {"outputs": outputs, "profile": times, "record": record}


if __name__ == "__main__":
    step(run)
