"""The little that is asked of QEMU's monitor: its version, and the port of a board's SSH server."""

from __future__ import annotations

import json
import re
import socket
from contextlib import closing
from typing import Any


class Closed(Exception):
    """QEMU has closed its monitor: it ends, or has ended."""


class Refused(Exception):
    """What QEMU says against a command, or that it says nothing."""


class Monitor:
    """Our end of a monitor. theirs: the other one, for the QEMU that is to be started.

    seconds: how long an answer may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ours, self.theirs = socket.socketpair()
        self._ours.settimeout(seconds)
        self._answers = self._ours.makefile("rb")

    def started(self) -> None:
        """QEMU has its end, or will never have it: without this, its end would go unnoticed."""
        self.theirs.close()

    def close(self) -> None:
        with closing(self._ours), closing(self._answers):
            self.theirs.close()

    def greeting(self) -> str:
        """QEMU's version. It has to be asked first."""
        version = self._receive("QMP")["version"]["qemu"]
        self._command("qmp_capabilities")
        return f"{version['major']}.{version['minor']}.{version['micro']}"

    def forwarded_port(self) -> int:
        """The port of this machine's loopback address that leads into the board."""
        text = self._command("human-monitor-command", {"command-line": "info usernet"})
        match = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", text)
        if not match:
            raise Refused("QEMU does not tell the port of the board's SSH server")
        return int(match[1])

    def _command(self, name: str, arguments: dict[str, str] | None = None) -> Any:
        request = {"execute": name} | ({"arguments": arguments} if arguments else {})
        try:
            self._ours.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise Closed from None
        return self._receive("return")

    def _receive(self, key: str) -> Any:
        """The next message with `key`; events in between are dropped."""
        try:
            for line in self._answers:
                message = json.loads(line)
                if key in message:
                    return message[key]
                if "error" in message:
                    raise Refused(f"QEMU says: {message['error']['desc']}")
        except TimeoutError:
            raise Refused(f"QEMU did not answer in {self._seconds:.0f} s") from None
        except OSError:
            pass
        raise Closed
