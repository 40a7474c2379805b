"""Bundles that stay on a device, each slot with the one in use and the one before.

    pushed = deploy.push(device, "camera", Bundle.open(path), runtime)
    deploy.rollback(device, "camera")                  # back to the one before
    for slot in deploy.slots(device): print(slot.name, slot.current, slot.holds)
    deploy.verify(device, "camera")                    # names of files that are damaged

On the device, <root>/slots/camera/current is the folder of the bundle (see `store`). A push changes
it by one rename, when all is in place and verified: whatever breaks, a slot has the old bundle or
the new one, whole. What is pushed again is looked at, and mended if it was damaged.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain import schema
from toolchain.bundle import Bundle
from toolchain.devices import listing, preflight, pruning, slot_scripts, store, trees
from toolchain.devices.listing import Found
from toolchain.devices.pruning import Keep, Pruned
from toolchain.devices.unix import UnixDevice
from toolchain.errors import InfraError, UserError

__all__ = ["Keep", "Pruned", "Pushed", "Slot", "prune", "push", "rollback", "slots", "verify"]

HASHING_SECONDS = 600.0  # allowed for all that a slot consists of
_KEEP = Keep()


@dataclass(frozen=True)
class Pushed:
    """digest: of the tree that is current now. previous: of the one before, if there is one.

    changed: whether another one was current. sent: bytes of files that were not there.
    """

    digest: str
    previous: str | None
    changed: bool
    sent: int
    pruned: Pruned


@dataclass(frozen=True)
class Slot:
    """current, previous: digests of trees. holds: recipe, variant, backend and target of current.

    path: of the current bundle on the device, the same after each push.
    """

    name: str
    path: str
    current: str
    previous: str | None
    holds: str


def push(
    device: UnixDevice,
    slot: str,
    bundle: Bundle,
    runtime: Path,
    keep: Keep = _KEEP,
    thorough: bool = False,
) -> Pushed:
    """Make a bundle the current one of a slot; nothing changes if it is already.

    runtime: `runtime.json`, with the libraries in `lib` beside it. keep: what may stay besides.
    thorough: hash a runtime that is there and shipped apart, too, and mend it.
    """
    schema.check_name(slot, "slot", device.name)
    preflight.check(bundle.manifest, device.facts())
    tree = trees.of_bundle(bundle, runtime, thorough=thorough)
    found, sent = store.send(device, [tree], keep=keep)
    before = {one.name: one for one in _slots(device, found.root)}.get(slot)
    changed = before is None or before.current != tree.digest
    if changed:
        _switch(device, found, slot, tree.digest, "", f"activating {slot}")
    previous = None
    if before is not None:
        previous = before.current if changed else before.previous
    pruned = pruning.prune(device, found.root, keep)
    return Pushed(tree.digest, previous, changed, sent, pruned)


def rollback(device: UnixDevice, slot: str) -> str:
    """Go back to the bundle before, which is verified first: the digest of its tree.

    A second rollback undoes the first. UserError if there is none, InfraError if it is damaged.
    """
    found = store.look(device)
    at = _slot(device, slot, found.root)
    if at.previous is None:
        raise UserError(
            f"the slot '{slot}' has no bundle before the current one",
            where=device.name,
            hint="it has one after the second push of another bundle",
        )
    if damaged := _damaged(device, found.root, at.previous):
        raise InfraError(
            f"the bundle before the current one of '{slot}' is damaged: {', '.join(damaged)}",
            where=device.name,
            hint=f"the current one stays; push the other one again to the slot '{slot}'",
        )
    try:
        _switch(device, found, slot, at.previous, at.current, f"rolling {slot} back")
    except InfraError as error:
        raise InfraError(
            error.message,
            where=error.where,
            hint="it may be done nevertheless, and a second rollback would undo it. See which is "
            f"current first:\n  python -m toolchain.devices status {device.name}",
        ) from error
    return at.previous


def slots(device: UnixDevice) -> list[Slot]:
    """All slots of the device, by name."""
    return _slots(device, store.look(device).root)


def prune(device: UnixDevice, keep: Keep = _KEEP) -> Pruned:
    """Take away what was not used for longest, until `keep` holds; never what is in use."""
    return pruning.prune(device, store.look(device).root, keep)


def _slots(device: UnixDevice, root: str) -> list[Slot]:
    said = device.ask(slot_scripts.SLOTS, root, doing="listing the slots")
    return [_parsed(part, root) for part in re.split(r"(?m)^@slot ", said)[1:]]


def verify(device: UnixDevice, slot: str) -> list[str]:
    """Hash all that the current bundle of a slot consists of: names of what is damaged.

    None if it is whole. Another push of the bundle, with thorough=True, mends it.
    """
    root = store.look(device).root
    return _damaged(device, root, _slot(device, slot, root).current)


def _slot(device: UnixDevice, name: str, root: str) -> Slot:
    there = {one.name: one for one in _slots(device, root)}
    if name not in there:
        raise UserError(
            f"there is no slot '{name}'",
            where=device.name,
            hint=f"slots there: {', '.join(there) or 'none'}; a push makes one",
        )
    return there[name]


def _switch(
    device: UnixDevice, found: Found, slot: str, to: str, expected: str, doing: str
) -> None:
    arguments = (found.root, found.client, slot, to, expected)
    device.ask(slot_scripts.SWITCH, *arguments, doing=doing, fenced=True)


def _parsed(part: str, root: str) -> Slot:
    name, current, previous, manifest = part.split("\n", 3)
    said = _read(manifest)
    words = [str(said.get(key, "?")) for key in ("recipe", "variant", "backend", "target")]
    return Slot(
        name,
        f"{root}/slots/{name}/current",
        current.rpartition("/")[2],
        previous.rpartition("/")[2] or None,
        " ".join(words),
    )


def _read(manifest: str) -> dict[str, Any]:
    """What cannot be read says nothing here; `verify` tells that it is damaged."""
    try:
        said = json.loads(manifest)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _damaged(device: UnixDevice, root: str, tree: str, prefix: str = "") -> list[str]:
    """Names of files that are not what they were when they were verified."""
    doing = "hashing what stays there"
    said = device.ask(slot_scripts.SUMS, root, tree, doing=doing, more=HASHING_SECONDS)
    ((_, stored), (_, lines)) = listing.sections(f"@files\n{said}", "(?:files|tree)")
    kept = {entry.inode: entry.name for entry in listing.entries(stored)}
    entries = listing.entries(lines)
    sums = listing.sums(lines)
    links = {entry.name: entry.to for entry in entries if entry.to}
    found = [
        f"{prefix}{entry.name}"
        for entry in entries
        if entry.name in sums and kept.get(entry.inode, sums[entry.name]) != sums[entry.name]
    ]
    for name, to in links.items():
        found += _damaged(device, root, to, f"{prefix}{name}/")
    whole = trees.digest(sums, {name: f"../{to}" for name, to in links.items()}) == tree
    if not whole and not any(one.startswith(prefix) for one in found):
        found.append(f"{prefix}*")  # names are missing, or files were replaced by others
    return found
