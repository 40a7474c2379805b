"""Pictures of what was found, for people: equal data give equal bytes.

An `.svg` keeps its words as text, to be searched and read aloud; a `.png` can be had too. Colors
are those of Okabe and Ito, which are told apart without color vision; no sense hangs on them alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from toolchain.atomic import write_bytes
from toolchain.errors import UserError
from toolchain.schema import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GRAY, LIGHT = "#0072B2", "#D55E00", "#6B6B6B", "#E5E5E5"
# Without a date, a version or a random salt in the file.
FORMATS: dict[str, dict[str, Any]] = {
    ".svg": {"metadata": {"Date": None, "Creator": None}},
    ".png": {"metadata": {"Software": None}, "dpi": 150},
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slipway",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.size": 9,
    "axes.axisbelow": True,
}
WORST = 0.1  # share of the layers that stand out


def sensitivity(rows: Sequence[Mapping[str, Any]], out: Path, *, title: str) -> None:
    """Which layers a model loses its accuracy in, the most sensitive on top.

    rows: one for each layer, in the order of the network: `layer`, `operator`, and, each a float or
    None where there is no figure, `only_sqnr_db`, `only_drop` (only this layer is quantized),
    `without_sqnr_db`, `without_drop` (all but this one are).
    """
    ranked = sorted(enumerate(rows, 1), key=lambda pair: _noise(pair[1]["only_sqnr_db"]))
    drops = any(_finite(row[f"{case}_drop"]) for row in rows for case in ("only", "without"))
    height = 1.9 + 0.21 * len(rows)
    with _figure(out, (11 if drops else 9, height)) as figure:
        panels = figure.subplots(1, 3 if drops else 2, sharey=True, squeeze=False)[0]
        _heading(
            figure,
            title,
            "A row is a layer, with its place in the network: the most sensitive on top, the worst "
            "tenth in orange.\nFirst bars: the longer, the more this layer alone spoils the "
            "outputs. Second bars: the longer, the more they gain if it stays float.",
        )
        worst = max(1, round(WORST * len(rows)))
        colors = [VERMILION if place < worst else BLUE for place in range(len(rows))]
        layers = [row for _, row in ranked]
        _bars(panels[0], [row["only_sqnr_db"] for row in layers], colors, longer_is_less=True)
        panels[0].set_xlabel("only this layer quantized:\nSQNR of the outputs (dB)")
        _bars(panels[1], [row["without_sqnr_db"] for row in layers], colors)
        panels[1].set_xlabel("all but this layer quantized:\nSQNR of the outputs (dB)")
        if drops:
            _drops(panels[2], layers)
        panels[0].set_yticks(
            range(len(rows)),
            [f"{row['layer']}  ({row['operator']})  {place:>3}" for place, row in ranked],
        )
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
        for panel in panels:
            panel.tick_params(axis="y", length=0)


def pareto(
    points: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    title: str,
    cost_label: str,
    metric_label: str,
    floor: float | None,
) -> None:
    """Accuracy against cost of what was tried: the good ones are at the top left.

    points: `name`, `cost`, `metric`, and whether each is `chosen`, is `on_front` (nothing else is
    cheaper and as accurate), `passes` the floor. floor: the least metric that is good enough.
    """
    drawn = [p for p in points if _finite(p["cost"]) and _finite(p["metric"])]
    missing = [p["name"] for p in points if p not in drawn]
    with _figure(out, (10, max(5.0, 1.5 + 0.3 * len(points)))) as figure:
        axes = figure.subplots()
        caption = (
            "Up is more accurate, left is cheaper; nothing beats what lies on the line. "
            "Beside each name: metric, cost."
        )
        if missing:
            caption += f"\nWithout a figure, and not drawn: {', '.join(missing)}"
        _heading(figure, title, caption)
        axes.set_xlabel(cost_label)
        axes.set_ylabel(metric_label)
        axes.grid(color=LIGHT)
        front = sorted((p["cost"], p["metric"]) for p in drawn if p["on_front"])
        if front:
            costs, metrics = zip(*front, strict=True)
            axes.step(costs, metrics, where="post", color=BLUE, label="Pareto front", zorder=1)
        if floor is not None:
            axes.axhline(floor, color=GRAY, linestyle="--", label=f"floor: {floor:g}", zorder=1)
        kinds: list[tuple[str, list[Mapping[str, Any]], dict[str, Any]]] = [
            ("holds the floor", [p for p in drawn if p["passes"]], {"color": BLUE}),
            ("does not", [p for p in drawn if not p["passes"]], {"color": GRAY, "marker": "x"}),
            (
                "chosen",
                [p for p in drawn if p["chosen"]],
                {"color": VERMILION, "marker": "*", "s": 220, "zorder": 3, "edgecolor": "white"},
            ),
        ]
        for label, some, look in kinds:
            if some:
                places = [p["cost"] for p in some], [p["metric"] for p in some]
                axes.scatter(*places, label=label, **{"s": 36, "zorder": 2, **look})
        _names(axes, drawn)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, frameon=False)


def _bars(
    axes: Axes, values: Sequence[float | None], colors: Sequence[str], longer_is_less: bool = False
) -> None:
    """Horizontal bars with their figures, from an edge a little beyond the shortest one.

    An infinite value has the bar of the greatest finite one (the least, if negative).
    """
    finite = [value for value in values if _finite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = 0.08 * (high - low) or 1.0
    edge, far = (high + room, low - 2 * room) if longer_is_less else (low - room, high + 2 * room)
    for place, (value, color) in enumerate(zip(values, colors, strict=True)):
        end, label = edge, "no figure"
        if value is not None and not math.isnan(value):
            end, label = min(max(value, low), high), f"{value:.1f}".replace("inf", "\u221e")
        axes.barh(place, end - edge, left=edge, height=0.65, color=color)
        axes.annotate(
            label,
            (end, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.set_xlim(edge, far)
    axes.grid(axis="x", color=LIGHT)
    axes.spines[["top", "right"]].set_visible(False)


def _drops(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """What each layer costs in the recipe's metric, both ways."""
    looks: dict[str, dict[str, Any]] = {
        "only": {"label": "only this layer quantized", "color": BLUE},
        "without": {
            "label": "all but this layer",
            "facecolor": "none",
            "edgecolor": VERMILION,
            "marker": "s",
        },
    }
    for case, look in looks.items():
        places = [place for place, row in enumerate(rows) if _finite(row[f"{case}_drop"])]
        axes.scatter([rows[place][f"{case}_drop"] for place in places], places, s=18, **look)
    axes.axvline(0, color=GRAY, linewidth=0.8)
    axes.set_xlabel("drop of the metric against\nthe float model")
    axes.margins(x=0.1)
    axes.grid(color=LIGHT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=7, frameon=False)


