"""Boards as machines of this host: many at once, none left behind, and what ends one early."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from toolchain.devices import image, qemu
from toolchain.errors import InfraError
from toolchain.tests.boards import on
from toolchain.tests.processes import gone

pytestmark = pytest.mark.board


@pytest.fixture(scope="session")
def made() -> image.Image:
    return image.ensure(lambda _: None)


def test_boards_side_by_side(made, tmp_path):
    """Started at the same moment, each with its own port and its own files."""
    names = ("a", "b", "c")
    start = threading.Barrier(len(names))
    seen: dict[str, tuple[int, bytes]] = {}

    def work(name: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        start.wait()
        with qemu.Board("cortex-a72", made) as board, on(board, folder) as device:
            (folder / "f").write_text(name)
            device.put({"f": folder / "f"})
            start.wait()
            seen[name] = (board.port, device.run(["cat", "f"], timeout=60).stdout)
            start.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({port for port, _ in seen.values()}) == len(names)
    assert {name: out.decode() for name, (_, out) in seen.items()} == {n: n for n in names}


def test_no_board_outlives_a_killed_parent():
    code = "import time; from toolchain.devices import image, qemu\n"
    code += "with qemu.Board('cortex-a72', image.ensure()) as b: print(b.pid, flush=True); "
    code += "time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert b"qemu-system-aarch64" in Path(f"/proc/{pid}/cmdline").read_bytes()
        parent.kill()
    gone(pid)


def test_a_board_is_gone_after_its_block(made):
    with pytest.raises(RuntimeError, match="in between"), qemu.Board("cortex-a53", made) as board:
        raise RuntimeError("in between")
    gone(board.pid)


def test_a_board_that_does_not_come_up(made):
    with (
        pytest.raises(InfraError, match=r"(the board was not up after|QEMU did not answer in) 0 s"),
        qemu.Board("cortex-a72", made, deadline=0.3),
    ):
        pass


def test_a_board_that_panics_shows_its_console(made, tmp_path):
    (tmp_path / "initrd").write_bytes(b"")
    broken = image.Image(
        made.folder, made.kernel, tmp_path / "initrd", made.known_hosts, made.client_key, ""
    )
    start = time.monotonic()
    with pytest.raises(InfraError, match=r"(?s)before the board was up.*Kernel panic"):
        qemu.Board("cortex-a72", broken).__enter__()
    assert time.monotonic() - start < 20


def test_an_image_that_vanished_is_told(made, tmp_path):
    missing = image.Image(
        made.folder, tmp_path / "no", made.initrd, made.known_hosts, made.client_key, ""
    )
    with pytest.raises(InfraError, match=r"(?s)ended with status 1.*could not load"):
        qemu.Board("cortex-a72", missing).__enter__()
