"""Is a program slower than on earlier nights? Three keys: a factor, a test, and other nights.

What is compared are rounds of a race, not single inferences, which are not independent of each
other (Kalibera and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013). A round counts
with its median.

A night's level is the lower quartile of its rounds: neighbours on the same physical core make some
rounds slower by half and none faster, and a program that became slower has no fast rounds left. Its
standard error is that of Maritz and Jarrett, "A note on estimating the variance of the sample
median" (JASA 73, 1978), which needs no assumption about the distribution.

Nights differ by more than their rounds tell. The variance between them is estimated from the
baseline nights, together with what recorded nights show in general, as if `PRIOR_DEGREES` more
nights had been seen: the moderated t-test of Smyth, "Linear models and empirical Bayes methods"
(Stat. Appl. Genet. Mol. Biol. 3, 2004). So one baseline night is enough to begin with, and ten make
it sharper.

One night is not enough to tell a slower program from a neighbour who stayed all night: a night that
is beyond the factor is a suspect, not yet a regression. Three in a row, tested together,
are one. How often this is wrong: `python -m toolchain.history.power`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

QUANTILE = 0.25
BETWEEN = 0.015  # standard deviation of the log level between nights of one program, as recorded
PRIOR_DEGREES = 10
ALPHA = 0.005  # one-sided
NIGHTS = 10  # of the baseline, at most
Floats = npt.NDArray[np.float64]
Night = Sequence[float] | Floats


SUSPECTS = 3  # nights beyond the factor, one after the other, before it is called a regression


@dataclass(frozen=True)
class Change:
    """ratio: of the level of the nights under test to that of the baseline. p: of a ratio so large
    if nothing changed, one-sided. nights: in the baseline."""

    ratio: float
    p: float
    nights: int

    @property
    def slower(self) -> bool:
        return self.p < ALPHA

    @property
    def faster(self) -> bool:
        return 1 - self.p < ALPHA


def change(tested: Sequence[Night], baseline: Sequence[Night]) -> Change:
    """From the medians of the rounds of each night, in any unit; one night at least in each."""
    from scipy import stats

    levels, errors = _levels(baseline)
    ours, our_errors = _levels(tested)
    nights = len(levels)
    usual = float(np.median(levels))  # one bad night in the baseline moves it little
    degrees = PRIOR_DEGREES + nights - 1
    seen = float(levels.var(ddof=1)) * (nights - 1) if nights > 1 else 0.0
    between = (PRIOR_DEGREES * BETWEEN**2 + seen) / degrees
    variance = sum((between + float((own**2).mean())) / len(own) for own in (errors, our_errors))
    difference = float(ours.mean()) - usual
    p = float(stats.t.sf(difference / math.sqrt(variance), degrees))
    return Change(math.exp(difference), p, nights)


def regressed(suspects: Sequence[Night], baseline: Sequence[Night]) -> bool:
    """Whether nights that were each beyond the factor are enough, and together not by chance."""
    return len(suspects) >= SUSPECTS and change(suspects, baseline).slower


def _levels(nights: Sequence[Night]) -> tuple[Floats, Floats]:
    levels, errors = zip(*map(_level, nights), strict=True)
    return np.array(levels), np.array(errors)


def _level(medians: Night) -> tuple[float, float]:
    """The lower quartile of the logarithms, and its standard error."""
    ordered = np.sort(np.log(np.asarray(medians, float)))
    weights = _weights(len(ordered))
    mean = float(weights @ ordered)
    spread = float(weights @ (ordered - mean) ** 2)
    return float(ordered[_rank(len(ordered)) - 1]), math.sqrt(spread)


def _rank(count: int) -> int:
    return max(1, int(QUANTILE * count + 0.5))


@functools.cache
def _weights(count: int) -> Floats:
    """How likely each of the ordered values is the quartile of a resampled night."""
    from scipy import stats

    rank = _rank(count)
    edges = stats.beta.cdf(np.arange(count + 1) / count, rank, count - rank + 1)
    return np.diff(edges)
