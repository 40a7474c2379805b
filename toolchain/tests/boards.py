"""An emulated board as a unit of a devices file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolchain import devices
from toolchain.devices import qemu
from toolchain.devices.ssh import SshDevice


@contextmanager
def on(board: qemu.Board, folder: Path, **changes: str) -> Iterator[SshDevice]:
    """The device of a devices file which says where `board` listens; `changes` replace its keys."""
    key = board.image.known_hosts.read_text().split(" ", 1)[1]
    (folder / "known").write_text(f"[127.0.0.1]:{board.port} {key}")
    table = {
        "host": "'127.0.0.1'",
        "port": str(board.port),
        "user": "'root'",
        "key": f"'{board.image.client_key}'",
        "known_hosts": "'known'",
    } | changes
    text = "[unit]\n" + "".join(f"{name} = {value}\n" for name, value in table.items())
    (folder / "devices.toml").write_text(text)
    unit = devices.resolve("unit", folder / "devices.toml")
    with devices.connect(unit) as device:
        assert isinstance(device, SshDevice)
        yield device
