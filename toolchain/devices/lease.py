"""The right to work on a device alone, kept on the device: two build hosts can share a board.

    with lease.leased(unit, wait=600) as device:          # connect, and hold the lease
        device.run(["./runner"], timeout=60)

    with lease.hold(device, ttl=60) as mine:              # on a device that is connected
        …                                                 # renewed every 20 s meanwhile

    free ─ take ─> held ─ renew ─> held ─ release ─> free
                     └─ no heartbeat for `ttl` s ─> anybody may take it: the former holder's
                        programs are killed, its work folder is removed, its fence lets nothing pass

Seconds are those of the device's own uptime: setting its clock moves nothing, a restart frees it.
A lease that was lost makes `hold` end with InfraError, whatever the work in it seems to have given.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from toolchain import devices, schema
from toolchain.devices import base, lease_scripts
from toolchain.devices.unix import UnixDevice
from toolchain.errors import CheckFailed, InfraError

TTL_SECONDS = 60.0
# Names the token of a lease that a parent process holds: its children work under it.
TOKEN = "SLIPWAY_TOKEN"
_POLL_SECONDS = (0.25, 5.0)  # first and last pause; each look costs the one at work there a little
Say = Callable[[str], object]


@dataclass(frozen=True)
class Holder:
    """Who holds a device. held, left: seconds since it was taken, and until it may be taken."""

    owner: str
    token: str
    held: float
    left: float
    ttl: float


@dataclass
class Lease:
    """A lease of ours. joined: it is a parent's, which gives it back. lost: why it ended early."""

    token: str
    owner: str
    ttl: float
    joined: bool = False
    lost: str = ""


def progress(line: str) -> None:
    print(f"slipway: {line}", file=sys.stderr, flush=True)


def me() -> str:
    """Who we are, for others who wait."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


@contextmanager
def leased(
    unit: schema.Device, *, wait: float = 0.0, ttl: float = TTL_SECONDS, say: Say = progress
) -> Iterator[base.Device]:
    """Connect to a unit and hold its lease. wait: seconds to wait for another holder."""
    with devices.connect(unit) as device:
        if not isinstance(device, UnixDevice):  # nobody else can reach it
            yield device
            return
        with hold(device, ttl=ttl, wait=wait, say=say):
            yield device


@contextmanager
def hold(
    device: UnixDevice,
    *,
    owner: str | None = None,
    ttl: float = TTL_SECONDS,
    wait: float = 0.0,
    say: Say = progress,
) -> Iterator[Lease]:
    """Take the lease, keep it alive, and give it back; meanwhile `device.fence` guards the device.

    ttl: seconds after the last heartbeat until others may take it. wait: seconds to wait for it.
    InfraError if another holds it for longer, or if it was lost on the way.
    """
    mine = _joined(device) or take(device, owner=owner, ttl=ttl, wait=wait, say=say)
    outer, device.fence = device.fence, lease_scripts.fence(mine.token)
    heart = _Heart(device, mine)
    heart.start()
    failed: BaseException | None = None
    try:
        yield mine
    except BaseException as error:
        failed = error
        raise
    finally:
        heart.stop()
        device.fence, device.revoked = outer, ""
        lost = _give_back(device, mine)
        # A program that others killed looks like one that failed by itself: it has not.
        if lost and (failed is None or isinstance(failed, CheckFailed)):
            raise lost from failed


def take(
    device: UnixDevice,
    *,
    owner: str | None = None,
    ttl: float = TTL_SECONDS,
    wait: float = 0.0,
    say: Say = progress,
) -> Lease:
    """Take the lease without a heartbeat: it ends by itself `ttl` seconds from now."""
    if not 1 <= ttl <= 1e6:
        raise ValueError(f"{ttl:g} s is no time to live: 1 s to a million")
    owner = _line(owner or me())
    end, pause, told = time.monotonic() + wait, _POLL_SECONDS[0], False
    while True:
        said = _ask(
            device,
            lease_scripts.TAKE,
            *(secrets.token_hex(8), f"{ttl * 100:.0f}", owner, device.work),
            doing="taking the lease",
        )
        if said[0] == "taken":
            return Lease(said[1], owner, ttl)
        left = end - time.monotonic()
        if left <= 0:
            raise _refused(device, said, wait)
        if not told:
            say(f"{device.name}: {_by(said)}; waiting for up to {left:.0f} s")
            told = True
        ends = _holder(said).left if said[0] == "held" else pause
        time.sleep(min(pause, left, ends + 0.02))
        pause = min(2 * pause, _POLL_SECONDS[1])


def status(device: UnixDevice) -> Holder | None:
    """Who holds the device; None if it is free. Changes nothing there."""
    said = _ask(device, lease_scripts.STATUS, doing="asking for the lease")
    return _holder(said) if said else None


def release(device: UnixDevice, token: str | None) -> None:
    """Give a lease back. token: None for anybody's, whose programs are ended."""
    if now := _release(device, token or ""):
        raise InfraError(
            f"the lease {token} is not the device's any more: {now}", where=device.name
        )


