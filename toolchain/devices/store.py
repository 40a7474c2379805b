"""What stays on a device, so that nothing is sent twice: files by their digest.

    <root>/files/<sha256>            whole, verified, read-only
    <root>/trees/<digest>/           a folder of hard links to them: a bundle, or a runtime
    <root>/slots/<name>              link to states/*: what is in use there (see `deploy`)
    <root>/clients/<work folder>/    of one connection: session, uses/<tree>, partial/<sha256>

A file is sent to `partial`, verified there and moved to `files`; a tree is put together beside its
place and appears by one rename: a client that is cut off leaves nothing that counts, and the next
one goes on with what it had sent. Trees are never changed, but for mending a damaged one, file by
file. The time of change of a tree's folder is that of its last use.

<root> is $SLIPWAY_CACHE there, else slipway in $XDG_CACHE_HOME or ~/.cache; if that cannot be
written, a folder of the user in /var/tmp or /tmp. A folder that keeps files already is preferred.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from toolchain.devices import listing, pruning, scripts, trees
from toolchain.devices.listing import Found
from toolchain.devices.pruning import Keep
from toolchain.devices.trees import Tree
from toolchain.errors import InfraError

ROUNDS = 3  # one for what arrives damaged, and one for what another client's prune took meanwhile

SHORT = 1500  # characters that go with a command: some servers take 9000 at most

_KEEP = Keep()


class Shell(Protocol):
    """What is needed of a device. above: ids of the processes above the first command there."""

    work: str
    above: str

    def ask(
        self, script: str, *args: str, doing: str, more: float = 0.0, fenced: bool = False
    ) -> str: ...
    def upload(self, files: Mapping[str, Path], resume: bool = False) -> None: ...
    def make_room(self, files: Iterable[str]) -> None: ...
    def full(self, folder: str, free: int, needed: int) -> InfraError: ...


@dataclass(frozen=True)
class Work:
    """What the work folder is to hold besides; all names are absolute.

    at: links to trees. entries: folders with links to each of a tree's own entries. files: copies.
    """

    at: Mapping[str, Tree] = field(default_factory=dict)
    entries: Mapping[str, Tree] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())


@dataclass(frozen=True)
class Full:
    """A folder with less room than needed, in bytes."""

    folder: str
    free: int
    needed: int


def place(device: Shell, at: str, digest: str, files: Mapping[str, Path]) -> None:
    """Make the absolute name `at` a symbolic link to a tree of `files`, sent if it is not there.

    digest: of the files' names and contents, in hexadecimal digits.
    """
    tree = trees.of_files(digest, files)
    send(device, [tree], Work(at={at: tree}))


def install(device: Shell, folder: str, tree: Tree, files: Mapping[str, Path]) -> int:
    """Have each entry of a tree in `folder`, an absolute name, by a link; and copies of `files`.

    Gives the bytes of the tree that had to be sent.
    """
    return send(device, [tree], Work(entries={folder: tree}, files=files))[1]


def send(
    device: Shell, wanted: Sequence[Tree], work: Work | None = None, keep: Keep = _KEEP
) -> tuple[Found, int]:
    """Bring trees to the device, and into its work folder: what stayed there before, bytes sent.

    Only files travel whose digest is missing. keep: how much may stay; it is pruned also if there
    is no room. InfraError if they do not fit or arrive damaged.
    """
    work = work or Work()
    every = list(_with_shown(wanted))
    sent = 0
    for _ in range(ROUNDS):
        found = _with_room(device, every, work)
        missing = found.missing(every)
        with tempfile.TemporaryDirectory() as temporary:
            here = Path(temporary)
            checks = _upload(device, found, every, missing, work, here)
            lines = [*checks, *_instructions(every, found, work)]
            bad = _keep(device, found, lines, missing, work, here)
        sent += sum(missing.values())
        if not bad:
            count = len({*found.trees, *(tree.digest for tree in every)})
            if missing and not keep.holds(count, found.bytes + sum(missing.values())):
                pruning.prune(device, found.root, keep)
            return found, sent
    names = {n for tree in every for n, one in tree.files.items() if one.sha256 in bad}
    own = {PurePosixPath(to).name: trees.stored(path).sha256 for to, path in work.files.items()}
    names |= {name for name, sha in own.items() if sha in bad}
    raise InfraError(
        f"arrived damaged, more than once: {', '.join(sorted(names)) or 'a list'}",
        where=found.root,
        hint="a bad disk or memory on the device? Run the same command again",
    )


def look(device: Shell, wanted: Iterable[Tree] = ()) -> Found:
    """What stays there. From now on, until we leave, the trees `wanted` count as used by us."""
    every = list(wanted)
    more = sum(one.bytes for tree in every if tree.hashed for one in tree.files.values()) / 1e6
    named = [f"hash:{t.digest}" if t.hashed else f"name:{t.digest}" for t in every]
    doing = "looking at what stays there"
    said = device.ask(scripts.LOOK, device.work, device.above, *named, doing=doing, more=more)
    return listing.parse(said, f"clients/{PurePosixPath(device.work).name}")


def _with_shown(wanted: Iterable[Tree]) -> Iterable[Tree]:
    """Trees with those that they show, which come first."""
    for tree in wanted:
        yield from _with_shown(tree.shown.values())
        yield tree


def _with_room(device: Shell, every: Sequence[Tree], work: Work) -> Found:
    """What is there, when there is room for the rest: looked at before the first byte is sent."""
    found = look(device, every)
    if over := _full(device, found, found.missing(every), work):
        pruning.prune(device, found.root, Keep(bytes=found.bytes - over.needed + over.free))
        found = look(device, every)
        if over := _full(device, found, found.missing(every), work):
            raise device.full(over.folder, over.free, over.needed)
    return found


def _full(device: Shell, found: Found, missing: Mapping[str, int], work: Work) -> Full | None:
    store = sum(size - min(size, found.begun.get(sha, 0)) for sha, size in missing.items())
    needed = {found.root: (found.store, store), device.work: (found.work, work.bytes)}
    if found.store and found.work and found.store.system == found.work.system:
        needed = {found.root: (found.store, store + work.bytes)}
    for folder, (space, size) in needed.items():
        if space is not None and space.free < size:
            return Full(folder, space.free, size)
    return None


def _upload(
    device: Shell,
    found: Found,
    every: Sequence[Tree],
    missing: Mapping[str, int],
    work: Work,
    here: Path,
) -> list[str]:
    """Send what is missing, and files of the work folder: what has to be verified then."""
    paths: dict[str, Path] = {}
    for tree in every:
        if any(one.sha256 in missing for one in tree.files.values()):
            local = tree.local(here / tree.digest)
            paths |= {one.sha256: local[n] for n, one in tree.files.items()}
    partial = {sha: f"{found.client}/partial/{sha}" for sha in missing}
    begun = {sha for sha in missing if 0 < found.begun.get(sha, 0) <= missing[sha]}
    if begun:
        device.upload({partial[sha]: paths[sha] for sha in begun}, resume=True)
    fresh = {to: paths[sha] for sha, to in partial.items() if sha not in begun}
    if work.files:
        device.make_room(work.files)
    if fresh or work.files:
        device.upload(fresh | dict(work.files))
    sums = {to: trees.stored(path).sha256 for to, path in work.files.items()}
    return [f"check {sha} -" for sha in missing] + [f"check {s} {to}" for to, s in sums.items()]


def _instructions(every: Sequence[Tree], found: Found, work: Work) -> Iterable[str]:
    for tree in every:
        yield f"tree {tree.digest} -"
        lacking = found.lacking(tree)
        if not lacking.whole:
            yield from (f"drop - {name}" for name in lacking.odd)
            yield from (f"file {one.sha256} {name}" for name, one in tree.files.items())
            yield from (f"link {to} {name}" for name, to in tree.links.items())
    yield from (f"at {tree.digest} {path}" for path, tree in work.at.items())
    yield from (f"show {tree.digest} {path}" for path, tree in work.entries.items())


def _keep(
    device: Shell,
    found: Found,
    lines: Iterable[str],
    missing: Mapping[str, int],
    work: Work,
    here: Path,
) -> set[str]:
    """Have it verified and put in place: digests of what was not there as it should be."""
    text = "".join(f"{line}\n" for line in lines)
    list_ = here / "list"
    list_.write_text(text)
    if len(text) > SHORT:
        device.upload({f"{found.client}/list": list_})
    arguments = (found.root, found.client, text if len(text) <= SHORT else "")
    said = device.ask(
        scripts.KEEP,
        *arguments,
        trees.stored(list_).sha256,
        doing="keeping what was sent",
        more=(sum(missing.values()) + work.bytes) / 1e6,
        fenced=True,
    )
    return set(said.split())
