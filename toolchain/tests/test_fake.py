"""The device of other tests."""

from __future__ import annotations

import os
import time

import pytest

from toolchain.devices.fake import FakeDevice
from toolchain.errors import InfraError


def test_the_fake_device_runs_commands(tmp_path):
    (tmp_path / "tool").write_text("#!/bin/sh\necho out; echo err >&2; echo made > f; exit 3\n")
    (tmp_path / "tool").chmod(0o755)
    with FakeDevice() as device:
        device.put({"bin/tool": tmp_path / "tool"})
        done = device.run(["bin/tool"], timeout=10)
        assert (done.status, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
        device.get("f", tmp_path / "f")
        assert device.run(["sh", "-c", "kill -SEGV $$"], timeout=10).signal == "SIGSEGV"
    assert (tmp_path / "f").read_text() == "made\n"
    assert not device.work.exists()


def test_the_fake_device_fails_on_demand(tmp_path):
    (tmp_path / "file").write_text("")
    with FakeDevice(faults={2: "full", 3: "timeout"}) as device:
        device.put({"a": tmp_path / "file"})
        with pytest.raises(InfraError, match="put: the device is full"):
            device.put({"a": tmp_path / "file"})
        with pytest.raises(InfraError, match="run: no end in time"):
            device.run(["true"], timeout=10)
        assert device.run(["true"], timeout=10).status == 0


def test_the_fake_device_kills_what_takes_too_long():
    start = time.monotonic()
    with FakeDevice() as device:
        with pytest.raises(InfraError, match="killed"):
            device.run(["sh", "-c", "echo $$ > pid; sleep 60"], timeout=0.5)
        assert time.monotonic() - start < 10
        pid = int((device.work / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
