"""Pictures of one run: accuracy against cost, the slowest operators.

Each is narrow enough for a phone; a page lays several side by side. No sense hangs on color alone:
what is chosen, bad or missing has a mark of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolchain.report.figures import milliseconds
from toolchain.report.inline import BLUE, GREEN, GRID, INK, MUTED, ORANGE, Drawings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COST_SIZE, OPERATORS_WIDTH = (350, 260), 350
NEAR = 0.045  # of the axes: points so near to each other share a label
NAME = 37  # letters of an operator's name that fit


@dataclass(frozen=True)
class Point:
    """A program among those of its recipe; number: its place in the table beside the picture."""

    number: int
    cost: float
    metric: float
    passes: bool
    chosen: bool


def costs(
    drawings: Drawings,
    name: str,
    points: Sequence[Point],
    *,
    cost: str,
    metric: str,
    front: bool,
) -> Markup:
    """Accuracy against cost: good is at the top left.

    cost, metric: names of the axes, with units. front: whether to join the programs that no other
    beats in both; not for costs that do not rank unlike programs.
    """
    best = _front(points) if front else []

    def draw(axes: Axes) -> None:
        axes.grid()
        if best:
            axes.step(*zip(*best, strict=True), where="post", color=BLUE, linewidth=1.2, zorder=1)
        looks: list[tuple[list[Point], dict[str, Any]]] = [
            ([p for p in points if p.passes and not p.chosen], {"color": BLUE, "marker": "o"}),
            ([p for p in points if not p.passes], {"color": ORANGE, "marker": "x"}),
            ([p for p in points if p.chosen and p.passes], {"color": GREEN, "marker": "*"}),
        ]
        for some, look in looks:
            if some:
                size = 130 if look["marker"] == "*" else 32
                places = [p.cost for p in some], [p.metric for p in some]
                axes.scatter(*places, s=size, zorder=2, **look)
        axes.margins(0.14)
        room(axes, [p.metric for p in points])
        axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))
        axes.set_xlabel(cost)
        axes.set_title(metric, loc="left", fontsize=11, color=MUTED)
        axes.locator_params(nbins=5)
        for spot, numbers in _labels(axes, points):
            axes.annotate(
                ", ".join(map(str, numbers)),
                spot,
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                color=INK,
                fontsize=11,
            )

    listed = "; ".join(
        f"{p.number}: {p.metric:.4g} at {p.cost:.4g}"
        + (", chosen" if p.chosen else "" if p.passes else ", does not pass")
        for p in points
    )
    return drawings.picture(
        name,
        COST_SIZE,
        draw,
        title=f"{metric} against {cost}",
        text=f"By the numbers of the table: {listed}.",
        margins=(58, 14, 26, 44),
    )


def _front(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Cost and metric of the programs that no other beats in both, the cheapest first."""
    best: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.metric)):
        if not best or point.metric > best[-1][1]:
            best.append((point.cost, point.metric))
    return best


def _labels(axes: Axes, points: Sequence[Point]) -> list[tuple[tuple[float, float], list[int]]]:
    """Where to write which numbers, so that none lies upon another."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    found: list[tuple[tuple[float, float], list[int]]] = []
    for point in points:
        for spot, numbers in found:
            across = abs(point.cost - spot[0]) / (right - left)
            up = abs(point.metric - spot[1]) / (high - low)
            if across < 2 * NEAR and up < 1.5 * NEAR:
                numbers.append(point.number)
                break
        else:
            found.append(((point.cost, point.metric), [point.number]))
    return found


def room(axes: Axes, values: Sequence[float]) -> None:
    """Where all values are equal, an axis that does not blow up their last digit."""
    middle, span = (max(values) + min(values)) / 2, max(values) - min(values)
    least = 0.02 * abs(middle) or 1.0
    if span < least:
        axes.set_ylim(middle - least, middle + least)


def operators(
    drawings: Drawings, name: str, rows: Sequence[Mapping[str, Any]], *, program: str
) -> Markup:
    """The kinds of operators that take the most time: type, calls, ns, share of the inference."""
    height = 34 * len(rows) + 8

    def draw(axes: Axes) -> None:
        axes.barh(range(len(rows)), [1.0] * len(rows), height=0.2, color=GRID)
        axes.barh(range(len(rows)), [row["share"] for row in rows], height=0.2, color=BLUE)
        for place, row in enumerate(rows):
            for text, across, side in (
                (_cut(row["type"]), 0.0, "left"),
                (f"{milliseconds(row['ns'] / 1e6)} · {row['share']:.0%}", 1.0, "right"),
            ):
                axes.annotate(
                    text,
                    (across, place),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha=side,
                    fontsize=10.5,
                )
        axes.set_xlim(0, 1)
        axes.set_ylim(len(rows) - 0.6, -0.8)
        axes.set_axis_off()

    listed = "; ".join(
        f"{row['type']}: {row['share']:.1%}, {row['ns'] / 1e6:.3f} ms, {row['calls']} calls"
        for row in rows
    )
    return drawings.picture(
        name,
        (OPERATORS_WIDTH, height),
        draw,
        title=f"The slowest operators of {program}",
        text=f"{listed}.",
        margins=(4, 4, 2, 2),
    )


def _cut(text: str) -> str:
    return text if len(text) <= NAME else f"{text[: NAME - 1]}…"
