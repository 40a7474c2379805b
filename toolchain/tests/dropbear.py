"""A real dropbear on the loopback address, as boards have it: own keys, own user, own home.

    with dropbear.serving(sftp=False) as server, server.connect() as device:
        device.run(["id"], timeout=10)

Dropbear reads the home of who logs in from /etc/passwd and SFTP is a program with a fixed place.
So it sees, in a mount namespace of its own, a passwd file with one user whose home is in the
server's folder, and for `sftp=False` something else in the place of the program. When root runs the
tests, the user is `board`, unprivileged; else it is who runs them.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolchain.tests import sshd

_ID = 65533  # of the user `board`
_SFTP = Path("/usr/lib/openssh/sftp-server")
_START_SECONDS = 20.0
# The passwd file, the group file, what hides SFTP (or nothing), then the command.
_SETUP = """
mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/group || exit
[ -z "$3" ] || mount --bind /dev/null "$3" || exit
shift 3
exec "$@"
"""


def program() -> str | None:
    """Path of dropbear; None if it is not installed."""
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    return shutil.which("dropbear", path=os.pathsep.join(folders))


@contextmanager
def serving(*, sftp: bool = True) -> Iterator[sshd.Server]:
    """Start a server in a new folder. sftp: whether it has the program for it."""
    found = program()
    assert found, "dropbear is not installed: apt-get install dropbear-bin"
    with tempfile.TemporaryDirectory(prefix="slipway-dropbear.") as name:
        folder = Path(name)
        folder.chmod(0o711)  # another user goes through it to its home
        user, group = (_ID, _ID) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        key = _furnish(folder, user, group)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        log = folder / "dropbear.log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                _command(found, folder, port, key, sftp=sftp),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        with process:
            running = sshd.Server(folder, port, process.pid)
            try:
                _wait(process, log)
                public = (folder / "host_key.pub").read_text()
                running.known_hosts.write_text(f"[127.0.0.1]:{port} {public}")
                running.devices.write_text(
                    f"[{sshd.UNIT}]\nhost = '127.0.0.1'\nport = {port}\nuser = 'board'\n"
                    "key = 'client_key'\nknown_hosts = 'known_hosts'\n"
                )
                yield running
            finally:
                running.kill()


def _furnish(folder: Path, user: int, group: int) -> Path:
    """Keys, accounts and a home; the server's own key as dropbear wants it."""
    (folder / "home/.ssh").mkdir(parents=True)
    (folder / "tmp").mkdir()
    for name in ("client_key", "host_key"):
        sshd.make_key(folder / name)
    allowed = folder / "home/.ssh/authorized_keys"
    shutil.copy(folder / "client_key.pub", allowed)
    (folder / "passwd").write_text(f"board:x:{user}:{group}::{folder}/home:/bin/sh\n")
    (folder / "group").write_text(f"board:x:{group}:\n")
    key = folder / "dropbear_key"
    argv = ["dropbearconvert", "openssh", "dropbear", str(folder / "host_key"), str(key)]
    subprocess.run(argv, check=True, capture_output=True)
    for path in (folder / "home", allowed.parent, allowed, folder / "tmp", key):
        os.chown(path, user, group)
        path.chmod(0o600 if path.is_file() else 0o700)
    return key


def _command(found: str, folder: Path, port: int, key: Path, *, sftp: bool) -> list[str]:
    space = ["unshare", "--mount"]
    lower = ["setpriv", "--pdeathsig", "KILL", "--inh-caps=-all"]
    if os.geteuid() == 0:
        lower += [f"--reuid={_ID}", f"--regid={_ID}", "--clear-groups"]
    else:
        space += ["--user", "--map-current-user", "--keep-caps"]
    accounts = [str(folder / "passwd"), str(folder / "group")]
    setup = ["sh", "-c", _SETUP, "sh", *accounts, "" if sftp else str(_SFTP)]
    environment = ["env", "-i", "PATH=/usr/bin:/bin", f"TMPDIR={folder}/tmp"]
    server = [found, "-F", "-E", "-e", "-s", "-P", "", "-r", str(key), "-p", f"127.0.0.1:{port}"]
    return [*space, *setup, *lower, *environment, *server]


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if "Not backgrounding" in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"dropbear does not start:\n{log.read_text()}")
