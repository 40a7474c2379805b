"""list, status, doctor: what there is, who works there, whether it is well."""

from __future__ import annotations

import argparse
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

from toolchain import schema
from toolchain.devices.commands.common import (
    Commands,
    connected,
    known,
    named,
    seconds,
    span,
    table,
)
from toolchain.errors import InfraError, SlipwayError


def add(commands: Commands) -> None:
    units = commands.add_parser(
        "list", help="the units of the devices file, and boards that are up"
    )
    units.set_defaults(call=list_units)
    status = commands.add_parser("status", help="who holds each unit, and what its slots hold")
    status.add_argument("names", nargs="*", metavar="NAME", help="units (default: all)")
    status.set_defaults(call=show_status)
    doctor = commands.add_parser(
        "doctor", help="whether units can be trusted with work; exit status 3 if one cannot"
    )
    doctor.add_argument("names", nargs="*", metavar="NAME", help="units (default: all)")
    doctor.add_argument("--timeout", type=seconds, metavar="SECONDS", help="for each (default: 60)")
    doctor.add_argument("--json", action="store_true", help="all facts, for programs")
    doctor.set_defaults(call=examine)


def list_units(arguments: argparse.Namespace) -> None:
    rows = [
        [unit.name, unit.target or "", unit.driver, _place(unit), " ".join(unit.tags)]
        for unit in known(arguments)
    ]
    if rows:
        print(table(["NAME", "TARGET", "DRIVER", "PLACE", "TAGS"], rows))
    else:
        print(f"no units: there is no {schema.shown(arguments.devices)}, and no board is up")


def show_status(arguments: argparse.Namespace) -> int:
    units = named(arguments)
    with ThreadPoolExecutor(16) as pool:
        rows = list(pool.map(_status, units))
    if rows:
        print(table(["NAME", "LEASE", "SLOTS"], [row[:3] for row in rows]))
    return InfraError.exit_status if any(row[3] for row in rows) else 0


def examine(arguments: argparse.Namespace) -> int:
    from toolchain.devices import health

    found = health.probe_all(named(arguments), arguments.timeout or health.SECONDS)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1, sort_keys=True))
    elif found:
        print(table(["NAME", "HEALTH", "CPU", "FREE", "MEMORY", "CLOCK", "°C"], _rows(found)))
        for one in found:
            for reason in one.reasons:
                print(f"{one.name}: {reason}")
    return 0 if all(one.healthy for one in found) else InfraError.exit_status


def _rows(found: list) -> list[list[str]]:  # type: ignore[type-arg]
    rows = []
    for one in found:
        facts = one.facts
        ahead = facts.get("clock_ahead", "")
        rows.append(
            [
                one.name,
                "good" if one.healthy else "BAD",
                facts.get("cpu", ""),
                _size(facts.get("free", "")),
                _size(facts.get("memory_available", "")),
                f"{int(ahead):+d} s" if ahead else "",
                facts.get("temperature", ""),
            ]
        )
    return rows


def _size(text: str) -> str:
    return f"{int(text) / 1e6:.0f} MB" if text.isdigit() else ""


def _status(unit: schema.Device) -> tuple[str, str, str, bool]:
    """Name, lease, slots, and whether it could not be asked."""
    from toolchain.devices import deploy, lease

    if unit.driver == "qemu" and not unit.host:
        return unit.name, "booted when it is needed", "", False
    try:
        with connected(unit) as device:
            holder = lease.status(device)
            slots = deploy.slots(device)
    except SlipwayError as error:
        return unit.name, f"cannot be asked: {error.message}", "", True
    held = f"{holder.owner}, for {span(holder.held)}" if holder else "free"
    holds = ", ".join(f"{slot.name} ({slot.holds}) {slot.current[:12]}" for slot in slots)
    return unit.name, held, holds, False


def _place(unit: schema.Device) -> str:
    if unit.driver == "labgrid":
        return f"{unit.place} of {unit.coordinator}"
    if unit.driver == "qemu" and not unit.host:
        return f"qemu:{unit.cpu}"
    user = f"{unit.user}@" if unit.user else ""
    port = f":{unit.port}" if unit.port != 22 else ""
    return f"{user}{unit.host}{port}"
