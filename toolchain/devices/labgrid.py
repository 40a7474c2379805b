"""Units that a labgrid coordinator gives out: many labs, one list of places.

    [rack-3]
    target      = "arm64"
    driver      = "labgrid"
    coordinator = "lab.example:20408"
    place       = "pi5-3"                    # with a NetworkService among its resources
    key         = "keys/lab"                 # and known_hosts, user: as of units behind SSH

    with labgrid.connect(resolve("rack-3", Path("devices.toml"))) as device:
        device.run(["./runner"], timeout=60)

The place is acquired for as long as the connection stands, and released whatever happens in it.
A coordinator keeps a place for a client that was killed. We sign with our process number, so that
the next one on the same host sees that the holder is gone, and releases the place for it.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
from labgrid.remote import client  # type: ignore[import-untyped]
from labgrid.remote.generated import (  # type: ignore[import-untyped]
    labgrid_coordinator_pb2 as messages,
)

from toolchain import schema
from toolchain.devices import base
from toolchain.devices.qemu import progress
from toolchain.errors import InfraError, UserError, nearest

WAIT_SECONDS = 600.0  # for a place that another has
_ANSWER_SECONDS = 20.0
_POLL_SECONDS = 1.0
_SERVICE = "NetworkService"
_OURS = "slipway"
T = TypeVar("T")


@contextmanager
def connect(
    unit: schema.Device, wait: float = WAIT_SECONDS, say: Callable[[str], None] = progress
) -> Iterator[base.Device]:
    """Acquire the unit's place and log in to it."""
    from toolchain.devices import ssh

    with acquired(unit, wait, say) as reached, ssh.connect(reached) as device:
        yield device


@contextmanager
def acquired(
    unit: schema.Device, wait: float = WAIT_SECONDS, say: Callable[[str], None] = progress
) -> Iterator[schema.Device]:
    """The unit with the address that its place's NetworkService tells, ours until the end."""
    place = _Place(unit)
    with place.session():
        place.acquire(wait, say)
        try:
            yield place.reached()
        finally:
            place.release()


class _Session(client.ClientSession):  # type: ignore[misc]  # labgrid has no types
    """A session that is told apart from others of the same user."""

    def getuser(self) -> str:
        return f"{_OURS}-{getpass.getuser()}-{os.getpid()}.{_started(os.getpid())}"


