"""Steps of the build as processes of the nightly: many at once, all ended on demand.

    steps = Steps()
    steps.run("measure", {"bundle": path, "out": other}, log)
    steps.stop()                     # from anywhere: what runs is asked to end, and then made to

A process each keeps torch, and whatever a recipe's metric imports, out of the nightly itself; what
one step does to its own output, memory or locks is not the others' concern.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from toolchain import step_environment
from toolchain.bootstrap import ROOT
from toolchain.devices import lease
from toolchain.errors import CheckFailed, InfraError, SlipwayError, UserError
from toolchain.nightly.scheduler import Stopped

Options = Mapping[str, Path | str | Sequence[Path]]
ON_DEVICE = ("measure", "race")  # they wait for a device, most of their time
GRACE = 20.0  # seconds in which a step may tidy up a device
_POLL = 0.2  # seconds
_KINDS: Mapping[int, type[SlipwayError]] = {1: CheckFailed, 2: UserError}


class Steps:
    """stopping: set by `stop`, or by others who want no more. at_once: steps without a device."""

    def __init__(self, at_once: int | None = None) -> None:
        self.stopping = threading.Event()
        self._grace = GRACE
        self._slots = threading.Semaphore(at_once or os.cpu_count() or 1)

    def stop(self, grace: float = GRACE) -> None:
        """Ask all steps to end, as Ctrl-C does; they are killed `grace` seconds later."""
        self._grace = grace
        self.stopping.set()

    def run(self, verb: str, options: Options, log: Path, *, token: str | None = None) -> None:
        """One step; what it prints is appended to `log`.

        token: of the lease that it works under, for a step on a device. Raises Stopped after
        `stop`, and what the step ended with: UserError, or InfraError.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with nullcontext() if verb in ON_DEVICE else self._slots:
            if self.stopping.is_set():
                raise Stopped
            status = self._wait(_started(verb, options, log, token))
        if self.stopping.is_set():
            raise Stopped
        if status:
            said = log.read_text(errors="replace").rpartition("slipway: ")[2].strip()
            kind = _KINDS.get(status, InfraError)
            raise kind(said or f"the step ended with status {status}", where=f"{verb}, see {log}")

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        asked = None
        while True:
            try:
                return process.wait(_POLL)
            except subprocess.TimeoutExpired:
                if asked is None and self.stopping.is_set():
                    process.send_signal(signal.SIGINT)
                    asked = time.monotonic()
                elif asked is not None and time.monotonic() > asked + self._grace:
                    process.kill()


def _started(verb: str, options: Options, log: Path, token: str | None) -> subprocess.Popen[bytes]:
    words = [
        f"--{name}={one}"
        for name, given in options.items()
        for one in ([given] if isinstance(given, str | Path) else given)
    ]
    environment = step_environment.of_this_process()
    if token:
        environment[lease.TOKEN] = token
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", f"toolchain.steps.{verb}", *words],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for us, who pass it on once
        )
