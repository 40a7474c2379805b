"""What happened on each unit: how often it was tried, and what broke there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolchain.report.material import Attempt, Material

BROKEN = ("infra-error", "broken")


@dataclass(frozen=True)
class Unit:
    """tried: attempts, with those that led to a row; broken: those that ended in an infra-error."""

    name: str
    pools: Sequence[str]
    tried: int
    broken: Sequence[Attempt]
    quarantined: str

    @property
    def well(self) -> bool:
        return not (self.broken or self.quarantined)


def attempts(material: Material) -> list[Attempt]:
    """Those that are known one by one, else the last one of each program, by its row."""
    if material.attempts:
        return list(material.attempts)
    return [
        Attempt(
            p.key, p.pool, p.now.unit, p.now.attempt, str(p.row["verdict"]), "; ".join(p.reasons)
        )
        for p in material.programs
    ]


def units(material: Material) -> list[Unit]:
    """Each unit that took part or was left alone; those that need a look come first."""
    known = attempts(material)
    names = dict.fromkeys([*material.quarantined, *(one.unit for one in known)])
    found = []
    for name in names:
        own = [one for one in known if one.unit == name]
        broken = [one for one in own if one.outcome in BROKEN]
        pools = list(dict.fromkeys(one.pool for one in own))
        found.append(Unit(name, pools, len(own), broken, material.quarantined.get(name, "")))
    return sorted(found, key=lambda unit: (not unit.quarantined, -len(unit.broken), unit.name))
