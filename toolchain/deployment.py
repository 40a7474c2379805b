"""A bundle on a device: whether it fits, how it gets there, and what its runner said."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolchain.bundle import Bundle
from toolchain.devices.base import Completed, Device
from toolchain.errors import CheckFailed, InfraError, UserError

FILE_TROUBLE = 5  # the runner's status for files that cannot be read or written: a full disk
LIBRARIES = "lib"


def refuse_unfit(bundle: Bundle, facts: Mapping[str, str]) -> None:
    """Raise InfraError if the device cannot load the bundle: another CPU, or too old a libc."""
    arch, floor = bundle.manifest["arch"], bundle.manifest["abi_floor"]["glibc"]
    if facts["machine"] != arch:
        raise InfraError(f"the bundle is for {arch}, the device is {facts['machine']}")
    if _version(facts["libc"]) < _version(floor):
        raise InfraError(f"the bundle needs glibc {floor}, the device has {facts['libc']}")
    there = set(facts.get("cpu_flags", "").split()) - {"unknown"}
    if lacking := sorted(set(bundle.manifest["floor"]) - there) if there else []:
        raise InfraError(
            f"the device's CPU lacks {', '.join(lacking)}: it is below the floor of the target "
            f"{bundle.manifest['target']}, which the bundle is for",
            hint="build for a target with a lower floor: [isa] in targets/*.toml",
        )


def send(
    bundle: Bundle,
    runtime: Path,
    device: Device,
    more: Mapping[str, Path] | None = None,
    folder: str = "",
) -> None:
    """Put the bundle, its runtime and `more` files into `folder` of the device's work folder.

    runtime: `runtime.json`, with the libraries in `lib` beside it. UserError if they are others
    than those that the bundle was packed with.
    """
    wanted, found = bundle.manifest["runtime"], json.loads(runtime.read_bytes())
    if found["digest"] != wanted["digest"]:
        raise UserError(
            f"the runtime is {found['digest'][:12]}, the bundle was made with "
            f"{wanted['digest'][:12]}",
            where=str(runtime),
            hint="run scons again: it packs the bundle anew",
        )
    prefix = f"{folder}/" if folder else ""
    with tempfile.TemporaryDirectory() as temporary:
        bundle.extract(Path(temporary))
        files = {n: Path(temporary) / n for n in bundle.manifest["files"]} | dict(more or {})
        device.put({f"{prefix}{name}": path for name, path in files.items()})
        if wanted["apart"]:
            libraries = {name: runtime.parent / LIBRARIES / name for name in found["files"]}
            device.link(f"{prefix}{LIBRARIES}", wanted["digest"], libraries)


def run(device: Device, folder: str, argv: Sequence[str], timeout: float) -> dict[str, Any]:
    """The report of a runner that was sent to `folder`; it works there."""
    there = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", folder, *argv]
    return report(device.run(there, timeout=timeout))


def report(done: Completed) -> dict[str, Any]:
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
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise CheckFailed(f"the runner gave no report: {done.stdout[:200]!r}") from None
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
