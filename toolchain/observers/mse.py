"""The range of least mean squared error of the quantized values, both ends searched together.

Clipping costs the values outside; it lowers the rounding error of those inside. With t = x / scale,
the nearest level q(t) = clamp(round(t), quant_min - zero_point, quant_max - zero_point), and values
spread evenly inside each bin of the histogram, the error is the integral of (t - q(t))^2 over the
bins, exactly: from a to b it is E(b) - E(a) with

    E(t) = q(t) / 12 + (t - q(t))^3 / 3

for the first term counts the whole levels that lie between zero and t (each an integral of u^2
over [-1/2, 1/2]), and the second goes from the level to t, be it rounded or clipped.

Choukroun et al., arXiv:1902.06822 (the range of least squared error, by search); Banner et al.,
arXiv:1810.05723 (the same in closed form, for Gauss and Laplace distributions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.observers import histogram

if TYPE_CHECKING:
    from torch import Tensor


def constructor(**spec: Any) -> Any:
    return histogram.with_range(limits, **spec)


def limits(observer: Any) -> tuple[float, float]:
    return histogram.search(observer, squared_error(observer))


def squared_error(observer: Any) -> histogram.Loss:
    """Squared error of all values, for candidate ranges: float64 [C]."""
    counts, edges = histogram.counts(observer), histogram.edges(observer)
    width = edges[1] - edges[0]

    def loss(scale: Tensor, zero_point: Tensor) -> Tensor:
        scale, zero_point = scale.double(), zero_point[:, None]
        t = edges / scale[:, None]
        q = t.round().clamp(observer.quant_min - zero_point, observer.quant_max - zero_point)
        integrals = (q / 12 + (t - q) ** 3 / 3).diff()
        return integrals @ (counts / width) * scale**3

    return loss
