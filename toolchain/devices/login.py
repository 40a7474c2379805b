"""An SSH connection that is verified, authenticated and never waits for ever.

    reach the host ─ exchange keys ─ compare the host's key with known_hosts ─ log in with a key

Host keys that are unknown or have changed are refused, always: a measurement must come from the
unit that was named. There are no passwords.
"""

from __future__ import annotations

import getpass
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import paramiko

from toolchain.devices.known_hosts import fingerprint, known_keys
from toolchain.errors import InfraError, UserError

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0  # banner, key exchange, authentication, opening a channel
LOST_HINT = "is the unit up, and its network? Run the same command again"

# What paramiko has to say comes back as exceptions; its log would repeat it with tracebacks.
_log = logging.getLogger("paramiko")
_log.addHandler(logging.NullHandler())
_log.propagate = False


@dataclass(frozen=True)
class Login:
    """Where a unit stands and how to log in.

    key: private key file; without one, the SSH agent's keys and the user's usual ones are tried.
    known_as: name under which `known_hosts` lists the unit, if not by its address.
    """

    host: str
    port: int
    user: str | None
    key: Path | None
    known_hosts: Path
    known_as: str = ""

    @property
    def known_name(self) -> str:
        address = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        return self.known_as or address

    @property
    def shown(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}:{self.port}"


class Watchdog:
    """Closes a connection on which nothing has moved for `seconds`; who waits for it wakes up."""

    def __init__(self, transport: paramiko.Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds
        self._moved = threading.Event()
        self._over = False
        self.bit = False

    def touch(self, *_: object) -> None:
        self._moved.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        self._moved.set()

    def _watch(self) -> None:
        while self._moved.wait(self._seconds) and not self._over:
            self._moved.clear()
        if not self._over:
            self.bit = True
            self._transport.close()


@contextmanager
def bounded(
    transport: paramiko.Transport, where: str, doing: str, seconds: float = ANSWER_SECONDS
) -> Iterator[Watchdog]:
    """Turn whatever goes wrong on the connection, silence included, into an InfraError."""
    watchdog = Watchdog(transport, seconds)
    try:
        with watchdog:
            yield watchdog
    except (paramiko.SSHException, EOFError, OSError) as error:
        hint = LOST_HINT
        if watchdog.bit:
            text = f"no answer for {seconds:.0f} s while {doing}"
        elif isinstance(error, EOFError) or not transport.is_active():
            reason = f" ({error})" if str(error) else ""
            text = f"the connection was lost while {doing}{reason}"
        else:
            text, hint = f"{doing} failed: {str(error) or type(error).__name__}", ""
        raise InfraError(text, where=where, hint=hint) from error


def connect(login: Login) -> paramiko.Transport:
    """A connection that is ready for use. The caller closes it."""
    keys = _client_keys(login)
    good, revoked = known_keys(_read(login.known_hosts), login.known_name)
    transport = paramiko.Transport(_reach(login))
    transport.banner_timeout = ANSWER_SECONDS
    transport.handshake_timeout = ANSWER_SECONDS
    transport.auth_timeout = ANSWER_SECONDS
    transport.channel_timeout = ANSWER_SECONDS
    try:
        with bounded(transport, login.shown, "logging in", 4 * ANSWER_SECONDS):
            _prefer(transport, good)
            transport.start_client(timeout=3 * ANSWER_SECONDS)  # its parts have their own
            offered = transport.get_remote_server_key()
            if offered.get_base64() not in good or offered.get_base64() in revoked:
                _refuse(login, offered, good, revoked)
            _authenticate(transport, login, keys)
            transport.set_keepalive(10)
    except BaseException:
        transport.close()
        transport.sock.close()  # which close() leaves open if the negotiation failed
        raise
    return transport


def _reach(login: Login) -> socket.socket:
    try:
        reached = socket.create_connection((login.host, login.port), timeout=CONNECT_SECONDS)
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
        raise InfraError(
            f"the unit cannot be reached: {reason}",
            where=login.shown,
            hint=f"is it up? Try: ssh -p {login.port} {login.host}",
        ) from None
    # A peer that is gone is noticed after so many milliseconds, not after the kernel's 15 minutes.
    reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return reached


def _prefer(transport: paramiko.Transport, good: dict[str, str]) -> None:
    """Ask the host for a key of a kind that we know, before any other."""
    kinds = set(good.values())
    options = transport.get_security_options()
    options.key_types = sorted(  # stable: paramiko's order among equals
        options.key_types,
        key=lambda kind: ("ssh-rsa" if kind.startswith("rsa-") else kind) not in kinds,
    )


def _refuse(
    login: Login, offered: paramiko.PKey, good: dict[str, str], revoked: set[str]
) -> NoReturn:
    got = f"{fingerprint(offered.get_base64())} ({offered.get_name()})"
    look = "  (on the unit's own console: ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub)"
    if offered.get_base64() in revoked:
        raise InfraError(
            f"the host key {got} is revoked in {login.known_hosts}",
            where=login.shown,
            hint="give the unit a new host key",
        )
    if good:
        expected = ", ".join(f"{fingerprint(key)} ({kind})" for key, kind in good.items())
        raise InfraError(
            f"the host key has changed: expected {expected}, got {got}",
            where=login.shown,
            hint="this may be another machine. If the unit was set up anew, compare fingerprints\n"
            f"{look}, then forget the old key:\n"
            f"  ssh-keygen -R '{login.known_name}' -f {login.known_hosts}",
        )
    raise InfraError(
        f"unknown host key: {login.known_hosts} has none for {login.known_name}, got {got}",
        where=login.shown,
        hint=f"compare the fingerprint\n{look}, then add it:\n"
        f"  ssh-keyscan -p {login.port} {login.host} >> {login.known_hosts}",
    )


def _authenticate(
    transport: paramiko.Transport, login: Login, keys: list[tuple[str, paramiko.PKey]]
) -> None:
    user = login.user or getpass.getuser()
    for _, key in keys:
        try:
            transport.auth_publickey(user, key)
        except paramiko.AuthenticationException:
            if not transport.is_active():
                break
        if transport.is_authenticated():
            return
    tried = ", ".join(name for name, _ in keys) or "none (no agent, no key in ~/.ssh)"
    raise InfraError(
        f"the unit does not let the user '{user}' in; keys tried: {tried}",
        where=login.shown,
        hint=f"add the public key there: ssh-copy-id -p {login.port} {user}@{login.host}",
    )


def _client_keys(login: Login) -> list[tuple[str, paramiko.PKey]]:
    """Keys to try, each with a name for messages."""
    if login.key:
        return [(str(login.key), _load(login.key))]
    try:
        agent: list[tuple[str, paramiko.PKey]] = [
            (f"agent's {key.fingerprint}", key) for key in paramiko.Agent().get_keys()
        ]
    except (paramiko.SSHException, OSError):
        agent = []
    usual = [Path(f"~/.ssh/id_{kind}").expanduser() for kind in ("ed25519", "ecdsa", "rsa")]
    for path in usual:
        try:
            agent.append((str(path), _load(path)))
        except UserError:  # absent, or protected by a passphrase: the agent's task
            continue
    return agent


def _load(path: Path) -> paramiko.PKey:
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


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
