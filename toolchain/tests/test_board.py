"""Real emulated boards, and the SSH device on them as on any unit of a devices file."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import paramiko
import pytest

from toolchain import devices
from toolchain.devices import image, qemu
from toolchain.devices.ssh import SshDevice
from toolchain.devices.watchdog import bounded
from toolchain.errors import InfraError
from toolchain.schema import Device
from toolchain.tests.boards import on

pytestmark = pytest.mark.board


@pytest.fixture(scope="session")
def made() -> image.Image:
    return image.ensure(lambda _: None)


@pytest.fixture(scope="session")
def board(made) -> Iterator[qemu.Board]:
    with qemu.Board("cortex-a72", made) as running:
        yield running


@pytest.fixture
def device(board, tmp_path) -> Iterator[SshDevice]:
    with on(board, tmp_path) as connected:
        yield connected


@pytest.fixture
def doomed(made, tmp_path) -> Iterator[tuple[qemu.Board, SshDevice]]:
    """A board of its own, for tests that kill or freeze it."""
    with qemu.Board("cortex-a72", made) as running, on(running, tmp_path) as connected:
        yield running, connected


def after(seconds: float, what: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, what)
    timer.start()
    return timer


# ---- what a device does


def test_a_board_says_what_it_is():
    with devices.connect(Device(name="b", driver="qemu", cpu="cortex-a53")) as device:
        facts = device.facts()
        assert device.emulated
        assert device.run(["uname", "-m"], timeout=20).stdout == b"aarch64\n"
    assert facts["machine"] == "aarch64"
    assert facts["cpu"] == "Cortex-A53"
    assert facts["emulator"].startswith("QEMU ")
    assert (facts["cores"], facts["randomize_va_space"]) == ("1", "0")
    assert facts["perf_event_paranoid"] == "-1"
    assert float(facts["libc"]) >= 2.28
    assert 900 << 20 < int(facts["memory"]) < 1024 << 20


def test_files_go_there_and_back(device, tmp_path):
    content = os.urandom(20 << 20)
    (tmp_path / "big").write_bytes(content)
    (tmp_path / "tool").write_text("#!/bin/sh\necho run by $0\n")
    (tmp_path / "tool").chmod(0o755)
    device.put({"a/b/big file": tmp_path / "big", "tool": tmp_path / "tool"})
    there = device.run(["sha256sum", "a/b/big file"], timeout=60).stdout.split()[0]
    assert there.decode() == hashlib.sha256(content).hexdigest()
    assert device.run(["./tool"], timeout=20).stdout == b"run by ./tool\n"
    device.get("a/b/big file", tmp_path / "new/back")
    assert (tmp_path / "new/back").read_bytes() == content
    assert os.listdir(tmp_path / "new") == ["back"]  # noqa: PTH208 (nothing hidden either)


def test_empty_files_and_no_files(device, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    device.put({"empty": tmp_path / "empty"})
    device.put({})
    device.get("empty", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_status_output_and_signal(device):
    done = device.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=20)
    assert (done.status, done.stdout, done.stderr, done.signal) == (7, b"out\n", b"err\n", None)
    for name in ("SEGV", "ABRT", "KILL"):
        assert device.run(["sh", "-c", f"kill -{name} $$"], timeout=20).signal == f"SIG{name}"
    done = device.run(["./nothing"], timeout=20)
    assert done.status == 127
    assert b"nothing" in done.stderr


def test_arguments_arrive_as_they_are(device):
    words = ["a b", "it's", '"', "$HOME", "*", "back\\slash", "new\nline", "", "-n", ";reboot", "é"]
    assert device.run(["printf", "<%s>", *words], timeout=20).stdout.decode() == "".join(
        f"<{word}>" for word in words
    )


def test_a_command_has_a_clean_start(device):
    assert device.run(["env"], timeout=20).stdout == b"PATH=/usr/local/bin:/usr/bin:/bin\n"
    assert device.run(["cat"], timeout=20) == devices.base.Completed(0, b"", b"")
    assert device.run(["pwd"], timeout=20).stdout.decode().strip() == device.work


def test_a_flood_on_both_streams_is_drained(device):
    script = "yes out | head -c 6000000 & yes err | head -c 6000000 >&2; wait; exit 3"
    done = device.run(["sh", "-c", script], timeout=120)
    assert done.status == 3
    assert done.stdout == b"out\n" * 1500000
    assert done.stderr == b"err\n" * 1500000


def test_a_command_without_end_of_output_is_stopped(device, monkeypatch):
    monkeypatch.setattr("toolchain.devices.streams.OUTPUT_LIMIT", 1 << 20)
    with pytest.raises(InfraError, match="bytes of output while running yes"):
        device.run(["yes"], timeout=60)
    assert b"yes" not in device.run(["ps", "-o", "comm"], timeout=20).stdout.split()


def test_a_time_out_kills_all_that_was_started(device):
    script = "trap '' TERM HUP INT; sleep 4321 & sleep 4322 | cat; sleep 4323"
    start = time.monotonic()
    with pytest.raises(InfraError, match="no end after 1 s while running sh; the command was kil"):
        device.run(["sh", "-c", script], timeout=1)
    assert time.monotonic() - start < 4
    assert "sleep 432" not in _processes(device)
    assert device.run(["true"], timeout=20).status == 0


def test_what_a_command_leaves_running_ends_with_it(device):
    device.run(["sh", "-c", "sleep 5431 & exit 0"], timeout=20)
    assert "sleep 5431" not in _processes(device)


def test_a_lost_connection_leaves_nothing_running(board, device, tmp_path):
    timer = after(1, device._transport.close)
    with pytest.raises(InfraError, match="the connection was lost while running sleep"):
        device.run(["sleep", "6543"], timeout=60)
    timer.join()
    with on(board, tmp_path) as other:
        end = time.monotonic() + 10
        while "sleep 6543" in _processes(other) and time.monotonic() < end:
            time.sleep(0.1)
        assert "sleep 6543" not in _processes(other)


def _processes(device: SshDevice) -> str:
    """Command lines without those of our own shells, which quote them."""
    lines = device.run(["ps", "-o", "args"], timeout=20).stdout.decode().splitlines()
    return "\n".join(line for line in lines if "slipway" not in line)


def test_the_work_folder_is_removed(board, tmp_path):
    with on(board, tmp_path) as device:
        work = device.work
        (tmp_path / "f").write_text("x")
        device.put({"sub/f": tmp_path / "f"})
    with on(board, tmp_path) as device:
        assert device.work != work
        assert device.run(["ls", "-d", work], timeout=20).status != 0


def test_names_stay_inside_the_work_folder(device, tmp_path):
    (tmp_path / "f").write_text("x")
    for name in ("/etc/passwd", "../up", "a/../../b", "."):
        with pytest.raises(ValueError, match="not a name inside the work folder"):
            device.put({name: tmp_path / "f"})


def test_a_folder_that_stays(board, tmp_path, monkeypatch):
    """On busybox: sent once, found whole, healed when it is damaged."""
    content = {"libone.so": os.urandom(3 << 20), "lib two.so.6": b"", "deep/three.so": b"3"}
    (tmp_path / "deep").mkdir()
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    files = {name: tmp_path / name for name in content}
    digest = "ab" * 32
    sent: list[str] = []
    upload = SshDevice.upload

    def seen(device: SshDevice, files: Mapping[str, Path], resume: bool = False) -> None:
        sent.extend(to for to in files if "/partial/" in to)
        upload(device, files, resume)

    monkeypatch.setattr(SshDevice, "upload", seen)
    there = ["sha256sum", *(f"p0/lib/{name}" for name in content)]
    digests = [hashlib.sha256(data).hexdigest() for data in content.values()]
    for times, damage in ((3, False), (3, True), (4, False)):
        with on(board, tmp_path) as device:
            device.link("p0/lib", digest, files)
            assert len(sent) == times
            said = device.run(there, timeout=20).stdout.decode().splitlines()
            assert [line[:64] for line in said] == digests
            kept = device.run(["readlink", "p0/lib"], timeout=20).stdout.decode().strip()
            assert device.run(["ls", "-A", f"{kept}/.."], timeout=20).stdout.split() == [b"ab" * 32]
            if damage:
                device.run(["cp", f"{kept}/deep/three.so", f"{kept}/libone.so"], timeout=20)
                assert device.run(there, timeout=20).stdout.split()[0] != digests[0].encode()


# ---- what goes wrong on the device


def test_a_file_that_is_not_there(device, tmp_path):
    with pytest.raises(InfraError, match="there is no file 'nothing' to fetch"):
        device.get("nothing", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.fixture
def small(device, tmp_path) -> Iterator[SshDevice]:
    """The work folder has room for 4 MB. big: a file of 8 MB."""
    (tmp_path / "big").write_bytes(bytes(8 << 20))
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "small", device.work]
    assert device.run(mount, timeout=20).status == 0
    yield device
    device.run(["umount", "-l", device.work], timeout=20)


def test_a_file_that_cannot_fit_is_refused_before_the_first_byte(small, tmp_path):
    text = r"the device is full: 4194304 bytes are free in /tmp/slipway\S+, 8388608 are needed"
    with pytest.raises(InfraError, match=text):
        small.put({"big": tmp_path / "big"})
    assert small.run(["ls"], timeout=20).stdout == b""


def test_a_disk_that_fills_up_on_the_way(small, tmp_path, monkeypatch):
    really, asked = small._free, []

    def free(folder: str) -> int:
        asked.append(1)
        return 1 << 40 if len(asked) == 1 else really(folder)

    monkeypatch.setattr(small, "_free", free)
    with pytest.raises(InfraError, match="the device is full: 0 bytes are free"):
        small.put({"big": tmp_path / "big"})
    assert len(asked) == 2


def test_a_damaged_upload_is_noticed(device, tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"0123456789" * 1000)
    upload = device._upload
    script = 'printf X | dd of="$1" bs=1 seek=5000 conv=notrunc 2>/dev/null'

    def damaging(files: Mapping[str, Path], resume: bool = False) -> None:
        upload(files, resume)
        device.ask(script, *files, doing="damaging a file")

    monkeypatch.setattr(device, "_upload", damaging)
    with pytest.raises(InfraError, match=r"f arrived damaged: sha256 \w{64} instead of \w{64}"):
        device.put({"f": tmp_path / "f"})


def test_a_work_folder_that_vanished(device):
    device.ask('rm -r "$1"', device.work, doing="removing")
    with pytest.raises(InfraError, match="running true failed"):
        device.run(["true"], timeout=20)


def test_a_board_killed_in_the_middle_of_an_upload(doomed, tmp_path, monkeypatch):
    board, device = doomed
    with (tmp_path / "big").open("wb") as file:
        file.truncate(300 << 20)
    upload, timers = device._upload, list[threading.Timer]()

    def killed_soon(files: Mapping[str, Path], resume: bool = False) -> None:
        timers.append(after(0.5, lambda: os.kill(board.pid, signal.SIGKILL)))
        upload(files, resume)

    monkeypatch.setattr(device, "_upload", killed_soon)
    with pytest.raises(InfraError, match="the connection was lost while uploading"):
        device.put({"big": tmp_path / "big"})
    monkeypatch.undo()
    (timer,) = timers
    assert timer.finished.is_set()
    for operation in (
        lambda: device.put({"f": tmp_path / "known"}),
        lambda: device.run(["true"], timeout=5),
        lambda: device.get("f", tmp_path / "f"),
        device.facts,
    ):
        with pytest.raises(InfraError, match="the connection was lost"):
            operation()


def test_a_board_killed_in_the_middle_of_a_run_shows_its_console():
    def work() -> None:
        with devices.connect(devices.resolve("qemu:cortex-a72")) as device:
            after(0.5, lambda: os.kill(_youngest_board(), signal.SIGKILL))
            device.run(["sleep", "60"], timeout=60)

    text = r"(?s)qemu:cortex-a72: the board stopped: the connection was lost.*board ready"
    with pytest.raises(InfraError, match=text):
        work()


def _youngest_board() -> int:
    """The QEMU that was started last by this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return max(int(child) for child in children)


