"""What a command on a device prints, drained without a deadlock: a full stream would stop it."""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

OUTPUT_LIMIT = 256 << 20  # bytes of one stream; more is a program out of control


class Output:
    """What came so far. stop: called once when there is too much."""

    def __init__(self, stop: Callable[[], object]) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.overflowed = False
        self._stop = stop

    def _keep(self, data: bytes, into: bytearray) -> None:
        if len(into) < OUTPUT_LIMIT:
            into += data
        elif not self.overflowed:
            self.overflowed = True
            self._stop()


class Streams(Output):
    """Drains functions that wait for at most so many bytes; `lost` is what they may end with."""

    def __init__(
        self,
        stdout: Callable[[int], bytes],
        stderr: Callable[[int], bytes],
        stop: Callable[[], object],
        lost: type[Exception],
    ) -> None:
        super().__init__(stop)
        self._lost = lost
        self._pumps = [
            threading.Thread(target=self._pump, args=pair, daemon=True)
            for pair in ((stdout, self.stdout), (stderr, self.stderr))
        ]
        for pump in self._pumps:
            pump.start()

    def wait(self, end: float) -> bool:
        """Whether both streams have ended before the time `end`."""
        for pump in self._pumps:
            pump.join(max(0.0, end - time.monotonic()))
        return not any(pump.is_alive() for pump in self._pumps)

    def _pump(self, receive: Callable[[int], bytes], into: bytearray) -> None:
        with suppress(self._lost, EOFError, OSError):
            while data := receive(1 << 16):
                self._keep(data, into)


class Pipes(Output):
    """Drains a process's pipes without threads.

    A thread that still reads a pipe when it is closed may go on with the next file of its number.
    """

    def __init__(self, stdout: IO[bytes], stderr: IO[bytes], stop: Callable[[], object]) -> None:
        super().__init__(stop)
        self._open = {stdout.fileno(): self.stdout, stderr.fileno(): self.stderr}

    def wait(self, end: float) -> bool:
        """Whether both pipes have ended before the time `end`."""
        with selectors.DefaultSelector() as selector:
            for number, into in self._open.items():
                selector.register(number, selectors.EVENT_READ, into)
            while self._open and (seconds := end - time.monotonic()) > 0:
                for key, _ in selector.select(seconds):
                    if data := os.read(key.fd, 1 << 16):
                        self._keep(data, key.data)
                    else:
                        selector.unregister(key.fd)
                        del self._open[key.fd]
        return not self._open
