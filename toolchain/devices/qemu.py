"""Emulated boards: QEMU's `virt` machine with one CPU of a named model and its own SSH server.

    with qemu.connect(resolve("qemu:cortex-a72")) as device:
        device.run(["uname", "-m"], timeout=10)

A board counts instructions exactly (`-icount`), reaches no network (`restrict=on`) and cannot
outlive the process that started it. It needs no folder: the console is an unlinked file and QEMU's
monitor a pair of sockets. The kernel chooses the port, so that two boards never want the same one.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from toolchain.devices import base, image
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
        self._monitor, theirs = socket.socketpair()
        self._answers = self._monitor.makefile("rb")
        try:
            with theirs:
                self._process = self._start(theirs.fileno())
            try:
                self._monitor.settimeout(self._deadline)
                self.version = self._greeting()
                self.port = self._forwarded_port()
                self._wait_until_ready(end)
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
        argv = [PROGRAM, "-nodefaults", "-no-user-config", "-no-reboot"]
        argv += ["-M", _MACHINE, "-cpu", self.cpu, "-smp", "1", "-m", str(MEMORY_MB)]
        argv += ["-icount", "shift=0", "-display", "none"]
        argv += [
            "-chardev",
            f"file,id=console,path=/dev/fd/{console}",
            "-serial",
            "chardev:console",
        ]
        argv += ["-chardev", f"socket,id=monitor,fd={monitor}"]
        argv += ["-mon", "chardev=monitor,mode=control"]
        argv += ["-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd)]
        argv += ["-append", _APPEND, "-device", "virtio-net-device,netdev=n0"]
        # Port 0: the kernel chooses. restrict=on: the guest must not reach this machine's services.
        argv += ["-netdev", "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"]
        try:
            return subprocess.Popen(
                tied(argv),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=(console, monitor),
            )
        except FileNotFoundError as error:
            raise _no_tool(str(error.filename)) from None

    def _greeting(self) -> str:
        version = self._receive("QMP")["version"]["qemu"]
        self._command("qmp_capabilities")
        return f"{version['major']}.{version['minor']}.{version['micro']}"

    def _forwarded_port(self) -> int:
        line = {"command-line": "info usernet"}
        text = self._command("human-monitor-command", line)
        match = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", text)
        if not match:
            raise self.trouble("QEMU does not tell the port of the board's SSH server")
        return int(match[1])

    def _command(self, name: str, arguments: dict[str, str] | None = None) -> Any:
        request = {"execute": name} | ({"arguments": arguments} if arguments else {})
        try:
            self._monitor.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._died() from None
        return self._receive("return")

    def _receive(self, key: str) -> Any:
        """The next message with `key`; events in between are dropped."""
        try:
            for line in self._answers:
                message = json.loads(line)
                if key in message:
                    return message[key]
                if "error" in message:
                    raise self.trouble(f"QEMU says: {message['error']['desc']}")
        except TimeoutError:
            raise self.trouble(f"QEMU did not answer in {self._deadline:.0f} s") from None
        except OSError:
            pass
        raise self._died()

    def _died(self) -> InfraError | UserError:
        status = self._process.wait(timeout=10)
        tail = self.console()
        if status == 127:
            return _no_tool(PROGRAM)
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
        self._answers.close()
        self._monitor.close()
        self._console.close()


@contextmanager
def connect(unit: Device, say: Callable[[str], None] = progress) -> Iterator[base.Device]:
    """Boot a board and log in to it."""
    from toolchain.devices.login import Login
    from toolchain.devices.ssh import session

    cpu = unit.cpu or ""
    check_model(cpu, unit.name)
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


def _no_tool(name: str) -> UserError:
    return UserError(
        f"the command '{name}' is not installed",
        where="emulated board",
        hint="apt-get install qemu-system-arm util-linux",
    )
