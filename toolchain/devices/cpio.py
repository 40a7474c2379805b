"""Archives in the `newc` form of cpio, which Linux unpacks as its first root file system.

Written in plain Python so that no root, loop mount or device node is needed to make one, and so
that the same entries always give the same bytes: sorted by name, owned by root, times zero.
An archive may be appended to another one; the kernel unpacks both, the later one on top.

    cpio.pack({"init": cpio.file(b"#!/bin/sh\\n", 0o755), "bin": cpio.link("usr/bin")})
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

_BLOCK = 512


@dataclass(frozen=True)
class Entry:
    """mode: type and permissions, as in `st_mode`. data: content, or where a link points."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(data: bytes, permissions: int = 0o644) -> Entry:
    return Entry(stat.S_IFREG | permissions, data)


def folder(permissions: int = 0o755) -> Entry:
    return Entry(stat.S_IFDIR | permissions)


def link(to: str) -> Entry:
    return Entry(stat.S_IFLNK | 0o777, to.encode())


def character_device(major: int, minor: int, permissions: int = 0o600) -> Entry:
    return Entry(stat.S_IFCHR | permissions, device=(major, minor))


def pack(entries: Mapping[str, Entry]) -> bytes:
    """The archive of `entries`, names relative to the root; missing parent folders are added."""
    whole = dict(entries)
    for name in entries:
        for parent in list(PurePosixPath(name).parents)[:-1]:
            whole.setdefault(str(parent), folder())
    # Parents sort before what they contain, as a name is a prefix of the longer one.
    parts = [_record(name, whole[name], inode) for inode, name in enumerate(sorted(whole), 1)]
    parts.append(_record("TRAILER!!!", Entry(0), 0))
    archive = b"".join(parts)
    return archive + bytes(-len(archive) % _BLOCK)


def _record(name: str, entry: Entry, inode: int) -> bytes:
    path = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, major, minor, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
