"""The material of a page about one build, from its summary and the races beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolchain import choice, racing
from toolchain.errors import UserError
from toolchain.layout import device_folder
from toolchain.report.figures import Row, get
from toolchain.report.material import Material, Measurement, Program
from toolchain.schema import shown

NEEDED = ("recipe", "variant", "backend", "target", "device", "verdict")
Comparison = Mapping[str, Any]


def gather(summary: Path) -> Material:
    """What the summary of a build and the comparisons of its races tell.

    UserError if `summary` is not one.
    """
    rows = _rows(summary)
    build = summary.parent
    races = {place: _comparison(build, *place) for place in dict.fromkeys(map(_place, rows))}
    notes: dict[str, dict[str, None]] = {}
    for (_, _, device), race in races.items():
        notes.setdefault(device, {}).update(dict.fromkeys(get(race, "notes") or ()))
    moments = [str(taken) for row in rows if (taken := get(row, "provenance.taken_at"))]
    left_out = build / "left_out.txt"
    return Material(
        title="one build",
        began=max(moments, default=""),
        state="",
        programs=[_program(row, races[_place(row)]) for row in rows],
        facts={"summary": str(summary)},
        notes={device: list(told) for device, told in notes.items()},
        left_out=left_out.read_text("utf-8").splitlines() if left_out.is_file() else (),
    )


def _rows(summary: Path) -> list[Row]:
    try:
        rows = json.loads(summary.read_bytes())
    except FileNotFoundError:
        raise UserError(
            "there is no such file", where=shown(summary), hint="./scripts/scons writes one"
        ) from None
    except ValueError as error:
        raise UserError(f"is no summary of a build: {error}", where=shown(summary)) from None
    whole = isinstance(rows, list) and all(
        isinstance(row, dict) and all(key in row for key in NEEDED) for row in rows
    )
    if not whole:
        raise UserError(
            f"is no summary of a build: a list of objects with {', '.join(NEEDED)}",
            where=shown(summary),
        )
    return list(rows)


def _place(row: Row) -> tuple[str, str, str]:
    recipe, target, device = (str(row[key]) for key in choice.PLACE)
    return recipe, target, device


def _comparison(build: Path, recipe: str, target: str, device: str) -> Comparison:
    """Of the race there; empty if there was none."""
    file = build / recipe / "race" / target / device_folder(device) / "comparison.json"
    return dict(json.loads(file.read_bytes())) if file.is_file() else {}


def _program(row: Row, race: Comparison) -> Program:
    device = str(row["device"])
    key = "/".join(str(row[name]) for name in ("recipe", "variant", "backend", "target"))
    now = Measurement("", str(get(row, "provenance.taken_at") or ""), device, row)
    raced = (get(race, "programs") or {}).get(racing.key(row["variant"], row["backend"]))
    return Program(f"{key}@{device}", device, now, operators=get(raced or {}, "operators") or ())