class _Place:
    """A place of a coordinator. labgrid works in asyncio: a thread of its own runs it."""

    def __init__(self, unit: schema.Device) -> None:
        self._unit = unit
        self._name = unit.place or ""
        self._where = f"{unit.name} (place {self._name} of {unit.coordinator})"
        self._loop = asyncio.new_event_loop()
        self._session: Any = None

    @contextmanager
    def session(self) -> Iterator[None]:
        """Be a client of the coordinator."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        try:
            self._await(self._start(), "asking the coordinator")
            try:
                yield
            finally:
                with suppress(InfraError):
                    self._await(self._stop(), "leaving the coordinator")
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(_ANSWER_SECONDS)
            self._loop.close()

    def acquire(self, wait: float, say: Callable[[str], None]) -> None:
        end, told, freed = time.monotonic() + wait, False, set[str]()
        while True:
            self._known()
            if not (holder := self._holder()) and self._acquired():
                return
            if _gone(holder) and holder not in freed:  # a release may have no effect
                freed.add(holder)
                say(f"{self._where}: {holder} has ended without releasing it; releasing it")
                self._await(self._release(holder), "releasing the place")
                continue
            if time.monotonic() > end:
                raise InfraError(
                    f"acquired by {holder or 'another place, by its resources'}"
                    + (f" (waited {wait:.0f} s)" if wait else ""),
                    where=self._where,
                    hint="ask them to release it, or:\n  labgrid-client "
                    f"-x {self._unit.coordinator} -p {self._name} release --kick",
                )
            if not told:
                say(f"{self._where}: acquired by {holder or 'another'}; waiting up to {wait:.0f} s")
                told = True
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Only what is ours: somebody may have kicked us out meanwhile."""
        holder = self._holder()
        self._await(self._release(self._me()), "releasing the place")
        if holder != self._me():
            raise InfraError(
                f"the place was taken away during the work; it is acquired by {holder or 'nobody'}",
                where=self._where,
                hint="what was measured does not count. Run the same command again",
            )

    def reached(self) -> schema.Device:
        """The unit as one behind SSH; what its table says goes before what labgrid says."""
        services = [
            entry
            for (_, kind), entry in self._call(self._resources).items()
            if kind == _SERVICE and entry.avail
        ]
        if len(services) != 1:
            raise InfraError(
                f"has {len(services) or 'no'} {_SERVICE} resources that are there; one is needed",
                where=self._where,
                hint=f"export one, and match it: labgrid-client -p {self._name} add-match "
                f"EXPORTER/GROUP/{_SERVICE}",
            )
        told = services[0].args
        return self._unit.model_copy(
            update={
                "driver": "ssh",
                "host": told["address"].partition("%")[0],
                "port": int(told.get("port", 22)),
                "user": self._unit.user or told["username"],
            }
        )

    def _known(self) -> None:
        places = self._call(lambda: list(self._session.places))
        if self._name not in places:
            raise UserError(
                f"the coordinator knows no place '{self._name}'",
                where=self._where,
                hint=nearest(self._name, places),
            )

    def _me(self) -> str:
        return f"{self._session.gethostname()}/{self._session.getuser()}"

    def _holder(self) -> str:
        """Who has the place now; empty: nobody."""
        self._await(self._sync(), "asking the coordinator")
        return self._call(lambda: str(self._session.places[self._name].acquired or ""))

    def _acquired(self) -> bool:
        """Try to have it; False if another was faster, or has its resources by another place."""

        async def acquire() -> bool:
            request = messages.AcquirePlaceRequest(placename=self._name)
            try:
                await self._session.stub.AcquirePlace(request)
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                    return False
                raise
            await self._sync()
            return True

        return self._await(acquire(), "acquiring the place")

    def _resources(self) -> dict[tuple[str, str], Any]:
        place = self._session.places[self._name]
        try:
            return dict(self._session.get_target_resources(place))
        except client.Error as error:  # an exporter that has gone
            raise InfraError(str(error), where=self._where) from None

    async def _start(self) -> None:
        self._session = _Session(self._unit.coordinator, self._loop)
        try:
            await self._session.start()
        except client.ServerError:
            await self._session.close()
            raise InfraError(
                "the coordinator cannot be reached",
                where=self._where,
                hint=f"is it up? Try: labgrid-client -x {self._unit.coordinator} places",
            ) from None

    async def _stop(self) -> None:
        self._session.stopping.set()  # else what waits for an answer would wait for ever
        await self._session.stop()
        await self._session.close()

    async def _sync(self) -> None:
        if not await self._session.sync_with_coordinator():
            raise InfraError("the coordinator is gone", where=self._where)

    async def _release(self, holder: str) -> None:
        request = messages.ReleasePlaceRequest(placename=self._name, fromuser=holder)
        await self._session.stub.ReleasePlace(request)
        await self._sync()

    def _call(self, look: Callable[[], T]) -> T:
        """Look at what the session knows, in its thread."""

        async def looked() -> T:
            return look()

        return self._await(looked(), "asking the coordinator")

    def _await(self, work: Coroutine[Any, Any, T], doing: str) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(_ANSWER_SECONDS)
        except TimeoutError:
            future.cancel()
            text = f"no answer of the coordinator within {_ANSWER_SECONDS:.0f} s while {doing}"
            raise InfraError(text, where=self._where) from None
        except grpc.aio.AioRpcError as error:
            raise InfraError(f"{doing} failed: {error.details()}", where=self._where) from None


def _gone(holder: str) -> bool:
    """Whether a client like us was killed: a process of this host that is no more."""
    host, _, user = holder.partition("/")
    if host != os.environ.get("LG_HOSTNAME", socket.gethostname()) or not user.startswith(_OURS):
        return False
    pid, _, start = user.rpartition("-")[2].partition(".")
    return pid.isdigit() and _started(int(pid)) != start


def _started(pid: int) -> str:
    """When a process was started, by the kernel's clock; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[19]
    except OSError:
        return ""
