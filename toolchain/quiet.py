"""Times are taken while nothing else of ours works on this machine.

Each step of a build holds a lock that many can share; whoever takes times asks for it alone, waits
until the others have ended, and keeps new ones waiting. The lock is the machine's, not a build's.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from toolchain import cache
from toolchain.errors import UserError

_held: list[IO[bytes]] = []  # by this process, as one of many


@contextmanager
def at_work() -> Iterator[None]:
    """Keep the machine from being called quiet."""
    with _lock("at_work") as file:
        with _lock("gate") as gate:  # whoever waits to be alone keeps it shut
            fcntl.flock(gate, fcntl.LOCK_SH)
            fcntl.flock(file, fcntl.LOCK_SH)
        _held.append(file)
        try:
            yield
        finally:
            _held.remove(file)


@contextmanager
def alone(waiting: Callable[[], None]) -> Iterator[None]:
    """Be the only one at work; `waiting` is called first if that takes its time."""
    with _lock("gate") as gate, _mine() as file:
        if _held:  # two that wait for each other to end would do so for ever
            fcntl.flock(file, fcntl.LOCK_UN)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if _held:
                fcntl.flock(file, fcntl.LOCK_SH)


@contextmanager
def _mine() -> Iterator[IO[bytes]]:
    """The lock as this process holds it, or a new one: a second one would wait for the first."""
    if _held:
        yield _held[0]
    else:
        with _lock("at_work") as file:
            yield file


def _lock(name: str) -> IO[bytes]:
    path = cache.root() / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise UserError(
            f"the folder cannot be written: {error.strerror}",
            where=str(path.parent),
            hint="name another one: SLIPWAY_CACHE=/path/to/a/folder",
        ) from None
