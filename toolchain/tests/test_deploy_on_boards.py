"""Bundles on a real board, whose shell and tools are busybox's."""

from __future__ import annotations

import os
import threading
import time

import pytest

from toolchain.devices import deploy, image, qemu, scripts
from toolchain.devices.deploy import Keep
from toolchain.devices.ssh import SshDevice
from toolchain.errors import InfraError
from toolchain.tests.boards import on
from toolchain.tests.test_deploy import LIBRARY, PROGRAM, make  # noqa: F401
from toolchain.tests.test_deploy import push as push_here

pytestmark = pytest.mark.board


@pytest.fixture(scope="module")
def board():
    with qemu.Board("cortex-a72", image.ensure(lambda _: None)) as running:
        yield running


@pytest.fixture(autouse=True)
def of_any_machine(monkeypatch):
    """The bundles of these tests hold scripts."""
    monkeypatch.setattr("toolchain.devices.preflight._check_machine", lambda *_: None)


def push(device, made, **how):
    return push_here(device, made, slot="board", **how)


def output(device: SshDevice) -> bytes:
    (slot,) = deploy.slots(device)
    return device.run(["sh", "-c", 'cd "$1" && ./runner', "sh", slot.path], timeout=60).stdout


def flip(device, name: str) -> None:
    """Change one byte in the middle."""
    (slot,) = deploy.slots(device)
    script = 'printf x | dd of="$1" bs=1 seek=70000 conv=notrunc'
    assert device.run(["sh", "-c", script, "sh", f"{slot.path}/{name}"], timeout=20).status == 0


def test_the_life_of_a_slot(board, tmp_path, make):  # noqa: F811
    old, new = make(), make(os.urandom(100_000))
    with on(board, tmp_path) as device:
        first = push(device, old)
        assert output(device) == PROGRAM + LIBRARY
    with on(board, tmp_path) as device:
        second = push(device, new)
        assert second.sent < 104_000
        assert (second.previous, second.pruned.trees) == (first.digest, ())
        assert output(device) == new.bundle.read("program.pte") + LIBRARY
        assert push(device, new).sent == 0
        flip(device, "program.pte")
        assert deploy.verify(device, "board") == ["program.pte"]
        assert push(device, new).sent == 100_000
        flip(device, "lib/one.so")
        assert deploy.verify(device, "board") == ["lib/one.so"]
        assert push(device, new, thorough=True).sent == len(LIBRARY)
        assert deploy.verify(device, "board") == []
        assert deploy.rollback(device, "board") == first.digest
        assert output(device) == PROGRAM + LIBRARY
        third = push(device, make(b"third"))
        assert deploy.prune(device, Keep(0, 0)).trees == (), "all that is ours is in use"
    with on(board, tmp_path) as device:
        assert deploy.prune(device, Keep(0, 0)).trees == (second.digest,)
        (slot,) = deploy.slots(device)
        assert (slot.current, slot.previous) == (third.digest, first.digest)
        assert deploy.verify(device, "board") == []


def test_a_board_killed_while_a_bundle_is_sent(tmp_path, make):  # noqa: F811
    with (
        qemu.Board("cortex-a72", image.ensure(lambda _: None)) as doomed,
        on(doomed, tmp_path) as device,
    ):
        push(device, make())
        large = make(os.urandom(60 << 20))
        killer = threading.Timer(0.5, lambda: os.kill(doomed.pid, 9))
        killer.start()
        began = time.monotonic()
        with pytest.raises(InfraError, match="the connection was lost"):
            push(device, large)
        killer.join()
        assert time.monotonic() - began < 60


def test_a_store_that_is_full(board, tmp_path, make, monkeypatch):  # noqa: F811
    """Told before the first byte; what was there stays, and a smaller one is taken."""
    for name in ("LOOK", "LEAVE"):
        text = f"export SLIPWAY_CACHE=/tmp/small\n{getattr(scripts, name)}"
        monkeypatch.setattr(scripts, name, text)
    script = "mkdir -p /tmp/small && mount -t tmpfs -o size=6m small /tmp/small"
    with on(board, tmp_path) as device:
        assert device.run(["sh", "-c", script], timeout=20).status == 0
        first = push(device, make()).digest
        before = device.sent_bytes
        told = r"full: \d+ bytes are free in /tmp/small, \d+ are needed"
        with pytest.raises(InfraError, match=told):
            push(device, make(os.urandom(5 << 20)))
        assert device.sent_bytes == before
        assert deploy.verify(device, "board") == []
        assert deploy.slots(device)[0].current == first
        assert push(device, make(os.urandom(1 << 20))).changed
