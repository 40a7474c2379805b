"""Uploads to an emulated board, where the shell and its tools are busybox's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from toolchain.devices import image, qemu
from toolchain.devices.ssh import SshDevice
from toolchain.errors import InfraError
from toolchain.tests import boards

pytestmark = [pytest.mark.slow, pytest.mark.board]


@pytest.fixture(scope="module")
def device(tmp_path_factory) -> Iterator[SshDevice]:
    with (
        qemu.Board("cortex-a72", image.ensure(qemu.progress)) as board,
        boards.on(board, tmp_path_factory.mktemp("board")) as connected,
    ):
        yield connected


@pytest.mark.parametrize("sftp", [True, False])
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("there", [0, 70_000, 299_999, 300_000, 300_001])
def test_a_file_is_completed(device, tmp_path, sftp, packs, there):
    content = bytes(range(250)) * 1200
    (tmp_path / "whole").write_bytes(content)
    (tmp_path / "whole").chmod(0o750)
    (tmp_path / "partial").write_bytes((content + b"x")[:there])
    device.put({"file": tmp_path / "partial"})
    device._sender._has_sftp, device._sender._packs = sftp, packs
    before = device.sent_bytes
    device._upload({f"{device.work}/file": tmp_path / "whole"}, resume=True)
    sent = device.sent_bytes - before
    rest = {0: 300_000, 70_000: 300_000 - 65_536, 299_999: 300_000 - 262_144, 300_000: 0}
    assert sent <= rest.get(there, 300_000)
    assert sent < 10_000 or not packs or there == 299_999
    device.get("file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert device.run(["stat", "-c", "%a", "file"], timeout=20).stdout == b"750\n"


def test_a_full_board(device, tmp_path):
    (tmp_path / "f").write_bytes(bytes(300_000))
    for sftp in (True, False):
        device._sender._has_sftp = sftp
        with pytest.raises(InfraError, match=r"uploading /dev/full failed|is full"):
            device._upload({"/dev/full": tmp_path / "f"})
