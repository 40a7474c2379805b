"""A figure of a program over the runs, narrow enough for a phone; see `charts`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolchain.report.charts import room
from toolchain.report.inline import BLUE, GREEN, INK, ORANGE, Drawings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (350, 132)


@dataclass(frozen=True)
class Spot:
    """A program's figure in one run; None: there is none. high: the end of its spread."""

    run: str
    value: float | None
    high: float | None = None
    verdict: str = "pass"
    mark: str = ""  # baseline, or first bad


def trend(drawings: Drawings, name: str, spots: Sequence[Spot], *, title: str, unit: str) -> Markup:
    """One figure over the runs, the oldest first; the last spot is the run of the report."""
    told = [(place, spot) for place, spot in enumerate(spots) if spot.value is not None]

    def draw(axes: Axes) -> None:
        values = [spot.value for _, spot in told if spot.value is not None]
        highs = [spot.high for _, spot in told if spot.high is not None]
        axes.grid(axis="y")
        axes.set_xlim(-0.7, len(spots) - 0.3)
        for part in _unbroken(told):
            places = [place for place, _ in part]
            line = [spot.value for _, spot in part if spot.value is not None]
            upper = [spot.high for _, spot in part if spot.high is not None]
            if len(upper) == len(line):
                axes.fill_between(places, line, upper, color=BLUE, alpha=0.22, linewidth=0)
            axes.plot(places, line, color=BLUE, linewidth=1.4, solid_capstyle="round")
        now = len(spots) - 1
        bad = [(place, spot) for place, spot in told if spot.verdict != "pass"]
        if bad:
            axes.plot(*_xy(bad), "x", color=ORANGE, markersize=6, markeredgewidth=1.8)
        if told[-1][0] == now and spots[now].verdict == "pass":
            axes.plot(*_xy(told[-1:]), "o", color=INK, markersize=4)
        room(axes, values + highs)
        axes.margins(y=0.2)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high)
        lost = [place for place, spot in enumerate(spots) if spot.value is None]
        lost_look: dict[str, Any] = {"color": ORANGE, "markersize": 9, "markeredgewidth": 1.6}
        if lost:
            axes.plot(lost, [low + 0.06 * (high - low)] * len(lost), "|", **lost_look)
        for place, spot in enumerate(spots):
            if spot.mark:
                _flag(axes, place, len(spots), spot.mark)
        axes.set_title(f"{title} ({unit})" if unit else title, loc="left", fontsize=11, pad=14)
        axes.set_xticks([0, len(spots) - 1], [spots[0].run, spots[-1].run])
        first, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        axes.locator_params(axis="y", nbins=4)
        axes.ticklabel_format(axis="y", useOffset=False, style="plain")
        axes.spines["left"].set_visible(False)

    return drawings.picture(
        name,
        SIZE,
        draw,
        title=f"{title} over {len(spots)} runs",
        text=_in_words(spots, unit),
        margins=(58, 14, 34, 20),
    )


def _flag(axes: Axes, place: int, count: int, text: str) -> None:
    """A named vertical line; dashed and orange for the first bad run."""
    color, dashes = (ORANGE, "--") if "bad" in text else (GREEN, ":")
    axes.axvline(place, color=color, linestyle=dashes, linewidth=1.4, zorder=1)
    axes.annotate(
        text,
        (place, 1),
        xytext=(0, 2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if place < count / 3 else "right" if place > count * 2 / 3 else "center",
        fontsize=10,
        color=color,
    )


def _unbroken(told: Sequence[tuple[int, Spot]]) -> list[list[tuple[int, Spot]]]:
    """Stretches of neighboring runs: a line does not bridge what is missing."""
    parts: list[list[tuple[int, Spot]]] = []
    for place, spot in told:
        if parts and parts[-1][-1][0] == place - 1:
            parts[-1].append((place, spot))
        else:
            parts.append([(place, spot)])
    return parts


def _xy(told: Sequence[tuple[int, Spot]]) -> tuple[list[int], list[Any]]:
    return [place for place, _ in told], [spot.value for _, spot in told]


def _in_words(spots: Sequence[Spot], unit: str) -> str:
    """What a trend shows, for those who do not see it."""
    values = [spot.value for spot in spots if spot.value is not None]
    told = [f"from {min(values):.5g} to {max(values):.5g} {unit}".strip()]
    if spots[-1].value is not None:
        told.append(f"last {spots[-1].value:.5g}")
    if lost := sum(spot.value is None for spot in spots):
        told.append(f"no figure in {lost} of {len(spots)} runs")
    told += [f"{spot.mark}: {spot.run}" for spot in spots if spot.mark]
    return "; ".join(told) + "."
