"""A bundle on a device: how it gets there to be measured, and what its runner said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolchain.bundle import Bundle
from toolchain.devices import trees
from toolchain.devices.base import Completed, Device
from toolchain.errors import CheckFailed, InfraError

# Signals that somebody sends: a device that is shut down, a user there.
OF_OTHERS = ("SIGHUP", "SIGTERM")
FILE_TROUBLE = 5  # the runner's status for files that cannot be read or written: a full disk


def send(
    bundle: Bundle,
    runtime: Path,
    device: Device,
    more: Mapping[str, Path] | None = None,
    folder: str = "",
    thorough: bool = False,
) -> None:
    """Put the bundle, its runtime and `more` files into `folder` of the device's work folder.

    What the device has of them is not sent again. runtime: `runtime.json`, with the libraries in
    `lib` beside it. UserError if they are others than those that the bundle was packed with.
    thorough: hash a large runtime, too, which stays on the device, and mend it.
    """
    device.install(folder, trees.of_bundle(bundle, runtime, thorough), dict(more or {}))


def refuse_damaged(bundle: Bundle, runtime: Path, device: Device, folder: str = "") -> None:
    """InfraError if files of the bundle or its runtime changed on the device since they came."""
    if mended := device.install(folder, trees.of_bundle(bundle, runtime, thorough=True), {}):
        raise InfraError(
            f"files that stay on the device were damaged ({mended} bytes; they were sent again)",
            where=device.name,
            hint="a bad disk or memory there? What was measured with them does not count",
        )


def run(device: Device, folder: str, argv: Sequence[str], timeout: float) -> dict[str, Any]:
    """The report of a runner that was sent to `folder`; it works there."""
    there = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", folder, *argv]
    return report(device.run(there, timeout=timeout))


def report(done: Completed) -> dict[str, Any]:
    """What the runner printed; CheckFailed if it did not end well: that is the product's fault."""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    last = said[-1] if said else "it said nothing"
    if done.signal in OF_OTHERS:
        raise InfraError(f"the runner was ended by {done.signal}, which is not its own doing")
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
