"""Which pictures a place and a program have, and what of their rows is in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from toolchain.report import charts, trends
from toolchain.report.charts import Point
from toolchain.report.figures import get, metric_name
from toolchain.report.inline import Drawings
from toolchain.report.material import Measurement, Program
from toolchain.report.trends import Spot

# What of a row, the name of the axis, whether it ranks programs.
COSTS = (
    ("latency_ms.p50", "latency, p50", True),
    ("instructions_per_inference", "instructions, not latency", False),
    ("model_bytes", "size of the program", True),
)
# What of a row, the title, the end of its spread.
TRENDS = (
    ("latency_ms.p50", "latency, p50 to p90", "latency_ms.p90"),
    ("instructions_per_inference", "instructions, emulated", None),
    ("model_bytes", "size of the program", None),
    ("accuracy", "", None),
)
# The unit of a figure that is as large as that, and how much of the figure it is.
UNITS: dict[str, Sequence[tuple[float, str, float]]] = {
    "latency_ms.p50": ((0.1, "ms", 1.0), (0.0, "µs", 1e-3)),
    "instructions_per_inference": ((1e6, "M", 1e6), (0.0, "thousand", 1e3)),
    "model_bytes": ((1e5, "MB", 1e6), (0.0, "kB", 1e3)),
}
OPERATORS = 8


def of_place(drawings: Drawings, name: str, programs: Sequence[Program]) -> list[Markup]:
    """Accuracy against each cost that at least one program has. Numbers count from 1, as given."""
    found = []
    for which, (path, label, ranks) in enumerate(COSTS):
        drawn = [
            (number, program, cost, metric)
            for number, program in enumerate(programs, 1)
            if (cost := _number(program.row, path)) is not None
            and (metric := _number(program.row, "accuracy")) is not None
        ]
        if not drawn:
            continue
        unit, scale = _unit(path, [cost for _, _, cost, _ in drawn])
        points = [
            Point(number, cost / scale, metric, p.verdict == "pass", p.row.get("chosen") is True)
            for number, p, cost, metric in drawn
        ]
        picture = charts.costs(
            drawings,
            f"{name}-{which}",
            points,
            cost=f"{label} ({unit})",
            metric=metric_name(drawn[0][1].row),
            front=ranks,
        )
        found.append(picture)
    return found


def of_program(drawings: Drawings, name: str, program: Program) -> list[Markup]:
    """Its trends, if it was measured before, of each figure that it had in some run."""
    history = [*program.past, program.now]
    if len(history) < 2:
        return []
    found = []
    for which, (path, title, end) in enumerate(TRENDS):
        values = [_number(m.row, path) for m in history]
        if all(value is None for value in values):
            continue
        unit, scale = _unit(path, [value for value in values if value is not None])
        spots = [
            Spot(
                day(m),
                None if value is None else value / scale,
                _scaled(m, end, scale),
                str(m.row["verdict"]) if m is not program.now else program.verdict,
                _mark(program, m),
            )
            for m, value in zip(history, values, strict=True)
        ]
        named = title or metric_name(program.row)
        picture = trends.trend(drawings, f"{name}-t{which}", spots, title=named, unit=unit)
        found.append(picture)
    return found


def of_operators(drawings: Drawings, name: str, program: Program) -> Markup | None:
    slowest = [row for row in program.operators if row["ns"]][:OPERATORS]
    if not slowest:
        return None
    return charts.operators(drawings, f"{name}-o", slowest, program=program.key)


def day(measurement: Measurement) -> str:
    """`11-21` of an ISO time, else the run's own name."""
    return measurement.when[5:10] or measurement.run


def _mark(program: Program, measurement: Measurement) -> str:
    gate = program.gate
    if gate is None or not measurement.run:
        return ""
    if measurement.run == gate.first_bad_run:
        return "first bad"
    return "baseline" if measurement.run == gate.baseline_run else ""


def _unit(path: str, values: Sequence[float]) -> tuple[str, float]:
    """What to show values in: its name, and how much it is."""
    for least, name, scale in UNITS.get(path, ()):
        if max(values) >= least:
            return name, scale
    return "", 1.0


def _scaled(measurement: Measurement, path: str | None, scale: float) -> float | None:
    value = _number(measurement.row, path) if path else None
    return None if value is None else value / scale


def _number(row: Any, path: str) -> float | None:
    """A figure that can be drawn."""
    value = get(row, path)
    drawn = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if drawn else None
