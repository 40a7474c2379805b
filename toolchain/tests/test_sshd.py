"""The SSH device on a real OpenSSH server of this machine, whose shell is not a board's busybox."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolchain.devices.ssh import SshDevice
from toolchain.errors import InfraError
from toolchain.tests import sshd
from toolchain.tests.processes import alive, gone

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[sshd.Server]:
    with sshd.serving(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def device(server) -> Iterator[SshDevice]:
    with server.connect() as connected:
        yield connected


@pytest.fixture
def doomed(tmp_path) -> Iterator[tuple[sshd.Server, SshDevice]]:
    """A server of its own, for tests that kill it."""
    (tmp_path / "sshd").mkdir()
    with sshd.serving(tmp_path / "sshd") as server, server.connect() as device:
        yield server, device


def test_files_go_there_and_back(device, tmp_path):
    (tmp_path / "data").write_bytes(content := os.urandom(3_000_000))
    (tmp_path / "tool").write_text("#!/bin/sh\necho run by $0\n")
    (tmp_path / "tool").chmod(0o755)
    device.put({"a/b/the data": tmp_path / "data", "tool": tmp_path / "tool"})
    assert device.run(["./tool"], timeout=20).stdout == b"run by ./tool\n"
    device.get("a/b/the data", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_status_output_and_environment(device):
    done = device.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=20)
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert device.run(["sh", "-c", "kill -SEGV $$"], timeout=20).signal == "SIGSEGV"
    assert device.run(["env"], timeout=20).stdout == b"PATH=/usr/local/bin:/usr/bin:/bin\n"
    words = ["a b", "it's", "$HOME", "*", "", "-n", "new\nline", "é"]
    said = device.run(["printf", "<%s>", *words], timeout=20).stdout.decode()
    assert said == "".join(f"<{word}>" for word in words)


def test_facts_are_those_of_this_machine(device):
    facts = device.facts()
    assert facts["machine"] == os.uname().machine
    assert facts["cores"] == str(os.cpu_count())
    assert "unknown" not in (facts["cpu"], facts["cpu_flags"], facts["libc"], facts["memory"])


def test_the_work_folder_is_below_the_servers_folder_and_removed(server):
    with server.connect() as device:
        assert Path(device.work).parent == server.temporary
        assert Path(device.work).is_dir()
    assert not Path(device.work).exists()


def test_a_time_out_kills_all_that_was_started(device):
    script = "trap '' TERM HUP INT; echo $$ > pid; sleep 4321 & echo $! > child; sleep 4322"
    start = time.monotonic()
    with pytest.raises(InfraError, match="no end after 1 s while running sh; the command was kil"):
        device.run(["sh", "-c", script], timeout=1)
    assert time.monotonic() - start < 6
    for name in ("pid", "child"):
        gone(int(Path(device.work, name).read_text()))
    assert device.run(["true"], timeout=20).status == 0


def test_what_a_command_leaves_running_ends_with_it(device):
    device.run(["sh", "-c", "sleep 5431 & echo $! > pid"], timeout=20)
    gone(int(Path(device.work, "pid").read_text()))


def test_a_lost_connection_leaves_nothing_running(device):
    pid = Path(device.work, "pid")
    timer = threading.Timer(1, device._transport.close)
    timer.start()
    with pytest.raises(InfraError, match="the connection was lost while running sh"):
        device.run(["sh", "-c", "echo $$ > pid; exec sleep 6543"], timeout=60)
    timer.join()
    gone(int(pid.read_text()))


def test_a_killed_server_is_an_infra_error(doomed):
    server, device = doomed
    timer = threading.Timer(0.5, server.kill)
    timer.start()
    with pytest.raises(InfraError, match=f"127.0.0.1:{server.port}.*connection was lost while run"):
        device.run(["sleep", "60"], timeout=60)
    timer.join()
    for operation in (device.facts, lambda: device.put({"f": server.devices})):
        with pytest.raises(InfraError, match="the connection was lost"):
            operation()
    with pytest.raises(InfraError, match="the connection was lost"):
        device.link("lib", "ab" * 32, {"f": server.devices})
    with pytest.raises(InfraError, match="cannot be reached"), server.connect():
        pass


def test_no_server_outlives_the_tests(tmp_path):
    code = "import sys, time; from pathlib import Path; from toolchain.tests import sshd\n"
    code += "with sshd.serving(Path(sys.argv[1])) as s, s.connect() as d:\n"
    code += "    print(s.pid, *sshd._descendants(s.pid), flush=True); time.sleep(60)"
    tests = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    with tests:
        assert tests.stdout
        pids = [int(word) for word in tests.stdout.readline().split()]
        assert len(pids) > 1
        assert all(alive(pid) for pid in pids)
        tests.kill()
    for pid in pids:
        gone(pid)
