"""A device for tests: a temporary folder of this machine, with faults on demand.

with FakeDevice(faults={2: "lost"}) as device:      # the second operation loses the connection
    device.put({"runner": path})
    device.run(["./runner"], timeout=10)            # InfraError
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from toolchain import atomic
from toolchain.devices import base
from toolchain.errors import InfraError

Fault = Literal["lost", "full", "damaged", "timeout"]
_MESSAGES = {
    "lost": "the connection was lost",
    "full": "the device is full: 0 bytes are free",
    "damaged": "a file arrived damaged",
    "timeout": "no end in time; the command was killed",
}


class FakeDevice:
    """`base.Device` without a device. faults: by number of the operation, the first one being 1."""

    emulated = False

    def __init__(self, name: str = "fake", faults: Mapping[int, Fault] | None = None) -> None:
        self.name = name
        self.operations: list[str] = []
        self._faults = dict(faults or {})

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="slipway.")
        self.work = Path(self._folder.name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def facts(self) -> dict[str, str]:
        self._operation("facts")
        known = platform.uname()
        libc = platform.libc_ver()[1]
        return {"machine": known.machine, "kernel": known.release, "cpu": "fake", "libc": libc}

    def put(self, files: Mapping[str, Path]) -> None:
        self._operation("put")
        for name, path in files.items():
            to = self.work / name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)

    def run(self, argv: Sequence[str], *, timeout: float) -> base.Completed:
        self._operation("run")
        process = subprocess.Popen(
            argv,
            cwd=self.work,
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise InfraError(_MESSAGES["timeout"], where=self.name) from None
        status = process.returncode
        return base.Completed(status if status >= 0 else 128 - status, out, err)

    def get(self, name: str, to: Path) -> None:
        self._operation("get")
        if not (self.work / name).is_file():
            raise InfraError(f"there is no file '{name}' to fetch", where=self.name)
        with atomic.replacing(to) as partial:
            shutil.copy(self.work / name, partial)

    def _operation(self, name: str) -> None:
        self.operations.append(name)
        if fault := self._faults.get(len(self.operations)):
            raise InfraError(f"{name}: {_MESSAGES[fault]}", where=self.name)
