"""The range of each sample, averaged exponentially:

    low = min(x_1), and then low + c (min(x_k) - low) for sample k; high likewise; c = 0.01

An outlier in one sample counts for a hundredth; the first sample counts the most.
Jacob et al., arXiv:1712.05877, section 3.1; torchao's MovingAverageMinMaxObserver.
"""

from __future__ import annotations

from typing import Any


def constructor(**spec: Any) -> Any:
    from torchao.quantization.pt2e import MovingAverageMinMaxObserver

    return MovingAverageMinMaxObserver.with_args(**spec)
