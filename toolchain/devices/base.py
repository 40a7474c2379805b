"""What every device can do.

A driver is one file of this package with one function:

    def connect(unit: schema.Device) -> AbstractContextManager[Device]

Entering the context makes the device ready (boots a board, logs in over SSH) and an empty work
folder on it; leaving it removes the folder and whatever was started.
Every method raises `InfraError` when the device, not the program on it, is at fault.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from toolchain.errors import InfraError

if TYPE_CHECKING:
    from toolchain.devices.trees import Tree


@dataclass(frozen=True)
class Completed:
    """How a command on a device ended.

    status: exit status, or 128 + signal number as a shell reports it.
    """

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def signal(self) -> str | None:
        """Name of the signal that ended the command, such as `SIGSEGV`, or None."""
        if self.status <= 128:
            return None
        try:
            return signal.Signals(self.status - 128).name
        except ValueError:
            return None


class Device(Protocol):
    """A unit that runs bundles. All names are relative to its work folder.

    emulated: whether it counts instructions exactly, and knows no time.
    """

    name: str
    emulated: bool

    def facts(self) -> dict[str, str]:
        """Identity for provenance: cpu, cpu_flags, machine, kernel, libc (glibc version), …"""

    def put(self, files: Mapping[str, Path]) -> None:
        """Copy local files to the given names; modes are kept, digests verified on the device."""

    def link(self, name: str, digest: str, files: Mapping[str, Path]) -> None:
        """Let `name` be a folder of `files` that stays on the device: they are sent once.

        digest: names the folder there, so it has to tell the files' names and contents.
        """

    def install(self, folder: str, tree: Tree, files: Mapping[str, Path]) -> int:
        """Have each entry of a tree in `folder`, a name or empty; and put `files` there.

        The tree stays on the device: what it has of its files is not sent again. Gives the bytes
        of those that it had not, or had damaged.
        """

    def run(self, argv: Sequence[str], *, timeout: float) -> Completed:
        """Run a command in the work folder, its environment empty but for PATH, its input empty.

        Nothing that it started outlives it, nor this process.
        timeout: seconds; when they have passed, the command is killed and InfraError raised.
        """

    def get(self, name: str, to: Path) -> None:
        """Copy a file of the work folder to this machine."""


def no_such_file(name: str, where: str) -> InfraError:
    return InfraError(
        f"there is no file '{name}' to fetch",
        where=where,
        hint="did the command that should write it succeed?",
    )
