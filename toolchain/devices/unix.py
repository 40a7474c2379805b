"""What is the same on every device with a POSIX shell, near or far: work in a folder of its own.

A driver adds how a command reaches the device (`execute`) and how files do (`_upload`, `get`).
Scripts stay within what dash and busybox understand.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from toolchain.devices import base, facts, store, streams
from toolchain.errors import InfraError

# Runs a command in a process group of its own and gives back its status. The end of our input
# (which is how a time-out is told, and what is left of us when we are killed or cut off) kills the
# group, so that nothing is left running on the device, even if this machine is switched off.
# `kill -KILL $$` leaves no exit status, which no program can: the mark of a fault of the device.
# No `--` for kill: dash knows it after `-s KILL` only, and busybox only after `-KILL`.
_RUN = """
cd "$1" || kill -KILL $$
shift
exec 3<&0
setsid env -i PATH=/usr/local/bin:/usr/bin:/bin "$@" 3<&- </dev/null &
group=$!
exec >/dev/null 2>&1
(cat <&3; kill -KILL "-$group" "$group") &
guard=$!
wait "$group"
status=$?
kill "$guard"
kill -KILL "-$group"
exit "$status"
"""
FENCED_OFF = 97  # status of a fence that does not let a script through


class UnixDevice(abc.ABC):
    """`base.Device` but for the ways to it.

    work: absolute path of its work folder. patience: seconds without a sign of life from the unit.
    fence: shell text before each run, and before each script that changes what stays on the device;
    it ends the script with the status `FENCED_OFF` unless we may go on.
    """

    patience: float
    fence = ""

    def __init__(
        self, name: str, *, where: str, emulated: bool, more_facts: Mapping[str, str]
    ) -> None:
        self.name = name
        self.emulated = emulated
        self._where = where
        self._more_facts = dict(more_facts)
        made = self.ask('mktemp -d "${TMPDIR:-/tmp}/slipway.XXXXXX"', doing="making a folder")
        self.work = made.strip()
        if not self.work.startswith("/"):
            raise InfraError(f"mktemp gives {made!r} for a folder", where=where)

    @abc.abstractmethod
    def execute(self, argv: Sequence[str], timeout: float, doing: str) -> base.Completed:
        """Run a command as the user that we are there; InfraError after `timeout` seconds."""

    @abc.abstractmethod
    def get(self, name: str, to: Path) -> None: ...

    @abc.abstractmethod
    def _upload(self, files: Mapping[str, Path]) -> None:
        """Copy to absolute names in folders that exist; OSErrors become `_upload_failed`."""

    def facts(self) -> dict[str, str]:
        return facts.parse(self.ask(facts.SCRIPT, doing="asking for facts")) | self._more_facts

    def put(self, files: Mapping[str, Path]) -> None:
        if files:
            self.deliver({self._path(name): path for name, path in files.items()}, into=self.work)

    def link(self, name: str, digest: str, files: Mapping[str, Path]) -> None:
        at = self._path(name)
        store.place(self, at, digest, files)

    def run(self, argv: Sequence[str], *, timeout: float) -> base.Completed:
        doing = f"running {argv[0]}"
        command = ["sh", "-c", f"{self.fence}\n{_RUN}", "slipway", self.work, *argv]
        done = self.execute(command, timeout, doing)
        if self.fence:
            self._refuse_fenced_off(done, doing)
        return done

    def remove_work(self) -> None:
        """Best effort: a device that is gone has nothing to be removed from."""
        with suppress(InfraError):
            self.ask('rm -rf -- "$1"', self.work, doing="removing the work folder")

    def ask(
        self, script: str, *args: str, doing: str, more: float = 0.0, fenced: bool = False
    ) -> str:
        """The output of a shell script on the device which has to succeed.

        more: seconds beyond the usual patience. fenced: it changes what stays on the device.
        """
        if fenced:
            script = f"{self.fence}\n{script}"
        done = self.execute(["sh", "-c", script, "slipway", *args], self.patience + more, doing)
        if fenced:
            self._refuse_fenced_off(done, doing)
        if done.status:
            text = done.stderr.decode(errors="replace").strip() or f"status {done.status}"
            raise InfraError(f"{doing} failed: {text}", where=self._where)
        return done.stdout.decode(errors="replace")

    def deliver(self, files: Mapping[str, Path], into: str) -> None:
        """Copy files to absolute names below the folder `into` and verify what arrived.

        What cannot fit is refused before the first byte.
        """
        sizes = {to: path.stat().st_size for to, path in files.items()}
        parents = sorted({str(PurePosixPath(to).parent) for to in files})
        self.ask('mkdir -p -- "$@"', *parents, doing="making folders")
        needed, free = sum(sizes.values()), self._free(into)
        if free is not None and free < needed:
            raise self._full(into, free, needed)
        self._upload(files)
        self._verify(files, needed)

    def _refuse_fenced_off(self, done: base.Completed, doing: str) -> None:
        said = done.stderr.decode(errors="replace").strip()
        if done.status == FENCED_OFF and said.startswith("slipway: "):
            raise InfraError(f"{doing}: {said.removeprefix('slipway: ')}", where=self._where)

    def _late(self, timeout: float, doing: str, killed: bool) -> InfraError:
        text = "was killed" if killed else "could not be killed"
        return InfraError(
            f"no end after {timeout:g} s while {doing}; the command {text}",
            where=self._where,
            hint="allow more time if the device is merely slow or busy",
        )

    def _completed(self, status: int, said: streams.Output, doing: str) -> base.Completed:
        """status: negative if the command on the device ended without one."""
        if said.overflowed:
            text = f"more than {streams.OUTPUT_LIMIT} bytes of output while {doing}"
            raise InfraError(text, where=self._where)
        if status < 0:
            text = said.stderr.decode(errors="replace").strip()
            raise InfraError(f"{doing} failed: {text or 'no status'}", where=self._where)
        return base.Completed(status, bytes(said.stdout), bytes(said.stderr))

    def _path(self, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"{name!r} is not a name inside the work folder")
        return f"{self.work}/{path}"

    def _free(self, folder: str) -> int | None:
        """Bytes free in a folder of the device; None if it does not tell, as of its first root."""
        shown = self.ask('df -Pk -- "$1" || :', folder, doing="asking for free space")
        try:
            return int(shown.splitlines()[-1].split()[-3]) * 1024
        except (IndexError, ValueError):
            return None

    def _full(self, folder: str, free: int, needed: int) -> InfraError:
        return InfraError(
            f"the device is full: {free} bytes are free in {folder}, {needed} are needed",
            where=self._where,
            hint="free some space there and run the same command again",
        )

    def _upload_failed(self, to: str, error: OSError, size: int) -> InfraError:
        folder = str(PurePosixPath(to).parent)
        free = self._free(folder)
        if free is not None and free < max(size, 1 << 20):
            return self._full(folder, free, size)
        return InfraError(f"uploading {to} failed: {error}", where=self._where)

    def _verify(self, files: Mapping[str, Path], size: int) -> None:
        shown = self.ask('sha256sum -- "$@"', *files, doing="verifying the upload", more=size / 1e6)
        there = [line.lstrip("\\")[:64] for line in shown.splitlines()]
        for (to, path), got in zip(files.items(), there, strict=True):
            if (digest := _digest(path)) != got:
                raise InfraError(
                    f"{PurePosixPath(to).name} arrived damaged: sha256 {got} instead of {digest}",
                    where=self._where,
                    hint="a bad disk or memory on the device? Run the same command again",
                )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
