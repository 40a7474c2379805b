"""The range of least squared error, found greedily; and what the observers on a histogram share.

The values are counted in 2048 bins, which are stretched as the range grows. From the full range,
the tail with less in it is cut by 0.001 % of the values at a time, until the squared error of
quantizing the histogram grows: torchao's HistogramObserver. It supposes that levels divide the
range from end to end, also where the scheme is symmetric; `mse` knows the real levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[[Tensor, Tensor], Tensor]  # (scale [C], zero point [C]) -> [C]

FIRST = {1: 1024, 2: 32}  # candidates for each end, where one end is free, and where both are
ZOOM = 8  # each further round looks between neighbors, so many times closer
BATCH = 32  # candidates at once: what they take fits into the processor's cache
ROUNDS = 3  # in all: the last one's candidates lie no farther apart than bins


def constructor(**spec: Any) -> Any:
    from torchao.quantization.pt2e import HistogramObserver

    return HistogramObserver.with_args(**spec)


def with_range(limits: Callable[[Any], tuple[float, float]], **spec: Any) -> Any:
    """A constructor of torchao's HistogramObserver with another way to the range.

    limits: observer -> (low, high), called where the histogram holds two values at least.
    """
    from torchao.quantization.pt2e import HistogramObserver

    class Observer(HistogramObserver):  # type: ignore[misc]
        def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
            low, high = self.min_val, self.max_val
            if low < high:
                low, high = map(self.min_val.new_tensor, limits(self))
            return low, high

    return Observer.with_args(**spec)


def counts(observer: Any) -> Tensor:
    """How many values each bin holds: float64 [bins], fractions where bins were divided."""
    return observer.histogram.detach().cpu().double()  # type: ignore[no-any-return]


def edges(observer: Any) -> Tensor:
    """Where bins end and begin: float64 [bins + 1]."""
    import torch

    low, high = float(observer.min_val), float(observer.max_val)
    return torch.linspace(low, high, observer.bins + 1, dtype=torch.float64)


def is_symmetric(observer: Any) -> bool:
    import torch

    return bool(observer.qscheme == torch.per_tensor_symmetric)


def search(observer: Any, loss: Loss) -> tuple[float, float]:
    """The range with the least loss, of all that lie in the observed one; the widest of equals.

    An end that a symmetric scheme or one-sided values leave no choice of is not searched. The
    first round's candidates cover the whole; each further round looks around the best so far.
    """
    import torch

    low, high = min(float(observer.min_val), 0.0), max(float(observer.max_val), 0.0)
    if is_symmetric(observer):
        high = max(-low, high)
        low = -high
    free = 2 if low < 0 < high and not is_symmetric(observer) else 1
    step = 1 / FIRST[free]
    shares = [torch.linspace(1, step, FIRST[free])] * free  # of `low` and of `high`
    for _ in range(ROUNDS):
        candidates = torch.cartesian_prod(*shares).reshape(-1, free)
        lows, highs = low * candidates[:, 0], high * candidates[:, -1]
        batches = (q.split(BATCH) for q in observer._calculate_qparams(lows, highs))
        best = int(torch.cat([loss(*batch) for batch in zip(*batches, strict=True)]).argmin())
        around = torch.linspace(step, -step, 2 * ZOOM + 1)
        shares = [(share + around).clamp(0, 1) for share in candidates[best]]
        step /= ZOOM
    return float(lows[best]), float(highs[best])
