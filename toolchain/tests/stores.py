"""Devices whose store is a folder of this machine: this host itself, and a server on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from toolchain.devices.local import LocalDevice
from toolchain.devices.unix import UnixDevice
from toolchain.tests import sshd

KINDS = ["local", pytest.param("ssh", marks=pytest.mark.slow)]
Connect = Callable[[], AbstractContextManager[UnixDevice]]


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[tuple[Path, Connect]]:
    """The root of a store, and how to connect to the device that it is of."""
    if kind == "local":
        yield folder / "store", lambda: local(folder / "store")
        return
    (folder / "sshd").mkdir()
    with sshd.serving(folder / "sshd") as server:
        yield server.home / ".cache/slipway", server.connect


@contextmanager
def local(store: Path) -> Iterator[UnixDevice]:
    device = LocalDevice("local", store)
    try:
        yield device
    finally:
        device.remove_work()
