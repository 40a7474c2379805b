"""Units behind SSH: real boards, other hosts and emulated boards, all on the same way.

with ssh.connect(resolve("pi5", Path("devices.toml"))) as device:
    device.put({"runner": Path("build/runner")})
    device.run(["./runner"], timeout=60)
"""

from __future__ import annotations

import errno
import hashlib
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path, PurePosixPath

import paramiko

from toolchain import atomic, schema
from toolchain.devices import base, facts
from toolchain.devices.login import ANSWER_SECONDS, LOST_HINT, Login, Watchdog, bounded
from toolchain.devices.login import connect as log_in
from toolchain.devices.streams import OUTPUT_LIMIT, Streams
from toolchain.errors import InfraError

# Runs a command in a process group of its own and gives back its status. The connection's end (or
# the end of our input, which is how a time-out is told) kills the group, so that nothing is left
# running on the device, even if this machine is switched off. `kill -KILL $$` leaves no exit
# status, which no program can: the mark of a fault of the device.
_RUN = """
cd "$1" || kill -KILL $$
shift
exec 3<&0
setsid env -i PATH=/usr/local/bin:/usr/bin:/bin "$@" 3<&- </dev/null &
group=$!
exec >/dev/null 2>&1
(cat <&3; kill -KILL -- "$group" "-$group") &
guard=$!
wait "$group"
status=$?
kill "$guard"
kill -KILL -- "-$group"
exit "$status"
"""


