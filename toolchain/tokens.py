"""Activations that are rounded to int8 as they come, with a scale and a zero point for each token.

A token is a row of a linear layer's input: [..., K] has a scale for each of its [...]. The
operators are torchao's:
https://docs.pytorch.org/ao/stable/api_reference/api_ref_quantization.html
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from toolchain import pt2e, weights

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


def per_token(program: ExportedProgram) -> ExportedProgram:
    """The program with a scale for each token where PT2E has one for all, before linear layers.

    Some runtimes find scales so whatever PT2E's form says; this is what they do.
    """
    import torch

    module = program.module(check_guards=False)
    linears = [
        node
        for node in module.graph.nodes
        if weights.operator(node) == "aten.linear" and _is_dynamic(node.args[0])
    ]
    if not linears:
        return program
    for node in linears:
        dequantize: Any = node.args[0]
        round_input(node, dequantize.args[0].args[0])
    module.graph.eliminate_dead_code()
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, pt2e.example(program))


def round_input(node: Node, source: Any) -> None:
    """Let a linear layer take `source`, rounded to int8 for each token."""
    import torch

    ao = torch.ops.torchao
    shape = source.meta["val"].shape
    token = [*(1 for _ in shape[:-1]), int(shape[-1])]
    with node.graph.inserting_before(node):
        call = node.graph.call_function
        chosen = call(
            ao.choose_qparams_affine.default,
            (source, "ASYMMETRIC", token, torch.int8, -128, 127, None, None, torch.int8),
        )
        scale, zero = (call(operator.getitem, (chosen, k)) for k in range(2))
        form = (token, scale, zero, torch.int8, -128, 127)
        quantized = call(ao.quantize_affine.default, (source, *form))
        values = call(ao.dequantize_affine.default, (quantized, *form))
    for new in (chosen, scale, zero, quantized, values):
        new.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
    node.update_arg(0, values)


def _is_dynamic(node: Any) -> bool:
    """Whether a node dequantizes with a scale that is found at run time."""
    return "dequantize_per_tensor.tensor" in str(getattr(node, "target", ""))
