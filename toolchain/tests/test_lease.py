"""One at a time works on a device, whatever becomes of the one who does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolchain import schema
from toolchain.devices import image, lease, lease_scripts, local, qemu
from toolchain.devices.unix import FENCED_OFF, UnixDevice
from toolchain.errors import CheckFailed, InfraError
from toolchain.tests import proxy, sshd
from toolchain.tests.boards import on
from toolchain.tests.processes import alive, gone

ROOT = Path(__file__).parents[2]
Connect = Callable[[], UnixDevice]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """Of the leases of this host, for one test."""
    monkeypatch.setenv("SLIPWAY_LEASE", str(tmp_path / "lease"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / "lease"


@pytest.fixture
def connect(folder) -> Iterator[Connect]:
    """Makes connections to this host, each of them a client of its own."""
    with ExitStack() as stack:

        def connected() -> UnixDevice:
            device = local.LocalDevice(store=folder.parent / "store")
            stack.callback(device.remove_work)
            return device

        yield connected


def state(folder: Path) -> list[str]:
    return (folder / "state").read_text().splitlines()


def test_a_lease_is_held_and_given_back(connect, folder):
    first, second = connect(), connect()
    assert lease.status(first) is None
    with lease.hold(first, owner="the first", ttl=30) as mine:
        held = lease.status(second)
        assert held is not None
        assert (held.owner, held.token, held.ttl) == ("the first", mine.token, 30)
        assert 0 < held.left <= 30
        assert 0 <= held.held < 10
        with pytest.raises(InfraError, match=r"leased by the first, for \d s so far") as refused:
            lease.take(second)
        assert "release local --force" in refused.value.hint
    assert lease.status(second) is None
    with lease.hold(second, owner="the second"):
        assert state(folder)[1] == "2", "the counter only grows"


def test_a_device_works_as_usual_under_a_lease(connect, folder):
    device = connect()
    with lease.hold(device):
        done = device.run(["sh", "-c", 'echo "$@"; exit 3', "sh", "a b", "*"], timeout=20)
        assert (done.status, done.stdout, done.stderr) == (3, b"a b *\n", b"")
        listed = device.run(["ls", str(folder)], timeout=20).stdout.decode().split()
        assert [name.split(".")[0] for name in listed] == ["run", "state"]
        said = device.ask('echo "$#:$1:$2"', "x y", "", doing="asking", fenced=True)
        assert said == "2:x y:\n"
    assert [path.name for path in folder.iterdir()] == ["state"]
    assert device.fence == ""


def test_the_waiting_is_told_once_and_ends(connect):
    first, second = connect(), connect()
    mine = lease.take(first, owner="the first", ttl=100)
    said: list[str] = []
    with pytest.raises(InfraError, match=r"leased by the first.*\(waited 2 s\)"):
        lease.take(second, wait=2, say=said.append)
    (line,) = said
    assert line.startswith("local: leased by the first, for 0 s so far; waiting for up to 2 s")
    threading.Timer(1, lease.release, (first, mine.token)).start()
    start = time.monotonic()
    lease.take(second, wait=30, say=said.append)
    assert 0.5 < time.monotonic() - start < 10


def test_a_stale_token_releases_nothing(connect):
    first, second = connect(), connect()
    old = lease.take(first, ttl=1)
    time.sleep(1.1)
    new = lease.take(second, owner="the second")
    with pytest.raises(InfraError, match=f"{old.token} is not the device's .* to the second"):
        lease.release(first, old.token)
    held = lease.status(first)
    assert held is not None
    assert held.token == new.token
    lease.release(first, None)
    assert lease.status(second) is None


def test_a_late_heartbeat_renews_what_nobody_took(connect):
    first, second = connect(), connect()
    mine = lease.take(first, ttl=1)
    time.sleep(1.2)
    assert lease.status(second) is None
    assert lease._renew(first, mine) == ""
    assert lease.status(second) is not None


def test_the_heartbeat_keeps_a_lease(connect):
    first, second = connect(), connect()
    with lease.hold(first, ttl=1):
        for _ in range(6):
            time.sleep(0.5)
            with pytest.raises(InfraError, match="leased by"):
                lease.take(second)


def test_a_heartbeat_that_fails_for_a_while_costs_nothing(connect, monkeypatch):
    device = connect()
    ask = device.ask
    failed: list[int] = []

    def cut(script, *args, **options):
        if script == lease_scripts.RENEW and len(failed) < 3:
            failed.append(1)
            raise InfraError("the network is down")
        return ask(script, *args, **options)

    monkeypatch.setattr(device, "ask", cut)
    with lease.hold(device, ttl=1.5) as mine:
        time.sleep(2)
        assert len(failed) == 3
        assert not mine.lost
        assert lease.status(device) is not None


@pytest.mark.parametrize("how", ["passed on", "released", "restarted"])
def test_who_lost_the_lease_changes_nothing_any_more(connect, folder, tmp_path, how):
    first, second = connect(), connect()
    file = str(tmp_path / "file")
    with (  # noqa: PT012 (what happens under the lease)
        pytest.raises(InfraError, match="the lease was lost during the work: it "),
        lease.hold(first, ttl=90),
    ):
        first.run(["touch", file], timeout=20)
        first.ask('rm "$1"', file, doing="removing", fenced=True)
        match how:
            case "passed on":
                lease.release(second, None)
                lease.take(second, owner="the second")
                text = "the lease passed on to the second"
            case "released":
                lease.release(second, None)
                text = "the lease was ended by somebody else"
            case "restarted":
                lines = state(folder)
                lines[2] = "00000000-0000-0000-0000-000000000000"
                (folder / "state").write_text("\n".join(lines) + "\n")
                text = "by a restart of the device"
                assert lease.status(second) is None
        with pytest.raises(InfraError, match=f"running touch: .*{text}"):
            first.run(["touch", file], timeout=20)
        with pytest.raises(InfraError, match=f"writing: .*{text}"):
            first.ask('touch "$1"', file, doing="writing", fenced=True)
        assert not Path(file).exists()


def test_a_lost_lease_is_no_fault_of_the_product(connect):
    first, second = connect(), connect()

    def loses_it(error: Exception) -> None:
        with lease.hold(first):
            lease.release(second, None)
            raise error

    with pytest.raises(InfraError, match="lost during the work") as told:
        loses_it(CheckFailed("the runner was killed by SIGKILL"))
    assert isinstance(told.value.__cause__, CheckFailed)
    with pytest.raises(InfraError, match="cut off"):
        loses_it(InfraError("cut off"))
    with pytest.raises(CheckFailed, match="wrong"), lease.hold(first):
        raise CheckFailed("wrong")


def test_a_lease_that_cannot_be_asked_for_in_the_end_counts_for_nothing(connect, monkeypatch):
    device = connect()

    def cut(*_args, **_options):
        raise InfraError("the connection was lost")

    with (
        monkeypatch.context() as patch,
        pytest.raises(InfraError, match="the connection was lost"),
        lease.hold(device),
    ):
        patch.setattr(device, "ask", cut)


def test_a_child_works_under_the_lease_of_its_parent(connect, monkeypatch):
    parent, child, other = connect(), connect(), connect()
    mine = lease.take(parent, ttl=100)
    monkeypatch.setenv(lease.TOKEN, mine.token)
    with lease.hold(child) as joined:
        assert (joined.token, joined.joined) == (mine.token, True)
        assert child.run(["true"], timeout=20).status == 0
    held = lease.status(other)
    assert held is not None
    assert held.token == mine.token
    monkeypatch.setenv(lease.TOKEN, "1-0123")
    with pytest.raises(InfraError, match="leased by"), lease.hold(child):
        pass


@pytest.mark.usefixtures("folder")
def test_this_host_is_leased_by_name():
    unit = schema.Device(name="local", driver="local")
    with lease.leased(unit) as device:
        assert device.run(["true"], timeout=20).status == 0
        with pytest.raises(InfraError, match="leased by"), lease.leased(unit):
            pass


def race(connects: list[Connect], rounds: int, place: Path) -> list[str]:
    """What goes wrong when as many clients want the lease `rounds` times each."""
    wrong: list[str] = []

    def client(connect: Connect) -> None:
        device = connect()
        for _ in range(rounds):
            try:
                with lease.hold(device, ttl=100, wait=300, say=lambda _: None):
                    done = device.run(
                        ["sh", "-c", 'mkdir "$1" && rmdir "$1"', "sh", str(place)], timeout=60
                    )
                    wrong.extend([done.stderr.decode()] if done.status else [])
            except InfraError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=client, args=(connect,)) for connect in connects]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def test_clients_that_race_hold_it_one_at_a_time(connect, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "_POLL_SECONDS", (0.01, 0.05))
    assert race([connect] * 3, 30, tmp_path / "alone") == []
    assert state(folder)[:2] == ["", "90"], "each took it each time, and it is free now"


@dataclass
class Client:
    """The process of a client."""

    process: subprocess.Popen[bytes]

    def event(self) -> dict:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the client has ended"
        return dict(json.loads(line))


@contextmanager
def client(unit: str, devices_file: Path, ttl: float) -> Iterator[Client]:
    argv = ["-m", "toolchain.tests.lease_client", unit, str(devices_file), str(ttl)]
    with subprocess.Popen([sys.executable, *argv], cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield Client(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def started(file: Path) -> int:
    """Process number of the program that the client runs."""
    end = time.monotonic() + 20
    while not (file.exists() and file.read_text().strip()):
        assert time.monotonic() < end, "the program does not start"
        time.sleep(0.02)
    return int(file.read_text())


@pytest.fixture
def server(tmp_path) -> Iterator[sshd.Server]:
    at = tmp_path / "sshd"
    at.mkdir()
    # The first SetEnv is the one that counts.
    settings = f"SetEnv HOME={at}/home TMPDIR={at}/tmp SLIPWAY_LEASE={at}/tmp/lease"
    with sshd.serving(at, settings) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("ttl", [2.0, 4.0])
def test_a_killed_client_frees_the_device_within_its_time_to_live(server, ttl):
    with client(sshd.UNIT, server.devices, ttl) as doomed, server.connect() as device:
        work = Path(doomed.event()["work"])
        program = started(server.temporary / "program")
        time.sleep(ttl)  # it lives on its heartbeat
        assert lease.status(device) is not None
        doomed.process.kill()
        killed = time.monotonic()
        gone(program)
        with lease.hold(device, wait=2 * ttl, say=lambda _: None):
            assert time.monotonic() - killed < ttl + 3.0  # some questions on a busy machine
        assert not work.exists()
        assert list((server.temporary / "lease").iterdir()) == [server.temporary / "lease/state"]


@pytest.mark.slow
def test_a_stopped_client_is_fenced_off(server):
    """Its program ends when the lease passes on, and when it wakes up it changes nothing."""
    with client(sshd.UNIT, server.devices, 2) as stopped, server.connect() as device:
        work = Path(stopped.event()["work"])
        program = started(server.temporary / "program")
        stopped.process.send_signal(signal.SIGSTOP)
        with lease.hold(device, wait=20, owner="the second", say=lambda _: None):
            gone(program)
            assert not work.exists()
            stopped.process.send_signal(signal.SIGCONT)
            events = {event["event"]: event["error"] for event in [stopped.event() for _ in "1234"]}
        assert "failed: no status" in events.pop("run"), "it must not look like a program's end"
        assert events == {
            "run again": "running touch: the lease passed on to the second",
            "write": "writing: the lease passed on to the second",
            "hold": "the lease was lost during the work: it passed on to the second",
        }
        left = {path.name for path in server.temporary.iterdir()}
        assert not left & {"ran", "written"}


@pytest.mark.slow
def test_who_lost_the_lease_sends_nothing_more(server, tmp_path):
    """Not even the rest of a file that was on its way over a slow link."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(32_000_000))  # 16 s
    with proxy.between(server.port, rate=2_000_000) as port:
        known = tmp_path / "known"
        known.write_text(server.known_hosts.read_text().replace(str(server.port), str(port)))
        with ExitStack() as stack:
            device = stack.enter_context(server.connect(port=port, known_hosts=str(known)))
            taken = threading.Timer(2, lambda: stack.enter_context(_taken(server)))
            taken.start()
            began = time.monotonic()
            with (
                pytest.raises(InfraError, match="lost during the work: it passed on to the second"),
                lease.hold(device, ttl=3),
            ):
                device.put({"file": file})
            assert time.monotonic() - began < 12  # what is under way arrives first: some seconds


