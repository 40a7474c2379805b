"""Post-training static quantization: int8 weights and activations, calibrated on real samples.

Affine quantization q = round(x / scale) + zero_point after Jacob et al., "Quantization and Training
of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (arXiv:1712.05877), with weights
symmetric and, by default, one scale for each output channel (Krishnamoorthi, arXiv:1806.08342).
The flow is PyTorch's PT2E: prepare_pt2e folds batch-norms into the convolutions before them, and
puts observers where the backend's quantizer wants them; the calibration samples fill these;
convert_pt2e puts integer weights and scales in their place.
https://docs.pytorch.org/ao/stable/pt2e_quantization/pt2e_quant_ptq.html

    [variants.int8]
    scheme      = "int8_static"
    observer    = "histogram"
    granularity = "per_channel"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from toolchain import schema
from toolchain.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from toolchain.backends import Backend

NEEDS = frozenset({"static"})
NEEDS_CALIBRATION = True


class Options(schema.Frozen):
    """observer: how the range of activations is found in the calibration samples.

    histogram: the range that loses least (L2 error) over a histogram of all values, widened by each
    sample (torchao's HistogramObserver); minmax: all that was seen; moving_average: the exponential
    mean (constant 0.01) of each sample's extremes (Jacob et al.).
    granularity of the weights: one scale for each output channel, or one for the whole tensor.
    """

    observer: Literal["histogram", "minmax", "moving_average"] = "histogram"
    granularity: Literal["per_channel", "per_tensor"] = "per_channel"


def quantize(
    model: torch.export.ExportedProgram,
    options: Options,
    backend: Backend,
    calibration: Sequence[tuple[torch.Tensor, ...]],
) -> torch.export.ExportedProgram:
    """`model` with int8 weights, and with activations in the ranges that `calibration` shows."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    if not calibration:
        raise UserError("int8_static was given no calibration samples")
    quantizer = backend.static_quantizer(
        observer=options.observer, per_channel=options.granularity == "per_channel"
    )
    with torch.no_grad():
        prepared = prepare_pt2e(model.module(check_guards=False), quantizer)
        for sample in calibration:
            prepared(*sample)
        converted = convert_pt2e(prepared)
        return torch.export.export(converted, calibration[0])