def test_a_board_that_no_longer_answers(made, tmp_path):
    """A frozen board acknowledges what is sent, and answers nothing: only deadlines help."""
    (tmp_path / "f").write_bytes(bytes(1000))
    operations: list[Callable[[SshDevice], object]] = [
        lambda device: device.put({"f": tmp_path / "f"}),
        lambda device: device.run(["true"], timeout=1),
        lambda device: device.get("f", tmp_path / "g"),
        lambda device: device.facts(),
    ]
    with qemu.Board("cortex-a72", made) as board, ExitStack() as stack:
        connected = [stack.enter_context(on(board, tmp_path)) for _ in operations]
        waiting = stack.enter_context(on(board, tmp_path))
        channel = waiting._transport.open_session()
        uploading = stack.enter_context(on(board, tmp_path))
        sftp = paramiko.SFTPClient.from_transport(uploading._transport)
        assert sftp
        os.kill(board.pid, signal.SIGSTOP)
        for operation, device in zip(operations, connected, strict=True):
            device.patience = device._transport.channel_timeout = 1
            start = time.monotonic()
            with pytest.raises(InfraError, match=r"Timeout opening channel|no answer for . s"):
                operation(device)
            assert time.monotonic() - start < 5
        # paramiko waits for these without a deadline of its own
        with _silent(waiting):
            channel.exec_command("true")
        with _silent(uploading):
            sftp.put(str(tmp_path / "f"), "/tmp/f")
        board._process.kill()


@contextmanager
def _silent(device: SshDevice) -> Iterator[None]:
    text = "no answer for 1 s while waiting"
    with pytest.raises(InfraError, match=text), bounded(device._transport, "", "waiting", 1):
        yield


# ---- how a board is shut off


def test_a_board_reaches_no_service_of_this_machine(device):
    """10.0.2.2 would be this machine's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = device.run(["nc", "-w", "2", "10.0.2.2", port], timeout=20)
    assert done.status != 0


def test_a_password_is_not_even_asked_for(board):
    with paramiko.Transport(("127.0.0.1", board.port)) as transport:
        transport.start_client(timeout=20)
        with pytest.raises(paramiko.BadAuthenticationType) as caught:
            transport.auth_none("root")
    assert caught.value.allowed_types == ["publickey"]
