"""A device for tests: a temporary folder of this machine, with faults on demand.

with FakeDevice(faults={2: "lost"}) as device:      # the second operation loses the connection
    device.put({"runner": path})
    device.run(["./runner"], timeout=10)            # InfraError
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from toolchain.devices import base
from toolchain.devices.local import LocalDevice
from toolchain.devices.trees import Tree
from toolchain.errors import InfraError

Fault = Literal["lost", "full", "damaged", "timeout"]
_MESSAGES = {
    "lost": "the connection was lost",
    "full": "the device is full: 0 bytes are free",
    "damaged": "a file arrived damaged",
    "timeout": "no end in time; the command was killed",
}


class FakeDevice:
    """`base.Device` without a device. faults: by number of the operation, the first one being 1.

    store: folder of what stays on the device; one of its own, gone with it, unless given.
    """

    emulated = False

    def __init__(
        self,
        name: str = "fake",
        faults: Mapping[int, Fault] | None = None,
        store: Path | None = None,
    ) -> None:
        self.name = name
        self.operations: list[str] = []
        self._faults = dict(faults or {})
        self._given_store = store

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="slipway.")
        self._device = LocalDevice(self.name, self._given_store or Path(self._folder.name))
        self.work = Path(self._device.work)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._device.remove_work()
        self._folder.cleanup()

    def facts(self) -> dict[str, str]:
        self._operation("facts")
        return self._device.facts() | {"cpu": "fake"}

    def put(self, files: Mapping[str, Path]) -> None:
        self._operation("put")
        self._device.put(files)

    def link(self, name: str, digest: str, files: Mapping[str, Path]) -> None:
        self._operation("link")
        self._device.link(name, digest, files)

    def install(self, folder: str, tree: Tree, files: Mapping[str, Path]) -> int:
        self._operation("install")
        return self._device.install(folder, tree, files)

    def run(self, argv: Sequence[str], *, timeout: float) -> base.Completed:
        self._operation("run")
        return self._device.run(argv, timeout=timeout)

    def get(self, name: str, to: Path) -> None:
        self._operation("get")
        self._device.get(name, to)

    def _operation(self, name: str) -> None:
        self.operations.append(name)
        if fault := self._faults.get(len(self.operations)):
            raise InfraError(f"{name}: {_MESSAGES[fault]}", where=self.name)
