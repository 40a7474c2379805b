"""What leaves a device's store: trees that were not used for longest, and files of none.

Never what a slot, a process, or the work folder of a client that lives uses: the device says so,
and looks again, under the store's lock, when they are taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from toolchain.devices import listing, slot_scripts
from toolchain.devices.listing import Entry

AT_ONCE = 32  # trees in one command: some servers take 9000 characters at most


class Shell(Protocol):
    def ask(self, script: str, *args: str, doing: str, fenced: bool = False) -> str: ...


@dataclass(frozen=True)
class Keep:
    """How much may stay on a device. trees: bundles and runtimes. bytes: of all their files."""

    trees: int = 64
    bytes: int = 8 << 30

    def holds(self, trees: int, size: int) -> bool:
        return trees <= self.trees and size <= self.bytes


@dataclass(frozen=True)
class Pruned:
    """trees: digests of those that went. bytes: what they took."""

    trees: tuple[str, ...] = ()
    bytes: int = 0


def prune(device: Shell, root: str, keep: Keep) -> Pruned:
    """Take away trees until `keep` holds, or all that are left are used; and files of no tree."""
    said = device.ask(slot_scripts.WEIGH, root, doing="weighing what stays there")
    weighed, _, used = said.partition("@used\n")
    there = {n: listing.entries(lines) for n, lines in listing.sections(weighed, "tree")}
    going = leaving(there, set(used.split()), keep)
    gone: list[str] = []
    for k in range(0, max(1, len(going)), AT_ONCE):
        some = going[k : k + AT_ONCE]
        gone += device.ask(slot_scripts.PRUNE, root, *some, doing="pruning", fenced=True).split()
    left = {name: entries for name, entries in there.items() if name not in gone}
    return Pruned(tuple(gone), _bytes(there) - _bytes(left))


def leaving(there: Mapping[str, list[Entry]], used: set[str], keep: Keep) -> list[str]:
    """Trees that have to go, in that order. there: all, those used longest ago first."""
    left, going = dict(there), list[str]()
    while not keep.holds(len(left), _bytes(left)):
        shown = {entry.to for entries in left.values() for entry in entries}
        idle = next((name for name in left if name not in used | shown), None)
        if idle is None:
            break
        del left[idle]
        going.append(idle)
    return going


def _bytes(trees: Mapping[str, list[Entry]]) -> int:
    """Of all files, those once that are in several trees."""
    files = {e.inode: e.bytes for entries in trees.values() for e in entries if not e.to}
    return sum(files.values())
