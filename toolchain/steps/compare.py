"""Hold the programs of a race against each other: backends, float and quantized, their outputs.

    programs    p50 and the operators that take the most time, of each
    backends    of one variant, each two: their ratio, and how far the outputs agree
    pays        of one backend: each quantized variant against the float one

Which of them is chosen depends on the verdicts too: see the summary.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolchain import backends, racing, stats
from toolchain.atomic import read_json, write_json
from toolchain.devices import guards
from toolchain.samples import load
from toolchain.steps.main import step

SCHEMA = 1
OPERATORS = 8  # so many of a profile are told
DESCRIPTION = ("recipe", "target")


def run(
    *, race: Path, samples: list[Path], outputs: list[Path], profile: list[Path], out: Path
) -> None:
    """Write the comparison of all programs of `race`; samples, outputs, profile: as measured."""
    record = read_json(race)
    descriptions = [read_json(path) for path in samples]
    measured = {
        racing.key(one["variant"], one["backend"]): (one, path)
        for one, path in zip(descriptions, outputs, strict=True)
    }
    times = dict(zip(measured, profile, strict=True))
    raced = {key: measured[key] for key in record["programs"] if record["rounds"]}
    any_one = next(iter(measured.values()))[0]
    found = {
        "schema": SCHEMA,
        **{name: any_one[name] for name in DESCRIPTION},
        "device": record["device"],
        "moved": racing.moved(record),
        "notes": guards.notes(record["facts"]["before"]) if record["facts"] else [],
        "programs": {
            key: {
                "variant": one["variant"],
                "backend": one["backend"],
                "latency_ms": stats.latency(racing.wall_ns(record, key)),
                "spread": racing.spread(record, key),
                "operators": operators(backends.load(one["backend"]).profile(times[key])),
            }
            for key, (one, _) in raced.items()
        },
        "backends": _backends(record, raced),
        "pays": _pays(record, raced),
    }
    write_json(out, found)


def operators(profile: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The slowest operators by kind: calls, ns, and their share of the whole inference."""
    total = sum(row["ns"] for row in profile) or 1
    kinds: dict[str, dict[str, Any]] = {}
    for row in profile:
        kind = kinds.setdefault(row["type"], {"type": row["type"], "calls": 0, "ns": 0})
        kind["calls"] += row["calls"]
        kind["ns"] += row["ns"]
    slowest = sorted(kinds.values(), key=lambda kind: (-kind["ns"], kind["type"]))
    return [{**kind, "share": kind["ns"] / total} for kind in slowest[:OPERATORS]]


def _backends(
    record: racing.Record, raced: Mapping[str, tuple[dict[str, Any], Path]]
) -> list[dict[str, Any]]:
    """Every two backends of one variant, the faster one first, as the rounds rank them."""
    pairs = []
    for one, two in itertools.combinations(raced, 2):
        (a, b), variant = (raced[one][0], raced[two][0]), raced[one][0]["variant"]
        if b["variant"] != variant:
            continue
        if racing.ratio(record, two, one)["ratio"] < 1:
            one, two, a, b = two, one, b, a
        outputs = [_outputs(raced[key]) for key in (one, two)]
        count = min(len(made[0]) for made in outputs)
        pairs.append(
            {
                "variant": variant,
                "faster": a["backend"],
                "slower": b["backend"],
                **racing.ratio(record, two, one),
                "parity": stats.parity(*([o[:count] for o in made] for made in outputs)),
            }
        )
    return pairs


def _pays(
    record: racing.Record, raced: Mapping[str, tuple[dict[str, Any], Path]]
) -> list[dict[str, Any]]:
    """How many times as fast as the float program of its backend each other program is."""
    found = []
    for key, (one, _) in raced.items():
        floats = [
            other
            for other, (two, _) in raced.items()
            if two["backend"] == one["backend"] and two["scheme"] == "float"
        ]
        if floats and one["scheme"] != "float":
            found.append(
                {
                    "variant": one["variant"],
                    "backend": one["backend"],
                    "float": raced[floats[0]][0]["variant"],
                    **racing.ratio(record, floats[0], key),
                }
            )
    return found


def _outputs(program: tuple[dict[str, Any], Path]) -> list[stats.Array]:
    return stats.first(load(program[1]), program[0]["samples"])


if __name__ == "__main__":
    step(run)
