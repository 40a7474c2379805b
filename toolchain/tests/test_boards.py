"""Boards that stay up after the command that started them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolchain import cache, devices
from toolchain.devices import boards, image, lease, qemu
from toolchain.devices.unix import UnixDevice
from toolchain.errors import InfraError, UserError
from toolchain.tests.processes import alive, gone

pytestmark = [pytest.mark.board, pytest.mark.usefixtures("home")]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Iterator[Path]:
    """A cache of the test's own, with the image of the real one; no board outlives the test."""
    image.ensure(lambda _: None)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/boards").symlink_to(cache.root() / "boards")
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache/running"
    for board in boards.standing():
        boards.down(board.name)


def test_a_board_stays_up_and_is_known_by_its_name(home):
    code = "from toolchain.devices import boards; print(boards.up('cortex-a72', 'bench').pid)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (board,) = boards.standing()
    assert (board.name, board.pid, board.cpu, board.state) == (
        "bench",
        int(done.stdout),
        "cortex-a72",
        "up",
    )
    assert 0 < board.seconds < 120
    unit = devices.resolve("bench")
    assert (unit.driver, unit.target, unit.emulated) == ("qemu", "arm64", True)
    with devices.connect(unit) as device:
        assert device.run(["uname", "-m"], timeout=30).stdout == b"aarch64\n"
        assert device.emulated
        facts = device.facts()
        assert facts["emulator"].endswith(" cortex-a72")
        assert len(facts["board"]) == 64
    with devices.connect(unit) as again, lease.leased(unit):
        assert isinstance(again, UnixDevice)
        assert lease.status(again) is not None, "builds share it by leases"
    assert [unit.name for unit in devices.listed(boards.listing())] == ["bench"]
    boards.down("bench")
    gone(board.pid)
    assert not (home / "bench").exists()
    with pytest.raises(UserError, match="no devices file is given that could list 'bench'"):
        devices.resolve("bench")


def test_names():
    first = boards.up("cortex-a53")
    assert first.name == "board1"
    with pytest.raises(UserError, match="the board 'board1' is up already") as told:
        boards.up("cortex-a53", "board1")
    assert "board down board1" in told.value.hint
    with pytest.raises(UserError, match="no board 'bord1' was started here") as told:
        boards.down("bord1")
    assert "did you mean 'board1'?" in told.value.hint
    with pytest.raises(UserError, match=r"'\.\./x' cannot name a board"):
        boards.up("cortex-a53", "../x")
    with pytest.raises(UserError, match="unknown CPU model 'cortex-a73'"):
        boards.up("cortex-a73")


def test_a_devices_file_of_the_user(tmp_path):
    file = tmp_path / "devices.toml"
    file.write_text("# mine\n[pi5]\nhost = 'pi5.lab'\n")
    with pytest.raises(UserError, match="lists another unit 'pi5'"):
        boards.up("cortex-a72", "pi5", listed_in=file)
    boards.up("cortex-a72", "bench.1", listed_in=file)
    assert [unit.name for unit in devices.listed(file)] == ["pi5", "bench.1"]
    with devices.connect(devices.resolve("bench.1", file)) as device:
        assert device.run(["true"], timeout=30).status == 0
    boards.down("bench.1")
    assert file.read_text() == "# mine\n[pi5]\nhost = 'pi5.lab'\n"


def test_a_board_whose_qemu_ended_is_told_and_replaced():
    board = boards.up("cortex-a72", "bench")
    os.kill(board.pid, signal.SIGKILL)
    gone(board.pid)
    (ended,) = boards.standing()
    assert (ended.state, ended.pid) == ("ended", 0)
    with pytest.raises(InfraError, match="the board 'bench' has ended") as told:
        devices.connect(devices.resolve("bench")).__enter__()
    assert "board up cortex-a72 --name bench" in told.value.hint
    again = boards.up("cortex-a72", "bench")
    assert again.pid != board.pid
    assert again.state == "up"


def test_a_start_that_was_killed_leaves_a_board_that_can_be_found():
    code = "import os; from toolchain.devices import boards, qmp\n"
    code += "qmp.Monitor.forwarded_port = lambda self: os.kill(os.getpid(), 9)\n"
    code += "boards.up('cortex-a72', 'bench')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == -9
    (board,) = boards.standing()
    assert board.state == "unfinished"
    assert alive(board.pid)
    boards.down("bench")
    gone(board.pid)


def test_a_folder_that_was_deleted_hides_no_board(home):
    board = boards.up("cortex-a72", "bench")
    shutil.rmtree(home)
    (found,) = boards.standing()
    assert (found.name, found.pid) == ("bench", board.pid)
    boards.down("bench")
    gone(board.pid)


def test_a_board_that_does_not_come_up_leaves_nothing(home):
    with pytest.raises(InfraError, match=r"the board was not up in time|did not answer in 0 s"):
        boards.up("cortex-a72", "bench", seconds=0.4)
    assert boards.standing() == []
    assert not (home / "bench").exists()


def test_a_qemu_that_fails_is_told_with_what_it_said(monkeypatch):
    monkeypatch.setattr(qemu, "_MACHINE", "virt-none")
    with pytest.raises(InfraError, match=r"(?s)QEMU ended with status 1.*unsupported machine type"):
        boards.up("cortex-a72", "bench")
    assert boards.standing() == []


def test_several_start_at_once():
    code = "from toolchain.devices import boards; boards.up('cortex-a53')"
    starts = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(3)]
    for start in starts:
        with start:
            assert start.wait(120) == 0
    assert [board.name for board in boards.standing()] == ["board1", "board2", "board3"]
    assert len({board.port for board in boards.standing()}) == 3
    assert len(devices.listed(boards.listing())) == 3
