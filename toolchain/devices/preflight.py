"""Whether a device can run a bundle, looked at before the first byte is sent.

facts = device.facts()
preflight.check(bundle.manifest, facts)         # InfraError naming both sides
record["device"] = preflight.lasting(facts)     # what is the same on the next night
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from toolchain.errors import InfraError

CLOCK_SECONDS = 600  # that a device's clock may be off
TOOLS = {"flock": "util-linux or busybox", "sha256sum": "coreutils or busybox"}
# Facts of the moment, which say nothing of where a measurement comes from.
PASSING = ("clock", "memory_available", "lacks")


def lasting(facts: Mapping[str, str]) -> dict[str, str]:
    """The facts that tell one device from another, for provenance."""
    return {name: fact for name, fact in facts.items() if name not in PASSING}


def check(manifest: Mapping[str, Any], facts: Mapping[str, str], now: float | None = None) -> None:
    """Raise InfraError about the first thing that the device lacks; an unknown fact is no lack.

    now: seconds since the epoch when the facts were asked for; without it, that was just now. Free
    space is looked at when it is known what has to be sent: see `store.send`.
    """
    _check_machine(manifest, facts)
    for tool in facts.get("lacks", "").split():
        raise InfraError(
            f"the device has no command '{tool}', by which bundles are put in place and verified",
            hint=f"install it there: {TOOLS[tool]}",
        )
    needed, there = least_memory(manifest), facts.get("memory_available", "")
    if there.isdigit() and int(there) < needed:
        raise InfraError(
            f"the bundle needs at least {needed} bytes of memory for its program and libraries, "
            f"the device has {there} to give",
            hint="end other programs on the device, or take one with more memory",
        )
    clock, now = facts.get("clock", ""), time.time() if now is None else now
    counts = "emulator" in facts  # such a board counts instructions for nanoseconds: it drifts
    if clock.isdigit() and not counts and abs(int(clock) - now) > CLOCK_SECONDS:
        raise InfraError(
            f"the device's clock shows {_shown(int(clock))}, this host's {_shown(now)}",
            hint="set the one that is wrong: date -u -s '…', or let NTP do it",
        )


def least_memory(manifest: Mapping[str, Any]) -> int:
    """Bytes of a bundle's files and of the libraries that are shipped apart: a floor."""
    apart = manifest["runtime"]["bytes"] if manifest["runtime"]["apart"] else 0
    return int(apart) + sum(int(file["bytes"]) for file in manifest["files"].values())


def _check_machine(manifest: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    arch, floor = manifest["arch"], manifest["abi_floor"]["glibc"]
    if facts["machine"] != arch:
        raise InfraError(
            f"the bundle is for {arch}, the device is {facts['machine']}",
            hint="name a device of the bundle's target, or build for the target of this device",
        )
    if _version(facts["libc"]) < _version(floor):
        raise InfraError(
            f"the bundle needs glibc {floor}, the device has {facts['libc']}",
            hint="a newer system on the device is needed, or a build on an older one",
        )
    there = set(facts.get("cpu_flags", "").split()) - {"unknown"}
    if lacking := sorted(set(manifest["floor"]) - there) if there else []:
        raise InfraError(
            f"the device's CPU lacks {', '.join(lacking)}: it is below the floor of the target "
            f"{manifest['target']}, which the bundle is for",
            hint="build for a target with a lower floor: [isa] in targets/*.toml",
        )


def _shown(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
