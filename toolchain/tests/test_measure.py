"""What a measurement says when the program, or the device, does not do its part.

The runner is a shell script here, and the device a folder: faults that real ones show too rarely.
"""

from __future__ import annotations

import json
import platform

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from toolchain import bundle, devices, schema
from toolchain.devices.fake import FakeDevice
from toolchain.errors import UserError
from toolchain.steps import measure

REPORT = {
    "threads": 1,
    "load_ns": 1,
    "peak_rss_bytes": 1,
    "outputs": [{"dtype": "float32", "shape": [1, 2]}],
    "instructions_unavailable": None,
    "samples": {"wall_ns": [1, 1], "instructions": [1, 1]},
    "iterations": {"wall_ns": [1], "instructions": [1]},
}
RUNTIME = {"name": "executorch", "digest": "0" * 64, "apart": False, "files": {}}
WORKS = f"""#!/bin/sh
cp evaluation.bin outputs.bin
echo '{json.dumps(REPORT)}'
"""


def packed(folder, script: str, **changes):
    files = {"runner": script.encode(), "program.pte": b"program"}
    manifest = {
        "schema": bundle.SCHEMA,
        "recipe": "tiny",
        "variant": "int8",
        "scheme": "int8_static",
        "backend": "xnnpack",
        "target": "here",
        "arch": platform.machine(),
        "program": "program.pte",
        "load_libraries": [],
        "runtime": RUNTIME,
        "floor": [],
        "needs": [],
        "environment": {},
        "abi_floor": {"glibc": "2.4"},
        "delegated_share": 1.0,
        "delegates": 1,
        "undelegated": {},
        "remarks": [],
        "not_quantized": {},
        "tools": {"torch": "1"},
        "bytes": {"program": 1},
        "files": {n: {"bytes": len(d), "sha256": bundle.digest(d)} for n, d in files.items()},
        **changes,
    }
    path = folder / "bundle.tar"
    path.write_bytes(bundle.write(files, manifest))
    return path


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measure a bundle whose runner is `script` on a device with `faults`."""

    def run(script: str = WORKS, faults=None, timeout: float = 20.0, **changes):
        monkeypatch.setattr(devices, "connect", lambda _: FakeDevice(faults=faults))
        data = np.arange(6, dtype=np.float32).reshape(3, 1, 2)
        save_file({"input.0": data, "label": np.zeros(3)}, tmp_path / "data.safetensors")
        unit = schema.Device(name="fake", driver="qemu")
        (tmp_path / "device.json").write_text(unit.canonical())
        settings = schema.Measure(samples=2, timeout=timeout)
        (tmp_path / "settings.json").write_text(settings.canonical())
        (tmp_path / "runtime.json").write_text(json.dumps(RUNTIME))
        out = tmp_path / "samples.json"
        measure.run(
            bundle=packed(tmp_path, script, **changes),
            runtime=tmp_path / "runtime.json",
            data=tmp_path / "data.safetensors",
            device=tmp_path / "device.json",
            settings=tmp_path / "settings.json",
            out=out,
            outputs=tmp_path / "outputs.safetensors",
        )
        return json.loads(out.read_bytes()), load_file(tmp_path / "outputs.safetensors")

    return run


def test_a_measurement_takes_as_many_samples_as_it_is_told(measured):
    record, outputs = measured()
    assert record["status"] == "measured"
    assert (record["samples"], record["samples_available"]) == (2, 3)
    np.testing.assert_array_equal(outputs["output.0"], [[[0, 1]], [[2, 3]]])
    assert record["provenance"]["tools"] == {"torch": "1"}
    assert record["provenance"]["device"]["cpu"] == "fake"


CRASHES = {
    "crash": ("#!/bin/sh\nkill -SEGV $$\n", "SIGSEGV"),
    "bad status": ("#!/bin/sh\necho 'runner: it is corrupt' >&2\nexit 3\n", "it is corrupt"),
    "inference": ("#!/bin/sh\necho 'runner: forward failed' >&2\nexit 4\n", "forward failed"),
}


@pytest.mark.parametrize("case", CRASHES)
def test_a_program_that_does_not_run_is_a_failure_of_the_product(measured, case, capfd):
    script, told = CRASHES[case]
    record, outputs = measured(script)
    assert record["status"] == "failed"
    assert told in record["reason"]
    assert told in capfd.readouterr().err
    assert outputs == {}


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ({1: "lost"}, "connection was lost"),
        ({2: "full"}, "device is full"),
        ({2: "damaged"}, "arrived damaged"),
        ({3: "lost"}, "connection was lost"),
        ({4: "lost"}, "connection was lost"),
    ],
)
def test_a_device_that_breaks_says_nothing_of_the_product(measured, faults, told):
    record, _ = measured(faults=faults)
    assert record["status"] == "infra-error"
    assert told in record["reason"]


def test_a_disk_that_fills_while_the_runner_writes_is_an_infra_error(measured):
    record, _ = measured("#!/bin/sh\necho 'runner: outputs.bin: No space left' >&2\nexit 5\n")
    assert record["status"] == "infra-error"
    assert "No space left" in record["reason"]


@pytest.mark.parametrize("name", ["HUP", "TERM"])
def test_a_runner_that_somebody_ends_says_nothing_of_the_product(measured, name):
    """As a device does that is shut down while its connections still stand."""
    record, _ = measured(f"#!/bin/sh\nkill -{name} $$\n")
    assert record["status"] == "infra-error"
    assert f"SIG{name}" in record["reason"]


@pytest.mark.parametrize("status", [1, 126, 127])
def test_a_runner_that_the_device_cannot_start_is_an_infra_error(measured, status):
    record, _ = measured(f"#!/bin/sh\necho 'cannot open shared object' >&2\nexit {status}\n")
    assert record["status"] == "infra-error"
    assert "cannot open shared object" in record["reason"]


def test_no_end_in_time_is_an_infra_error(measured):
    record, _ = measured("#!/bin/sh\nexec sleep 60\n", timeout=0.5)
    assert record["status"] == "infra-error"
    assert "no end after 0.5 s" in record["reason"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arch": "riscv64"}, "the bundle is for riscv64"),
        ({"abi_floor": {"glibc": "9.1"}}, "the bundle needs glibc 9.1"),
        ({"floor": ["no_such_flag"]}, "the device's CPU lacks no_such_flag"),
    ],
)
def test_an_unfit_device_is_refused_before_anything_runs(measured, changes, told):
    record, _ = measured(**changes)
    assert record["status"] == "infra-error"
    assert told in record["reason"]


def test_a_runner_that_reports_nonsense_is_a_failure(measured):
    record, _ = measured("#!/bin/sh\necho 'not json'\n")
    assert record["status"] == "failed"
    assert "no report" in record["reason"]


def test_a_damaged_bundle_is_refused(measured, tmp_path):
    measured()
    tar = (tmp_path / "bundle.tar").read_bytes()
    (tmp_path / "bundle.tar").write_bytes(tar.replace(b"cp evaluation", b"rm evaluation"))
    with pytest.raises(UserError, match="digest"):
        bundle.Bundle.open(tmp_path / "bundle.tar").extract(tmp_path / "x")