@contextmanager
def _taken(server: sshd.Server) -> Iterator[None]:
    with server.connect() as other:
        lease.release(other, None)
        with lease.hold(other, owner="the second"):
            yield


@pytest.mark.slow
def test_clients_of_a_server_race(server, monkeypatch):
    monkeypatch.setattr(lease, "_POLL_SECONDS", (0.01, 0.05))
    with ExitStack() as stack:
        connects: list[Connect] = [lambda: stack.enter_context(server.connect())] * 2
        assert race(connects, 40, server.temporary / "alone") == []
    assert state(server.temporary / "lease")[:2] == ["", "80"]


@pytest.mark.usefixtures("folder")
def test_a_device_without_flock_says_so(tmp_path, monkeypatch):
    there = tmp_path / "bin"
    there.mkdir()
    for tool in ("sh", "mktemp", "rm"):
        found = next(p for p in ("/bin", "/usr/bin") if Path(p, tool).exists())
        (there / tool).symlink_to(Path(found, tool))
    monkeypatch.setenv("PATH", str(there))
    device = local.LocalDevice(store=tmp_path / "store")
    with pytest.raises(InfraError, match=r"the device has no flock.*install util-linux or busybox"):
        lease.take(device)
    device.remove_work()


def test_a_folder_that_is_not_one_is_refused(connect, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InfraError, match=f"the folder of the lease cannot be used: {folder}"):
        lease.take(connect())
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("text", ["", "\n", "x\ny\nz\n", "1-a\nmany\n\n\n\n\n\n", "\0\n" * 8])
def test_a_damaged_state_is_nobodys(connect, folder, text):
    folder.mkdir(mode=0o777)
    (folder / "state").write_text(text)
    device = connect()
    assert lease.status(device) is None
    assert lease.take(device).token.startswith("1-")


