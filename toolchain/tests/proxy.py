"""A bad link: a TCP proxy on the loopback address which cuts, throttles and delays.

    with proxy.between(server.port, cut_after=100_000) as port:              # then a reset
    with proxy.between(server.port, rate=1e6, latency=0.05) as port:         # 1 MB/s, 50 ms one way
    with proxy.Proxy(server.port, cut_after=9000, how="silence") as link:    # link.port, link.up …

Each connection has its own count, so that the next one gets as far. The buffers on the way are
small: what a sender has got rid of has nearly arrived.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Literal, Self

How = Literal["reset", "close", "silence"]
Direction = Literal["up", "down", "both"]
_BUFFER = 1 << 16  # bytes; the kernel doubles it
_WAITING = 64  # pieces on the way in one direction


class _Cut(Exception):
    pass


class Proxy:
    """Forwards what connects to `port` to the port `to` of this machine.

    cut_after: bytes, of one connection, in the directions `counted` (up: to the server); 0 cuts at
    once. how: reset (as by a router), close (an orderly end), or silence (the cable is out).
    rate: bytes per second in each direction, of all connections. latency: seconds one way.
    up, down: bytes forwarded so far. cuts: connections cut so far.
    """

    port: int

    def __init__(
        self,
        to: int,
        *,
        cut_after: int | None = None,
        counted: Direction = "both",
        how: How = "reset",
        rate: float | None = None,
        latency: float = 0.0,
    ) -> None:
        self.up = self.down = self.cuts = 0
        self._to = to
        self._cut_after = cut_after
        self._counted = counted
        self._how = how
        self._rate = rate
        self._latency = latency
        self._free = {"up": 0.0, "down": 0.0}  # when the link has carried what it was given

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._listening.setblocking(False)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self.port = self._listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._serving = self._loop.create_task(self._serve())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join()
        self._loop.close()
        self._listening.close()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serving)

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as connections:
            while True:
                client, _ = await self._loop.sock_accept(self._listening)
                connections.create_task(self._connection(client))

    async def _connection(self, client: socket.socket) -> None:
        with client, socket.socket() as server:
            for end in (client, server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            left = [self._cut_after]
            try:
                await self._loop.sock_connect(server, ("127.0.0.1", self._to))
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump("up", client, server, left))
                    both.create_task(self._pump("down", server, client, left))
            except* _Cut:
                self.cuts += 1
                await self._end(client, server)
            except* OSError:  # an end has gone: the other one is told by closing
                pass

    async def _end(self, *ends: socket.socket) -> None:
        if self._how == "silence":
            await self._loop.create_future()  # until the proxy ends
        if self._how == "reset":
            for end in ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _pump(
        self,
        way: Literal["up", "down"],
        source: socket.socket,
        sink: socket.socket,
        left: list[int | None],
    ) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WAITING)
        async with asyncio.TaskGroup() as pair:
            pair.create_task(self._take(way, source, on_the_way))
            pair.create_task(self._give(way, sink, on_the_way, left))

    async def _take(
        self,
        way: Literal["up", "down"],
        source: socket.socket,
        on_the_way: asyncio.Queue[tuple[float, bytes]],
    ) -> None:
        size = 1 << 14 if self._rate is None else max(1, min(1 << 14, int(self._rate / 50)))
        while True:
            data = await self._loop.sock_recv(source, size)
            now = time.monotonic()
            if self._rate is not None:
                now = self._free[way] = max(now, self._free[way]) + len(data) / self._rate
            await on_the_way.put((now + self._latency, data))
            if not data:
                return
            if self._rate is not None:  # what the link does not carry yet stays with its sender
                await asyncio.sleep(now - time.monotonic())

    async def _give(
        self,
        way: Literal["up", "down"],
        sink: socket.socket,
        on_the_way: asyncio.Queue[tuple[float, bytes]],
        left: list[int | None],
    ) -> None:
        counted = self._counted in (way, "both")
        while True:
            if counted and left[0] == 0:
                raise _Cut
            due, data = await on_the_way.get()
            if (seconds := due - time.monotonic()) > 0:
                await asyncio.sleep(seconds)
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            if counted and left[0] is not None:
                data = data[: left[0]]
                left[0] -= len(data)
            await self._loop.sock_sendall(sink, data)
            setattr(self, way, getattr(self, way) + len(data))


@contextmanager
def between(
    to: int,
    *,
    cut_after: int | None = None,
    counted: Direction = "both",
    how: How = "reset",
    rate: float | None = None,
    latency: float = 0.0,
) -> Iterator[int]:
    """The port of a `Proxy` to the port `to`."""
    with Proxy(
        to, cut_after=cut_after, counted=counted, how=how, rate=rate, latency=latency
    ) as proxy:
        yield proxy.port
