"""The error of each layer of a quantized program against the float model, on real samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolchain.simulation import Layer, Simulation

if TYPE_CHECKING:
    import torch
    from torch.fx import Node


class Error:
    """Sums over samples: SQNR in dB and MSE of what was rounded against what is exact."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0
        self.count = 0

    def add(self, exact: torch.Tensor, rounded: torch.Tensor) -> None:
        wide = exact.double()
        self.signal += float((wide**2).sum())
        self.noise += float(((wide - rounded.double()) ** 2).sum())
        self.count += exact.numel()

    def figures(self) -> dict[str, Any]:
        """`equal`: nothing differs. sqnr_db is None then, where all is zero, and beside NaN."""
        finite = math.isfinite(self.signal) and math.isfinite(self.noise)
        some = finite and self.noise > 0 and self.signal > 0
        return {
            "sqnr_db": 10 * math.log10(self.signal / self.noise) if some else None,
            "mse": self.noise / max(1, self.count) if finite else None,
            "equal": self.noise == 0,
        }


def compared(
    simulation: Simulation, samples: Sequence[tuple[torch.Tensor, ...]]
) -> list[dict[str, Any]]:
    """One row for each layer, in the order of the network.

    output: of the layer in the quantized program, errors of the layers before it included.
    saturated: share of its values that its scale and zero point cannot reach.
    """
    outputs = {name: Error() for name in simulation.layers}
    beyond = dict.fromkeys(simulation.layers, 0)
    for sample in samples:
        exact = simulation.run(sample, frozenset())
        full = simulation.run(sample, simulation.everything)
        for name, layer in simulation.layers.items():
            value = full.values[layer.output]
            if quantize := simulation.rounds(layer.output):
                beyond[name] += _saturated(quantize, value)
                if _fixed(quantize) is not None:  # else it is the next layer that rounds
                    value = simulation.rounded(quantize, value)
            outputs[name].add(exact.values[layer.output], value)
    return [
        {
            "layer": layer.name,
            "operator": layer.operator,
            "calls": len(layer.weighted),
            "weights": _weights(simulation, layer),
            "output": outputs[layer.name].figures()
            | _scale(simulation.rounds(layer.output))
            | {"saturated": beyond[layer.name] / max(1, outputs[layer.name].count)},
        }
        for layer in simulation.layers.values()
    ]


def _weights(simulation: Simulation, layer: Layer) -> dict[str, Any]:
    """Of all weights of a layer that are stored as integers."""
    error, scales = Error(), []
    seen = set()
    for node in layer.weighted:
        for dequantize, exact, rounded in simulation.weights(node):
            if dequantize not in seen:
                seen.add(dequantize)
                error.add(exact, rounded)
                scales.append(simulation.scale(dequantize))
    every = sorted(value for scale in scales for value in scale)
    return error.figures() | {
        "scales": len(every),
        "scale_min": every[0],
        "scale_median": every[len(every) // 2],
        "scale_max": every[-1],
        "numbers": error.count,
    }


def _scale(quantize: Node | None) -> dict[str, Any]:
    """Scale and zero point of a value that is stored with fixed ones."""
    fixed = None if quantize is None else _fixed(quantize)
    return {"scale": fixed and fixed[0], "zero_point": fixed and fixed[1]}


def _saturated(quantize: Node, value: torch.Tensor) -> int:
    """How many numbers are clipped: they would be rounded to integers beyond the format's."""
    if (fixed := _fixed(quantize)) is None:
        return 0
    scale, zero, low, high = fixed
    wanted = (value / scale).round() + zero
    return int(((wanted < low) | (wanted > high)).sum())


def _fixed(quantize: Node) -> tuple[float, int, int, int] | None:
    """Scale, zero point and range of one tensor; None if they are chosen for each inference."""
    numbers: Any = quantize.args[1:5]
    return numbers if isinstance(numbers[0], float) else None
