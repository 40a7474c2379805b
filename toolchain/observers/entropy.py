"""The range that keeps most of the information: of least Kullback-Leibler divergence.

For a candidate range let P be the histogram inside it, with all that lies outside added to the
bins at its ends, and Q what quantization leaves of the histogram inside: the count of each level
spread evenly over those of its bins that are not empty in P. Both normalized, the divergence is

    D(P || Q) = sum of P(bin) log(P(bin) / Q(bin)) over the bins

Migacz, "8-bit Inference with TensorRT" (GTC 2017), there for magnitudes, here for the levels of any
scheme; Wu et al., arXiv:2004.09602, section 3.3. As in Migacz, a level holds one bin at least: with
finer levels P and Q would be equal, and the divergence would measure nothing. As in NVIDIA's own
tools, the bin around zero counts as much as its neighbors: zero is exact in any range, and the
many zeros behind a ReLU would draw the range towards it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.observers import histogram

if TYPE_CHECKING:
    from torch import Tensor

NOTHING = 0.5  # a level's count where there is nothing to count, so that outliers can be clipped


def constructor(**spec: Any) -> Any:
    return histogram.with_range(limits, **spec)


def limits(observer: Any) -> tuple[float, float]:
    return histogram.search(observer, divergence(observer))


def divergence(observer: Any) -> histogram.Loss:
    """D(P || Q) of candidate ranges: float64 [C], infinite where a level is finer than a bin."""
    import torch

    edges = histogram.edges(observer)
    start, width = edges[0], edges[1] - edges[0]
    counts = without_zeros(histogram.counts(observer), edges)
    # Sums over runs of bins are differences of these: a level costs the same however wide it is.
    upto = summed(counts)
    filled_upto = summed((counts > 0).double())
    information_upto = summed(torch.xlogy(counts, counts))
    total = upto[-1]
    levels = torch.arange(observer.quant_min, observer.quant_max + 2)

    def loss(scale: Tensor, zero_point: Tensor) -> Tensor:
        scale = scale.double()[:, None]
        # Where levels begin, in bins; then the first bin whose middle lies behind.
        bounds = ((levels - zero_point[:, None] - 0.5) * scale - start) / width
        bounds = (bounds - 0.5).ceil().clamp(0, observer.bins).long()
        first, end = bounds[:, 0], bounds[:, -1]
        below, above = upto[first], total - upto[end]

        q = upto[bounds].diff()  # counts of the levels, [C, levels]
        filled = filled_upto[bounds].diff()
        p, information = q.clone(), information_upto[end] - information_upto[first]
        for level, bin, outside in ((0, first, below), (-1, end - 1, above)):
            had = counts[bin.clamp(0, observer.bins - 1)]
            has = had + outside
            p[:, level] += outside
            filled[:, level] += (has > 0).double() - (had > 0).double()
            information += torch.xlogy(has, has) - torch.xlogy(had, had)
        q = q.where((q > 0) | (p == 0), NOTHING)
        cross = torch.xlogy(p, q / filled.clamp(min=1)).sum(1)
        found = (information - cross) / total + (q.sum(1) / total).log()
        return found.where((upto[end] > upto[first]) & (scale[:, 0] >= width), torch.inf)

    return loss


def without_zeros(counts: Tensor, edges: Tensor) -> Tensor:
    """counts [bins] with the mean of the neighbors in the bin that holds zero."""
    counts = counts.clone()
    if edges[0] <= 0 <= edges[-1]:
        last = len(counts) - 1  # closed at both ends, as in torch.histc
        zero = min(int((edges <= 0).sum()) - 1, last)
        counts[zero] = counts[[n for n in (zero - 1, zero + 1) if 0 <= n <= last]].mean()
    return counts


def summed(values: Tensor) -> Tensor:
    """Sums of the first 0, 1, … values: [n + 1]."""
    import torch

    return torch.nn.functional.pad(values.cumsum(0), (1, 0))
