"""The kernel and the root file system of emulated boards, made once and kept in the cache.

    apt sources ─ *.deb ─┬─ kernel
                         └─ root file system (same packages, same bytes) ─┬─ initrd
                            host key, authorized key (new for each image) ┘

An image's folder appears by one rename when everything in it is whole; a process killed on the way
leaves a partial folder that the next one throws away. The folder's name says what the image is
made *from* as far as we decide it, so that a new Slipway makes a new image and a second call needs
no apt; `Image.digest` says what came out (packages with versions, kernel, root file system).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolchain import cache
from toolchain.errors import UserError

# Name under which boards present their host key; their port differs from boot to boot.
HOST = "slipway-board"
# Printed on a board's console when it accepts connections.
READY = "slipway: board ready"

_MADE_BY = ("cpio.py", "debian.py", "image.py", "rootfs.py", "sources.py")


@dataclass(frozen=True)
class Image:
    """Files to boot a board from and to log in to it.

    initrd: the root file system followed by the secrets.
    known_hosts: the boards' host key, under the name `HOST`.
    digest: sha256 over package versions, kernel and root file system; the secrets are not in it.
    """

    folder: Path
    kernel: Path
    initrd: Path
    known_hosts: Path
    client_key: Path
    digest: str

    def known_host(self, port: int) -> str:
        """The line of a known_hosts file for a board that listens on a port of this machine."""
        return f"[127.0.0.1]:{port} {self.known_hosts.read_text().split(' ', 1)[1]}"


def ensure(say: Callable[[str], None] = print) -> Image:
    """The image, made first if need be. Safe to call from several processes at once."""
    boards = cache.root() / "boards"
    folder = boards / _key()
    found = _existing(folder)
    if found:
        return found

    def waiting() -> None:
        say("another process is making the board's image; waiting for it")

    with cache.locked(boards / ".lock", waiting):
        found = _existing(folder)
        if not found:
            try:
                _make(folder, say)
            except OSError as error:
                raise UserError(
                    f"the board's image cannot be kept: {error.strerror or error}",
                    where=str(error.filename or boards),
                    hint="free 200 MB there, or name another folder: SLIPWAY_CACHE=/a/folder",
                ) from None
            found = _existing(folder)
    assert found
    return found


def _key() -> str:
    """Digest of the code that makes an image."""
    digest = hashlib.sha256()
    for name in _MADE_BY:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:16]


def _existing(folder: Path) -> Image | None:
    try:
        about = json.loads((folder / "image.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Image(
        folder=folder,
        kernel=folder / "kernel",
        initrd=folder / "initrd.cpio",
        known_hosts=folder / "known_hosts",
        client_key=folder / "client_key",
        digest=about["digest"],
    )


def _make(folder: Path, say: Callable[[str], None]) -> None:
    # Imported here: the way to an existing image must not pay for them.
    from toolchain.devices import debian, rootfs

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    say("making the boards' kernel and root file system (once)")
    archive = debian.archive(say)
    archive.update()
    system = rootfs.make(archive, say)
    host_key, known_host = _key_pair(HOST)
    client_key, authorized = _key_pair("slipway")
    files = {
        "kernel": system.kernel,
        "initrd.cpio": system.archive + rootfs.secrets(host_key, authorized),
        "known_hosts": f"{HOST} {known_host}\n".encode(),
        "client_key": client_key,
    }
    digest = hashlib.sha256(json.dumps(sorted(system.packages.items())).encode())
    for part in (system.kernel, system.archive):
        digest.update(hashlib.sha256(part).digest())
    about = {"digest": digest.hexdigest(), "packages": system.packages}
    files["image.json"] = (json.dumps(about, indent=1, sort_keys=True) + "\n").encode()
    partial.mkdir(parents=True, mode=0o700)
    for name, data in files.items():
        _write(partial / name, data)
    partial.replace(folder)
    say(f"board image ready: {folder}")


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _key_pair(comment: str) -> tuple[bytes, str]:
    """A new Ed25519 key: private in OpenSSH's form, and the public line."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return private, f"{public.decode()} {comment}"
