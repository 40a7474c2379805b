"""Pools: units that are alike, so that work for one of them can be done by any.

    pi5                 a unit of the devices file          one pool for units of the same target
    all                 all of them                         and the same tags
    @pi5                those that have a tag               one pool for each target
    qemu:cortex-a72*4   four emulated boards                one pool for each model of CPU
    local               this host                           its own pool

Tags tell units apart that must not stand in for each other: a Pi 4 and a Pi 5 are both `arm64`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolchain import devices, schema
from toolchain.errors import UserError, nearest
from toolchain.schema import Device

ALL = "all"


@dataclass(frozen=True)
class Pool:
    """name: the same every night, since results are compared by it.

    target: of its units; None where they can be any that fits: this host, emulated boards.
    spec: one of its units, as `device=` of a build names it.
    """

    name: str
    target: str | None
    spec: str
    units: tuple[Device, ...]

    @property
    def emulated(self) -> bool:
        return self.units[0].emulated


def pools(devices_file: Path) -> list[Pool]:
    """All units of a devices file, in pools."""
    return _merged(_by_kind(unit) for unit in devices.listed(devices_file))


def select(words: Sequence[str], devices_file: Path) -> list[Pool]:
    """The pools that the words of `device=` mean; UserError for a word that means none."""
    return _merged(pool for word in words for pool in _meant(word, devices_file))


def boards(cpu: str, count: int, where: str) -> Pool:
    """Emulated boards with the same model of CPU; UserError for more than the memory holds."""
    from toolchain.devices import qemu

    qemu.check_model(cpu, where)
    name = f"qemu:{cpu}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000
    most = max(1, memory // qemu.MEMORY_MB)
    if not 1 <= count <= most:
        raise UserError(
            f"{count} boards of {qemu.MEMORY_MB} MB each, on a machine with {memory} MB",
            where=where,
            hint=f"from {name}*1 to {name}*{most}",
        )
    names = [name] if count == 1 else [f"{name}#{k}" for k in range(1, count + 1)]
    units = tuple(Device(name=unit, driver="qemu", cpu=cpu) for unit in names)
    return Pool(name, None, name, units)


def _meant(word: str, devices_file: Path) -> Iterator[Pool]:
    where = f"device={word}"
    if match := re.fullmatch(r"qemu:([^*]*)\*(.*)", word):
        if not re.fullmatch(r"[0-9]{1,4}", match[2]):
            hint = f"such as qemu:{match[1]}*4"
            raise UserError(f"'{match[2]}' is no number of boards", where=where, hint=hint)
        yield boards(match[1], int(match[2]), where)
    elif word.startswith("@"):
        yield from _tagged(word.removeprefix("@"), devices_file, where)
    elif word == ALL:
        yield from (_by_kind(unit) for unit in _listed(devices_file, where))
    else:
        yield _by_kind(devices.resolve(word, devices_file))


def _tagged(tag: str, devices_file: Path, where: str) -> Iterator[Pool]:
    units = _listed(devices_file, where)
    found = [unit for unit in units if tag in unit.tags]
    if not found:
        tags = sorted({f"@{tag}" for unit in units for tag in unit.tags})
        raise UserError(
            f"no unit in {schema.shown(devices_file)} has the tag '{tag}'",
            where=where,
            hint=nearest(f"@{tag}", tags) if tags else f'tag one there: tags = ["{tag}"]',
        )
    for unit in found:
        yield _by_kind(unit) if unit.emulated else _one(unit, tag)


def _listed(devices_file: Path, where: str) -> list[Device]:
    if not devices_file.exists():
        raise UserError(
            f"there is no {schema.shown(devices_file)} that lists units",
            where=where,
            hint="write it, or name another file: devices=PATH; device=local and "
            "device=qemu:cortex-a72*4 need none",
        )
    if units := devices.listed(devices_file):
        return units
    raise UserError(f"{schema.shown(devices_file)} lists no unit", where=where)


def _by_kind(unit: Device) -> Pool:
    """A pool of one unit, named by what has to be the same of others in it."""
    if unit.driver == "qemu":
        return Pool(f"qemu:{unit.cpu}", unit.target, unit.name, (unit,))
    if unit.driver == "local":
        return Pool(unit.name, None, unit.name, (unit,))
    return _one(unit, "+".join(sorted(unit.tags)))


def _one(unit: Device, kind: str) -> Pool:
    if unit.target is None:
        raise UserError(
            "the key 'target' is missing: a nightly has to know what the unit is for",
            where=f"device={unit.name}",
            hint='say it in the devices file: target = "arm64"',
        )
    name = f"{unit.target}@{kind}" if kind else unit.target
    return Pool(name, unit.target, unit.name, (unit,))


def _merged(made: Iterator[Pool]) -> list[Pool]:
    """Pools of one name as one; a unit is in one pool, and in it once."""
    found: dict[str, Pool] = {}
    pool_of: dict[str, str] = {}
    for pool in made:
        old = found.get(pool.name)
        for unit in pool.units:
            if (other := pool_of.setdefault(unit.name, pool.name)) != pool.name:
                raise UserError(
                    f"is picked for two pools, {other} and {pool.name}",
                    where=f"device={unit.name}",
                    hint="pick it once: by its name, by one of its tags, or by all",
                )
        if old is None:
            found[pool.name] = pool
            continue
        if old.target != pool.target:
            raise UserError(
                f"are boards of different targets: {old.target}, {pool.target}",
                where=f"device={old.units[0].name},{pool.units[0].name}",
                hint="leave the key 'target' out: a board takes what fits it",
            )
        new = tuple(unit for unit in pool.units if unit not in old.units)
        found[pool.name] = Pool(old.name, old.target, old.spec, old.units + new)
    return list(found.values())
