"""The bad link of other tests does what it says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from toolchain.tests import proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""

    def serve(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(1 << 16):
                    client.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def _said(port: int, data: bytes) -> tuple[bytes, type[OSError] | None]:
    """What comes back for `data`, and how it ended."""
    got = b""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(5)
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while more := client.recv(1 << 16):
                got += more
        except OSError as error:
            return got, type(error)
    return got, None


def test_a_good_link_changes_nothing(echo):
    data = bytes(range(256)) * 4000
    with proxy.Proxy(echo) as link:
        assert _said(link.port, data) == (data, None)
        assert (link.up, link.down, link.cuts) == (len(data), len(data), 0)


@pytest.mark.parametrize("counted", ["up", "down", "both"])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_cut_comes_after_so_many_bytes(echo, counted, how):
    with proxy.Proxy(echo, cut_after=1000, counted=counted, how=how) as link:
        for _ in range(2):  # each connection has its own count
            before = link.up, link.down
            got, ended = _said(link.port, bytes(900_000))
            assert ended or how == "close"
            sent = {"up": link.up - before[0], "down": link.down - before[1]}
            assert (sent[counted] if counted in sent else sum(sent.values())) == 1000
            assert len(got) <= sent["down"]
        assert link.cuts == 2


def test_silence(echo):
    with (
        proxy.between(echo, cut_after=3, counted="down", how="silence") as port,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.settimeout(0.3)
        client.sendall(b"hello")
        assert client.recv(9) == b"hel"
        with pytest.raises(TimeoutError):
            client.recv(9)


def test_a_slow_link_and_a_long_one(echo):
    for rate, latency, at_least in ((2e6, 0.0, 0.5), (None, 0.1, 0.2)):
        start = time.monotonic()
        with proxy.between(echo, rate=rate, latency=latency) as port:
            assert _said(port, bytes(1_000_000)) == (bytes(1_000_000), None)
        assert at_least < time.monotonic() - start < at_least + 2


def test_nobody_behind_it():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with proxy.between(port) as through:
        got, ended = _said(through, b"x")
        assert got == b""
        assert ended in (None, ConnectionResetError)
