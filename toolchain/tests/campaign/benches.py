"""Devices that can be broken: an OpenSSH server on this host, and an emulated board."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from toolchain import devices, schema
from toolchain.devices import image, qemu
from toolchain.devices.ssh import SshDevice
from toolchain.tests import sshd

NAME = "bench"


class Bench(Protocol):
    """folder: for the files of whoever breaks it. forgets: what it keeps is gone when it is off."""

    kind: str
    folder: Path
    port: int
    forgets: bool

    def unit(self, port: int | None = None) -> schema.Device:
        """The unit; at the port of a proxy, if one is given."""

    def off(self) -> None:
        """As if somebody pulled the plug."""

    def on(self) -> None: ...


def connect(bench: Bench, port: int | None = None) -> AbstractContextManager[SshDevice]:
    return devices.connect(bench.unit(port))  # type: ignore[return-value]


class ServerBench:
    kind, forgets = "server", False

    def __init__(self, server: sshd.Server) -> None:
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = server.folder
        self.port = server.port

    def unit(self, port: int | None = None) -> schema.Device:
        key = (self.folder / "host_key.pub").read_text()
        at = _listed(self.folder, port or self.port, key)
        unit = devices.resolve(sshd.UNIT, self._server.devices)
        return unit.model_copy(update={"port": port or self.port, "known_hosts": str(at)})

    def off(self) -> None:
        self._server.kill()
        if self._process is not None:
            self._process.wait()

    def on(self) -> None:
        self._server, self._process = sshd.start(self.folder)
        self.port = self._server.port


class BoardBench:
    """Its disk is its memory. A file system of `ROOM` bytes keeps what stays there."""

    kind, forgets = "board", True
    ROOM = 24 << 20

    def __init__(self, folder: Path, cpu: str = "cortex-a72") -> None:
        self.folder = folder
        self._image = image.ensure()
        self._cpu = cpu

    def unit(self, port: int | None = None) -> schema.Device:
        key = self._image.known_hosts.read_text().split(maxsplit=1)[1]
        at = _listed(self.folder, port or self.port, key)
        return schema.Device(
            name=NAME,
            driver="ssh",
            host="127.0.0.1",
            port=port or self.port,
            user="root",
            key=str(self._image.client_key),
            known_hosts=str(at),
        )

    def off(self) -> None:
        self._board.__exit__(None, None, None)

    def on(self) -> None:
        self._board = qemu.Board(self._cpu, self._image).__enter__()
        self.port = self._board.port
        with connect(self) as device:
            script = 'mkdir -p "$HOME/.cache" && mount -t tmpfs -o size="$1" kept "$HOME/.cache"'
            device.ask(script, str(self.ROOM), doing="mounting a small disk")


def _listed(folder: Path, port: int, key: str) -> Path:
    """A known_hosts file for the port of a proxy."""
    path = folder / "known_hosts.proxied"
    line = f"[127.0.0.1]:{port} {key.strip()}\n"
    text = path.read_text() if path.exists() else ""
    if line not in text:
        path.write_text(text + line)
    return path


@contextmanager
def server(folder: Path) -> Iterator[ServerBench]:
    folder.mkdir()
    with sshd.serving(folder) as serving:
        bench = ServerBench(serving)
        try:
            yield bench
        finally:
            bench.off()


@contextmanager
def board(folder: Path) -> Iterator[BoardBench]:
    folder.mkdir()
    bench = BoardBench(folder)
    bench.on()
    try:
        yield bench
    finally:
        bench.off()
