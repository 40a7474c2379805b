"""lease, release, reset: the right to work on a unit alone."""

from __future__ import annotations

import argparse
import os
import subprocess

from toolchain.devices import lease
from toolchain.devices.commands.common import Commands, add_wait, connected, lasting, seconds
from toolchain.errors import UserError


def add(commands: Commands) -> None:
    take = commands.add_parser(
        "lease",
        help="hold a unit for a while, or while a command runs",
        description="Hold a unit while COMMAND runs here (what it starts works under this lease), "
        "or for a number of seconds, and print the token that gives it back.",
        usage="%(prog)s NAME [--wait SECONDS] [--owner WHO] "
        "{--for SECONDS | [--ttl SECONDS] -- COMMAND…}",
    )
    take.add_argument("name", metavar="NAME")
    take.add_argument("--for", dest="seconds", type=seconds, metavar="SECONDS")
    take.add_argument("--ttl", type=seconds, default=lease.TTL_SECONDS, metavar="SECONDS")
    add_wait(take)
    take.add_argument("--owner", metavar="WHO", help="what others are told (default: you)")
    take.set_defaults(call=hold)
    release = commands.add_parser("release", help="give a lease back, or end another's")
    release.add_argument("name", metavar="NAME")
    which = release.add_mutually_exclusive_group()
    which.add_argument("--token", help="of the lease (default: $SLIPWAY_TOKEN)")
    which.add_argument("--force", action="store_true", help="anybody's, with what runs there")
    release.set_defaults(call=give_back)
    clean = commands.add_parser(
        "reset",
        help="end what was left running there, free the lease, remove what was left",
        description="End what Slipway left running on a unit as its user there, free the lease, "
        "and remove work folders and partial uploads. What was pushed stays.",
    )
    clean.add_argument("name", metavar="NAME")
    clean.set_defaults(call=reset)


def hold(arguments: argparse.Namespace) -> int:
    unit = lasting(arguments)
    if bool(arguments.seconds) == bool(arguments.rest):
        raise UserError(
            "give either --for SECONDS or -- COMMAND",
            where="lease",
            hint=f"python -m toolchain.devices lease {unit.name} -- ./scripts/scons …",
        )
    who = arguments.owner or lease.me()
    with connected(unit) as device:
        if arguments.seconds:
            mine = lease.take(device, owner=who, ttl=arguments.seconds, wait=arguments.wait)
            print(mine.token)
            return 0
        with lease.hold(device, owner=who, ttl=arguments.ttl, wait=arguments.wait) as mine:
            try:
                done = subprocess.run(
                    arguments.rest, env=os.environ | {lease.TOKEN: mine.token}, check=False
                )
            except OSError as error:
                raise UserError(
                    f"cannot be run: {error.strerror}", where=arguments.rest[0]
                ) from None
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def give_back(arguments: argparse.Namespace) -> None:
    unit = lasting(arguments)
    token = arguments.token or os.environ.get(lease.TOKEN)
    if not token and not arguments.force:
        raise UserError(
            "no token is given",
            where="release",
            hint="--token, as `lease` printed it; or --force, for anybody's lease",
        )
    with connected(unit) as device:
        lease.release(device, None if arguments.force else token)


def reset(arguments: argparse.Namespace) -> None:
    unit = lasting(arguments)
    with connected(unit) as device:
        for line in lease.reset(device):
            print(line)
