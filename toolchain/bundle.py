"""The bundle: what is shipped to a device, as a tar that says of each file what it has to be.

    bundle.tar ─┬─ manifest.json     what this is, digests of the rest, what it needs of the device
                ├─ runner            the program that runs the program
                ├─ lib/*.so          the runtime libraries that it needs, no others; none if they
                │                    are large: a device gets these once, under their digest
                ├─ program.*
                └─ self_test/{inputs,expected}.bin    samples, and what the host made of them

The same files give the same bytes: names are sorted, owners, modes and times are fixed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from toolchain.errors import UserError

SCHEMA = 2
MANIFEST = "manifest.json"
RUNNER = "runner"
SELF_TEST_INPUTS = "self_test/inputs.bin"
SELF_TEST_EXPECTED = "self_test/expected.bin"
_REBUILD = "delete it, and scons makes it again: scons bundles"


@dataclass(frozen=True)
class Bundle:
    """A bundle.tar whose manifest was read. sha256: of the whole tar."""

    path: Path
    manifest: dict[str, Any]
    sha256: str

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read the manifest; UserError if there is no bundle, or one of another schema."""
        with _reading(path) as tar:
            manifest = _manifest(path, tar)
        return cls(path, manifest, digest(path.read_bytes()))

    def extract(self, to: Path) -> None:
        """Write all files below `to`; each is what the manifest says, or UserError."""
        with _reading(self.path) as tar:
            members = self._checked(tar)
            for name, member in members.items():
                file = to / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self._content(tar, member))
                file.chmod(_mode(name))

    def read(self, name: str) -> bytes:
        """One file, verified."""
        with _reading(self.path) as tar:
            return self._content(tar, self._checked(tar)[name])

    def argv(
        self,
        *,
        inputs: str = SELF_TEST_INPUTS,
        outputs: str,
        threads: int = 1,
        warmup: int = 0,
        iterations: int = 0,
        pin: bool = False,
        profile: str | None = None,
    ) -> list[str]:
        """The runner's command line, in the folder that the bundle was unpacked to."""
        options = {
            "program": self.manifest["program"],
            "inputs": inputs,
            "outputs": outputs,
            "threads": threads,
            "warmup": warmup,
            "iterations": iterations,
        }
        argv = [f"./{RUNNER}"]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        for library in self.manifest["load_libraries"]:
            argv += ["--load-library", library]
        if self.manifest["needs"]:
            argv += ["--needs", ",".join(self.manifest["needs"])]
        for name, value in self.manifest["environment"].items():
            argv += ["--set", f"{name}={value}"]
        if pin:
            argv += ["--pin", "1"]
        return argv if profile is None else [*argv, "--profile", profile]

    def _checked(self, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
        """The members by name: plain files inside the folder, exactly those of the manifest."""
        members: dict[str, tarfile.TarInfo] = {}
        for member in tar.getmembers():
            if not member.isreg() or not _inside(member.name) or member.name in members:
                raise self._damaged(f"'{member.name}' does not belong in a bundle")
            members[member.name] = member
        wanted = {MANIFEST, *self.manifest["files"]}
        if odd := sorted(wanted ^ members.keys()):
            lacks = "is missing" if odd[0] in wanted else "is not in the manifest"
            raise self._damaged(f"'{odd[0]}' {lacks}")
        return members

    def _content(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        file = tar.extractfile(member)
        data = b"" if file is None else file.read()
        if member.name == MANIFEST:
            if json.loads(data) != self.manifest:
                raise self._damaged("it was replaced while it was read")
            return data
        said = self.manifest["files"][member.name]
        if len(data) != said["bytes"] or digest(data) != said["sha256"]:
            raise self._damaged(f"the digest of '{member.name}' is not that of the manifest")
        return data

    def _damaged(self, what: str) -> UserError:
        return _damaged(self.path, what)


def write(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> bytes:
    """The tar of `files` and `manifest`, the same bytes for the same content."""
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    content = {**files, MANIFEST: text.encode()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(content, key=lambda name: (name != MANIFEST, name)):
            member = tarfile.TarInfo(name)
            member.size = len(content[name])
            member.mode = _mode(name)
            member.mtime = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
            tar.addfile(member, io.BytesIO(content[name]))
    return packed.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def _reading(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except FileNotFoundError:
        raise UserError("there is no such bundle", where=str(path), hint=_REBUILD) from None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _damaged(path, str(error)) from None


def _manifest(path: Path, tar: tarfile.TarFile) -> dict[str, Any]:
    try:
        file = tar.extractfile(MANIFEST)
        manifest = json.loads(b"" if file is None else file.read())
    except (KeyError, ValueError):
        raise _damaged(path, f"it holds no {MANIFEST} that can be read") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"the bundle's schema is {schema!r}; this version reads {SCHEMA}",
            where=str(path),
            hint=_REBUILD,
        )
    if not isinstance(manifest.get("files"), dict):
        raise _damaged(path, f"{MANIFEST} lists no files")
    return dict(manifest)


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"the bundle is damaged: {what}", where=str(path), hint=_REBUILD)


def _inside(name: str) -> bool:
    pure = PurePosixPath(name)
    return bool(name) and not pure.is_absolute() and ".." not in pure.parts


def _mode(name: str) -> int:
    return 0o755 if name == RUNNER else 0o644
