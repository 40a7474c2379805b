"""board up, down, list: emulated boards that stay up."""

from __future__ import annotations

import argparse

from toolchain.devices import boards, qemu
from toolchain.devices.commands.common import Commands, connected, span, table
from toolchain.errors import InfraError, UserError


def add(commands: Commands) -> None:
    board = commands.add_parser("board", help="emulated boards that stay up: up, down, list")
    actions = board.add_subparsers(metavar="ACTION", required=True)
    up = actions.add_parser(
        "up",
        help="boot a board and leave it running",
        description="Boot a board and leave it running: any build finds it by its name. With "
        "devices=PATH that file lists it too.",
    )
    up.add_argument("cpu", nargs="?", default="cortex-a72", metavar="CPU", help=_models())
    up.add_argument("--name", help="of the unit (default: board1, board2, …)")
    up.set_defaults(call=start)
    down = actions.add_parser("down", help="end boards")
    down.add_argument("names", nargs="+", metavar="NAME")
    down.add_argument("--force", action="store_true", help="even if somebody holds its lease")
    down.set_defaults(call=stop)
    listed = actions.add_parser("list", help="the boards that were started here")
    listed.set_defaults(call=show)


def start(arguments: argparse.Namespace) -> None:
    file = arguments.devices if arguments.devices_given else None
    board = boards.up(arguments.cpu, arguments.name, listed_in=file)
    print(
        f"{board.name} is up: {board.cpu}, port {board.port}, process {board.pid}\n"
        f"  ./scripts/scons target=arm64 device={board.name}\n"
        f"  python -m toolchain.devices board down {board.name}"
    )


def stop(arguments: argparse.Namespace) -> None:
    for name in arguments.names:
        if not arguments.force:
            _refuse_held(name)
        boards.down(name)
        print(f"{name} is down")


def show(_: argparse.Namespace) -> None:
    found = boards.standing()
    rows = [
        [b.name, b.state, b.cpu, str(b.pid or ""), str(b.port or ""), span(b.seconds)]
        for b in found
    ]
    print(table(["NAME", "STATE", "CPU", "PID", "PORT", "UP"], rows) if rows else "no board is up")


def _refuse_held(name: str) -> None:
    from toolchain.devices import lease

    unit = boards.unit(name)
    if unit is None:
        return
    try:
        with connected(unit) as device:
            holder = lease.status(device)
    except InfraError:  # a board that does not answer can be ended
        return
    if holder:
        raise UserError(
            f"is leased by {holder.owner}",
            where=name,
            hint=f"wait for the end, or: python -m toolchain.devices board down {name} --force",
        )


def _models() -> str:
    return f"of: {', '.join(qemu.MODELS)} (default: cortex-a72)"
