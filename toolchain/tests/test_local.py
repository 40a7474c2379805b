"""This host as a device."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolchain import devices
from toolchain.devices.base import Completed
from toolchain.devices.local import LocalDevice
from toolchain.errors import InfraError, UserError
from toolchain.tests.processes import alive, gone


@pytest.fixture
def device(tmp_path, monkeypatch) -> Iterator[LocalDevice]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    with devices.connect(devices.resolve("local")) as connected:
        assert isinstance(connected, LocalDevice)
        yield connected


def test_this_host_needs_no_devices_file(tmp_path):
    for file in (None, tmp_path / "none.toml"):
        unit = devices.resolve("local", file)
        assert (unit.name, unit.driver, unit.emulated) == ("local", "local", False)


def test_this_host_has_one_name(tmp_path):
    (tmp_path / "devices.toml").write_text('[mine]\ndriver = "local"\n')
    with pytest.raises(UserError, match=r"(?s)\[mine\]: this host needs no entry.*device=local"):
        devices.resolve("mine", tmp_path / "devices.toml")


def test_its_work_folder_is_a_temporary_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with devices.connect(devices.resolve("local")) as device:
        assert isinstance(device, LocalDevice)
        work = Path(device.work)
        assert work.parent == tmp_path
        assert device.run(["pwd"], timeout=20).stdout.decode().strip() == device.work
    assert not work.exists()


def test_files_go_there_and_back(device, tmp_path):
    (tmp_path / "data").write_bytes(content := os.urandom(100_000))
    (tmp_path / "tool").write_text("#!/bin/sh\necho run by $0\n")
    (tmp_path / "tool").chmod(0o755)
    device.put({"a/b/the data": tmp_path / "data", "tool": tmp_path / "tool"})
    assert device.run(["./tool"], timeout=20).stdout == b"run by ./tool\n"
    device.get("a/b/the data", tmp_path / "new/back")
    assert (tmp_path / "new/back").read_bytes() == content
    (tmp_path / "data").write_bytes(b"another build's")
    assert (Path(device.work) / "a/b/the data").read_bytes() == content
    with pytest.raises(InfraError, match="local: there is no file 'nothing' to fetch"):
        device.get("nothing", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    with pytest.raises(ValueError, match="not a name inside the work folder"):
        device.put({"../up": tmp_path / "tool"})


def test_status_output_and_signal(device):
    done = device.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=20)
    assert (done.status, done.stdout, done.stderr, done.signal) == (7, b"out\n", b"err\n", None)
    for name in ("SEGV", "ABRT", "KILL"):
        assert device.run(["sh", "-c", f"kill -{name} $$"], timeout=20).signal == f"SIG{name}"
    assert device.run(["./nothing"], timeout=20).status == 127


def test_a_command_has_a_clean_start(device, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert device.run(["env"], timeout=20).stdout == b"PATH=/usr/local/bin:/usr/bin:/bin\n"
    assert device.run(["cat"], timeout=20) == Completed(0, b"", b"")
    words = ["a b", "it's", '"', "$HOME", "*", "back\\slash", "new\nline", "", "-n", "é"]
    said = device.run(["printf", "<%s>", *words], timeout=20).stdout.decode()
    assert said == "".join(f"<{word}>" for word in words)


def test_a_flood_on_both_streams_is_drained(device):
    script = "yes out | head -c 3000000 & yes err | head -c 3000000 >&2; wait; exit 3"
    done = device.run(["sh", "-c", script], timeout=60)
    assert done == Completed(3, b"out\n" * 750000, b"err\n" * 750000)


def test_a_command_without_end_of_output_is_stopped(device, monkeypatch):
    monkeypatch.setattr("toolchain.devices.streams.OUTPUT_LIMIT", 1 << 20)
    with pytest.raises(InfraError, match="more than 1048576 bytes of output while running sh"):
        device.run(["sh", "-c", "echo $$ > pid; exec yes"], timeout=60)
    gone(int(Path(device.work, "pid").read_text()))


def test_a_time_out_kills_all_that_was_started(device):
    script = "trap '' TERM HUP INT; echo $$ > pid; sleep 4321 & echo $! > child; sleep 4322"
    start = time.monotonic()
    with pytest.raises(InfraError, match="local: no end after 1 s while running sh; the command w"):
        device.run(["sh", "-c", script], timeout=1)
    assert time.monotonic() - start < 6
    for name in ("pid", "child"):
        gone(int(Path(device.work, name).read_text()))


def test_what_a_command_leaves_running_ends_with_it(device):
    assert device.run(["sh", "-c", "sleep 5431 & echo $! > pid"], timeout=20).status == 0
    gone(int(Path(device.work, "pid").read_text()))


def test_what_escapes_from_its_group_holds_nothing_up(device):
    """A daemon that keeps the output open: the time-out ends the wait, if not the daemon."""
    start = time.monotonic()
    with pytest.raises(InfraError, match="no end after 1 s"):
        device.run(["sh", "-c", "setsid sleep 12 & sleep 0.2"], timeout=1)
    assert time.monotonic() - start < 6


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_dies_with_the_step(tmp_path, how):
    code = "import sys; from toolchain.devices.local import LocalDevice; from pathlib import Path\n"
    code += "device = LocalDevice('local', Path(sys.argv[1])); print(device.work, flush=True)\n"
    code += "device.run(['sh', '-c', 'sleep 6543 & echo $! $$ > pid; wait'], timeout=60)"
    step = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with step:
        assert step.stdout
        work = Path(step.stdout.readline().decode().strip())
        end = time.monotonic() + 10
        while not (pids := (work / "pid").read_text() if (work / "pid").exists() else ""):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert all(alive(int(pid)) for pid in pids.split())
        step.send_signal(how)
    for pid in pids.split():
        gone(int(pid))
    shutil.rmtree(work)


def test_a_full_disk_is_told_with_figures(device, tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(bytes(5000))
    with monkeypatch.context() as full:
        full.setattr(device, "_free", lambda _folder: 4096)
        text = rf"the device is full: 4096 bytes are free in {device.work}, 5000 are needed"
        with pytest.raises(InfraError, match=text):
            device.put({"f": tmp_path / "f"})
    assert not any(Path(device.work).iterdir())


def test_a_damaged_copy_is_noticed(device, tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(bytes(5000))
    monkeypatch.setattr(shutil, "copy", lambda _from, to: Path(to).write_bytes(bytes(4999)))
    with pytest.raises(InfraError, match=r"f arrived damaged: sha256 \w{64} instead of \w{64}"):
        device.put({"f": tmp_path / "f"})


def test_a_work_folder_that_vanished(device):
    shutil.rmtree(device.work)
    with pytest.raises(InfraError, match="running true failed"):
        device.run(["true"], timeout=20)


def test_facts_are_those_of_this_machine(device):
    facts = device.facts()
    assert facts["machine"] == os.uname().machine
    assert facts["cores"] == str(os.cpu_count())
    assert "unknown" not in (facts["cpu"], facts["cpu_flags"], facts["libc"], facts["memory"])
