"""Which of the tried programs is taken: the cheapest that holds the accuracy. Pure functions.

Costs are compared one after the other; a later one decides only between equals:

    a real device       median latency, bytes moved, program bytes
    an emulated board   bytes moved, instructions, program bytes

(On a board there is no latency, and instructions alone do not rank float against int8.) Between
programs of equal cost the higher metric is taken, then the higher SQNR, then what was tried first.
So the choice is never dominated: no other program that passes is at least as good in the metric and
in every cost, and better in one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolchain.errors import CheckFailed
from toolchain.search.plan import Candidate

LATENCY, MOVED, INSTRUCTIONS, SIZE = "latency_ms", "bytes_moved", "instructions", "model_bytes"
COSTS = {True: (MOVED, INSTRUCTIONS, SIZE), False: (LATENCY, MOVED, SIZE)}  # by: emulated
WORDS = {
    LATENCY: "median latency (ms)",
    MOVED: "bytes moved per inference",
    INSTRUCTIONS: "user instructions per inference (emulated)",
    SIZE: "bytes of the program",
}


@dataclass(frozen=True)
class Limit:
    """One of the two, as `schemes.auto` has them."""

    max_drop: float | None = None
    min_metric: float | None = None

    def holds(self, figures: Mapping[str, Any]) -> bool:
        """Whether a program is accurate enough. figures: `metric` and `drop`."""
        if self.min_metric is not None:
            return bool(figures["metric"] >= self.min_metric)
        assert self.max_drop is not None
        return bool(figures["drop"] <= self.max_drop)

    def floor(self, floating: float) -> float:
        """The least metric that passes, given the float model's."""
        if self.min_metric is not None:
            return self.min_metric
        assert self.max_drop is not None
        return floating - self.max_drop

    def __str__(self) -> str:
        if self.min_metric is not None:
            return f"a metric of {self.min_metric:g} or more"
        return f"a drop of {self.max_drop:g} or less"


@dataclass(frozen=True)
class Tried:
    """One candidate and what came of it.

    figures: metric, drop, sqnr_db (None: no loss), and the costs, None where there is none; empty
    for a candidate that could not be built. passes: it holds the limit, and ran on the device.
    trouble: why it could not be built, or did not run there.
    """

    candidate: Candidate
    figures: Mapping[str, Any]
    passes: bool
    trouble: str = ""


def chosen(tried: Sequence[Tried], emulated: bool) -> Tried:
    """The cheapest of those that pass."""
    passing = [one for one in tried if one.passes]
    if not passing:
        raise CheckFailed("no program ran on the device, not even the float model's")
    return min(
        passing, key=lambda one: (*costs(one, emulated), *_worse(one))
    )  # the first of equals


def front(tried: Sequence[Tried], emulated: bool) -> list[Tried]:
    """The Pareto front over the metric and all costs, of those that have them all."""
    known = [one for one in tried if measured(one, emulated)]
    return [one for one in known if not any(_dominates(two, one, emulated) for two in known)]


def measured(one: Tried, emulated: bool) -> bool:
    return all(one.figures.get(name) is not None for name in ("metric", *COSTS[emulated]))


def costs(one: Tried, emulated: bool) -> tuple[float, ...]:
    return tuple(float(one.figures[name]) for name in COSTS[emulated])


def rule(emulated: bool, limit: Limit) -> str:
    """The rule of choice in words."""
    first, *others = (WORDS[name] for name in COSTS[emulated])
    return (
        f"of the programs with {limit}: the fewest {first}; between equals "
        f"{'; then '.join(others)}; then the higher metric, then SQNR; then what was tried first"
    ).replace("the fewest median", "the least median")


def _worse(one: Tried) -> tuple[float, float]:
    noise = one.figures["sqnr_db"]
    return -one.figures["metric"], -(math.inf if noise is None else noise)


def _dominates(one: Tried, other: Tried, emulated: bool) -> bool:
    """At least as good in everything, and better in something."""
    ours, theirs = ((-x.figures["metric"], *costs(x, emulated)) for x in (one, other))
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))
