"""push, run, rollback: bundles that stay on a unit, in slots."""

from __future__ import annotations

import argparse
import json
import sys
import typing
from pathlib import Path

from toolchain.devices import lease
from toolchain.devices.commands.common import Commands, add_wait, connected, lasting, seconds
from toolchain.devices.unix import UnixDevice
from toolchain.errors import InfraError, UserError, nearest

if typing.TYPE_CHECKING:
    from toolchain.devices.deploy import Slot


def add(commands: Commands) -> None:
    push = commands.add_parser("push", help="put a bundle on a unit and make it the current one")
    push.add_argument("name", metavar="NAME")
    push.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle.tar of a build folder")
    push.add_argument("--slot", help="where it goes (default: the name of its recipe)")
    push.add_argument("--runtime", type=Path, help="its runtime.json (default: the build's)")
    push.add_argument("--thorough", action="store_true", help="hash also what is there already")
    push.set_defaults(call=send)
    run = commands.add_parser(
        "run",
        help="run the current bundle of a slot on its own samples, or with arguments of yours",
        usage="%(prog)s NAME [--slot SLOT] [--timeout SECONDS] [-- ARGUMENTS OF THE RUNNER…]",
    )
    run.add_argument("--timeout", type=seconds, default=600.0, metavar="SECONDS")
    run.set_defaults(call=start)
    back = commands.add_parser("rollback", help="make the bundle before the current one again")
    back.set_defaults(call=roll_back)
    for command in (run, back):
        command.add_argument("name", metavar="NAME")
        command.add_argument("--slot", help="which (default: the only one there)")
    for command in (push, run, back):
        add_wait(command)


def send(arguments: argparse.Namespace) -> None:
    from toolchain.bundle import Bundle
    from toolchain.devices import deploy
    from toolchain.layout import Layout

    unit = lasting(arguments)
    bundle = Bundle.open(arguments.bundle)
    runtime = arguments.runtime
    if runtime is None:
        at = Layout.of_bundle(arguments.bundle.absolute())
        runtime = at.runtime(bundle.manifest["runtime"]["name"]) / "runtime.json"
    if not runtime.is_file():
        raise UserError("there is no such file", where=str(runtime), hint="--runtime names another")
    slot = arguments.slot or str(bundle.manifest["recipe"])
    with connected(unit) as device, lease.hold(device, wait=arguments.wait):
        pushed = deploy.push(device, slot, bundle, runtime, thorough=arguments.thorough)
    what = "is current" if pushed.changed else "was current already"
    print(f"{unit.name}: {pushed.digest[:12]} {what} in {slot}; {pushed.sent} bytes were sent")


def roll_back(arguments: argparse.Namespace) -> None:
    from toolchain.devices import deploy

    unit = lasting(arguments)
    with connected(unit) as device, lease.hold(device, wait=arguments.wait):
        slot = _slot(device, arguments.slot)
        digest = deploy.rollback(device, slot.name)
    print(f"{unit.name}: {digest[:12]} is current in {slot.name} again")


def start(arguments: argparse.Namespace) -> int:
    """The runner's output is ours, and so is its exit status."""
    from toolchain.bundle import RUNNER

    unit = lasting(arguments)
    with connected(unit) as device, lease.hold(device, wait=arguments.wait):
        slot = _slot(device, arguments.slot)
        argv = [f"./{RUNNER}", *arguments.rest] if arguments.rest else _argv(device, slot)
        there = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", slot.path, *argv]
        done = device.run(there, timeout=arguments.timeout)
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(done.stderr)
    return done.status


def _argv(device: UnixDevice, slot: Slot) -> list[str]:
    """The command line of the current bundle's runner, as its manifest on the device says."""
    from toolchain.bundle import Bundle

    script = 'cat "$1/manifest.json"'
    said = device.ask(script, slot.path, doing="reading the bundle's manifest")
    try:
        manifest = Bundle(Path(), json.loads(said), "")
        return manifest.argv(outputs=f"{device.work}/outputs.bin", iterations=1)
    except (ValueError, KeyError, TypeError):
        raise InfraError(
            f"the manifest of the bundle in '{slot.name}' is damaged",
            where=device.name,
            hint="push the bundle again, which mends it",
        ) from None


def _slot(device: UnixDevice, name: str | None) -> Slot:
    from toolchain.devices import deploy

    slots = {slot.name: slot for slot in deploy.slots(device)}
    if not slots:
        raise InfraError(
            "no bundle was pushed there",
            where=device.name,
            hint=f"python -m toolchain.devices push {device.name} build/…/bundle.tar",
        )
    if name is None and len(slots) > 1:
        raise UserError(f"has several slots: {', '.join(slots)}", where=device.name, hint="--slot")
    if name is not None and name not in slots:
        raise UserError(f"no slot '{name}'", where=device.name, hint=nearest(name, slots))
    return slots[name] if name else next(iter(slots.values()))
