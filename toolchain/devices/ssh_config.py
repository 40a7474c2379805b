"""The user's own `~/.ssh/config`: where a name leads, through which hosts, and with which keys.

    login = ssh_config.login("pi5")          # as `ssh pi5` would

Read by paramiko, with what it leaves out: `Include`, and the hosts of `ProxyJump`, each of which is
looked up in turn. Of the settings these count here: HostName, Port, User, IdentityFile,
IdentitiesOnly, ProxyJump, ProxyCommand, UserKnownHostsFile, HostKeyAlias and ConnectTimeout.
Whether host keys are verified is not a setting: they are.
"""

from __future__ import annotations

import getpass
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import paramiko

from toolchain.devices.login import CONNECT_SECONDS, Login
from toolchain.errors import UserError

_FILE = "~/.ssh/config"
_DEPTH = 16  # files that include each other, as for OpenSSH
_WORD = re.compile(r"\s*(\w+)\s*(?:=|\s)\s*(.*?)\s*$")
_HOP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?P<host>\[[^]]+\]|[^:@]+)(?::(?P<port>\d+))?/?")
# What OpenSSH too refuses in the names that a shell gets to see.
_UNSAFE = re.compile(r"^-|[\s'\"`$\\;&<>|(){}]")


def login(
    name: str,
    *,
    port: int | None = None,
    user: str | None = None,
    key: Path | None = None,
    known_hosts: Path | None = None,
) -> Login:
    """How to log in to a host or an alias of the user's file; what is given goes before the file.

    key: then the only one to be tried.
    """
    lines = "\n".join(_lines(Path(_FILE).expanduser()))
    return _login(lines, name, port, user, key, known_hosts, ())


def _login(
    lines: str,
    name: str,
    port: int | None,
    user: str | None,
    key: Path | None,
    known_hosts: Path | None,
    way: tuple[str, ...],  # the names that led here
) -> Login:
    given = f"Port {port}\n" * bool(port) + f"User {user}\n" * bool(user)
    found = _lookup(given, lines, name)
    way = (*way, name)
    host = found["hostname"]
    alias = found.get("hostkeyalias", "")
    jumps, command = _ways(lines, found, way)
    at = int(_number(found, "port", 22, name))
    files = [known_hosts] if known_hosts else _known_hosts(found, name, host, alias, at)
    return Login(
        host=host,
        port=at,
        user=found.get("user"),
        key=key,
        known_hosts=files[0],
        more_known_hosts=tuple(files[1:]),
        known_as=alias,
        alias=name if name != host or jumps or command else "",
        identities=tuple(Path(p) for p in found.get("identityfile", ()) if p.lower() != "none"),
        identities_only=found.get("identitiesonly", "no").lower() == "yes",
        connect_seconds=_number(found, "connecttimeout", CONNECT_SECONDS, name),
        jumps=jumps,
        proxy_command=command,
    )


def _ways(
    lines: str, found: paramiko.SSHConfigDict, way: tuple[str, ...]
) -> tuple[tuple[Login, ...], str]:
    """The hosts on the way, or the command that leads there: what the file says first counts."""
    for word, value in found.items():
        if word == "proxycommand":
            return (), _command(value or "", found, way[-1])
        if word == "proxyjump":
            return _jumps(lines, value, way), ""
    return (), ""


def _jumps(lines: str, value: str, way: tuple[str, ...]) -> tuple[Login, ...]:
    hosts: list[Login] = []
    for spec in () if value.lower() == "none" else value.split(","):
        matched = _HOP.fullmatch(spec.strip())
        if not matched:
            raise _wrong(f"'{spec}' is no host for ProxyJump", way[-1], "[user@]host[:port]")
        host = matched["host"].strip("[]")
        if host == way[-1] and "," not in value:
            continue  # `Host *` means the jump host too, which is reached directly
        if host in way:
            circle = " → ".join((*way, host))
            raise _wrong(f"ProxyJump leads in a circle: {circle}", way[-1], "ProxyJump none")
        port = int(matched["port"]) if matched["port"] else None
        hop = _login(lines, host, port, matched["user"], None, None, way)
        if not hosts:  # the others are reached through the one before, whatever else the file says
            hosts += hop.jumps
        else:
            hop = replace(hop, proxy_command="")
        hosts.append(replace(hop, jumps=()))
    return tuple(hosts)


def _command(value: str, found: paramiko.SSHConfigDict, name: str) -> str:
    if value.lower() in ("", "none"):
        return ""
    for part in (found["hostname"], found.get("user", "")):
        if _UNSAFE.search(part):
            raise _wrong(f"'{part}' must not get into a ProxyCommand", name, "a plain name")
    return value


def _known_hosts(
    found: paramiko.SSHConfigDict, name: str, host: str, alias: str, port: int
) -> list[Path]:
    value = found.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
    marks = {
        "%%": "%",
        "%d": str(Path("~").expanduser()),
        "%h": host,
        "%k": alias or name,
        "%n": name,
        "%p": str(port),
        "%r": found.get("user") or getpass.getuser(),
        "%u": getpass.getuser(),
    }
    words = (re.sub("%.", lambda m: marks.get(m[0], m[0]), word) for word in _split(value, name))
    return [Path(word).expanduser() for word in words if word != "none"] or [Path(os.devnull)]


def _number(found: paramiko.SSHConfigDict, word: str, default: float, name: str) -> float:
    value = found.get(word, "")
    if value in ("", "none"):
        return default
    if not value.isdecimal() or not int(value):
        raise _wrong(f"{word} '{value}' is not a number", name, f"for instance {default:g}")
    return float(value)


def _lookup(given: str, lines: str, name: str) -> paramiko.SSHConfigDict:
    config = paramiko.SSHConfig()
    try:
        for text in (given, lines):  # the first value that is found counts
            config.parse(io.StringIO(text))
        return config.lookup(name)
    except paramiko.ConfigParseError as error:
        reason = str(error)
    except paramiko.CouldNotCanonicalize:
        reason = f"'{name}' has no address in its CanonicalDomains"
    except ImportError:
        reason = "'Match exec' is not understood here"
    except ValueError as error:
        reason = f"cannot be read: {error}"
    raise _wrong(reason, name, f"ssh -G {name} shows how OpenSSH reads it")


def _lines(path: Path, depth: int = 0) -> Iterator[str]:
    """The lines of a file and of those that it includes."""
    if depth > _DEPTH:
        raise UserError(f"files include each other more than {_DEPTH} deep", where=str(path))
    try:
        text = path.read_text("utf-8", errors="replace")
    except (FileNotFoundError, IsADirectoryError):
        return
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    block = "Host *"  # which the lines belong to
    for line in text.splitlines():
        word, value = matched.groups() if (matched := _WORD.match(line)) else ("", "")
        if word.lower() == "include":
            for pattern in _split(value, path.name):
                named = Path(_FILE).expanduser().parent / Path(pattern).expanduser()
                for file in sorted(named.parent.glob(named.name)):
                    yield from _lines(file, depth + 1)
            yield block
            continue
        if word.lower() in ("host", "match"):
            block = line
        yield line


def _split(value: str, name: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise _wrong(f"'{value}' cannot be read: {error}", name, "close the quotes") from None


def _wrong(text: str, name: str, hint: str) -> UserError:
    return UserError(text, where=f"{_FILE}, for {name}", hint=hint)
