"""Emulated boards that stay up: started once, used by any number of builds, one at a time.

    board = boards.up("cortex-a72", "bench")         # or: python -m toolchain.devices board up
    devices.resolve("bench")                         # any build knows it by its name
    boards.down("bench")

    <cache>/running/devices.toml        the boards that are up, as units behind SSH
    <cache>/running/<name>/             pid, console, known_hosts, client_key, board.json

Which boards are up, the table of processes says and no file: QEMU's command line names the folder.
A board whose start was cut off, or whose folder was deleted, is still found, and can be ended.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain import atomic, cache, schema
from toolchain.devices import image, qemu, qmp
from toolchain.errors import InfraError, UserError, nearest

_ABOUT = "board.json"
_END_SECONDS = 10.0


@dataclass(frozen=True)
class Standing:
    """A board that was started. pid: 0 if its QEMU has ended; port: 0 if it never came up.

    seconds: since its start. about: emulator, digest of the image, and where else it is listed.
    """

    name: str
    pid: int
    seconds: float
    about: dict[str, Any]

    @property
    def cpu(self) -> str:
        return str(self.about.get("cpu", "unknown"))

    @property
    def port(self) -> int:
        return int(self.about.get("port", 0))

    @property
    def state(self) -> str:
        if not self.pid:
            return "ended"
        return "up" if self.port else "unfinished"

    @property
    def folder(self) -> Path:
        return root() / self.name


def root() -> Path:
    return cache.root() / "running"


def listing() -> Path:
    """The devices file of the boards that are up."""
    return root() / "devices.toml"


def unit(name: str, devices_file: Path | None = None) -> schema.Device | None:
    """The board of that name, unless a devices file of the user lists another unit by it."""
    if devices_file and devices_file.exists() and name in schema.read_toml(devices_file):
        return None
    if not listing().exists() or name not in (tables := schema.read_toml(listing())):
        return None
    return schema.decode(schema.Device, {**tables[name], "name": name}, f"{listing()}: [{name}]")


def facts(of: schema.Device) -> dict[str, str]:
    """What a board cannot say of itself: the emulator and the image's digest."""
    try:
        about = json.loads((Path(of.known_hosts or "").with_name(_ABOUT)).read_bytes())
    except (OSError, ValueError):  # it stands on another machine
        return {"emulator": f"QEMU {of.cpu}"}
    return {"emulator": about["emulator"], "board": about["board"]}


def refuse_ended(of: schema.Device) -> None:
    """InfraError if the unit is a board of this machine whose QEMU has ended."""
    folder = Path(of.known_hosts or "").parent
    if folder.parent == root() and folder.name not in dict(_processes()):
        raise InfraError(
            f"the board '{folder.name}' has ended",
            where=of.name,
            hint="start it again:\n"
            f"  python -m toolchain.devices board up {of.cpu} --name {folder.name}",
        )


def standing() -> list[Standing]:
    """All boards that were started and not taken down, by name."""
    running = dict(_processes())
    folders = {path.name for path in root().glob("*") if path.is_dir()}
    return [_standing(name, running.get(name, 0)) for name in sorted(folders | running.keys())]


def up(
    cpu: str,
    name: str | None = None,
    *,
    listed_in: Path | None = None,
    say: Callable[[str], None] = qemu.progress,
    seconds: float = qemu.BOOT_SECONDS,
) -> Standing:
    """Boot a board that outlives this process. listed_in: a devices file that shall name it too."""
    qemu.check_model(cpu, "board up")
    if name is not None:
        schema.check_name(name, "board", "board up --name")
    made = image.ensure(say)
    monitor = qmp.Monitor(seconds)
    end = time.monotonic() + seconds
    try:
        with cache.locked(root() / ".lock"):
            name = _reserved(name, listed_in)
            folder = root() / name
            try:
                _start(cpu, made, folder, monitor)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        try:
            about = _come_up(cpu, made, folder, monitor, end)
            about["listed_in"] = str(listed_in.absolute()) if listed_in else None
            atomic.write_json(folder / _ABOUT, about)
            _list(name, listed_in)
        except BaseException:
            down(name)
            raise
    finally:
        monitor.close()
    return next(board for board in standing() if board.name == name)


def down(name: str) -> Standing:
    """End a board, and forget it. UserError if there is none of that name."""
    boards = {board.name: board for board in standing()}
    if name not in boards:
        raise UserError(
            f"no board '{name}' was started here", where="board down", hint=nearest(name, boards)
        )
    board = boards[name]
    end = time.monotonic() + _END_SECONDS
    while pid := dict(_processes()).get(name):
        os.kill(pid, signal.SIGKILL)  # nothing in a board is worth an orderly shutdown
        if time.monotonic() > end:
            raise InfraError(f"QEMU (process {pid}) does not end", where=name)
        time.sleep(0.02)
    shutil.rmtree(board.folder, ignore_errors=True)
    if elsewhere := board.about.get("listed_in"):
        _edit(Path(elsewhere), name, "")
    with cache.locked(root() / ".lock"):
        _relist()
    return board


