"""How fast files get to a device: ours and OpenSSH's `sftp`, side by side to the same server.

    python -m toolchain.benchmarks.upload                     # a server on this machine
    python -m toolchain.benchmarks.upload qemu:cortex-a72     # an emulated board

Both send the same file of noise, in turn. Of sftp's time, that of a session which sends nothing is
taken off: logging in is not what is compared. On this machine also a slow link, with a file that
can be compressed (a library).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.bindings import _rust

from toolchain import errors
from toolchain.devices import qemu
from toolchain.devices.login import Login
from toolchain.devices.ssh import SshDevice, session
from toolchain.errors import UserError

ROUNDS = 5
LOOPBACK_MB, BOARD_MB = 100, 20
SLOW = 1e6  # bytes per second


def main(arguments: list[str]) -> None:
    target = arguments[0] if arguments else "loopback"
    with tempfile.TemporaryDirectory(prefix="slipway.") as name:
        folder = Path(name)
        if target == "loopback":
            _loopback(folder)
        elif target.startswith("qemu:"):
            with _board(target) as login:
                _compare(target, login, folder, BOARD_MB)
        else:
            raise UserError("unknown server", where=target, hint="loopback, or qemu:cortex-a72")


def _loopback(folder: Path) -> None:
    from toolchain.tests import proxy, sshd

    (folder / "server").mkdir()
    with sshd.serving(folder / "server") as server:
        _compare("loopback", _login(server.port, server.folder), folder, LOOPBACK_MB)
        library = Path(_rust.__file__)
        with proxy.between(server.port, rate=SLOW) as port:
            login = _login(port, server.folder, known_as=f"[127.0.0.1]:{server.port}")
            with _device(login) as device:
                seconds = _ours(device, library)
        size, sent = library.stat().st_size / 1e6, device.sent_bytes / 1e6
        print(f"{SLOW / 1e6:g} MB/s: {size:.1f} MB in {seconds:.1f} s, {sent:.1f} MB sent")


def _login(port: int, folder: Path, known_as: str = "") -> Login:
    key, known = folder / "client_key", folder / "known_hosts"
    return Login("127.0.0.1", port, None, key, known, known_as)


@contextmanager
def _board(name: str) -> Iterator[Login]:
    from toolchain.devices import image

    made = image.ensure(qemu.progress)
    with qemu.Board(name.removeprefix("qemu:"), made) as board:
        host, key = "127.0.0.1", made.client_key
        yield Login(host, board.port, "root", key, made.known_hosts, image.HOST)


def _compare(name: str, login: Login, folder: Path, megabytes: int) -> None:
    noise = folder / "noise"
    noise.write_bytes(os.urandom(megabytes * 1_000_000))
    rates: dict[str, list[float]] = {"slipway": [], "sftp": []}
    with _device(login) as device:
        for _ in range(ROUNDS):
            rates["slipway"].append(megabytes / _ours(device, noise))
            put = f"put {noise} {device.work}/theirs"
            seconds = _theirs(login, put) - _theirs(login, "pwd")
            rates["sftp"].append(megabytes / seconds)
    for who, measured in rates.items():
        spread = f"{min(measured):.1f} to {max(measured):.1f}"
        print(f"{name}, {who}: {statistics.median(measured):.1f} MB/s ({spread})")
    share = statistics.median(rates["slipway"]) / statistics.median(rates["sftp"])
    print(f"{name}: {share:.0%} of sftp's throughput", flush=True)


@contextmanager
def _device(login: Login) -> Iterator[SshDevice]:
    with session(login, name="benchmark") as device:
        assert isinstance(device, SshDevice)
        yield device


def _ours(device: SshDevice, path: Path) -> float:
    began = time.monotonic()
    device._upload({f"{device.work}/ours": path})
    return time.monotonic() - began


def _theirs(login: Login, command: str) -> float:
    argv = ["sftp", "-q", "-b", "-", "-F", "none", "-P", str(login.port)]
    settings = {
        "IdentityFile": login.key,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": login.known_hosts,
    }
    if login.known_as:
        settings["HostKeyAlias"] = login.known_as
    for word, value in settings.items():
        argv += ["-o", f"{word}={value}"]
    user = f"{login.user}@" if login.user else ""
    began = time.monotonic()
    subprocess.run(
        [*argv, f"{user}{login.host}"],
        input=command.encode() + b"\n",
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - began


if __name__ == "__main__":
    with errors.shown():
        main(sys.argv[1:])
