"""Programs take turns; a disturbed round is repeated; one that breaks leaves the others racing.

The runner is a shell script here, and the device a folder: faults that real ones show too rarely.
"""

from __future__ import annotations

import itertools
import json
import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from safetensors.numpy import save_file

from toolchain import devices, quiet, racing, schema
from toolchain.devices import guards, lease
from toolchain.devices.fake import FakeDevice
from toolchain.devices.unix import UnixDevice
from toolchain.steps import compare, race
from toolchain.tests.test_measure import RUNTIME, packed

REPORT = {
    "iterations": {"wall_ns": [30, 10, 20]},
    "guards": {},
    "threads": 1,
    "load_ns": 1,
    "peak_rss_bytes": 1,
}
WORKS = f"#!/bin/sh\necho '{json.dumps(REPORT)}'\n"
CRASHES = "#!/bin/sh\nkill -SEGV $$\n"


@pytest.fixture
def raced(tmp_path, monkeypatch):
    """Race bundles with these runners; `disturbed`: what the guards say of each turn, in order."""

    def run(runners, disturbed=(), faults=None, statuses=None, rounds=2):
        looks = itertools.count()  # one before the first turn, two around each
        monkeypatch.setattr(devices, "connect", lambda _: FakeDevice(faults=faults))
        monkeypatch.setattr(guards, "take", lambda _: {"look": next(looks)})
        monkeypatch.setattr(guards, "pace", lambda _: 1)
        monkeypatch.setattr(
            guards,
            "moved",
            lambda before, *_, **__: dict(enumerate(disturbed)).get((before["look"] - 1) // 2, []),
        )
        monkeypatch.setattr(guards, "notes", lambda _: [])
        monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
        data = np.arange(6, dtype=np.float32).reshape(3, 1, 2)
        save_file({"input.0": data, "label": np.zeros(3)}, tmp_path / "data.safetensors")
        (tmp_path / "device.json").write_text(schema.Device(name="fake", driver="ssh").canonical())
        how = schema.Measure(latency_samples=6, rounds=rounds)
        (tmp_path / "settings.json").write_text(how.canonical())
        (tmp_path / "runtime.json").write_text(json.dumps(RUNTIME))
        bundles, samples = [], []
        for k, script in enumerate(runners):
            (tmp_path / f"{k}").mkdir(exist_ok=True)
            bundles.append(packed(tmp_path / f"{k}", script, variant=f"v{k}"))
            samples.append(tmp_path / f"{k}" / "samples.json")
            status = (statuses or {}).get(k, "measured")
            runner = {"iterations": {"wall_ns": [10]}}
            record = {"variant": f"v{k}", "backend": "xnnpack", "status": status, "runner": runner}
            samples[-1].write_text(json.dumps({**record, "recipe": "tiny", "target": "here"}))
        race.run(
            bundle=bundles,
            runtime=[tmp_path / "runtime.json"] * len(bundles),
            samples=samples,
            data=tmp_path / "data.safetensors",
            device=tmp_path / "device.json",
            settings=[tmp_path / "settings.json"] * len(bundles),
            out=tmp_path / "race.json",
        )
        return json.loads((tmp_path / "race.json").read_bytes())

    return run


def test_each_program_takes_a_turn_in_each_round_and_begins_in_its_turn(raced):
    record = raced([WORKS, WORKS, WORKS], rounds=3)
    assert record["status"] == "measured"
    orders = [one["order"] for one in record["rounds"]]
    names = [f"v{k}/xnnpack" for k in range(3)]
    assert orders == [names, [names[1], names[2], names[0]], [names[2], names[0], names[1]]]
    assert racing.wall_ns(record, "v1/xnnpack") == [30, 10, 20] * 3


def test_a_disturbed_round_is_kept_repeated_and_does_not_count(raced):
    record = raced([WORKS, WORKS], disturbed=[[], ["the clock fell"]])
    assert len(record["rounds"]) == 3
    assert len(racing.wall_ns(record, "v0/xnnpack")) == 2 * 3
    assert racing.moved(record) == []


def test_a_machine_that_is_never_calm_is_told(raced):
    record = raced([WORKS], disturbed=[["the clock fell"]] * 99)
    assert len(record["rounds"]) == 4, "twice as often as asked for"
    assert racing.moved(record) == ["disturbed in 4 of 4 rounds", "the clock fell"]


def test_a_program_that_breaks_leaves_the_others_racing(raced, capfd):
    record = raced([WORKS, CRASHES])
    assert record["status"] == "measured"
    assert list(record["programs"]) == ["v0/xnnpack"]
    assert "SIGSEGV" in record["failed"]["v1/xnnpack"]
    assert all(list(one["runs"]) == ["v0/xnnpack"] for one in record["rounds"])
    assert "v1/xnnpack" in capfd.readouterr().err


DAMAGED = """#!/bin/sh
program=$(readlink -f program.pte)
chmod u+w "$program" && echo damaged >"$program"
kill -SEGV $$
"""


def test_a_program_that_was_damaged_on_the_device_is_not_blamed(raced):
    record = raced([WORKS, DAMAGED])
    assert record["status"] == "infra-error"
    assert "files that stay on the device were damaged" in record["reason"]
    assert record["failed"] == {}


def test_whoever_has_this_host_for_a_whole_build_goes_first(tmp_path, monkeypatch):
    """To be alone here would stop that build's steps, and its lease would never end."""
    for name in ("SLIPWAY_LEASE", "SLIPWAY_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    here = devices.resolve("local")
    with ExitStack() as stack, devices.connect(here) as builds:
        assert isinstance(builds, UnixDevice)
        stack.enter_context(lease.hold(builds, owner="a build"))
        ending = threading.Timer(0.5, stack.close)
        ending.start()
        held = []

        @contextmanager
        def alone(_waiting):
            held.append(lease.status(builds))
            yield

        monkeypatch.setattr(quiet, "alone", alone)
        with race._alone(here):
            pass
        ending.join()
    assert held == [None]


def test_only_what_could_be_measured_takes_part(raced):
    record = raced([WORKS, WORKS], statuses={0: "failed"})
    assert list(record["programs"]) == ["v1/xnnpack"]
    assert raced([WORKS], statuses={0: "failed"})["rounds"] == []


def test_a_comparison_needs_no_program_to_be_left(raced, tmp_path):
    raced([WORKS], statuses={0: "failed"})
    outputs = tmp_path / "0" / "outputs.safetensors"
    save_file({}, outputs)
    compare.run(
        race=tmp_path / "race.json",
        samples=[tmp_path / "0" / "samples.json"],
        outputs=[outputs],
        profile=[tmp_path / "none.bin"],
        out=tmp_path / "comparison.json",
    )
    found = json.loads((tmp_path / "comparison.json").read_bytes())
    assert (found["programs"], found["backends"], found["pays"]) == ({}, [], [])
