"""Ways to a host: a TCP connection, a channel through another host, or the user's own command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import typing
from contextlib import ExitStack, suppress
from typing import TypeAlias

import paramiko

from toolchain.devices.watchdog import ANSWER_SECONDS, bounded
from toolchain.errors import InfraError

if typing.TYPE_CHECKING:
    from toolchain.devices.login import Login

Socket: TypeAlias = "socket.socket | paramiko.Channel"
_END_SECONDS = 1.0  # for a command to end by itself when its input has


def reach(login: Login, carriers: ExitStack) -> Socket:
    """A way that needs no other host. What has to be ended after it is added to `carriers`."""
    return _command(login, carriers) if login.proxy_command else _connected(login)


def through(jump: paramiko.Transport, by: str, login: Login) -> Socket:
    """A way through the host `by` that we are logged in to."""
    doing = f"asking {by} for a way"
    with bounded(jump, login.shown, doing, ANSWER_SECONDS):
        try:
            return jump.open_channel(
                "direct-tcpip",
                (login.host, login.port),
                ("127.0.0.1", 0),
                timeout=login.connect_seconds + ANSWER_SECONDS / 2,
            )
        except paramiko.ChannelException as error:
            refused = error.code == paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
            raise InfraError(
                f"the jump host {by} gives no way to it: {error.text}",
                where=login.shown,
                hint="it has to allow forwarding: AllowTcpForwarding in its sshd_config"
                if refused
                else f"is it up, and does the jump host reach it? Try: {login.by_hand}",
            ) from None


def _connected(login: Login) -> socket.socket:
    try:
        reached = socket.create_connection((login.host, login.port), login.connect_seconds)
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
        raise InfraError(
            f"the unit cannot be reached: {reason}",
            where=login.shown,
            hint=f"is it up? Try: {login.by_hand}",
        ) from None
    # A peer that is gone is noticed after so many milliseconds, not after the kernel's 15 minutes.
    reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    # Each command is several small messages, and each would wait 40 ms for the one before it.
    reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return reached


def _command(login: Login, carriers: ExitStack) -> socket.socket:
    """What speaks with the standard streams of the user's ProxyCommand.

    A pair of sockets, as paramiko's own class for it does not notice when the command ends. The
    command is shell text by definition, and not shown: it may hold what is nobody's business.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {login.proxy_command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            start_new_session=True,  # Ctrl-C is for us, who clean up
        )
    carriers.callback(_end, process, ours)
    return ours


def _end(process: subprocess.Popen[bytes], ours: socket.socket) -> None:
    with suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
