"""Emulated boards: QEMU's `virt` machine with one CPU of a named model and its own SSH server.

    with qemu.connect(resolve("qemu:cortex-a72")) as device:
        device.run(["uname", "-m"], timeout=10)

A board counts instructions exactly (`-icount`), reaches no network (`restrict=on`) and cannot
outlive the process that started it. It needs no folder: the console is an unlinked file and QEMU's
monitor a pair of sockets. The kernel chooses the port, so that two boards never want the same one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from toolchain.devices import base, image, qmp
from toolchain.devices.qmp import Monitor
from toolchain.devices.tied import tied
from toolchain.errors import InfraError, UserError, nearest
from toolchain.schema import Device

# The models on which integer programs were seen to give the host's bits.
MODELS = ("a64fx", "cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1")
PROGRAM = "qemu-system-aarch64"
BOOT_SECONDS = 60.0
MEMORY_MB = 1024

# A fixed version, so that a newer QEMU emulates the same board; a64fx needs version 3 of the GIC.
_MACHINE = "virt-7.2,gic-version=3"
_APPEND = "earlycon console=ttyAMA0 quiet panic=-1 nokaslr kpti=off mitigations=off"


def check_model(cpu: str, where: str) -> None:
    if cpu == "max":
        raise UserError(
            "the CPU model 'max' computes wrong results: QEMU 7.2's emulation of SME is at fault",
            where=where,
            hint=f"name a real model: {', '.join(MODELS)}",
        )
    if cpu not in MODELS:
        raise UserError(f"unknown CPU model '{cpu}'", where=where, hint=nearest(cpu, MODELS))


def progress(line: str) -> None:
    """Progress goes to stderr: a step's stdout may be a result."""
    print(f"slipway: {line}", file=sys.stderr, flush=True)


def arguments(cpu: str, made: image.Image, console: str, monitor: int) -> list[str]:
    """The command that is a board. console: file for what it writes; monitor: descriptor for QMP"""
    argv = [PROGRAM, "-nodefaults", "-no-user-config", "-no-reboot"]
    argv += ["-M", _MACHINE, "-cpu", cpu, "-smp", "1", "-m", str(MEMORY_MB)]
    argv += ["-icount", "shift=0", "-display", "none"]
    argv += ["-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"]
    argv += ["-chardev", f"socket,id=monitor,fd={monitor}"]
    argv += ["-mon", "chardev=monitor,mode=control"]
    argv += ["-kernel", str(made.kernel), "-initrd", str(made.initrd)]
    argv += ["-append", _APPEND, "-device", "virtio-net-device,netdev=n0"]
    # Port 0: the kernel chooses. restrict=on: the guest must not reach this machine's services.
    return [*argv, "-netdev", "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"]


