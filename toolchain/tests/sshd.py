"""A real OpenSSH server on the loopback address: own keys, home and port, gone with the test.

    with sshd.serving(tmp_path) as server, server.connect() as device:
        device.run(["uname"], timeout=10)

It lets in who runs the tests, root or not, and needs no service, no account and no PAM. What a
login leaves behind (the home's cache, work folders) is under the server's folder.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain import devices
from toolchain.devices.ssh import SshDevice
from toolchain.devices.tied import tied

UNIT = "bench"  # name of the server in its devices file
_SEPARATION = Path("/run/sshd")  # compiled into Debian's sshd, which wants it when root starts it
_START_SECONDS = 20.0


def program() -> str | None:
    """Path of sshd, which demands to be called by it; None if it is not installed."""
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/sbin"]
    return shutil.which("sshd", path=os.pathsep.join(folders))


@dataclass(frozen=True)
class Server:
    """devices: file with one unit, `bench`. home, temporary: HOME and TMPDIR of what runs there."""

    folder: Path
    port: int
    pid: int

    @property
    def devices(self) -> Path:
        return self.folder / "devices.toml"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @contextmanager
    def connect(self, **changes: Any) -> Iterator[SshDevice]:
        """The server as a device; `changes` replace keys of its unit."""
        unit = devices.resolve(UNIT, self.devices).model_copy(update=changes)
        with devices.connect(unit) as device:
            assert isinstance(device, SshDevice)
            yield device

    def kill(self) -> None:
        """As if the unit were switched off: the server and all connections."""
        for pid in [self.pid, *_descendants(self.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def serving(folder: Path, settings: str = "", *, sftp: bool = True) -> Iterator[Server]:
    """Start a server that keeps everything in `folder`. settings: lines for its sshd_config.

    sftp: whether it has that subsystem. It forwards connections, as a jump host does, unless
    `settings` forbid it: `AllowTcpForwarding no`.
    """
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    for name in ("host_key", "client_key"):
        make_key(folder / name)
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:  # it stays, as it does when Debian starts the service: others may use it
        _SEPARATION.mkdir(mode=0o755, exist_ok=True)
    server, process = start(folder, settings, sftp=sftp)
    with process:
        try:
            yield server
        finally:
            server.kill()


def make_key(path: Path, kind: str = "ed25519") -> str:
    """A new key pair in `path` and `path`.pub; gives the public one, in base64."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path.with_name(f"{path.name}.pub").read_text().split()[1]


def start(
    folder: Path, settings: str = "", *, sftp: bool = True
) -> tuple[Server, subprocess.Popen[bytes]]:
    """A server for a folder that has its keys: the first one there, or one after it was killed."""
    found = program()
    assert found, "sshd is not installed: apt-get install openssh-server"
    if sftp:
        settings += "\nSubsystem sftp internal-sftp"
    log = folder / "sshd.log"
    for _ in range(5):  # the port that was free may be taken when sshd wants it
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        _configure(folder, port, settings)
        with log.open("wb") as said:
            process = subprocess.Popen(
                tied([found, "-D", "-e", "-f", str(folder / "sshd_config")]),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        end = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < end:
            if f"Server listening on 127.0.0.1 port {port}" in log.read_text():
                return Server(folder, port, process.pid), process
            time.sleep(0.01)
        process.kill()
        process.wait()
    raise AssertionError(f"sshd does not start:\n{log.read_text()}")


def _configure(folder: Path, port: int, settings: str) -> None:
    (folder / "sshd_config").write_text(
        f"""{settings}
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
AuthenticationMethods publickey
AllowUsers {getpass.getuser()}
PermitRootLogin prohibit-password
# Folders of tests are below /tmp, which all may write.
StrictModes no
UsePAM no
UseDNS no
PidFile none
MaxStartups 100
SetEnv HOME={folder}/home TMPDIR={folder}/tmp SLIPWAY_LEASE={folder}/tmp/lease
"""
    )
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (folder / "devices.toml").write_text(
        f"[{UNIT}]\nhost = '127.0.0.1'\nport = {port}\nuser = '{getpass.getuser()}'\n"
        "key = 'client_key'\nknown_hosts = 'known_hosts'\n"
    )


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found
