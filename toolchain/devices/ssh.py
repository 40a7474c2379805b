"""Units behind SSH: real boards, other hosts and emulated boards, all on the same way.

with ssh.connect(resolve("pi5", Path("devices.toml"))) as device:
    device.put({"runner": Path("build/runner")})
    device.run(["./runner"], timeout=60)
"""

from __future__ import annotations

import errno
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import paramiko

from toolchain import atomic, schema
from toolchain.devices import base
from toolchain.devices.login import ANSWER_SECONDS, LOST_HINT, Login, Watchdog, bounded
from toolchain.devices.login import connect as log_in
from toolchain.devices.streams import Streams
from toolchain.devices.unix import UnixDevice
from toolchain.errors import InfraError


class SshDevice(UnixDevice):
    """`base.Device` over an open connection."""

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
        self._transport = transport
        where = f"{name} ({login.shown})"
        super().__init__(name, where=where, emulated=emulated, more_facts=more_facts)

    def execute(self, argv: Sequence[str], timeout: float, doing: str) -> base.Completed:
        end = time.monotonic() + timeout
        with self._bounded(doing, timeout + self.patience):
            channel = self._transport.open_session()
            with closing(channel):
                channel.exec_command(shlex.join(argv))
                said = Streams(
                    channel.recv,
                    channel.recv_stderr,
                    channel.shutdown_write,
                    lost=paramiko.SSHException,
                )
                if not _ended(channel, said, end):
                    channel.shutdown_write()
                    killed = _ended(channel, said, time.monotonic() + self.patience / 2)
                    raise self._late(timeout, doing, killed)
                status = channel.recv_exit_status()
        if status < 0 and not self._transport.is_active():
            text = f"the connection was lost while {doing}"
            raise InfraError(text, where=self._where, hint=LOST_HINT)
        return self._completed(status, said, doing)

    def get(self, name: str, to: Path) -> None:
        with atomic.replacing(to) as partial:
            try:
                with self._bounded("downloading") as watchdog, self._sftp() as sftp:
                    sftp.get(self._path(name), str(partial), callback=watchdog.touch)
            except InfraError as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno == errno.ENOENT:
                    raise base.no_such_file(name, self._where) from None
                raise

    def remove_work(self) -> None:
        if self._transport.is_active():
            super().remove_work()

    def _upload(self, files: Mapping[str, Path]) -> None:
        with self._bounded("uploading") as watchdog, self._sftp() as sftp:
            for to, path in files.items():
                try:
                    sftp.put(str(path), to, callback=watchdog.touch)
                    sftp.chmod(to, path.stat().st_mode & 0o777)
                except OSError as error:
                    if not self._transport.is_active():
                        raise
                    raise self._upload_failed(to, error, path.stat().st_size) from error

    def _bounded(self, doing: str, more: float = 0.0) -> AbstractContextManager[Watchdog]:
        return bounded(self._transport, self._where, doing, self.patience + more)

    @contextmanager
    def _sftp(self) -> Iterator[paramiko.SFTPClient]:
        channel = self._transport.open_session()
        channel.settimeout(self.patience)
        channel.invoke_subsystem("sftp")
        with closing(paramiko.SFTPClient(channel)) as sftp:
            yield sftp


def _ended(channel: paramiko.Channel, said: Streams, end: float) -> bool:
    """Whether the command and its streams have ended before the time `end`."""
    return said.wait(end) and channel.status_event.wait(max(0.0, end - time.monotonic()))


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
