"""Post-training static quantization: int8 weights and activations, calibrated on real samples.

Affine quantization q = round(x / scale) + zero_point after Jacob et al., "Quantization and Training
of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (arXiv:1712.05877), with weights
symmetric and, by default, one scale for each output channel (Krishnamoorthi, arXiv:1806.08342).
The flow is PyTorch's PT2E (see `toolchain.pt2e`).

    [variants.int8]
    scheme      = "int8_static"
    observer    = "histogram"
    granularity = "per_channel"
    skip        = ["classifier"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, PositiveInt
from pydantic_core import PydanticCustomError

from toolchain import observers, pt2e
from toolchain.errors import UserError
from toolchain.material import Material, Quantized
from toolchain.selection import Selection

if TYPE_CHECKING:
    import torch

    from toolchain.backends import Backend

NEEDS = "static"
USES = frozenset({"calibration"})


def _known(name: str) -> str:
    if name not in observers.names():
        listed = ", ".join(observers.names())
        raise PydanticCustomError("observer", f"Input should be one of: {listed}")
    return name


Observer = Annotated[str, AfterValidator(_known)]


class Options(Selection):
    """observer: how the range of activations is found in the calibration samples: a file of
        `toolchain/observers`.
    granularity of the weights: one scale for each output channel, or one for the whole tensor.
    mapping of the activations: affine (with a zero point) or symmetric (zero point 0).
    calibration_samples: at most so many are looked at.
    skip, only: see `toolchain.selection`.
    """

    observer: Observer = "histogram"
    granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    mapping: Literal["affine", "symmetric"] = "affine"
    calibration_samples: PositiveInt = pt2e.CALIBRATION_SAMPLES


def quantize(
    model: torch.export.ExportedProgram, options: Options, backend: Backend, material: Material
) -> Quantized:
    """`model` with int8 weights, and activations in the ranges that the calibration shows."""
    samples = material.calibration[: options.calibration_samples]
    if not samples:
        raise UserError("int8_static was given no calibration samples")
    quantizer = backend.quantizer(
        activations="static",
        observer=options.observer,
        granularity=options.granularity,
        mapping=options.mapping,
        takes=options.takes,
    )
    return Quantized(
        pt2e.post_training(model, quantizer, options, samples),
        {"calibration_samples": len(samples)},
    )