def as_nobody(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """A script of another account."""
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    argv = [*drop, "sh", "-c", script, "slipway", *args]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")


@pytest.fixture
def shared(folder, monkeypatch) -> Iterator[UnixDevice]:
    """This host for us, with a folder of leases that another account reaches too."""
    if os.geteuid() != 0:
        pytest.skip("only root can work as another account")
    # pytest keeps its own folders to one account.
    with tempfile.TemporaryDirectory(prefix="slipway-lease.") as open_to_all:
        Path(open_to_all).chmod(0o755)
        folder.symlink_to(open_to_all)
        monkeypatch.setenv("SLIPWAY_LEASE", f"{open_to_all}/lease")
        device = local.LocalDevice(store=Path(open_to_all, "store"))
        yield device
        device.remove_work()


def test_accounts_share_a_device(shared):
    mine = lease.take(shared, owner="us")
    said = as_nobody(lease_scripts.TAKE, "0f", "6000", "nobody", "/tmp/slipway.000000").stdout
    assert said.splitlines()[0] == "held"
    assert said.splitlines()[5] == "us"
    lease.release(shared, mine.token)
    said = as_nobody(lease_scripts.TAKE, "0f", "6000", "nobody", "/tmp/slipway.000000").stdout
    assert said == "taken\n2-0f\n"
    with pytest.raises(InfraError, match="leased by nobody"):
        lease.take(shared)
    assert as_nobody(lease_scripts.RELEASE, "2-0f").stdout == "released\n"
    assert lease.take(shared).token.startswith("3-")


def test_a_program_of_another_account_keeps_the_device_busy(shared):
    """Two programs at a time would make both figures wrong."""
    argv = ["sh", "-c", f"{lease_scripts.fence(lease.take(shared, ttl=1).token)}\nsleep 60"]
    with subprocess.Popen(argv) as program:
        try:
            time.sleep(1.3)
            said = as_nobody(lease_scripts.TAKE, "0f", "6000", "nobody", "/").stdout.splitlines()
            assert said[:2] == ["busy", f" {program.pid}"]
            assert alive(program.pid)
        finally:
            program.kill()
    said = as_nobody(lease_scripts.TAKE, "0f", "6000", "nobody", "/").stdout.splitlines()
    assert said[0] == "taken"


def test_nobody_has_us_kill_what_is_not_a_holders(shared, folder):
    """A file by another account names a process of ours."""
    folder = folder.resolve() / "lease"
    lease.release(shared, lease.take(shared).token)
    with subprocess.Popen(["sleep", "60"]) as ours:
        try:
            fields = Path(f"/proc/{ours.pid}/stat").read_text().rsplit(") ", 1)[1].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            line = f"{boot} {ours.pid} {fields[19]}"
            done = as_nobody('echo "$1" >"$2"', line, f"{folder}/run.{ours.pid}.{fields[19]}")
            assert done.returncode == 0
            lease.take(shared)
            assert alive(ours.pid)
            assert [path.name for path in folder.iterdir()] == ["state"]
        finally:
            ours.kill()


def test_a_number_that_another_process_has_now_is_left_alone(connect, folder):
    device = connect()
    lease.release(device, lease.take(device).token)
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            (folder / f"run.{other.pid}.1").write_text(f"{boot} {other.pid} 1\n")
            lease.take(device)
            assert alive(other.pid)
        finally:
            other.kill()


@pytest.mark.usefixtures("folder")
def test_a_reset_ends_what_was_left_running(connect, tmp_path):
    stale, device = connect(), connect()
    lease.take(stale)
    partial = tmp_path / "store/clients/slipway.AbCdEf/partial"
    partial.mkdir(parents=True)
    (tmp_path / "store/trees").mkdir()
    (partial / "abc").write_bytes(b"half")
    left = subprocess.Popen(["sleep", "60"], cwd=stale.work, start_new_session=True)
    with left:
        said = lease.reset(device)
        gone(left.pid)
    assert f"ended {left.pid}" in said
    assert lease.status(device) is None
    assert not Path(stale.work).exists()
    assert Path(device.work).exists()
    assert list(partial.iterdir()) == []
    assert device.run(["true"], timeout=20).status == 0


@pytest.mark.usefixtures("folder")
def test_a_fence_fails_with_its_own_status(connect):
    fence = lease_scripts.fence("9-none")
    done = connect().execute(["sh", "-c", f"{fence}\necho through"], 20, "trying")
    assert (done.status, done.stdout) == (FENCED_OFF, b"")
    assert done.stderr.decode().count("\n") == 1


@pytest.fixture(scope="module")
def board() -> Iterator[qemu.Board]:
    with qemu.Board("cortex-a72", image.ensure(lambda _: None)) as running:
        yield running


@contextmanager
def two(board: qemu.Board, tmp_path: Path) -> Iterator[tuple[UnixDevice, UnixDevice]]:
    for name in "ab":
        (tmp_path / name).mkdir()
    with on(board, tmp_path / "a") as first, on(board, tmp_path / "b") as second:
        yield first, second


@pytest.mark.board
def test_clock_jumps_of_a_board_do_not_matter(board, tmp_path):
    with two(board, tmp_path) as (first, second):
        mine = lease.take(first, owner="the first", ttl=12)
        for date in ("2035-01-01 00:00", "1999-01-01 00:00"):
            second.run(["date", "-s", date], timeout=30)
            with pytest.raises(InfraError, match="leased by the first"):
                lease.take(second)
        assert lease._renew(first, mine) == ""
        with lease.hold(second, wait=60, say=lambda _: None):
            assert lease._renew(first, mine).startswith("it passed on to")


@pytest.mark.board
def test_clients_of_a_board_race(board, tmp_path):
    with two(board, tmp_path) as (first, second):
        wrong = race([lambda: first, lambda: second], 10, Path("/tmp/alone"))
        assert wrong == []


@pytest.mark.board
def test_a_lease_that_passes_on_ends_a_program_of_the_board(board, tmp_path):
    """busybox finds and kills all of it, also where the client only sleeps."""
    with two(board, tmp_path) as (first, second):
        lease_of_first = lease.take(first, ttl=600)
        first.fence = lease_scripts.fence(lease_of_first.token)
        seen: list[str] = []

        def runs() -> None:
            try:
                first.run(["sh", "-c", "sleep 300 & sleep 301"], timeout=200)
            except InfraError as error:
                seen.append(str(error))

        thread = threading.Thread(target=runs)
        thread.start()
        end = time.monotonic() + 30
        while "sleep 301" not in second.ask("ps", doing="looking"):
            assert time.monotonic() < end
        lease.release(second, None)
        thread.join(60)
        assert "sleep 30" not in second.ask("ps", doing="looking")
        assert "no status" in seen[0]