def reset(device: UnixDevice) -> list[str]:
    """End what Slipway left running there as our account, whoever's it is; free the lease.

    Removes work folders and what was sent in part. What was done, a line each.
    """
    return _ask(device, lease_scripts.RESET, device.work, doing="resetting the device")


class _Heart(threading.Thread):
    """Renews a lease three times in its time to live."""

    def __init__(self, device: UnixDevice, mine: Lease) -> None:
        super().__init__(daemon=True, name=f"lease of {device.name}")
        self._device = device
        self._lease = mine
        self._stopped = threading.Event()

    def run(self) -> None:
        pause = self._lease.ttl / 3
        while not self._stopped.wait(pause):
            try:
                self._lease.lost = _renew(self._device, self._lease)
                pause = self._lease.ttl / 3
            except InfraError:  # whether the lease is lost, only the device knows: ask it again
                pause = self._lease.ttl / 10
            if self._lease.lost:  # what is sent meets no fence
                self._device.revoked = _was_lost(self._lease)
                return

    def stop(self) -> None:
        self._stopped.set()
        self.join(self._device.patience)


def _renew(device: UnixDevice, mine: Lease) -> str:
    """Why the lease is not ours any more; empty if it is."""
    said = _ask(device, lease_scripts.RENEW, mine.token, doing="renewing the lease")
    return _now(said) if said[0] == "gone" else ""


def _release(device: UnixDevice, token: str) -> str:
    said = _ask(device, lease_scripts.RELEASE, token, doing="giving the lease back")
    return _now(said) if said[0] == "gone" else ""


def _give_back(device: UnixDevice, mine: Lease) -> InfraError | None:
    """Why it cannot be said that the lease was ours up to now."""
    try:
        if not mine.lost:
            mine.lost = _renew(device, mine) if mine.joined else _release(device, mine.token)
    except InfraError as error:
        return error
    if not mine.lost:
        return None
    return InfraError(
        _was_lost(mine),
        where=device.name,
        hint="what was measured does not count. Run the same command again",
    )


def _was_lost(mine: Lease) -> str:
    return f"the lease was lost during the work: {mine.lost}"


def _joined(device: UnixDevice) -> Lease | None:
    """The lease of a parent process, if it is this device's."""
    if not (token := os.environ.get(TOKEN)):
        return None
    holder = status(device)
    if holder is None or holder.token != token:
        return None
    return Lease(token, holder.owner, holder.ttl, joined=True)


def _ask(device: UnixDevice, script: str, *args: str, doing: str) -> list[str]:
    return device.ask(script, *args, doing=doing).splitlines()


def _holder(said: list[str]) -> Holder:
    try:
        _, left, held, ttl, token, owner = said
        return Holder(_line(owner), token, int(held) / 100, int(left) / 100, int(ttl) / 100)
    except ValueError:
        raise InfraError(f"the device tells no lease that can be read: {said}") from None


def _by(said: list[str]) -> str:
    if said[0] == "busy":
        return f"programs of {_line(said[2])} still run there (processes{said[1]})"
    holder = _holder(said)
    return f"leased by {holder.owner}, for {holder.held:.0f} s so far"


def _now(said: list[str]) -> str:
    holder = _holder(said)
    if holder.token:
        return f"it passed on to {holder.owner}"
    return "it was ended by somebody else, or by a restart of the device"


def _refused(device: UnixDevice, said: list[str], wait: float) -> InfraError:
    waited = f" (waited {wait:.0f} s)" if wait else ""
    if said[0] == "busy":
        return InfraError(
            f"{_by(said)}, whose lease is over, and this account may not end them{waited}",
            where=device.name,
            hint=f"end them there as their own user or as root: kill{said[1]}",
        )
    left = _holder(said).left
    return InfraError(
        f"{_by(said)}{waited}",
        where=device.name,
        hint=f"unless it is renewed, it ends in {left:.0f} s. To end it now, with what runs there:"
        f"\n  python -m toolchain.devices release {device.name} --force",
    )


def _line(text: str) -> str:
    """One line that a terminal can show."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:120] or "somebody"
