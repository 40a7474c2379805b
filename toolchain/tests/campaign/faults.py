"""The kinds of faults. Each happens at a random moment of what a client does."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from toolchain.devices import deploy
from toolchain.errors import InfraError
from toolchain.tests import proxy
from toolchain.tests.campaign import acts
from toolchain.tests.campaign.acts import Product
from toolchain.tests.campaign.benches import Bench, connect

SESSION = 60_000  # bytes of a session besides the files that travel, about
SECONDS = 1.5  # that a push or a measurement takes, about


@dataclass(frozen=True)
class Scene:
    """What a fault is given. new: a form of `product` that no device has seen; it is pushed."""

    bench: Bench
    chance: random.Random
    product: Product
    new: Product
    folder: Path

    @cached_property
    def other(self) -> Product:
        """One more that no device has seen."""
        return self.product.other(self.folder / "other.tar", self.chance)


def cut_push(scene: Scene) -> str:
    """The connection is cut at a random byte of a push."""
    with _cut_link(scene) as port:
        return _tried(lambda: acts.push(scene.bench.unit(port), scene.new))


def cut_measurement(scene: Scene) -> str:
    """The connection is cut at a random byte of a measurement."""
    with _cut_link(scene) as port:
        return _measured(scene, port)


def off_while_pushing(scene: Scene) -> str:
    """The device loses its power while a bundle is pushed to it."""
    with _later(scene, scene.bench.off):
        said = _tried(lambda: acts.push(scene.bench.unit(), scene.new))
    scene.bench.on()
    return said


def off_while_measuring(scene: Scene) -> str:
    """The device loses its power while it measures."""
    with _later(scene, scene.bench.off):
        said = _measured(scene, None)
    scene.bench.on()
    return said


def client_killed(scene: Scene) -> str:
    """The client is killed, and has no chance to clean up."""
    described = acts.described(scene.bench.unit(), scene.new)
    module = "toolchain.tests.campaign.client"
    command = [sys.executable, "-m", module, described]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdout
        assert client.stdout.readline() == b"ready\n"
        with suppress(subprocess.TimeoutExpired):
            client.wait(scene.chance.uniform(0, SECONDS))
        client.kill()
    if client.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(f"the client ended with {client.returncode} by itself")
    return "done" if client.returncode == 0 else "infra-error"


def two_clients(scene: Scene) -> str:
    """Two clients push different bundles at once: both are done, one after the other."""
    said, _ = list[str](), scene.other  # made before the race

    def other() -> None:
        said.append(_tried(lambda: acts.push(scene.bench.unit(), scene.other)))

    beside = threading.Thread(target=other)
    beside.start()
    time.sleep(scene.chance.uniform(0, 0.3))
    mine = _tried(lambda: acts.push(scene.bench.unit(), scene.new))
    beside.join()
    if said != ["done"] or mine != "done":
        raise AssertionError(f"of two clients one gave up: {mine}, {said}")
    return "done"


def damaged(scene: Scene) -> str:
    """A byte of a file that stays on the device changes by itself."""
    acts.push(scene.bench.unit(), scene.new)
    with connect(scene.bench) as device:
        script = r"""
cd "$1"/ && file=$(find . -type f | sort | sed -n "$2p") || exit 1
size=$(wc -c <"$file") at=$(($3 % size))
old=$(od -An -tu1 -j "$at" -N 1 "$file") && chmod u+w "$file" || exit 1
new=$(printf %o $(((old + 1) % 256)))
printf "\\$new" | dd of="$file" bs=1 seek="$at" conv=notrunc 2>/dev/null
chmod u-w "$file"
"""
        (slot,) = deploy.slots(device)
        count = len(device.ask('find "$1"/ -type f', slot.path, doing="counting").split())
        which, at = scene.chance.randint(1, count), scene.chance.randrange(1 << 30)
        device.ask(script, slot.path, str(which), str(at), doing="damaging a file")
        names = deploy.verify(device, acts.SLOT)
    if len(names) != 1:
        raise AssertionError(f"a byte was changed, and verify says {names}")
    acts.push(scene.bench.unit(), scene.new, thorough=True)
    return "found"


def disk_full(scene: Scene) -> str:
    """The disk has less room than is needed, or just enough."""
    leave = scene.chance.randint(0, 600)
    fill = r"""
