"""Places of a real coordinator, whose exporter exports the tests' SSH server."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolchain import devices, schema
from toolchain.devices import lease
from toolchain.devices.tied import tied
from toolchain.errors import InfraError, UserError
from toolchain.tests import sshd

pytest.importorskip("labgrid")

from toolchain.devices import labgrid

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


@dataclass
class Lab:
    """A coordinator with the place `bench`, which an exporter serves."""

    address: str
    folder: Path
    exporter: subprocess.Popen[bytes]

    def client(self, *words: str, check: bool = True) -> str:
        argv = [str(TOOLS / "labgrid-client"), "-x", self.address, *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=check, timeout=60)
        return str(done.stdout)

    def acquired(self) -> str:
        """Who has the place."""
        lines = self.client("-p", "bench", "show").splitlines()
        return next(line for line in lines if "acquired:" in line).partition(": ")[2].strip()

    def unit(self, **more: str) -> schema.Device:
        table = {"driver": "labgrid", "coordinator": self.address, "place": "bench"} | more
        table |= {"key": "sshd/client_key", "known_hosts": "sshd/known_hosts"}
        text = "[rack]\n" + "".join(f"{key} = '{value}'\n" for key, value in table.items())
        (self.folder / "devices.toml").write_text(text)
        return devices.resolve("rack", self.folder / "devices.toml")


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "sshd").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    at = folder / "sshd"
    settings = f"SetEnv HOME={at}/home TMPDIR={at}/tmp SLIPWAY_LEASE={at}/tmp/lease"
    with sshd.serving(at, settings) as server:
        (folder / "exported.yaml").write_text(
            "rack:\n  NetworkService:\n    address: 127.0.0.1\n"
            f"    port: {server.port}\n    username: {getpass.getuser()}\n"
        )
        log = (folder / "log").open("wb")
        coordinator = _started(folder, log, "labgrid-coordinator", "-l", address)
        exporter = _started(
            folder, log, "labgrid-exporter", "-c", address, "-n", "exp", "exported.yaml"
        )
        running = Lab(address, folder, exporter)
        try:
            _until(lambda: "exp/rack/NetworkService" in running.client("resources", check=False))
            running.client("-p", "bench", "create")
            running.client("-p", "bench", "add-match", "exp/rack/NetworkService")
            yield running
        finally:
            for process in (exporter, coordinator):
                process.kill()
                process.wait()
            log.close()


def _started(folder: Path, log, tool: str, *words: str) -> subprocess.Popen[bytes]:
    argv = tied([str(TOOLS / tool), *words])
    return subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _until(true) -> None:
    end = time.monotonic() + 40
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_place_is_acquired_used_and_released(lab):
    with devices.connect(lab.unit()) as device:
        assert f"/slipway-{getpass.getuser()}-{os.getpid()}." in lab.acquired()
        assert device.run(["echo", "here"], timeout=30).stdout == b"here\n"
    assert lab.acquired() == "None"


def test_a_place_is_released_after_an_error(lab):
    with pytest.raises(RuntimeError), devices.connect(lab.unit()):
        raise RuntimeError
    assert lab.acquired() == "None"
    with pytest.raises(InfraError, match="does not let the user 'nobody' in"):
        devices.connect(lab.unit(user="nobody")).__enter__()
    assert lab.acquired() == "None"


def test_a_place_of_another_is_waited_for(lab):
    lab.client("-p", "bench", "acquire")
    said: list[str] = []
    try:
        with (
            pytest.raises(InfraError, match=rf"acquired by \S+/{getpass.getuser()} \(waited 2 s\)"),
            labgrid.connect(lab.unit(), wait=2, say=said.append),
        ):
            pass
        assert len(said) == 1
        assert lab.acquired().endswith(f"/{getpass.getuser()}"), "it is still theirs"
    finally:
        lab.client("-p", "bench", "release")
    with labgrid.connect(lab.unit(), wait=5):
        pass


def test_a_place_of_a_killed_client_is_released_for_it(lab):
    lab.unit()
    code = "import os, sys; from pathlib import Path; from toolchain import devices\n"
    code += "held = devices.connect(devices.resolve('rack', Path(sys.argv[1])))\n"
    code += "held.__enter__(); "
    code += "os.kill(os.getpid(), 9)"
    argv = [sys.executable, "-c", code, str(lab.folder / "devices.toml")]
    assert subprocess.run(argv, cwd=ROOT, check=False).returncode == -9
    assert "/slipway-" in lab.acquired(), "the coordinator keeps it"
    said: list[str] = []
    with labgrid.connect(lab.unit(), wait=5, say=said.append) as device:
        assert device.run(["true"], timeout=30).status == 0
    assert "has ended without releasing it" in said[0]


def test_who_was_kicked_out_is_told(lab):
    with (  # noqa: PT012 (what happens in the place)
        pytest.raises(InfraError, match="the place was taken away during the work"),
        devices.connect(lab.unit()),
    ):
        lab.client("-p", "bench", "release", "--kick")
        lab.client("-p", "bench", "acquire")
    assert lab.acquired().endswith(f"/{getpass.getuser()}"), "not released for them"
    lab.client("-p", "bench", "release")


def test_a_place_is_leased_too(lab):
    with lease.leased(lab.unit()) as device:
        assert device.run(["true"], timeout=30).status == 0


def test_what_is_wrong_is_told(lab):
    with pytest.raises(UserError, match="the coordinator knows no place 'bnch'") as told:
        devices.connect(lab.unit(place="bnch")).__enter__()
    assert "did you mean 'bench'?" in told.value.hint
    with pytest.raises(InfraError, match="the coordinator cannot be reached"):
        devices.connect(lab.unit(coordinator="127.0.0.1:9")).__enter__()
    lab.client("-p", "empty", "create")
    with pytest.raises(InfraError, match="has no NetworkService resources"):
        devices.connect(lab.unit(place="empty")).__enter__()
    assert "acquired: None" in lab.client("-p", "empty", "show")
