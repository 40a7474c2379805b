"""PT2E: put observers where a quantizer wants them, fill them, and put integers in their place.

https://docs.pytorch.org/ao/stable/pt2e_quantization/pt2e_quant_ptq.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolchain import weights
from toolchain.errors import UserError
from toolchain.selection import Selection, module_of

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

CALIBRATION_SAMPLES = 100  # ample for static ranges: more moves them little


def post_training(
    model: ExportedProgram,
    quantizer: Any,
    selection: Selection,
    calibration: Sequence[tuple[torch.Tensor, ...]] = (),
) -> ExportedProgram:
    """`model` quantized as `quantizer` annotates it, with ranges as `calibration` shows them.

    Batch-norms are folded into the convolutions before them (Jacob et al., arXiv:1712.05877, 3.2).
    """
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    module = model.module(check_guards=False)
    selection.check(module.graph.nodes)
    check_foldable(module)
    with torch.no_grad():
        prepared = prepare_pt2e(module, quantizer)
        for sample in calibration:
            prepared(*sample)
        return exported(convert_pt2e(prepared), model)


def exported(converted: GraphModule, model: ExportedProgram) -> ExportedProgram:
    """A converted module as a program again, with nothing left that should have been folded."""
    import torch

    check_fused(converted)
    with torch.no_grad():
        return torch.export.export(converted, example(model))


def example(model: ExportedProgram) -> tuple[torch.Tensor, ...]:
    """Inputs that the program was traced with."""
    args, kwargs = model.example_inputs
    if kwargs:
        raise UserError(
            f"the exported model takes keyword arguments: {', '.join(kwargs)}",
            hint="export it with positional arguments only",
        )
    return tuple(args)


def folded(model: ExportedProgram) -> ExportedProgram:
    """The float program that a quantized one is compared with: the same operators, one for one.

    It went the same way, with a quantizer that annotates nothing.
    """
    nothing = weights.quantizer(frozenset(), granularity="per_channel", takes=lambda _: False)
    return post_training(model, nothing, Selection())


def check_foldable(module: GraphModule) -> None:
    """Refuse a batch-norm after a convolution whose weight is computed: it cannot be folded."""
    for node in module.graph.nodes:
        before = node.args[0] if "batch_norm" in str(node.target) else None
        if before is not None and "conv" in str(before.target) and before.args[1].op != "get_attr":
            raise UserError(
                f"the weight of '{module_of(before)}' is computed, so that the batch-norm "
                f"'{module_of(node)}' cannot be folded into it",
                hint="make the weight a parameter or a buffer of the model",
            )


def check_fused(module: GraphModule) -> None:
    """Refuse a batch-norm that reads a convolution: it would compute in float, between integers."""
    for node in module.graph.nodes:
        if "batch_norm" not in str(node.target):
            continue
        before = node.args[0]
        if "conv" in str(before.target) and len(before.users) == 1:
            raise UserError(
                f"the batch-norm '{module_of(node)}' was not folded into '{module_of(before)}'",
                hint="its weights have to be parameters or buffers of the model",
            )