cd "$HOME/.cache" && free=$(df -Pk . | tail -n 1 | awk '{print $4}') || exit 1
[ "$free" -le "$1" ] || dd if=/dev/zero of=filler bs=1024 count=$((free - $1)) 2>/dev/null
"""
    with connect(scene.bench) as device:
        device.ask(fill, str(leave), doing="filling the disk")
    try:
        return _tried(lambda: acts.push(scene.bench.unit(), scene.new))
    finally:
        with connect(scene.bench) as device:
            device.ask('rm -f "$HOME/.cache/filler"', doing="emptying the disk")


def clock_jumps(scene: Scene) -> str:
    """The device's clock jumps by up to ten years while a bundle is pushed."""
    seconds = scene.chance.randint(-300_000_000, 300_000_000)
    with connect(scene.bench) as device:

        def jump() -> None:
            script = 'date -s "@$(($(date +%s) + $1))"'
            device.ask(script, str(seconds), doing="setting the clock")

        with _later(scene, jump):
            said = _tried(lambda: acts.push(scene.bench.unit(), scene.new))
        device.ask('date -s "@$1"', f"{time.time():.0f}", doing="setting the clock")
    return said


def slow_link(scene: Scene) -> str:
    """A link with little bandwidth and a long way: slow, and nothing else."""
    rate = scene.chance.uniform(100_000, 1_000_000)
    latency = scene.chance.uniform(0, 0.05)
    with proxy.between(scene.bench.port, rate=rate, latency=latency) as port:
        acts.push(scene.bench.unit(port), scene.new)
    return "done"


@contextmanager
def _cut_link(scene: Scene) -> Iterator[int]:
    most = SESSION + scene.new.bundle.stat().st_size // 10
    after = scene.chance.randrange(most)
    how: proxy.How = scene.chance.choice(("reset", "close"))
    with proxy.between(scene.bench.port, cut_after=after, how=how) as port:
        yield port


@contextmanager
def _later(scene: Scene, do: Callable[[], object]) -> Iterator[None]:
    """`do` at a random moment of the body, or after it."""
    timer = threading.Timer(scene.chance.uniform(0, SECONDS), do)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def _tried(do: Callable[[], object]) -> str:
    try:
        do()
    except InfraError as error:
        if not str(error).strip():
            raise AssertionError("an error without a word") from error
        return "infra-error"
    return "done"


def _measured(scene: Scene, port: int | None) -> str:
    status = acts.measured(scene.bench.unit(port), scene.new, scene.folder / "measured")
    if status == "failed":
        raise AssertionError("the product was blamed for a fault of the device")
    return "done" if status == "measured" else status


Fault = Callable[[Scene], str]
# What they end with is about `new`, which is current if all went well.
PUSHING: tuple[Fault, ...] = (
    cut_push,
    client_killed,
    off_while_pushing,
    disk_full,
    clock_jumps,
    slow_link,
)
# How many of a hundred, on each kind of bench.
MIX: dict[str, dict[Fault, int]] = {
    "server": {
        cut_push: 44,
        cut_measurement: 22,
        client_killed: 10,
        off_while_pushing: 6,
        off_while_measuring: 4,
        two_clients: 5,
        damaged: 6,
        slow_link: 3,
    },
    "board": {
        cut_push: 30,
        cut_measurement: 12,
        disk_full: 20,
        off_while_pushing: 8,
        off_while_measuring: 6,
        clock_jumps: 14,
        damaged: 6,
        two_clients: 4,
    },
}
