"""Weights and arithmetic in half precision (IEEE 754 binary16): a program of half the size.

It still takes and gives float32, and converts at its borders. Half precision has 11 bits of
mantissa and ends at 65504, beyond which weights are refused.
https://docs.pytorch.org/docs/stable/generated/torch.Tensor.half.html

    [variants.half]
    scheme = "float16"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain import pt2e, schema
from toolchain.errors import UserError
from toolchain.material import Material, Quantized

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

    from toolchain.backends import Backend

NEEDS = "float16"
USES: frozenset[str] = frozenset()


class Options(schema.Frozen):
    """None: a model is half or it is not; its parts would convert at each of their borders."""


def quantize(
    model: torch.export.ExportedProgram, _options: Options, _backend: Backend, _material: Material
) -> Quantized:
    """`model` with float16 in place of float32 everywhere between its inputs and its outputs."""
    import torch
    from torch.fx.node import map_aggregate

    module = model.module(check_guards=False)
    for node in list(module.graph.nodes):
        if node.op == "placeholder" and _is_float(node):
            with module.graph.inserting_after(node):
                half = _converted(node, torch.float16)
            node.replace_all_uses_with(half, delete_user_cb=lambda user, new=half: user is not new)
        elif node.op == "get_attr" and _is_float(node):
            _halve(module, node)
        elif node.op == "call_function":
            # Operators that are told to make float32: zeros, arange, to.
            node.args, node.kwargs = map_aggregate(
                (node.args, node.kwargs), lambda a: torch.float16 if a is torch.float32 else a
            )
        elif node.op == "output":
            with module.graph.inserting_before(node):
                for value in node.all_input_nodes:
                    if _is_float(value):
                        node.replace_input_with(value, _converted(value, torch.float32))
    module.recompile()
    with torch.no_grad():
        return Quantized(torch.export.export(module, pt2e.example(model)))


def _converted(node: Node, dtype: torch.dtype) -> Node:
    import torch

    return node.graph.call_function(torch.ops.aten.to.dtype, (node, dtype))


def _halve(module: GraphModule, node: Node) -> None:
    """Let a node take a constant's half."""
    import torch

    path = str(node.target)
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    half = value.detach().half()
    if bool(torch.isfinite(value).all()) and not bool(torch.isfinite(half).all()):
        raise UserError(
            f"'{path}' reaches {float(value.abs().max()):g}, and half precision ends at 65504",
            hint='another scheme has the range of float: scheme = "int8_weight_only"',
        )
    name = f"_{node.name}_half"
    module.register_buffer(name, half)
    node.target = name


def _is_float(node: Node) -> bool:
    import torch

    return getattr(node.meta.get("val"), "dtype", None) is torch.float32
