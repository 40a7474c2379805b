"""What is the same on every device with a POSIX shell, near or far: work in a folder of its own.

A driver adds how a command reaches the device (`execute`) and how files do (`_upload`, `get`).
Scripts stay within what dash and busybox understand.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from toolchain.devices import base, facts, listing, scripts, store, streams, trees
from toolchain.devices.trees import Tree
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
_ENTER = f"""
mktemp -d "${{TMPDIR:-/tmp}}/slipway.XXXXXX" || exit
{scripts.ABOVE}
echo "$above"
"""
FENCED_OFF = 97  # status of a fence that does not let a script through


class UnixDevice(abc.ABC):
    """`base.Device` but for the ways to it.

    work: absolute path of its work folder. above: ids of the processes above the command that made
    it (see `scripts.LOOK`). patience: seconds without a sign of life from the unit.
    fence: shell text before each run, and before each script that changes what stays on the device;
    it ends the script with the status `FENCED_OFF` unless we may go on. revoked: why nothing more
    of a file may be sent; empty if it may.
    """

    patience: float
    sent_bytes: int
    fence = ""
    revoked = ""

    def __init__(
        self, name: str, *, where: str, emulated: bool, more_facts: Mapping[str, str]
    ) -> None:
        self.name = name
        self.emulated = emulated
        self._where = where
        self._more_facts = dict(more_facts)
        made = self.ask(_ENTER, doing="making a folder")
        self.work, _, above = made.partition("\n")
        self.above = above.strip()
        if not self.work.startswith("/"):
            raise InfraError(f"mktemp gives {made!r} for a folder", where=where)

    @abc.abstractmethod
    def execute(self, argv: Sequence[str], timeout: float, doing: str) -> base.Completed:
        """Run a command as the user that we are there; InfraError after `timeout` seconds."""

    @abc.abstractmethod
    def get(self, name: str, to: Path) -> None: ...

    @abc.abstractmethod
    def _upload(self, files: Mapping[str, Path], resume: bool = False) -> None:
        """As `upload`; OSErrors become `_upload_failed`."""

    def facts(self) -> dict[str, str]:
        return facts.parse(self.ask(facts.SCRIPT, doing="asking for facts")) | self._more_facts

    def put(self, files: Mapping[str, Path]) -> None:
        if not files:
            return
        named = {self._path(name): path for name, path in files.items()}
        needed = sum(path.stat().st_size for path in named.values())
        self.make_room(named)
        free = self._free(self.work)
        if free is not None and free < needed:
            raise self.full(self.work, free, needed)
        self.upload(named)
        self._verify(named, needed)

    def link(self, name: str, digest: str, files: Mapping[str, Path]) -> None:
        store.place(self, self._path(name), digest, files)

    def install(self, folder: str, tree: Tree, files: Mapping[str, Path]) -> int:
        at = self._path(folder) if folder else self.work
        more = {self._path(str(PurePosixPath(folder, n))): path for n, path in files.items()}
        return store.install(self, at, tree, more)

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
            self.ask(scripts.LEAVE, self.work, doing="removing the work folder")

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

    def upload(self, files: Mapping[str, Path], resume: bool = False) -> None:
        """Copy to absolute names in folders that exist; resume: after what is there."""
        self._upload(files, resume)

    def refuse_revoked(self) -> None:
        """InfraError if nothing more may be sent."""
        if self.revoked:
            raise InfraError(f"uploading: {self.revoked}", where=self._where)

    def make_room(self, files: Iterable[str]) -> None:
        """Make the folders of files in the work folder, for their absolute names.

        A name that is a link to what stays on the device is removed: nothing is written there.
        """
        names = [PurePosixPath(name) for name in files]
        above = {parent for name in names for parent in name.parents}
        folders = sorted(str(p) for p in above if p.is_relative_to(self.work))
        arguments = (str(len(folders)), *folders, *map(str, names))
        self.ask(scripts.MAKE_ROOM, *arguments, doing="making folders", fenced=True)

    def full(self, folder: str, free: int, needed: int) -> InfraError:
        return InfraError(
            f"the device is full: {free} bytes are free in {folder}, {needed} are needed",
            where=self._where,
            hint="free some space there and run the same command again",
        )

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
        said = self.ask('df -Pk -- "$1" || :', folder, doing="asking for free space")
        space = listing.space(said.splitlines()[1:])
        return space.free if space else None

    def _upload_failed(self, to: str, error: OSError, size: int) -> InfraError:
        folder = str(PurePosixPath(to).parent)
        free = self._free(folder)
        if free is not None and free < max(size, 1 << 20):
            return self.full(folder, free, size)
        return InfraError(f"uploading {to} failed: {error}", where=self._where)

    def _verify(self, files: Mapping[str, Path], size: int) -> None:
        shown = self.ask('sha256sum -- "$@"', *files, doing="verifying the upload", more=size / 1e6)
        there = [line.lstrip("\\")[:64] for line in shown.splitlines()]
        for (to, path), got in zip(files.items(), there, strict=True):
            if (digest := trees.stored(path).sha256) != got:
                raise InfraError(
                    f"{PurePosixPath(to).name} arrived damaged: sha256 {got} instead of {digest}",
                    where=self._where,
                    hint="a bad disk or memory on the device? Run the same command again",
                )
