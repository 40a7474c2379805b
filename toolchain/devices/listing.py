"""What a device shows of its store (see `scripts.LOOK`), and what a tree lacks there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from toolchain.devices.trees import Tree

_FILE = re.compile(r"^[-l]\S+ +\d+ +\S+ +\S+ +(\d+) .*? \./(.*)$")
_ENTRY = re.compile(r"^ *(\d+) [-l]\S+ +\d+ +\S+ +\S+ +(\d+) .*? \./(.*)$")
_STORED = re.compile(r"^-\S+ +\d+ +\S+ +\S+ +(\d+) .* ([0-9a-f]{16,})$")
_SUM = re.compile(r"^([0-9a-f]{64}) [ *]\./(.*)$")


@dataclass
class Shown:
    """A tree. sizes: in bytes, by name; a link's name says where it leads. sums: where hashed."""

    sizes: dict[str, int] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A file of a tree, or a link. bytes: its size. to: the tree that it links to, or nothing."""

    inode: int
    bytes: int
    name: str
    to: str


@dataclass(frozen=True)
class Lacking:
    """files: bytes of what has to be sent, by sha256. odd: names that do not belong there.

    whole: nothing has to be done.
    """

    files: dict[str, int]
    odd: list[str]
    whole: bool


@dataclass(frozen=True)
class Space:
    """Free bytes in a folder of a file system."""

    system: str
    free: int


@dataclass(frozen=True)
class Found:
    """root: of the store. files, begun: sizes by sha256. trees: names of all.

    shown: the trees that were asked for. store, work: their space, None if it is not told (as of a
    device's first root).
    """

    root: str
    client: str
    files: dict[str, int]
    begun: dict[str, int]
    trees: list[str]
    shown: dict[str, Shown]
    store: Space | None
    work: Space | None

    @property
    def bytes(self) -> int:
        """Of all files that stay."""
        return sum(self.files.values())

    def lacking(self, tree: Tree) -> Lacking:
        """What it takes to have a tree whole."""
        wanted = {name: one.bytes for name, one in tree.files.items()}
        wanted |= {f"{name} -> {to}": len(to) for name, to in tree.links.items()}
        there = self.shown[tree.digest]
        damaged = {
            name
            for name, said in there.sums.items()
            if name in tree.files and tree.files[name].sha256 != said
        }
        if there.sizes == wanted and not damaged:
            return Lacking({}, [], whole=True)
        spoilt = {tree.files[name].sha256 for name in damaged}
        missing = {
            one.sha256: one.bytes
            for one in tree.files.values()
            if self.files.get(one.sha256) != one.bytes or one.sha256 in spoilt
        }
        known = {*tree.files, *tree.links}
        odd = [n for n in (name.partition(" -> ")[0] for name in there.sizes) if n not in known]
        return Lacking(missing, odd, whole=False)

    def missing(self, trees: Iterable[Tree]) -> dict[str, int]:
        """What has to be sent for all of them: bytes by sha256."""
        return {sha: size for tree in trees for sha, size in self.lacking(tree).files.items()}


def parse(said: str, client: str) -> Found:
    """client: name of its folder in the root."""
    parts: dict[str, list[str]] = {}
    shown: dict[str, Shown] = {}
    lines: list[str] = []
    for line in said.splitlines():
        if line.startswith("@"):
            what, _, name = line[1:].partition(" ")
            lines = parts.setdefault(what if what != "tree" else line, [])
            if what == "tree":
                shown[name] = Shown()
            elif name:
                lines.append(name)
        else:
            lines.append(line)
    for name, one in shown.items():
        for line in parts[f"@tree {name}"]:
            if listed := _SUM.match(line):
                one.sums[listed[2]] = listed[1]
            elif listed := _FILE.match(line):
                one.sizes[listed[2]] = int(listed[1])
    (root,) = parts["root"]
    return Found(
        root,
        f"{root}/{client}",
        _stored(parts["files"]),
        _stored(parts["partial"]),
        [line for line in parts["trees"] if line],
        shown,
        space(parts["store"]),
        space(parts["work"]),
    )


def entries(lines: Iterable[str]) -> list[Entry]:
    """What `ls -lin` tells of names that begin with `./`."""
    found = []
    for line in lines:
        if match := _ENTRY.match(line):
            name, _, to = match[3].partition(" -> ")
            found.append(Entry(int(match[1]), int(match[2]), name, to.removeprefix("../")))
    return found


def sums(lines: Iterable[str]) -> dict[str, str]:
    """What `sha256sum` tells of them: by name."""
    return {found[2]: found[1] for found in map(_SUM.match, lines) if found}


def sections(said: str, mark: str) -> list[tuple[str, list[str]]]:
    """Parts that begin with a line `@mark NAME`."""
    parts = re.split(rf"(?m)^@{mark}\b *(.*)\n", said)
    return [(n, text.splitlines()) for n, text in zip(parts[1::2], parts[2::2], strict=True)]


def _stored(lines: list[str]) -> dict[str, int]:
    matches = (_STORED.match(line) for line in lines)
    return {found[2]: int(found[1]) for found in matches if found}


def space(lines: Sequence[str]) -> Space | None:
    """From what `df -Pk` says, without its first line."""
    try:
        system, *_, free, _, _ = lines[-1].split()
        return Space(system, int(free) * 1024)
    except (IndexError, ValueError):
        return None