class Board:
    """A running emulated board, between `with` and its end.

    port: of its SSH server, on the loopback address of this machine.
    """

    port: int
    version: str

    def __init__(self, cpu: str, made: image.Image, *, deadline: float = BOOT_SECONDS) -> None:
        check_model(cpu, f"qemu:{cpu}")
        self.cpu = cpu
        self.image = made
        self.name = f"qemu:{cpu}"
        self._deadline = deadline

    def __enter__(self) -> Self:
        end = time.monotonic() + self._deadline
        self._console = tempfile.TemporaryFile()
        self._monitor = Monitor(self._deadline)
        try:
            self._process = self._start(self._monitor.theirs.fileno())
            self._monitor.started()
            try:
                self._come_up(end)
            except BaseException:
                self._kill()
                raise
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._kill()
        self._release()

    @property
    def pid(self) -> int:
        """Of the QEMU process."""
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def stopped(self) -> bool:
        """Whether QEMU ends on its own; its connections end a moment before it does."""
        try:
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            return False
        return True

    def console(self, lines: int = 30) -> str:
        """The end of what the board wrote on its console."""
        size = self._console.seek(0, 2)
        self._console.seek(max(0, size - 16384))
        text = self._console.read().decode(errors="replace")
        return "\n  ".join(line.rstrip() for line in text.strip().splitlines()[-lines:])

    def trouble(self, message: str) -> InfraError:
        tail = self.console()
        hint = f"its console ends with:\n  {tail}" if tail else "its console is empty"
        return InfraError(message, where=self.name, hint=hint)

    def _start(self, monitor: int) -> subprocess.Popen[bytes]:
        console = self._console.fileno()
        try:
            return subprocess.Popen(
                tied(arguments(self.cpu, self.image, f"/dev/fd/{console}", monitor)),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=(console, monitor),
            )
        except FileNotFoundError as error:
            raise no_tool(str(error.filename)) from None

    def _come_up(self, end: float) -> None:
        try:
            self.version = self._monitor.greeting()
            self.port = self._monitor.forwarded_port()
        except qmp.Closed:
            raise self._died() from None
        except qmp.Refused as error:
            raise self.trouble(str(error)) from None
        self._wait_until_ready(end)

    def _died(self) -> InfraError | UserError:
        status = self._process.wait(timeout=10)
        tail = self.console()
        if status == 127:
            return no_tool(PROGRAM)
        if "unsupported machine type" in tail or "unable to find CPU model" in tail:
            return UserError(
                f"QEMU is too old for this board: {tail}",
                where=self.name,
                hint="QEMU 7.2 or newer is needed: qemu-system-aarch64 --version",
            )
        return self.trouble(f"QEMU ended with status {status} before the board was up")

    def _wait_until_ready(self, end: float) -> None:
        """User networking accepts connections before the guest listens: ask the console instead."""
        line = image.READY.encode()
        while True:
            running = self.alive()
            self._console.seek(0)
            if line in self._console.read():
                return
            if not running:
                raise self._died()
            if time.monotonic() > end:
                raise self.trouble(f"the board was not up after {self._deadline:.0f} s")
            time.sleep(0.02)

    def _kill(self) -> None:
        """Nothing in a board is worth an orderly shutdown."""
        self._process.kill()
        self._process.wait()

    def _release(self) -> None:
        self._monitor.close()
        self._console.close()


@contextmanager
def connect(unit: Device, say: Callable[[str], None] = progress) -> Iterator[base.Device]:
    """Boot a board and log in to it; or only log in, if the unit says where it is up."""
    from toolchain.devices.login import Login
    from toolchain.devices.ssh import session

    cpu = unit.cpu or ""
    check_model(cpu, unit.name)
    if unit.host:
        with _standing(unit) as device:
            yield device
        return
    made = image.ensure(say)
    with Board(cpu, made) as board:
        login = Login(
            host="127.0.0.1",
            port=board.port,
            user="root",
            key=made.client_key,
            known_hosts=made.known_hosts,
            known_as=image.HOST,
        )
        more = {"emulator": f"QEMU {board.version} {cpu}", "board": made.digest}
        try:
            with session(login, name=unit.name, emulated=True, more_facts=more) as device:
                yield device
        except InfraError as error:
            if not board.stopped():
                raise
            raise board.trouble(f"the board stopped: {error.message}") from error


@contextmanager
def _standing(unit: Device) -> Iterator[base.Device]:
    """A board that somebody started: `boards.up`."""
    from toolchain.devices import boards, ssh
    from toolchain.devices.login import Login

    login = Login(
        host=unit.host or "",
        port=unit.port,
        user=unit.user,
        key=Path(unit.key) if unit.key else None,
        known_hosts=Path(unit.known_hosts or "~/.ssh/known_hosts").expanduser(),
    )
    boards.refuse_ended(unit)
    facts = boards.facts(unit)
    with ssh.session(login, name=unit.name, emulated=True, more_facts=facts) as device:
        # Its clock counts instructions: after hours of work it would be far behind.
        device.run(["date", "-u", "-s", f"@{time.time():.0f}"], timeout=BOOT_SECONDS)
        yield device


def no_tool(name: str) -> UserError:
    return UserError(
        f"the command '{name}' is not installed",
        where="emulated board",
        hint="apt-get install qemu-system-arm util-linux",
    )
