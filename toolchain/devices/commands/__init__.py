"""The commands of `python -m toolchain.devices`: one file for each group of them.

A group has one function, which adds its commands and says what each of them calls:

    def add(commands: Commands) -> None: ...
"""

from __future__ import annotations

import argparse
import sys
import typing
from collections.abc import Sequence

from toolchain import options
from toolchain.devices.commands import board, bundles, leases, look, shell
from toolchain.errors import UserError, nearest

_ABOUT = """\
Devices: what there is, who works there, what runs there.

NAME is a unit of the devices file, a board that is up, or local. devices=PATH, anywhere among the
words, names another devices file than devices.toml.
"""
_STATUS = "Exit status: 0 done, 2 something to mend in what was asked, 3 a device or tool broke."
_GROUPS = (look, leases, bundles, shell, board)


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong as all of Slipway does."""

    def error(self, message: str) -> typing.NoReturn:
        raise UserError(message, where=self.prog, hint=f"{self.prog} --help")


def main(words: Sequence[str]) -> int:
    """Do what the words of a command line say; the exit status."""
    words, rest = _split(words)
    files = [word.partition("=")[2] for word in words if word.startswith("devices=")]
    parser = _Parser(
        prog="python -m toolchain.devices",
        description=_ABOUT,
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", dest="command")
    for group in _GROUPS:
        group.add(commands)
    wanted = [word for word in words if not word.startswith("devices=")]
    first = next((word for word in wanted if not word.startswith("-")), None)
    if first is not None and first not in commands.choices:
        raise UserError(f"unknown command '{first}'", hint=nearest(first, commands.choices))
    if first is None and not {"-h", "--help"} & set(wanted):
        parser.print_help(sys.stderr)
        return UserError.exit_status
    arguments = parser.parse_args(wanted)
    given = {"devices": files[-1]} if files else {}
    arguments.devices = options.read(given).devices
    arguments.devices_given = bool(files)
    arguments.rest = rest
    return int(arguments.call(arguments) or 0)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before and after `--`."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])
