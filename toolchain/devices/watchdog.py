"""No wait without an end: whatever goes wrong on a connection, silence too, is an InfraError."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import paramiko
from cryptography.exceptions import InvalidTag

from toolchain.errors import InfraError

ANSWER_SECONDS = 30.0  # banner, key exchange, authentication, opening a channel
LOST_HINT = "is the unit up, and its network? Run the same command again"

# What paramiko raises on a connection that breaks, ends early or carries nonsense.
_BROKEN = (
    paramiko.SSHException,
    paramiko.SFTPError,
    EOFError,
    OSError,
    struct.error,
    InvalidTag,
)


class Watchdog:
    """Closes a connection on which nothing has moved for `seconds`; who waits for it wakes up."""

    def __init__(self, transport: paramiko.Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds
        self._moved = threading.Event()
        self._over = False
        self.bit = False

    def touch(self, *_: object) -> None:
        self._moved.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        self._moved.set()

    def _watch(self) -> None:
        while self._moved.wait(self._seconds) and not self._over:
            self._moved.clear()
        if not self._over:
            self.bit = True
            self._transport.close()


@contextmanager
def bounded(
    transport: paramiko.Transport,
    where: str,
    doing: str,
    seconds: float = ANSWER_SECONDS,
    hint: str = LOST_HINT,
) -> Iterator[Watchdog]:
    """Turn whatever goes wrong on the connection, silence included, into an InfraError.

    hint: what to do when it is lost.
    """
    watchdog = Watchdog(transport, seconds)
    try:
        with watchdog:
            yield watchdog
    except _BROKEN as error:
        if watchdog.bit:
            text = f"no answer for {seconds:.0f} s while {doing}"
        elif isinstance(error, EOFError) or gone(transport):
            reason = f" ({error})" if str(error) else ""
            text = f"the connection was lost while {doing}{reason}"
        else:
            text, hint = f"{doing} failed: {str(error) or type(error).__name__}", ""
        raise InfraError(text, where=where, hint=hint) from error


def gone(transport: paramiko.Transport) -> bool:
    """Whether the connection has ended; its channels end a moment before it does."""
    if transport.is_active():
        transport.join(0.5)
    return not transport.is_active()
