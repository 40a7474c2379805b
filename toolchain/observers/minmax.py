"""The range of all values seen: low = min(x), high = max(x). Nothing is clipped.

One outlier in one sample stretches the scale of all other values.
Jacob et al., arXiv:1712.05877, section 3; torchao's MinMaxObserver.
"""

from __future__ import annotations

from typing import Any


def constructor(**spec: Any) -> Any:
    from torchao.quantization.pt2e import MinMaxObserver

    return MinMaxObserver.with_args(**spec)
