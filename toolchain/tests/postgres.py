"""A real PostgreSQL of our own: in a folder and on a port of its own, gone with the test.

with postgres.serving() as server:
    History(server.url)
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.devices.tied import tied

PASSWORD = "a word that must not be shown".replace(" ", "-")
_START_SECONDS = 60.0


def programs() -> Path | None:
    """The folder of the newest PostgreSQL; Debian keeps it out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda f: f.parts[-3])
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


@dataclass
class Server:
    """url: with its password, of an empty database."""

    folder: Path
    port: int
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"postgresql://farm:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        argv = [str(_bin() / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        argv += ["-k", str(self.folder), "-h", "127.0.0.1", "-c", "fsync=off"]
        log = (self.folder / "log").open("ab")
        self._running.append(
            subprocess.Popen(tied(_as_a_user(argv)), stdout=log, stderr=log, cwd=self.folder)
        )
        log.close()
        end = time.monotonic() + _START_SECONDS
        while subprocess.run(
            [str(_bin() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            if time.monotonic() > end or self._running[-1].poll() is not None:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """Connections are broken off."""
        process = self._running.pop()
        process.send_signal(signal.SIGINT)
        process.wait(30)

    def clear(self) -> None:
        """An empty database again."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")


@contextmanager
def serving() -> Iterator[Server]:
    """Start a server with its data in a temporary folder that its user can reach."""
    with tempfile.TemporaryDirectory(prefix="slipway-postgres.") as name:
        folder = Path(name)
        word = folder / "word"
        word.write_text(PASSWORD)
        if os.geteuid() == 0:
            user = _user()
            for path in (folder, word):
                os.chown(path, user.pw_uid, user.pw_gid)
        argv = [str(_bin() / "initdb"), "-D", str(folder / "data"), "-U", "farm", "-E", "UTF8"]
        argv += ["--auth=scram-sha-256", f"--pwfile={word}", "--no-sync", "--locale=C"]
        subprocess.run(_as_a_user(argv), check=True, capture_output=True, cwd=folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = Server(folder, port)
        server.start()
        try:
            yield server
        finally:
            while server._running:
                server.stop()


def _bin() -> Path:
    found = programs()
    assert found is not None
    return found


def _user() -> pwd.struct_passwd:
    """PostgreSQL refuses to be run by root."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _as_a_user(argv: list[str]) -> list[str]:
    if os.geteuid() != 0:
        return argv
    user = _user()
    return [
        "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *argv
    ]  # fmt: skip
