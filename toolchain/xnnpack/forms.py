"""A quantized program in the forms that ExecuTorch's XNNPACK backend has kernels for.

PT2E writes a quantized weight as integers and a node that dequantizes them. Where this node stayed
before a kernel that computes in float, the device would hold the weight as integers and, at each
inference, once more in float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.errors import UserError
from toolchain.selection import module_of
from toolchain.weights import operator, weight

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

PER_CHANNEL, PER_TENSOR = (
    f"quantized_decomposed.dequantize_per_{extent}.default" for extent in ("channel", "tensor")
)
AFFINE = "torchao.dequantize_affine.default"


def adapted(model: ExportedProgram) -> ExportedProgram:
    """The same program; `model` itself if there is nothing to change."""
    import torch

    from toolchain.pt2e import example

    module = model.module(check_guards=False)
    for node in module.graph.nodes:
        _refuse_garbage(node)
    embeddings, linears = (
        [n for n in module.graph.nodes if operator(n) == name and _is_integer_weight(weight(n))]
        for name in ("aten.embedding", "aten.linear")
    )
    linears = [node for node in linears if not _is_format(node.args[0])]
    for node in embeddings:
        _look_up_integers(module, node)
    for node in linears:
        _one_scale_per_channel(module, node)
        _bias_apart(node)
    if not embeddings and not linears:
        return model
    module.graph.eliminate_dead_code()
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, example(model))


def _refuse_garbage(node: Node) -> None:
    """Refuse a weight in torchao's operators that XNNPACK would take wrongly, or not at all.

    With a float input, ExecuTorch takes its integers for its values, and says nothing.
    """
    if str(node.target) != AFFINE or _is_quantized_input(node):
        return
    _, block, _, _, _, low, high = node.args[:7]
    source: Any = node.args[0]
    width = source.meta["val"].shape[-1]
    for user in node.users:
        where = module_of(user) or str(user)
        if operator(user) != "aten.linear" or not _is_quantized_input(user.args[0]):
            raise UserError(
                f"XNNPACK cannot compute with the weight of '{where}', which torchao has rounded, "
                "on float inputs",
                where="lower",
                hint='give the float model, and scheme = "int8_weight_only"',
            )
        if block[-1] < width and (block[-1] % 32 or (low, high) != (-8, 7)):  # type: ignore[index, operator]
            raise UserError(
                f"XNNPACK cannot compute with the weight of '{where}': {block[-1]} values of "  # type: ignore[index]
                f"{low}..{high} share a scale",
                where="lower",
                hint="groups are of 4-bit values, -8..7, and multiples of 32",
            )


def _is_quantized_input(node: Any) -> bool:
    """Whether a node dequantizes what another quantized at run time."""
    return _is_format(node) and "quantize_" in str(node.args[0].target)


def _look_up_integers(module: GraphModule, node: Node) -> None:
    """embedding(dequantize(table), indices): only the rows that are looked up are dequantized."""
    import executorch.exir.passes._quant_patterns_and_replacements  # noqa: F401 (registers the operator)
    import torch

    _one_scale_per_channel(module, node)
    table, scale, _, _, low, high = weight(node).args[:6]
    with node.graph.inserting_before(node):
        new = node.graph.call_function(
            torch.ops.quantized_decomposed.embedding_byte.default,
            (table, scale, None, low, high, node.args[1]),
        )
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)


def _one_scale_per_channel(module: GraphModule, node: Node) -> None:
    """Repeat the scale of a weight that has only one: the kernels have one for each channel."""
    import torch

    dequantize = weight(node)
    if str(dequantize.target) != PER_TENSOR:
        return
    integers, scale, zero, low, high, dtype = dequantize.args
    channels = integers.meta["val"].shape[0]
    graph = node.graph
    with graph.inserting_before(dequantize):
        constants = []
        for name, value in (
            ("scale", torch.full((channels,), float(scale))),
            ("zero", torch.full((channels,), int(zero), dtype=torch.int64)),
        ):
            full_name = f"_{dequantize.name}_{name}"
            module.register_buffer(full_name, value)
            constants.append(graph.get_attr(full_name))
        new = graph.call_function(
            torch.ops.quantized_decomposed.dequantize_per_channel.default,
            (integers, *constants, 0, low, high, dtype),
        )
    new.meta = dict(dequantize.meta)
    dequantize.replace_all_uses_with(new)


def _bias_apart(node: Node) -> None:
    """linear(x, w, b) as linear(x, w) + b; why: `toolchain.xnnpack.linears`."""
    import torch

    if len(node.args) < 3 or node.args[2] is None:
        return
    source, filter_, bias = node.args[:3]
    with node.graph.inserting_after(node):
        total = node.graph.call_function(torch.ops.aten.add.Tensor, (node, bias))
    total.meta = dict(node.meta)
    node.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
    node.args = (source, filter_)


def _is_integer_weight(node: Any) -> bool:
    return str(getattr(node, "target", "")) in (PER_CHANNEL, PER_TENSOR) and (
        node.args[0].op == "get_attr"
    )


def _is_format(node: Any) -> bool:
    return "dequantize" in str(getattr(node, "target", ""))
