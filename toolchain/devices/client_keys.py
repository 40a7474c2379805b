"""The keys that a login tries, in the order of OpenSSH: the agent's first, then files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from toolchain.errors import UserError

_USUAL = ("ed25519", "ecdsa", "rsa")


@dataclass(frozen=True)
class Keys:
    """keys: each with a name for messages. unusable: why others are not among them.

    agent: has to stay open until its keys are not needed any more.
    """

    keys: list[tuple[str, paramiko.PKey]]
    unusable: list[str]
    agent: paramiko.Agent | None = None

    def close(self) -> None:
        if self.agent:
            self.agent.close()

    @property
    def shown(self) -> str:
        tried = ", ".join(name for name, _ in self.keys) or "none"
        return f"keys tried: {tried}" + "".join(f"; {reason}" for reason in self.unusable)


def find(key: Path | None, identities: Sequence[Path] = (), only: bool = False) -> Keys:
    """`key` alone, or the agent's keys and the files `identities` or, if there are none, the usual.

    only: of the agent's keys, those of `identities`, which may name files of public keys too.
    """
    if key:
        return Keys([(str(key), load(key))], [])
    files = identities or [Path(f"~/.ssh/id_{kind}").expanduser() for kind in _USUAL]
    found: list[tuple[str, paramiko.PKey]] = []
    unusable: list[str] = []
    agent = None
    try:
        agent = paramiko.Agent()
        found += [(f"agent's {key.fingerprint}", key) for key in agent.get_keys()]
    except (paramiko.SSHException, OSError) as error:
        unusable.append(f"the SSH agent does not answer: {error}")
    if only:
        wanted = {_public(path) for path in files}
        found = [(name, key) for name, key in found if key.get_base64() in wanted]
    known = {key.get_base64() for _, key in found}
    for path in files:
        if path.suffix == ".pub" or (_public(path) or "") in known:
            continue  # its private half is the agent's
        try:
            found.append((str(path), load(path)))
        except UserError as error:
            if path in identities or path.exists():
                unusable.append(f"{path}: {error.message}")
    return Keys(found, unusable, agent)


def load(path: Path) -> paramiko.PKey:
    """The private key of a file without a passphrase."""
    hint = "make one: ssh-keygen -t ed25519"
    try:
        return paramiko.PKey.from_path(path)
    except OSError as error:
        text = f"the key cannot be read: {error.strerror}"
    except (paramiko.PasswordRequiredException, TypeError):
        text = "the key is protected by a passphrase"
        hint = "add it to the SSH agent (ssh-add) and leave `key` out of the devices file"
    except (paramiko.SSHException, ValueError, paramiko.pkey.UnknownKeyType):
        text = "is not a private SSH key"
    raise UserError(text, where=str(path), hint=hint)


def _public(path: Path) -> str | None:
    """The public key, in base64, that a file of it or the one beside it holds."""
    file = path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")
    try:
        fields = file.read_text("utf-8", errors="replace").split()
    except OSError:
        return None
    return fields[1] if len(fields) > 1 else None
