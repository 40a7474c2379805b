"""What a command on a device prints, drained without a deadlock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import paramiko

OUTPUT_LIMIT = 256 << 20  # bytes of one stream; more is a program out of control


class Streams:
    """Drains both streams of a channel at once: a full one would stop the command."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.overflowed = False
        self._channel = channel
        self._pumps = [
            threading.Thread(target=self._pump, args=pair, daemon=True)
            for pair in ((channel.recv, self.stdout), (channel.recv_stderr, self.stderr))
        ]
        for pump in self._pumps:
            pump.start()

    def wait(self, end: float) -> bool:
        """Whether both streams and the command have ended before the time `end`."""
        for pump in self._pumps:
            pump.join(max(0.0, end - time.monotonic()))
        return self._channel.status_event.wait(max(0.0, end - time.monotonic())) and not any(
            pump.is_alive() for pump in self._pumps
        )

    def _pump(self, receive: Callable[[int], bytes], into: bytearray) -> None:
        with suppress(paramiko.SSHException, EOFError, OSError):
            while data := receive(1 << 16):
                if len(into) < OUTPUT_LIMIT:
                    into += data
                elif not self.overflowed:
                    self.overflowed = True
                    self._channel.shutdown_write()
