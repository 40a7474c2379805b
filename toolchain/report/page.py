"""The page: material → pictures and tables → one HTML file that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from toolchain.report import attention, devices, figures, pictured, provenance
from toolchain.report.inline import Drawings
from toolchain.report.material import SIGNS, Material, Measurement, Program

# What the template asks of a row, and rows of infra-errors and of earlier versions may not have.
MAY_LACK: dict[str, Any] = {
    "accuracy": None,
    "drop": None,
    "model_bytes": None,
    "chosen": None,
    "findings": (),
    "unchecked": (),
}


@dataclass(frozen=True)
class Section:
    """A program, as the template shows it. changes: since `before`, the last pass; None: none."""

    id: str
    program: Program
    row: dict[str, Any]
    number: int
    name: str
    trends: Sequence[Markup]
    operators: Markup | None
    before: Measurement | None
    changes: Sequence[provenance.Change]
    facts: dict[str, str]


@dataclass(frozen=True)
class Place:
    """All programs of one recipe on one target's pool. disturbed: why times are not to be trusted,
    and of which programs; emulated: its costs are instructions."""

    recipe: str
    where: str
    pool: str
    pictures: Sequence[Markup]
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    sections: Sequence[Section]
    disturbed: dict[str, list[str]]
    raced: bool
    emulated: bool
    notes: Sequence[str]


@dataclass(frozen=True)
class Link:
    """To a program's section; without an id, just a name."""

    text: str
    id: str = ""


@dataclass(frozen=True)
class Look:
    """What to look at: of what kind, why, and where."""

    kind: str
    text: str
    whom: Sequence[Link]


def render(material: Material) -> str:
    """The whole page. Equal material gives equal text."""
    drawings = Drawings()
    ids = identifiers([program.key + program.pool for program in material.programs])
    groups: dict[tuple[str, str, str], list[tuple[str, Program]]] = {}
    for place, program in zip(ids, material.programs, strict=True):
        row = program.row
        group = str(row["recipe"]), str(row["target"]), program.pool
        groups.setdefault(group, []).append((place, program))
    recipes: dict[str, list[Place]] = {}
    for number, (group, members) in enumerate(groups.items()):
        made = _place(drawings, f"c{number}", group, members, material)
        recipes.setdefault(group[0], []).append(made)
    environment = Environment(
        loader=PackageLoader("toolchain.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": provenance.short, "cost": cost, "moment": moment}
    return environment.get_template("page.html").render(
        material=material,
        sentence=attention.sentence(material),
        overall=attention.overall(material),
        counts=attention.counts(material),
        looks=_looks(material, ids),
        signs=SIGNS,
        recipes=recipes,
        recipe_ids=dict(zip(recipes, identifiers([f"recipe {n}" for n in recipes]), strict=True)),
        units=devices.units(material),
        figures=figures,
        picture_css=drawings.css,
        nothing=figures.NOTHING,
    )


def _place(
    drawings: Drawings,
    name: str,
    group: tuple[str, str, str],
    members: Sequence[tuple[str, Program]],
    material: Material,
) -> Place:
    recipe, target, pool = group
    programs = [program for _, program in members]
    headings, lines = figures.cells([program.row for program in programs])
    disturbed: dict[str, list[str]] = {}
    for program in programs:
        for why in program.row.get("latency_moved") or ():
            disturbed.setdefault(str(why), []).append(_name(program))
    units = dict.fromkeys([pool, *(program.now.unit for program in programs)])
    return Place(
        recipe,
        pool if pool.startswith(target) else f"{target}, {pool}",
        pool,
        pictured.of_place(drawings, name, programs),
        headings,
        lines,
        [_section(drawings, *member, k) for k, member in enumerate(members, 1)],
        disturbed,
        any(figures.get(program.row, "latency_ms") for program in programs),
        any(figures.get(program.row, "provenance.device.emulator") for program in programs),
        [note for unit in units for note in material.notes.get(unit, ())],
    )


def _looks(material: Material, ids: Sequence[str]) -> list[Look]:
    places = {id(p): place for p, place in zip(material.programs, ids, strict=True)}
    return [
        Look(
            item.kind,
            item.text,
            [
                Link(f"{one.key} on {one.pool}", places[id(one)])
                if isinstance(one, Program)
                else Link(one)
                for one in item.whom
            ],
        )
        for item in attention.items(material)
    ]


def _section(drawings: Drawings, place: str, program: Program, number: int) -> Section:
    measured = program.verdict != "infra-error"  # else there is nothing whose cause is looked for
    before = program.last_pass() if measured else None
    return Section(
        place,
        program,
        MAY_LACK | dict(program.row),
        number,
        _name(program),
        pictured.of_program(drawings, place, program),
        pictured.of_operators(drawings, place, program),
        before,
        provenance.changes(before.row, program.row) if before else [],
        provenance.facts(program.row),
    )


def _name(program: Program) -> str:
    """As short as it can be where recipe and pool are known."""
    own = program.key.partition("@")[2]
    unit = f" @{own}" if own and program.pool.rpartition("@")[2] != own else ""
    return f"{program.row['variant']} {program.row['backend']}{unit}"


def moment(text: str) -> str:
    """`2026-11-21 02:00 UTC` of an ISO time; anything else as it is."""
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d)?(\+00:00|Z)$", r"\1 \2 UTC", text)


def cost(row: figures.Row) -> str:
    """What an inference costs, in the one word for it that the device allows."""
    if (p50 := figures.get(row, "latency_ms.p50")) is not None:
        return figures.milliseconds(p50)
    count = figures.get(row, "instructions_per_inference")
    return figures.NOTHING if count is None else f"{figures.millions(count)} instructions"


def identifiers(names: Sequence[str]) -> list[str]:
    """An id for each name, made of what HTML, CSS and an address all allow; no two are equal."""
    found: dict[str, None] = {}
    for name in names:
        plain = base = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "x"
        count = 1
        while f"p-{plain}" in found:
            count += 1
            plain = f"{base}-{count}"
        found[f"p-{plain}"] = None
    return list(found)
