"""What stays on a device: a folder of files that are known by their digests, a *tree*.

A tree is named by the digest of its files' names and contents, so that a device can tell by itself
whether one is whole (`digest`). A bundle's tree shows that of a large runtime as `lib`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from toolchain.atomic import read_json
from toolchain.bundle import MANIFEST, Bundle
from toolchain.errors import UserError

LIBRARIES = "lib"


@dataclass(frozen=True)
class Stored:
    """A file. bytes: its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Tree:
    """digest: its name, in hexadecimal digits. files: by name. shown: other trees in it, by name.

    local: where the files stand on this machine; what has to be unpacked goes to the given folder.
    hashed: whether contents are looked at each time that it is used; it takes a second for 200 MB.
    """

    digest: str
    files: Mapping[str, Stored]
    local: Callable[[Path], Mapping[str, Path]]
    shown: Mapping[str, Tree] = field(default_factory=dict)
    hashed: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{16,}", self.digest):
            raise ValueError(f"{self.digest!r} is not a digest")
        for name in (*self.files, *self.shown):
            path = PurePosixPath(name)
            if not name or name != name.strip() or "\\" in name or not name.isprintable():
                raise ValueError(f"{name!r} cannot be kept on a device")
            if path.is_absolute() or ".." in path.parts or str(path) != name:
                raise ValueError(f"{name!r} is not a name inside a folder")

    @property
    def links(self) -> dict[str, str]:
        """Of `shown`, what the symbolic links say."""
        return {name: f"../{tree.digest}" for name, tree in self.shown.items()}


def digest(files: Mapping[str, str], links: Mapping[str, str] | None = None) -> str:
    """The name of a tree with these files (name: sha256) and links to other trees."""
    named = [[name, said] for name, said in sorted((dict(files) | dict(links or {})).items())]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def of_files(name: str, files: Mapping[str, Path]) -> Tree:
    """Files of this machine under a name of the caller's, a digest of their names and contents."""
    return Tree(name, {n: stored(path) for n, path in files.items()}, lambda _: files)


def of_runtime(runtime: Path, hashed: bool = False) -> Tree:
    """The libraries beside a `runtime.json`, as that one describes them."""
    found = _described(runtime)
    files = {n: Stored(one["sha256"], one["bytes"]) for n, one in found["files"].items()}
    paths = {name: runtime.parent / LIBRARIES / name for name in files}
    return Tree(found["digest"], files, lambda _: paths, hashed=hashed)


def of_bundle(bundle: Bundle, runtime: Path, thorough: bool = False) -> Tree:
    """A bundle, with its runtime in it if that is apart.

    runtime: `runtime.json`, with the libraries in `lib` beside it. UserError if they are others
    than those that the bundle was packed with. thorough: a runtime apart is `hashed`, too.
    """
    wanted, found = bundle.manifest["runtime"], _described(runtime)
    if found["digest"] != wanted["digest"]:
        raise UserError(
            f"the runtime is {found['digest'][:12]}, the bundle was made with "
            f"{wanted['digest'][:12]}",
            where=str(runtime),
            hint="run scons again: it packs the bundle anew",
        )
    manifest = bundle.read(MANIFEST)
    files = {n: Stored(one["sha256"], one["bytes"]) for n, one in bundle.manifest["files"].items()}
    files[MANIFEST] = Stored(hashlib.sha256(manifest).hexdigest(), len(manifest))
    shown = {LIBRARIES: of_runtime(runtime, thorough)} if wanted["apart"] else {}
    name = digest(
        {n: one.sha256 for n, one in files.items()},
        {n: f"../{tree.digest}" for n, tree in shown.items()},
    )

    def unpacked(to: Path) -> Mapping[str, Path]:
        bundle.extract(to)
        return {name: to / name for name in files}

    return Tree(name, files, unpacked, shown, hashed=True)


def _described(runtime: Path) -> dict[str, Any]:
    found = read_json(runtime)
    if not isinstance(found, dict) or not {"digest", "files"} <= found.keys():
        raise UserError(
            "describes no runtime",
            where=str(runtime),
            hint="one that does: build/runtime/<target>/<runtime>/runtime.json",
        )
    return found


def stored(path: Path) -> Stored:
    with path.open("rb") as file:
        said = hashlib.file_digest(file, "sha256").hexdigest()
    return Stored(said, path.stat().st_size)