class SshDevice:
    """`base.Device` over an open connection.

    work: absolute path of its work folder. patience: seconds without a sign of life from the unit.
    """

    patience = ANSWER_SECONDS

    def __init__(
        self,
        transport: paramiko.Transport,
        login: Login,
        *,
        name: str,
        emulated: bool,
        more_facts: Mapping[str, str],
    ) -> None:
        self.name = name
        self.emulated = emulated
        self._transport = transport
        self._where = f"{name} ({login.shown})"
        self._more_facts = dict(more_facts)
        made = self._ask('mktemp -d "${TMPDIR:-/tmp}/slipway.XXXXXX"', doing="making a folder")
        self.work = made.strip()

    def facts(self) -> dict[str, str]:
        text = self._ask(facts.SCRIPT, doing="asking for facts")
        return facts.parse(text) | self._more_facts

    def put(self, files: Mapping[str, Path]) -> None:
        if not files:
            return
        digests = {name: _digest(path) for name, path in files.items()}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        needed = sum(sizes.values())
        self._prepare(sorted(files), needed)
        with self._bounded("uploading") as watchdog, self._sftp() as sftp:
            for name, path in files.items():
                try:
                    sftp.put(str(path), self._path(name), callback=watchdog.touch)
                    sftp.chmod(self._path(name), path.stat().st_mode & 0o777)
                except OSError as error:
                    if not self._transport.is_active():
                        raise
                    raise self._upload_failed(name, error, sizes[name]) from error
                needed -= sizes[name]
        self._verify(digests, sum(sizes.values()))

    def run(self, argv: Sequence[str], *, timeout: float) -> base.Completed:
        command = shlex.join(["sh", "-c", _RUN, "slipway", self.work, *argv])
        return self._execute(command, timeout, f"running {argv[0]}")

    def get(self, name: str, to: Path) -> None:
        with atomic.replacing(to) as partial:
            try:
                with self._bounded("downloading") as watchdog, self._sftp() as sftp:
                    sftp.get(self._path(name), str(partial), callback=watchdog.touch)
            except InfraError as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno == errno.ENOENT:
                    raise InfraError(
                        f"there is no file '{name}' to fetch",
                        where=self._where,
                        hint="did the command that should write it succeed?",
                    ) from None
                raise

    def remove_work(self) -> None:
        """Best effort: a device that is gone has nothing to be removed from."""
        if self._transport.is_active():
            with suppress(InfraError):
                self._ask('rm -rf -- "$1"', self.work, doing="removing the work folder")

    def _path(self, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"{name!r} is not a name inside the work folder")
        return f"{self.work}/{path}"

    def _prepare(self, names: Sequence[str], needed: int) -> None:
        """Make parent folders; refuse before the first byte what cannot fit."""
        parents = sorted({str(PurePosixPath(self._path(name)).parent) for name in names})
        self._ask('mkdir -p -- "$@"', *parents, doing="making folders")
        free = self._free()
        if free < needed:
            raise self._full(free, needed)

    def _free(self) -> int:
        """Bytes free in the work folder."""
        shown = self._ask('df -Pk -- "$1"', self.work, doing="asking for free space")
        try:
            return int(shown.splitlines()[-1].split()[-3]) * 1024
        except (IndexError, ValueError):
            raise InfraError(f"df says {shown!r}", where=self._where) from None

    def _full(self, free: int, needed: int) -> InfraError:
        return InfraError(
            f"the device is full: {free} bytes are free in {self.work}, {needed} are needed",
            where=self._where,
            hint="free some space there and run the same command again",
        )

    def _upload_failed(self, name: str, error: OSError, size: int) -> InfraError:
        free = self._free()
        if free < max(size, 1 << 20):
            return self._full(free, size)
        return InfraError(f"uploading {name} failed: {error}", where=self._where)

    def _verify(self, digests: Mapping[str, str], size: int) -> None:
        names = [self._path(name) for name in digests]
        shown = self._ask(
            'sha256sum -- "$@"', *names, doing="verifying the upload", more=size / 1e6
        )
        there = [line.lstrip("\\")[:64] for line in shown.splitlines()]
        for (name, digest), got in zip(digests.items(), there, strict=True):
            if digest != got:
                raise InfraError(
                    f"{name} arrived damaged: sha256 {got} instead of {digest}",
                    where=self._where,
                    hint="a bad disk or memory on the device? Run the same command again",
                )

    def _bounded(self, doing: str, more: float = 0.0) -> AbstractContextManager[Watchdog]:
        return bounded(self._transport, self._where, doing, self.patience + more)

    @contextmanager
    def _sftp(self) -> Iterator[paramiko.SFTPClient]:
        channel = self._transport.open_session()
        channel.settimeout(self.patience)
        channel.invoke_subsystem("sftp")
        with closing(paramiko.SFTPClient(channel)) as sftp:
            yield sftp

    def _ask(self, script: str, *args: str, doing: str, more: float = 0.0) -> str:
        """The output of a shell script on the device which has to succeed."""
        command = shlex.join(["sh", "-c", script, "slipway", *args])
        done = self._execute(command, self.patience + more, doing)
        if done.status:
            text = done.stderr.decode(errors="replace").strip() or f"status {done.status}"
            raise InfraError(f"{doing} failed: {text}", where=self._where)
        return done.stdout.decode(errors="replace")

    def _execute(self, command: str, timeout: float, doing: str) -> base.Completed:
        end = time.monotonic() + timeout
        with self._bounded(doing, timeout + self.patience):
            channel = self._transport.open_session()
            with closing(channel):
                channel.exec_command(command)
                streams = Streams(channel)
                if not streams.wait(end):
                    channel.shutdown_write()
                    killed = streams.wait(time.monotonic() + self.patience / 2)
                    text = "was killed" if killed else "could not be killed"
                    raise InfraError(
                        f"no end after {timeout:.0f} s while {doing}; the command {text}",
                        where=self._where,
                        hint="allow more time if the device is merely slow",
                    )
                status = channel.recv_exit_status()
        if streams.overflowed:
            raise InfraError(
                f"more than {OUTPUT_LIMIT} bytes of output while {doing}", where=self._where
            )
        if status < 0:
            if self._transport.is_active():
                text = streams.stderr.decode(errors="replace").strip()
                raise InfraError(f"{doing} failed: {text or 'no status'}", where=self._where)
            raise InfraError(
                f"the connection was lost while {doing}", where=self._where, hint=LOST_HINT
            )
        return base.Completed(status, bytes(streams.stdout), bytes(streams.stderr))


@contextmanager
def session(
    login: Login, *, name: str, emulated: bool = False, more_facts: Mapping[str, str] | None = None
) -> Iterator[base.Device]:
    """Log in, make a work folder, and remove it in the end."""
    with closing(log_in(login)) as transport:
        device = SshDevice(
            transport, login, name=name, emulated=emulated, more_facts=more_facts or {}
        )
        try:
            yield device
        finally:
            device.remove_work()


@contextmanager
def connect(unit: schema.Device) -> Iterator[base.Device]:
    """Log in to a unit of the devices file (its paths are made absolute by `resolve`)."""
    login = Login(
        host=unit.host or "",
        port=unit.port,
        user=unit.user,
        key=Path(unit.key) if unit.key else None,
        known_hosts=Path(unit.known_hosts or "~/.ssh/known_hosts").expanduser(),
    )
    with session(login, name=unit.name) as device:
        yield device


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
