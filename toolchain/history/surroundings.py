"""What must be alike for two measurements to be compared: the kind of machine, and the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolchain.history.costs import facts

# Of the device, in the words of its facts. Tools and runtimes are of the product: they may regress.
OF_DEVICE = {
    "cpu": "the CPU",
    "machine": "the machine's architecture",
    "model": "the unit's model",
    "cores": "the number of cores",
    "kernel": "the kernel",
    "libc": "the C library",
    "emulator": "the emulator",
    "board": "the board's image",
}
OF_ROW = {"samples": "the number of samples", "threads": "the number of threads"}


def of(row: Mapping[str, Any]) -> dict[str, str]:
    """What a measurement was taken in, by words for people."""
    told = facts(row)
    found = {words: told.get(name, "none") for name, words in OF_DEVICE.items()}
    found |= {words: str(row.get(name)) for name, words in OF_ROW.items()}
    evaluation = (row.get("provenance") or {}).get("evaluation_sha256")
    return found | {"the evaluation data": str(evaluation)[:12]}


def changed(now: Mapping[str, Any], was: Mapping[str, Any]) -> list[str]:
    """What differs between two measurements, such as `the kernel: 6.1, was 5.10`."""
    ours, theirs = of(now), of(was)
    return [
        f"{what}: {ours[what]}, was {theirs[what]}" for what in ours if ours[what] != theirs[what]
    ]
