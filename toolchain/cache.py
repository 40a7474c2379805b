"""Where things are kept that every checkout and every build shares: board images, downloads.

They outlive `scons -c` and `rm -rf build`: making them again needs the network.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from toolchain.errors import UserError


def root() -> Path:
    """`$SLIPWAY_CACHE`, or `slipway` in the user's cache folder. It need not exist yet."""
    named = os.environ.get("SLIPWAY_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()).absolute() / "slipway"


@contextmanager
def locked(
    path: Path,
    waiting: Callable[[], None] = lambda: None,
    remedy: str = "name another one: SLIPWAY_CACHE=/path/to/a/folder",
) -> Iterator[None]:
    """Hold the lock file `path` against other processes; a killed holder leaves no lock behind.

    waiting: called once if another process holds it. remedy: for a folder that is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            f"the folder cannot be written: {error.strerror}",
            where=str(path.parent),
            hint=remedy,
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
