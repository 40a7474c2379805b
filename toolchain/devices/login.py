"""An SSH connection that is verified, authenticated and never waits for ever.

    reach the host ─ exchange keys ─ compare the host's key with known_hosts ─ log in with a key

Host keys that are unknown or have changed are refused, always, those of jump hosts too: a
measurement must come from the unit that was named. There are no passwords.
"""

from __future__ import annotations

import getpass
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import paramiko

from toolchain.devices import client_keys, ways
from toolchain.devices.known_hosts import fingerprint, known_keys
from toolchain.devices.watchdog import ANSWER_SECONDS, LOST_HINT, Watchdog, bounded
from toolchain.errors import InfraError, UserError

CONNECT_SECONDS = 10.0

# What paramiko has to say comes back as exceptions; its log would repeat it with tracebacks.
_log = logging.getLogger("paramiko")
_log.addHandler(logging.NullHandler())
_log.propagate = False


@dataclass(frozen=True)
class Login:
    """Where a unit stands and how to log in.

    key: private key file, then the only one that is tried. identities: files to try beside the
    SSH agent's keys, instead of the usual ones; identities_only: no other keys of the agent.
    known_as: name under which `known_hosts` lists the unit, if not by its address.
    alias: how the user's ssh finds it, if not by its address. jumps: hosts on the way, each reached
    through the one before. proxy_command: instead of a connection. connect_seconds: to wait for it.
    """

    host: str
    port: int
    user: str | None
    key: Path | None
    known_hosts: Path
    known_as: str = ""
    alias: str = ""
    more_known_hosts: tuple[Path, ...] = ()
    identities: tuple[Path, ...] = ()
    identities_only: bool = False
    jumps: tuple[Login, ...] = ()
    proxy_command: str = ""
    connect_seconds: float = CONNECT_SECONDS

    @property
    def known_name(self) -> str:
        address = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        return self.known_as or address

    @property
    def shown(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}:{self.port}"

    @property
    def by_hand(self) -> str:
        """The command that logs in without us."""
        return f"ssh {self.alias or f'-p {self.port} {self.host}'}"


class Connection(paramiko.Transport):
    """A transport that takes what carries it along when it is closed.

    ended_by: what broke the connection; None if the host ended it in order.
    """

    ended_by: Exception | None = None

    def __init__(self, way: ways.Socket, carriers: ExitStack) -> None:
        super().__init__(way)
        self._carriers = carriers

    def get_exception(self) -> Exception | None:
        self.ended_by = super().get_exception()
        return self.ended_by

    def close(self) -> None:
        # From the outside in: what is carried then ends at once, and waits for no dead carrier.
        self._carriers.close()
        super().close()
        self.sock.close()  # which close() leaves open if the negotiation failed


def connect(login: Login) -> Connection:
    """A connection that is ready for use. The caller closes it."""
    through: Connection | None = None
    by = ""
    with ExitStack() as agents, ExitStack() as carriers:
        hosts = [(host, _keys(host, agents), _known(host)) for host in (*login.jumps, login)]
        for host, keys, known in hosts:
            way = ways.through(through, by, host) if through else ways.reach(host, carriers)
            through = Connection(way, carriers.pop_all())
            carriers.callback(through.close)
            by = host.shown
            hint = f"does its ProxyCommand work? Try: {host.by_hand}"
            with bounded(
                through,
                by,
                "logging in",
                4 * ANSWER_SECONDS,
                hint=hint if host.proxy_command else LOST_HINT,
            ) as watchdog:
                _log_in(through, host, keys, known, watchdog)
        carriers.pop_all()
    assert through
    return through


def _log_in(
    transport: Connection,
    login: Login,
    keys: client_keys.Keys,
    known: tuple[dict[str, str], set[str]],
    watchdog: Watchdog,
) -> None:
    good, revoked = known
    transport.banner_timeout = ANSWER_SECONDS
    transport.handshake_timeout = ANSWER_SECONDS
    transport.channel_timeout = ANSWER_SECONDS
    # Silence is the watchdog's affair: paramiko would take it for a refused key.
    transport.auth_timeout = 8 * ANSWER_SECONDS
    _prefer(transport, good)
    transport.start_client(timeout=3 * ANSWER_SECONDS)  # its parts have their own
    offered = transport.get_remote_server_key()
    if offered.get_base64() not in good or offered.get_base64() in revoked:
        _refuse(login, offered, good, revoked)
    _authenticate(transport, login, keys, watchdog)
    transport.set_keepalive(10)


def _prefer(transport: paramiko.Transport, good: dict[str, str]) -> None:
    """Ask the host for a key of a kind that we know, before any other, and for a fast cipher."""
    kinds = set(good.values())
    options = transport.get_security_options()
    options.key_types = sorted(  # stable: paramiko's order among equals
        options.key_types,
        key=lambda kind: ("ssh-rsa" if kind.startswith("rsa-") else kind) not in kinds,
    )
    options.ciphers = sorted(options.ciphers, key=lambda name: name != "aes128-gcm@openssh.com")


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
    add = f"ssh-keyscan -p {login.port} {login.host} >> {login.known_hosts}"
    raise InfraError(
        f"unknown host key: {login.known_hosts} has none for {login.known_name}, got {got}",
        where=login.shown,
        hint=f"compare the fingerprint\n{look}, then add it:\n"
        f"  {f'{login.by_hand} true' if login.alias else add}",
    )


def _authenticate(
    transport: Connection, login: Login, keys: client_keys.Keys, watchdog: Watchdog
) -> None:
    user = login.user or getpass.getuser()
    ended = ""
    for number, (_, key) in enumerate(keys.keys, 1):
        try:
            transport.auth_publickey(user, key)
        except paramiko.AuthenticationException:
            if not transport.is_active():
                if watchdog.bit or transport.ended_by:
                    raise EOFError from None
                ended = f", which ended the connection at key {number} of {len(keys.keys)}"
                break
        if transport.is_authenticated():
            return
    hint = f"add the public key there: ssh-copy-id -p {login.port} {user}@{login.host}"
    if ended:
        hint = "too many keys for it? Name the one to use: `key` in the devices file"
    elif not keys.keys:
        hint = "make one: ssh-keygen -t ed25519, then " + hint
    raise InfraError(
        f"the unit does not let the user '{user}' in{ended}; {keys.shown}",
        where=login.shown,
        hint=hint,
    )


def _keys(login: Login, agents: ExitStack) -> client_keys.Keys:
    found = client_keys.find(login.key, login.identities, login.identities_only)
    agents.callback(found.close)
    return found


def _known(login: Login) -> tuple[dict[str, str], set[str]]:
    """Good and revoked host keys."""
    text = "\n".join(map(_read, (login.known_hosts, *login.more_known_hosts)))
    return known_keys(text, login.known_name)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
