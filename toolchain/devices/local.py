"""This host as a device: `device=local`. It needs no entry in a devices file.

with local.connect(resolve("local")) as device:
    device.put({"runner": Path("build/runner")})
    device.run(["./runner"], timeout=60)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from toolchain import atomic, cache, schema
from toolchain.devices import base
from toolchain.devices.streams import Pipes
from toolchain.devices.unix import UnixDevice


class LocalDevice(UnixDevice):
    """`base.Device` in a temporary folder of this host. store: instead of Slipway's cache.

    sent_bytes: of contents of files that were copied.
    """

    patience = 30.0
    sent_bytes = 0

    def __init__(self, name: str = "local", store: Path | None = None) -> None:
        self._environment = os.environ | {"SLIPWAY_CACHE": str(store or cache.root())}
        super().__init__(name, where=name, emulated=False, more_facts={})

    def execute(self, argv: Sequence[str], timeout: float, doing: str) -> base.Completed:
        end = time.monotonic() + timeout
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,  # the guard of a run reads it: it ends with us
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for us, who clean up
        )
        with process:
            assert process.stdin
            assert process.stdout
            assert process.stderr
            said = Pipes(process.stdout, process.stderr, process.stdin.close)
            try:
                if not (said.wait(end) and _ended(process, end)):
                    raise self._late(timeout, doing, self._stop(process))
            finally:
                self._stop(process)
        return self._completed(process.returncode, said, doing)

    def get(self, name: str, to: Path) -> None:
        with atomic.replacing(to) as partly:
            try:
                shutil.copyfile(self._path(name), partly)
            except FileNotFoundError:
                raise base.no_such_file(name, self._where) from None

    def _upload(self, files: Mapping[str, Path], resume: bool = False) -> None:
        # Copies, not links: what a build changes in place must not change what is measured.
        for to, path in files.items():
            self.refuse_revoked()
            try:
                there = Path(to).stat().st_size if resume and Path(to).exists() else 0
                if 0 < there <= path.stat().st_size:
                    self._complete(path, Path(to), there)
                else:
                    shutil.copy(path, to)
                    self.sent_bytes += path.stat().st_size
            except OSError as error:
                raise self._upload_failed(to, error, path.stat().st_size) from error

    def _complete(self, path: Path, to: Path, there: int) -> None:
        if there < path.stat().st_size:
            with path.open("rb") as source, to.open("r+b") as sink:
                source.seek(there)
                sink.seek(there)
                shutil.copyfileobj(source, sink)
            self.sent_bytes += path.stat().st_size - there
        shutil.copymode(path, to)

    def _stop(self, process: subprocess.Popen[bytes]) -> bool:
        """Have the guard of a run kill it, and only then the guard. Whether it worked."""
        assert process.stdin
        process.stdin.close()
        if ended := _ended(process, time.monotonic() + self.patience / 2):
            return ended
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return False


def _ended(process: subprocess.Popen[bytes], end: float) -> bool:
    try:
        process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


@contextmanager
def connect(unit: schema.Device) -> Iterator[base.Device]:
    """Make a work folder, and remove it in the end."""
    device = LocalDevice(unit.name)
    try:
        yield device
    finally:
        device.remove_work()
