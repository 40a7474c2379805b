"""The SSH device and a real dropbear, as an unprivileged user; files: see test_transfer."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from toolchain.devices.ssh import SshDevice
from toolchain.errors import InfraError
from toolchain.tests import dropbear, sshd

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[sshd.Server]:
    with dropbear.serving() as running:
        yield running


@pytest.fixture
def device(server) -> Iterator[SshDevice]:
    with server.connect() as connected:
        yield connected


def test_commands_run_as_the_user_who_may_little(device):
    assert b"(board)" in device.run(["id"], timeout=20).stdout
    done = device.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=20)
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert device.run(["sh", "-c", "kill -SEGV $$"], timeout=20).signal == "SIGSEGV"


def test_a_time_out_kills_what_was_started(device):
    start = time.monotonic()
    with pytest.raises(InfraError, match="no end after 1 s while running sleep; the command was k"):
        device.run(["sleep", "4321"], timeout=1)
    assert time.monotonic() - start < 20
    assert device.run(["true"], timeout=20).status == 0


def test_one_session_after_another(device, tmp_path):
    """Dropbear takes the end of a program for that of the next one if the next one comes early."""
    (tmp_path / "a").write_bytes(b"a")
    for _ in range(100):
        device._upload({f"{device.work}/a": tmp_path / "a"})
        device.execute(["true"], 20, "running true")


def test_hosts_and_keys_are_verified(server, tmp_path):
    other = sshd.make_key(tmp_path / "other")
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} ssh-ed25519 {other}\n")
    with (
        pytest.raises(InfraError, match="host key has changed"),
        server.connect(known_hosts=str(tmp_path / "known")),
    ):
        pass
    with (
        pytest.raises(InfraError, match="does not let the user 'board' in"),
        server.connect(key=str(tmp_path / "other")),
    ):
        pass


def test_a_server_that_dies(tmp_path):
    with dropbear.serving() as doomed, doomed.connect() as device:
        doomed.kill()
        (tmp_path / "a").write_bytes(bytes(100_000))
        with pytest.raises(InfraError, match="the connection was lost while"):
            device.put({"a": tmp_path / "a"})
