"""Whether a device can run a bundle: told before anything is sent, naming both sides."""

from __future__ import annotations

import time

import pytest

from toolchain.devices import preflight
from toolchain.devices.fake import FakeDevice
from toolchain.errors import InfraError

MANIFEST = {
    "arch": "aarch64",
    "target": "arm64",
    "abi_floor": {"glibc": "2.34"},
    "floor": ["asimddp"],
    "files": {"program.pte": {"bytes": 3000}, "runner": {"bytes": 1000}},
    "runtime": {"apart": True, "bytes": 6000},
}
NOW = 1_800_000_000
FACTS = {
    "machine": "aarch64",
    "libc": "2.36",
    "cpu_flags": "asimd asimddp fp",
    "memory_available": "10000",
    "clock": str(NOW),
}


def test_a_device_that_fits():
    preflight.check(MANIFEST, FACTS, now=NOW)


WRONG = {
    "machine": ("x86_64", "the bundle is for aarch64, the device is x86_64"),
    "libc": ("2.31", r"needs glibc 2\.34, the device has 2\.31"),
    "cpu_flags": ("asimd fp", "lacks asimddp: it is below the floor of the target arm64"),
    "memory_available": ("9999", "at least 10000 bytes of memory .* the device has 9999"),
    "clock": (str(NOW + 601), "device's clock shows 2027-01-15 08:10:01 UTC, this host's 2027-01"),
    "lacks": ("flock", "the device has no command 'flock'"),
}


@pytest.mark.parametrize("fact", WRONG)
def test_what_does_not_fit_is_told_with_both_sides(fact):
    value, told = WRONG[fact]
    with pytest.raises(InfraError, match=told) as raised:
        preflight.check(MANIFEST, FACTS | {fact: value}, now=NOW)
    assert raised.value.hint


@pytest.mark.parametrize("ahead", [-600, 600])
def test_a_clock_that_is_a_little_off(ahead):
    preflight.check(MANIFEST, FACTS | {"clock": str(NOW + ahead)}, now=NOW)


def test_an_emulated_board_knows_no_time():
    preflight.check(MANIFEST, FACTS | {"clock": "0", "emulator": "QEMU 7.2.0"}, now=NOW)


@pytest.mark.parametrize("fact", ["cpu_flags", "memory_available", "clock"])
def test_what_a_device_does_not_tell_is_no_lack(fact):
    preflight.check(MANIFEST, FACTS | {fact: "unknown"}, now=NOW)


def test_the_program_and_its_libraries_have_to_fit_into_memory():
    there = int(FACTS["memory_available"])
    with pytest.raises(InfraError, match=f"at least 10000 bytes .* the device has {there - 1} "):
        preflight.check(MANIFEST, FACTS | {"memory_available": str(there - 1)}, now=NOW)


def test_libraries_inside_the_bundle_count_once():
    apart = {"apart": False, "bytes": 6000}
    assert preflight.least_memory(MANIFEST | {"runtime": apart}) == 4000


def test_a_real_system_tells_what_is_asked_for():
    with FakeDevice() as device:
        facts = device.facts()
    assert abs(int(facts["clock"]) - time.time()) < 30
    assert 0 < int(facts["memory_available"]) <= int(facts["memory"])
    assert "lacks" not in facts


def test_provenance_does_not_tell_the_moment():
    assert set(preflight.lasting(FACTS)) == {"machine", "libc", "cpu_flags"}
