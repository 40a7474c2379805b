"""Units behind SSH: real boards, other hosts and emulated boards, all on the same way.

with ssh.connect(resolve("pi5", Path("devices.toml"))) as device:
    device.put({"runner": Path("build/runner")})
    device.run(["./runner"], timeout=60)
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import paramiko

from toolchain import atomic, schema
from toolchain.devices import base, ssh_config, transfer
from toolchain.devices.login import Login
from toolchain.devices.login import connect as log_in
from toolchain.devices.streams import Streams
from toolchain.devices.unix import UnixDevice
from toolchain.devices.watchdog import ANSWER_SECONDS, LOST_HINT, Watchdog, bounded, gone
from toolchain.errors import InfraError

_NO_FILE = 44  # status
_FETCH = f'[ -e "$1" ] || exit {_NO_FILE}; exec cat <"$1"'


class SshDevice(UnixDevice):
    """`base.Device` over an open connection.

    sent_bytes: of contents of files that went over the connection, as sent.
    """

    patience = ANSWER_SECONDS
    sent_bytes = 0

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
        # At 64 KiB a second, all that the windows of SSH let be on the way arrives in twice this.
        self._sender = transfer.Sender(transport, self.ask, 3 * self.patience)
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
        if status < 0 and gone(self._transport):
            text = f"the connection was lost while {doing}"
            raise InfraError(text, where=self._where, hint=LOST_HINT)
        return self._completed(status, said, doing)

    def get(self, name: str, to: Path) -> None:
        # Not by SFTP, which not every server has: nothing is gained by a second way.
        command = ["sh", "-c", _FETCH, "slipway", self._path(name)]
        with (
            atomic.replacing(to) as partial,
            partial.open("wb") as file,
            self._bounded("downloading") as watchdog,
            closing(self._transport.open_session()) as channel,
        ):
            channel.exec_command(shlex.join(command))
            while data := channel.recv(1 << 20):
                file.write(data)
                watchdog.touch()
            status = channel.recv_exit_status()
            if status < 0 and gone(self._transport):
                raise EOFError
            if status == _NO_FILE:
                raise base.no_such_file(name, self._where)
            if status:
                said = channel.recv_stderr(1 << 16).decode(errors="replace").strip()
                raise InfraError(f"downloading {name} failed: {said}", where=self._where)

    def remove_work(self) -> None:
        if self._transport.is_active():
            super().remove_work()

    def _upload(self, files: Mapping[str, Path], resume: bool = False) -> None:
        with self._bounded("uploading", more=2 * self.patience) as watchdog:

            def moved() -> None:
                watchdog.touch()
                self.refuse_revoked()

            try:
                self._sender.send(files, resume, moved)
            except transfer.CannotWrite as error:
                size = files[error.to].stat().st_size
                raise self._upload_failed(error.to, error, size) from error
            finally:
                self.sent_bytes = self._sender.sent_bytes

    def _bounded(self, doing: str, more: float = 0.0) -> AbstractContextManager[Watchdog]:
        return bounded(self._transport, self._where, doing, self.patience + more)


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
    """Log in to a unit of the devices file (its paths are made absolute by `resolve`).

    What that file leaves open, the user's `~/.ssh/config` tells.
    """
    login = ssh_config.login(
        unit.host or "",
        port=unit.port if "port" in unit.model_fields_set else None,
        user=unit.user,
        key=Path(unit.key) if unit.key else None,
        known_hosts=Path(unit.known_hosts) if unit.known_hosts else None,
    )
    with session(login, name=unit.name) as device:
        yield device