def _reserved(name: str | None, listed_in: Path | None) -> str:
    """A name for a new board, and its folder, which is empty. Under the lock."""
    taken = {board.name: board for board in standing()}
    elsewhere = schema.read_toml(listed_in) if listed_in and listed_in.exists() else {}
    if name is None:
        numbered = (f"board{number}" for number in range(1, 10_000))
        name = next(free for free in numbered if free not in taken and free not in elsewhere)
    if name in taken and taken[name].pid:
        raise UserError(
            f"the board '{name}' is {taken[name].state} already (process {taken[name].pid})",
            where="board up",
            hint=f"give another --name, or end it: python -m toolchain.devices board down {name}",
        )
    if name in elsewhere and name not in taken:
        raise UserError(f"lists another unit '{name}'", where=str(listed_in), hint="give --name")
    shutil.rmtree(root() / name, ignore_errors=True)
    (root() / name).mkdir(parents=True, mode=0o700)
    return name


def _start(cpu: str, made: image.Image, folder: Path, monitor: qmp.Monitor) -> None:
    console = folder / "console"
    # Two commas: QEMU separates options by one.
    argv = qemu.arguments(cpu, made, str(console).replace(",", ",,"), monitor.theirs.fileno())
    argv += ["-daemonize", "-pidfile", str(folder / "pid")]
    with console.open("wb") as said:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=[monitor.theirs.fileno()],
                check=False,
            )
        except FileNotFoundError:
            raise qemu.no_tool(qemu.PROGRAM) from None
    monitor.started()
    if done.returncode:
        raise _trouble(folder, f"QEMU ended with status {done.returncode}")


def _come_up(
    cpu: str, made: image.Image, folder: Path, monitor: qmp.Monitor, end: float
) -> dict[str, Any]:
    """Wait until the board is ready; what there is to know of it."""
    try:
        version, port = monitor.greeting(), monitor.forwarded_port()
    except (qmp.Closed, qmp.Refused) as error:
        raise _trouble(folder, str(error) or "QEMU ended before the board was up") from None
    while image.READY.encode() not in (folder / "console").read_bytes():
        if folder.name not in dict(_processes()):
            raise _trouble(folder, "QEMU ended before the board was up")
        if time.monotonic() > end:
            raise _trouble(folder, "the board was not up in time")
        time.sleep(0.02)
    shutil.copy(made.client_key, folder / "client_key")
    (folder / "known_hosts").write_text(made.known_host(port))
    emulator = f"QEMU {version} {cpu}"
    return {"cpu": cpu, "port": port, "emulator": emulator, "board": made.digest}


def _standing(name: str, pid: int) -> Standing:
    try:
        about = json.loads((root() / name / _ABOUT).read_bytes())
    except (OSError, ValueError):
        about = {}
    return Standing(name, pid, _age(pid) if pid else 0.0, about)


def _processes() -> Iterator[tuple[str, int]]:
    """Names of boards, each with the number of its QEMU."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
            file = Path(os.fsdecode(argv[argv.index(b"-pidfile") + 1]))
        except (OSError, ValueError, IndexError):  # it has ended, or is another program
            continue
        if file.name == "pid" and file.parent.parent == root() and b"qemu-system" in argv[0]:
            yield file.parent.name, int(entry.name)


def _age(pid: int) -> float:
    """Seconds since a process was started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except OSError:
        return 0.0
    up = float(Path("/proc/uptime").read_text().split()[0])
    return max(0.0, up - int(fields[19]) / os.sysconf("SC_CLK_TCK"))


def _table(board: Standing) -> str:
    values = {
        "driver": "qemu",
        "target": "arm64",
        "cpu": board.cpu,
        "host": "127.0.0.1",
        "port": board.port,
        "user": "root",
        "key": str(board.folder / "client_key"),
        "known_hosts": str(board.folder / "known_hosts"),
    }
    lines = [
        f"[{json.dumps(board.name)}]",
        *(f"{key} = {json.dumps(value)}" for key, value in values.items()),
    ]
    return "\n".join(lines) + "\n"


def _list(name: str, listed_in: Path | None) -> None:
    with cache.locked(root() / ".lock"):
        _relist()
    if listed_in:
        board = next(board for board in standing() if board.name == name)
        _edit(listed_in, name, _table(board))


def _relist() -> None:
    tables = [_table(board) for board in standing() if board.state == "up"]
    atomic.write_bytes(listing(), "\n".join(tables).encode())


def _edit(devices_file: Path, name: str, table: str) -> None:
    """Put a board's table into a file of the user, or take it out; all else stays as it is."""
    first, last = f"# board {name}: up", f"# board {name}: end"
    text = devices_file.read_text() if devices_file.exists() else ""
    before, found, rest = text.partition(f"{first}\n")
    if found:
        text = before + rest.partition(f"{last}\n")[2]
    if table:
        text += f"{first}\n{table}{last}\n"
    if text.strip() or devices_file.exists():
        atomic.write_bytes(devices_file, text.encode())


def _trouble(folder: Path, message: str) -> InfraError:
    tail = (folder / "console").read_text(errors="replace").strip().splitlines()[-30:]
    shown = "\n  ".join(line.rstrip() for line in tail)
    return InfraError(
        message,
        where=f"board {folder.name}",
        hint=f"its console ends with:\n  {shown}" if shown else "its console is empty",
    )