def _names(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """Names and figures in a column beside the axes, each with a line to its point.

    So they stay apart where the points do not, as programs of one model are of one size.
    """
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    ordered = sorted(points, key=lambda p: (p["metric"], -p["cost"], p["name"]))
    wanted = [(point["metric"] - low) / (high - low) for point in ordered]
    for point, place in zip(ordered, _apart(wanted), strict=True):
        axes.annotate(
            f"{point['name']}   {point['metric']:.4g}, {point['cost']:.4g}",
            (point["cost"], point["metric"]),
            xytext=(1.04, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=VERMILION if point["chosen"] else "black" if point["passes"] else GRAY,
            fontweight="bold" if point["chosen"] else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": "#BBBBBB",
                "linewidth": 0.6,
                "relpos": (0, 0.5),
                "shrinkB": 4,
            },
            zorder=0,
        )


def _apart(wanted: Sequence[float]) -> list[float]:
    """Ascending places in 0 … 1, each near to where it is wanted, and apart from each other."""
    gap = min(0.06, 1 / max(len(wanted), 1))
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + gap) if places else place)
    ceiling = 1.0
    for k in reversed(range(len(places))):
        places[k] = min(places[k], ceiling)
        ceiling = places[k] - gap
    return places


@contextmanager
def _figure(out: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of that many inches; written to `out` if the body succeeds."""
    import matplotlib.style
    from matplotlib.figure import Figure

    if out.suffix not in FORMATS:
        raise UserError(f"pictures are {' or '.join(FORMATS)}", where=shown(out))
    with matplotlib.style.context(STYLE, after_reset=True):  # not as the user's files say
        figure = Figure(size, layout="constrained")
        yield figure
        file = io.BytesIO()
        figure.savefig(file, format=out.suffix[1:], **FORMATS[out.suffix])
    write_bytes(out, file.getvalue())


def _heading(figure: Figure, title: str, caption: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=8, color=GRAY)


def _noise(value: float | None) -> float:
    """Sort key: without a figure comes last."""
    return math.inf if value is None or math.isnan(value) else value


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
