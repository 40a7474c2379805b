"""The range of nearly all values: what lies outermost is clipped, however far out it lies.

With 99.99 % of the values kept (McKinstry et al., arXiv:1809.04191; Wu et al., arXiv:2004.09602,
section 3.3, tried 99.9 % to 99.9999 %), and F the distribution of the values in the histogram:

    affine      low, high: F(low) = 1 - F(high) = 0.005 %, as much at either end
    symmetric   high = -low: F(high) - F(low) = 99.99 %
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from toolchain.observers import histogram

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 0.9999


def constructor(kept: float = KEPT, **spec: Any) -> Any:
    """kept: the share of the values inside the range, at least."""
    return histogram.with_range(partial(limits, kept=kept), **spec)


def limits(observer: Any, kept: float) -> tuple[float, float]:
    counts, edges = histogram.counts(observer), histogram.edges(observer)
    left, right = edges[:-1], edges[1:]
    if histogram.is_symmetric(observer):
        high = quantile(right.maximum(-left), counts, kept)
        return -high, high
    below = (1 + kept) / 2
    return -quantile(-left, counts, below), quantile(right, counts, below)


def quantile(values: Tensor, counts: Tensor, share: float) -> float:
    """The least of `values` that is not exceeded by this share of them; each occurs counts times.

    values, counts: float64 [bins].
    """
    ordered, order = values.sort()
    total = counts[order].cumsum(0)
    return float(ordered[(total < share * total[-1]).sum()])
