"""What the commands share: units by name, a connection to one, and tables."""

from __future__ import annotations

import argparse
import functools
import math
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from toolchain import devices, schema
from toolchain.devices import boards
from toolchain.devices.unix import UnixDevice
from toolchain.errors import InfraError, UserError, nearest

Commands: typing.TypeAlias = "argparse._SubParsersAction[typing.Any]"


def known(arguments: argparse.Namespace) -> list[schema.Device]:
    """All units: those of the devices file, and the boards that are up."""
    file = arguments.devices
    if arguments.devices_given and not file.exists():
        raise UserError("there is no such file", where=f"devices={schema.shown(file)}")
    found = devices.listed(file) if file.exists() else []
    if boards.listing().exists():
        names = {unit.name for unit in found}
        found += [unit for unit in devices.listed(boards.listing()) if unit.name not in names]
    return found


def named(arguments: argparse.Namespace) -> list[schema.Device]:
    """The units that were named, or all."""
    if not arguments.names:
        return known(arguments)
    return [resolved(name, arguments) for name in arguments.names]


def resolved(name: str, arguments: argparse.Namespace) -> schema.Device:
    """The unit of that name; UserError with the nearest one."""
    if ":" not in name and name != devices.LOCAL:
        names = [devices.LOCAL, *_names(arguments)]
        if name not in names:
            raise UserError(f"there is no unit '{name}'", hint=nearest(name, names))
    return devices.resolve(name, arguments.devices)


def _names(arguments: argparse.Namespace) -> list[str]:
    files = (arguments.devices, boards.listing())
    return [name for file in files if file.exists() for name in schema.read_toml(file)]


def lasting(arguments: argparse.Namespace) -> schema.Device:
    """The unit that was named, which has to be there after the command."""
    unit = resolved(arguments.name, arguments)
    if unit.driver == "qemu" and not unit.host:
        raise UserError(
            "is booted for one command: nothing of it would be left",
            where=unit.name,
            hint="a board that stays up:\n"
            f"  python -m toolchain.devices board up {unit.cpu} --name bench",
        )
    return unit


@contextmanager
def connected(unit: schema.Device) -> Iterator[UnixDevice]:
    with devices.connect(unit) as device:
        if not isinstance(device, UnixDevice):
            raise InfraError("has no shell, which this command needs", where=unit.name)
        yield device


def seconds(text: str, least: float = 1.0) -> float:
    """A length of time, for argparse. least: what makes sense; a lease ends no sooner than 1 s."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds from {least:g} to 1e6")
    return value


def add_wait(command: argparse.ArgumentParser) -> None:
    """How long to wait for a lease that another holds."""
    wait = functools.partial(seconds, least=0.0)
    command.add_argument("--wait", type=wait, default=0.0, metavar="SECONDS", help="for a lease")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns that line up, below their heads."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in shown)


def span(seconds: float) -> str:
    """A length of time for people: 42 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
