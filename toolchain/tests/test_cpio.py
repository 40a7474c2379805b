"""Archives that Linux unpacks as its root file system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolchain.devices import cpio, rootfs
from toolchain.errors import InfraError


def test_an_archive_does_not_depend_on_the_order_of_its_entries():
    entries = {"b/x": cpio.file(b"1", 0o755), "a": cpio.link("b/x"), "b": cpio.folder(0o700)}
    assert cpio.pack(entries) == cpio.pack(dict(reversed(entries.items())))


def test_an_archive_is_in_the_newc_form():
    archive = cpio.pack({"d/f": cpio.file(b"hello", 0o640), "tty": cpio.character_device(5, 1)})
    records = _records(archive)
    assert [name for name, *_ in records] == ["d", "d/f", "tty", "TRAILER!!!"]
    assert [oct(mode) for _, mode, *_ in records[:3]] == ["0o40755", "0o100640", "0o20600"]
    assert records[1][2] == b"hello"
    assert records[2][3] == (5, 1)
    assert len(archive) % 512 == 0


def test_two_archives_in_a_row_stay_aligned():
    one = cpio.pack({"a": cpio.file(b"x")})
    assert _records(one)[0][2] == b"x"
    assert _records((one + cpio.pack({"b": cpio.file(b"y")}))[len(one) :])[0][0] == "b"


def _records(archive: bytes) -> list[tuple[str, int, bytes, tuple[int, int]]]:
    """An independent reader of newc."""
    found, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701", f"no header at {at}"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + length - 1].decode()
        start = at + 110 + length
        start += -start % 4
        found.append((name, mode, archive[start : start + size], (fields[9], fields[10])))
        if name == "TRAILER!!!":
            return found
        at = start + size
        at += -at % 4


def test_a_missing_library_is_named():
    elf = Path(sys.executable).resolve().read_bytes()
    with pytest.raises(InfraError, match=r"usr/bin/tool needs lib\S+\.so\S*, which none"):
        rootfs.check_needed({"usr/bin/tool": cpio.file(elf)})
