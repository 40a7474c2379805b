"""int8 weights, arithmetic in float: a program of a quarter of the size, as exact as weights allow.

Weights are rounded as `toolchain.weights` says. Nothing is calibrated and no activation is rounded;
it is not faster than float where memory is not what is waited for.

    [variants.small]
    scheme      = "int8_weight_only"
    granularity = "per_channel"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from toolchain import pt2e, weights
from toolchain.material import Material, Quantized
from toolchain.selection import Selection

if TYPE_CHECKING:
    import torch

    from toolchain.backends import Backend

NEEDS = "weight_only"
USES: frozenset[str] = frozenset()


class Options(Selection):
    """granularity: one scale for each output channel, or one for the whole tensor.
    skip, only: see `toolchain.selection`.
    """

    granularity: Literal["per_channel", "per_tensor"] = "per_channel"


def quantize(
    model: torch.export.ExportedProgram, options: Options, backend: Backend, _material: Material
) -> Quantized:
    """`model` with int8 weights where the backend computes with them as they are."""
    quantizer = weights.quantizer(
        backend.quantizable(NEEDS), granularity=options.granularity, takes=options.takes
    )
    # Observers of weights are filled by any input.
    return Quantized(pt2e.post_training(model, quantizer, options, [pt2e.example(model)]))
