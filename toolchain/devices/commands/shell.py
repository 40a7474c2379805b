"""shell: a terminal on a unit, or one command there, by this machine's own ssh."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from toolchain import schema
from toolchain.devices import image, qemu
from toolchain.devices.commands.common import Commands, resolved
from toolchain.errors import UserError


def add(commands: Commands) -> None:
    shell = commands.add_parser("shell", help="a terminal on a unit, or one command there")
    shell.add_argument("name", metavar="NAME")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND…")
    shell.set_defaults(call=open_shell)


def open_shell(arguments: argparse.Namespace) -> int:
    unit = resolved(arguments.name, arguments)
    words = [*arguments.words, *arguments.rest]
    with ExitStack() as stack:
        if unit.driver == "local":
            argv = words or [os.environ.get("SHELL", "sh")]
        else:
            argv = command(stack.enter_context(_reached(unit)), words)
        try:
            done = subprocess.run(argv, check=False)
        except OSError as error:
            raise UserError(f"cannot be run: {error.strerror}", where=argv[0]) from None
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


@contextmanager
def _reached(unit: schema.Device) -> Iterator[schema.Device]:
    """The unit with its address: booted or reserved for as long, if it has none of its own."""
    if unit.driver == "labgrid":
        from toolchain.devices import labgrid

        with labgrid.acquired(unit) as reserved:
            yield reserved
    elif unit.host:
        yield unit
    else:
        made = image.ensure(qemu.progress)
        with qemu.Board(unit.cpu or "", made) as board, tempfile.TemporaryDirectory() as folder:
            known_hosts = Path(folder, "known_hosts")
            known_hosts.write_text(made.known_host(board.port))
            yield unit.model_copy(
                update={
                    "host": "127.0.0.1",
                    "port": board.port,
                    "user": "root",
                    "key": str(made.client_key),
                    "known_hosts": str(known_hosts),
                }
            )


def command(unit: schema.Device, words: Sequence[str]) -> list[str]:
    """What logs in to a unit behind SSH as Slipway does: the same keys, host key and port."""
    argv = ["ssh", "-o", "StrictHostKeyChecking=yes"]
    if unit.port != 22:
        argv += ["-p", str(unit.port)]
    if unit.key:
        argv += ["-i", unit.key, "-o", "IdentitiesOnly=yes"]
    if unit.known_hosts:
        argv += ["-o", f'UserKnownHostsFile="{unit.known_hosts}"']
    user = f"{unit.user}@" if unit.user else ""
    argv += [f"{user}{unit.host}"]
    return [*argv, shlex.join(words)] if words else argv
