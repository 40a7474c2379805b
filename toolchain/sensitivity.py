"""One layer at a time: what a program loses by quantizing it, and gains by leaving it in float.

One-at-a-time analysis after Wu et al., "Integer Quantization for Deep Learning Inference"
(arXiv:2004.09602, section 5.2), in both directions, ranked by the SQNR of the outputs when a layer
alone is quantized. Nothing is exported or calibrated again (see `toolchain.simulation`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolchain import stats

if TYPE_CHECKING:
    import torch

    from toolchain.simulation import Run, Simulation

Array = npt.NDArray[Any]
Outputs = list[Array]  # one array [1, ...] for each output; stacked over samples: [N, 1, ...]
Score = Callable[[Outputs, Outputs], float]  # (outputs, those of the float model) -> metric
Drop = Callable[[Outputs], float | None]
EXACT, FULL = "float", "quantized"
ONLY, WITHOUT = "only ", "without "  # and a layer's name


def effects(simulation: Simulation, sample: Sequence[torch.Tensor]) -> dict[str, Outputs]:
    """Outputs of a sample: in float, quantized, with each layer alone quantized, and alone not."""
    exact = simulation.run(sample, frozenset())
    full = simulation.run(sample, simulation.everything)
    found = {EXACT: _outputs(exact), FULL: _outputs(full)}
    for name, layer in simulation.layers.items():
        found[ONLY + name] = _outputs(simulation.run(sample, layer.nodes, exact))
        rest = simulation.everything - layer.nodes
        found[WITHOUT + name] = _outputs(simulation.run(sample, rest, full))
    return found


def without_worst(
    simulation: Simulation, worst: Sequence[str], sample: Sequence[torch.Tensor]
) -> dict[str, Outputs]:
    """Outputs of one sample with the first, the first two, … of `worst` in float."""
    run = simulation.run(sample, simulation.everything)
    found = {}
    for count, name in enumerate(worst, 1):
        run = simulation.run(sample, run.quantized - simulation.layers[name].nodes, run)
        found[str(count)] = _outputs(run)
    return found


def drop_from(exact: Outputs, score: Score | None) -> Drop:
    """What other outputs lose of the float model's metric, taken once; None without `score`."""
    if score is None:
        return lambda _: None
    floating = score(exact, exact)
    return lambda outputs: floating - score(outputs, exact)


def figures(outputs: Outputs, exact: Outputs, drop: Drop, word: str = "") -> dict[str, Any]:
    """SQNR of the outputs against the float model's (None if `equal`, or not finite), and drop."""
    error = stats.against_float(exact, outputs)
    return {
        f"{word}sqnr_db": error["sqnr_db"],
        f"{word}equal": error["equal"],
        f"{word}drop": drop(outputs),
    }


def effect_of_each(
    layers: Mapping[str, Any], outputs: Mapping[str, Outputs], score: Score | None = None
) -> dict[str, Any]:
    """What quantization does to the outputs: `sqnr_db` and `drop` of the whole, and of each layer.

    layers: name -> layer. outputs: what `effects` gave, stacked over the samples.
    score: drops are None without it.
    `layers` of the result is in the order of the network; rank 1 is the layer that costs most SQNR
    when it alone is quantized.
    """
    exact = outputs[EXACT]
    drop = drop_from(exact, score)
    found: list[dict[str, Any]] = [
        {"layer": name, "operator": layer.operator}
        | figures(outputs[ONLY + name], exact, drop, "only_")
        | figures(outputs[WITHOUT + name], exact, drop, "without_")
        for name, layer in layers.items()
    ]
    for rank, row in enumerate(sorted(found, key=lambda row: decibels(row, "only_")), 1):
        row["rank"] = rank
    return figures(outputs[FULL], exact, drop) | {"samples": len(exact[0]), "layers": found}


def ranked(found: Mapping[str, Any]) -> list[str]:
    """Names of the layers, the most sensitive first."""
    return [row["layer"] for row in sorted(found["layers"], key=lambda row: row["rank"])]


def ranking(simulation: Simulation, samples: Sequence[Sequence[torch.Tensor]]) -> list[str]:
    """Names of the layers, the most sensitive first."""
    found = [effects(simulation, sample) for sample in samples]
    return ranked(effect_of_each(simulation.layers, stacked(found)))


def stacked(found: Sequence[Mapping[str, Outputs]]) -> dict[str, Outputs]:
    """Outputs of several samples as one array [N, ...] for each output."""
    return {
        key: [np.stack(column) for column in zip(*(one[key] for one in found), strict=True)]
        for key in found[0]
    }


def decibels(row: Mapping[str, Any], word: str = "") -> float:
    """The SQNR as a number that can be ranked: inf where nothing differs, -inf beside NaN."""
    if row[f"{word}equal"]:
        return math.inf
    value = row[f"{word}sqnr_db"]
    return -math.inf if value is None else float(value)


def _outputs(run: Run) -> Outputs:
    """Not the run: it holds the values of all operators."""
    return [output.numpy() for output in run.outputs]
