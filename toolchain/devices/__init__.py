"""Devices: what a target's bundles run on. One file is one driver; see `base` for what they do.

    unit = devices.resolve("local")                               # this host
    unit = devices.resolve("qemu:cortex-a72")                     # an emulated board
    unit = devices.resolve("pi5", Path("devices.toml"))           # a unit of the user's own file
    with devices.connect(unit) as device:
        device.run(["uname", "-m"], timeout=10)

This host and emulated boards need no file. A devices file has one table for each other unit:

    [pi5]
    target      = "arm64"
    host        = "pi5.lab"
    port        = 22                         # if it is another one
    user        = "pi"                       # else your own name
    key         = "keys/pi5"                 # relative to this file; else the SSH agent's keys
    known_hosts = "known_hosts"              # relative to this file; else ~/.ssh/known_hosts
    tags        = ["pi5", "lab-a"]           # what a nightly picks units by, and pools them by

    [rack-3]                                 # a place that a labgrid coordinator gives out
    target      = "arm64"
    driver      = "labgrid"
    coordinator = "lab.example:20408"
    place       = "pi5-3"
"""

from __future__ import annotations

import importlib
import shutil
import typing
from contextlib import AbstractContextManager
from pathlib import Path

from toolchain import schema
from toolchain.devices import base
from toolchain.errors import UserError, nearest

LOCAL = "local"  # this host's name; no other unit can have it
_NEEDED = {  # keys of a table, with an example of each, by its driver
    "ssh": {"host": "pi5.lab"},
    "labgrid": {"coordinator": "lab.example:20408", "place": "pi5-3"},
}


def connect(unit: schema.Device) -> AbstractContextManager[base.Device]:
    """Make a unit ready for work; its driver is imported only now."""
    driver = importlib.import_module(f"toolchain.devices.{unit.driver}")
    return typing.cast(AbstractContextManager[base.Device], driver.connect(unit))


def depends_on(unit: schema.Device) -> list[Path]:
    """Files of this machine whose change makes earlier measurements on the unit outdated."""
    files = [Path(__file__).parent / f"{unit.driver}.py"]
    if unit.driver == "qemu":
        from toolchain.devices import qemu

        files += map(Path, filter(None, [shutil.which(qemu.PROGRAM)]))
    return files


def resolve(spec: str, devices_file: Path | None = None) -> schema.Device:
    """The unit that `device=SPEC` means. Cheap: called while the build graph is read."""
    if spec == LOCAL:
        return schema.Device(name=LOCAL, driver="local")
    driver, colon, cpu = spec.partition(":")
    if not colon:
        from toolchain.devices import boards

        return boards.unit(spec, devices_file) or _listed(spec, devices_file)
    if driver != "qemu":
        raise UserError(
            f"unknown kind of device '{driver}'",
            where=f"device={spec}",
            hint="an emulated board is qemu:<cpu>, such as qemu:cortex-a72, this host is local; "
            "others have a name",
        )
    from toolchain.devices import qemu

    qemu.check_model(cpu, f"device={spec}")
    return schema.Device(name=spec, driver="qemu", cpu=cpu)


def listed(devices_file: Path) -> list[schema.Device]:
    """All units of a devices file, in its order; each by the name of its table."""
    tables = schema.read_toml(devices_file)
    return [_unit(name, table, devices_file) for name, table in tables.items()]


def _listed(name: str, devices_file: Path | None) -> schema.Device:
    """The unit of that name in the user's devices file, its paths made absolute."""
    from toolchain.devices import qemu

    board = name if name in qemu.MODELS else "cortex-a72"
    example = f"this host and emulated boards need no file: device=local, device=qemu:{board}"
    if devices_file is None:
        raise UserError(
            f"no devices file is given that could list '{name}'",
            where=f"device={name}",
            hint=f"name it with devices=PATH; {example}",
        )
    shown = schema.shown(devices_file)
    if not devices_file.exists():
        raise UserError(
            f"'{name}' would be a unit listed in {shown}, and there is no such file",
            where=f"device={name}",
            hint=f"list it there as [{name}], or name another file: devices=PATH; {example}",
        )
    tables = schema.read_toml(devices_file)
    if name not in tables:
        raise UserError(
            f"no unit '{name}' in {shown}",
            where=f"device={name}",
            hint=f"{nearest(name, tables)}; {example}",
        )
    return _unit(name, tables[name], devices_file)


def _unit(name: str, table: object, devices_file: Path) -> schema.Device:
    """One table of a devices file as a unit, its paths made absolute."""
    from toolchain.devices import qemu

    shown = schema.shown(devices_file)
    where = f"{shown}: [{name}]"
    schema.check_name(name, "device", shown)
    if not isinstance(table, dict):
        raise UserError("is not a table", where=where, hint=f'[{name}]\n  host = "…"')
    if "name" in table:
        raise UserError("unknown key 'name'", where=where, hint="the table's name is the unit's")
    unit = schema.decode(schema.Device, {"driver": "ssh", **table, "name": name}, where)
    if unit.driver == "local":
        raise UserError("this host needs no entry", where=where, hint="name it: device=local")
    if unit.driver == "qemu":
        qemu.check_model(unit.cpu or "", f"{where}.cpu")
        return unit
    for key, example in _NEEDED[unit.driver].items():
        if not getattr(unit, key):
            raise UserError(f"the key '{key}' is missing", where=where, hint=f'{key} = "{example}"')
    return unit.model_copy(
        update={
            "key": _file(unit.key, devices_file, f"{where}.key"),
            "known_hosts": _file(unit.known_hosts, devices_file, f"{where}.known_hosts"),
        }
    )


def _file(named: str | None, devices_file: Path, where: str) -> str | None:
    if named is None:
        return None
    path = (devices_file.parent / Path(named).expanduser()).absolute()
    if not path.is_file():
        raise UserError(
            f"no such file: {path}", where=where, hint="paths are relative to the devices file"
        )
    return str(path)
