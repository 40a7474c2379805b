"""How the range of activations is found in calibration samples. One file is one observer, named as
recipes name it.

    file            range of the activations                               from
    minmax          least value to greatest                                all samples
    moving_average  the same, averaged over the samples                    samples in their order
    percentile      all but the outermost 0.01 % of the values             a histogram
    histogram       least squared error, by a greedy cut of both tails     a histogram
    mse             least squared error, by a search of both ends at once  a histogram
    entropy         least Kullback-Leibler divergence                      a histogram

All end in torchao's formulas, which stretch the range to zero, so that zero is exact
(Jacob et al., arXiv:1712.05877, section 2.1). With low <= 0 <= high:

    affine      scale = (high - low) / (quant_max - quant_min)
                zero_point = quant_min - round(low / scale)
    symmetric   scale = 2 max(-low, high) / (quant_max - quant_min), zero_point = 0

An observer's module imports torch only inside its functions.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from toolchain import plugins


class Observer(Protocol):
    """What each file of this folder has."""

    __file__: str

    def constructor(self, **spec: Any) -> Any:
        """What torchao's QuantizationSpec takes as `observer_or_fake_quant_ctr`.

        spec: arguments of torchao's observers, such as `eps`, the least scale. The QuantizationSpec
        adds its own: dtype, qscheme, quant_min, quant_max.
        """


def names() -> list[str]:
    return plugins.names(__path__)


def load(name: str) -> Observer:
    return cast(Observer, plugins.load(__name__, __path__, name))
