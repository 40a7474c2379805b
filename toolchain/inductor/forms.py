"""A quantized program in the forms that Inductor has integer kernels for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain import pt2e, saturation
from toolchain.weights import EMBEDDING, operator, weight

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

WEIGHTED = ("aten.conv1d", "aten.conv2d", "aten.linear")
PER_TOKEN = "torchao.dequantize_affine.default"
PER_CHANNEL = "quantized_decomposed.dequantize_per_channel.default"
SHIFT = 128  # from int8 to uint8, which x86 multiplies with int8
# What PT2E calls weights, and Inductor the constants that it makes of them: it takes one for the
# other, and hands unpacked weights to oneDNN.
FROZEN = "_frozen_param"
GROUPS = 6  # position of a convolution's number of groups


def adapted(model: ExportedProgram, *, exact: bool = True) -> tuple[ExportedProgram, int]:
    """The same program, and how many of its operators with weights take integers.

    exact: whether the CPU adds products of integers without a limit (see `toolchain.saturation`).
    """
    import torch

    module = model.module(check_guards=False)
    integer = [node for node in module.graph.nodes if is_integer(node)]
    if not exact:
        saturation.halve(module, (weight(n) for n in integer if not _is_depthwise(n)))
    for node in integer:
        if str(node.args[0].target) == PER_TOKEN:
            _one_scale(module, node)
    for node in list(module.graph.nodes):
        if operator(node) == EMBEDDING and str(weight(node).target) == PER_CHANNEL:
            _look_up_integers(module, node)
    module.graph.eliminate_dead_code()
    _rename_frozen(module)
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, pt2e.example(model)), len(integer)


def is_integer(node: Any) -> bool:
    """Whether an operator's input and weight come out of dequantize nodes."""
    return operator(node) in WEIGHTED and all("dequantize" in str(a.target) for a in node.args[:2])


def _is_depthwise(node: Node) -> bool:
    """Whether each output is made of one input channel, so that no two products are added."""
    groups: Any = node.args[GROUPS] if len(node.args) > GROUPS else 1
    return bool(groups == weight(node).meta["val"].shape[0] > 1)


def _one_scale(module: GraphModule, node: Node) -> None:
    """A linear layer on rows q with scales s and zero points z as one on integers alone:

        s (q - z) W + b = s (q W - z (1 W)) + b

    oneDNN computes q W with the scale 1 and the zero point 0; what is left is one loop over its
    result, with the sums of the weights, 1 W, known beforehand.
    """
    import torch

    aten, decomposed = torch.ops.aten, torch.ops.quantized_decomposed
    dequantize: Any = node.args[0]
    integers, _, scale, zero = dequantize.args[:4]
    shape = (*dequantize.meta["val"].shape[:-1], 1)
    sums = _sums(module, node)
    with node.graph.inserting_before(node):
        call = node.graph.call_function
        wide = call(aten.add.Scalar, (call(aten.to.dtype, (integers, torch.int32)), SHIFT))
        unsigned = call(aten.to.dtype, (wide, torch.uint8))
        plain = (unsigned, 1.0, 0, 0, 255, torch.uint8)
        values = call(decomposed.dequantize_per_tensor.default, plain)
        product = call(aten.linear.default, (values, weight(node)))
        zeros = call(aten.to.dtype, (call(aten.view.default, (zero, shape)), torch.float32))
        shifted = call(aten.add.Scalar, (zeros, SHIFT))
        rest = call(aten.mul.Tensor, (shifted, node.graph.get_attr(sums)))
        exact = call(aten.sub.Tensor, (product, rest))
        result = call(aten.mul.Tensor, (exact, call(aten.view.default, (scale, shape))))
        if len(node.args) > 2 and node.args[2] is not None:
            result = call(aten.add.Tensor, (result, node.args[2]))
    node.replace_all_uses_with(result)


def _look_up_integers(module: GraphModule, node: Node) -> None:
    """embedding(dequantize(table), indices): only the rows that are looked up are dequantized.

    The scales are symmetric, as `toolchain.weights` makes them.
    """
    import torch

    aten = torch.ops.aten
    table, scales = weight(node).args[:2]
    name = f"_{node.name}_scales"
    module.register_buffer(name, _attribute(module, str(scales.target)).unsqueeze(1))
    with node.graph.inserting_before(node):
        call = node.graph.call_function
        rows = call(aten.embedding.default, (table, node.args[1]))
        scale = call(aten.embedding.default, (node.graph.get_attr(name), node.args[1]))
        values = call(aten.mul.Tensor, (call(aten.to.dtype, (rows, torch.float32)), scale))
    node.replace_all_uses_with(values)


def _sums(module: GraphModule, node: Node) -> str:
    """Name of a constant with the sum of each row of a linear layer's weight, [N]."""
    import torch

    dequantize = weight(node)
    arguments = [
        _attribute(module, str(a.target)) if hasattr(a, "target") else a for a in dequantize.args
    ]
    name = f"_{node.name}_sums"
    with torch.no_grad():
        module.register_buffer(name, dequantize.target(*arguments).sum(1))
    return name


def _rename_frozen(module: GraphModule) -> None:
    """Give weights other names than Inductor's own, and forget those that nothing uses."""
    for node in module.graph.nodes:
        name = str(node.target)
        if node.op == "get_attr" and name.startswith(FROZEN):
            node.target = name.replace(FROZEN, "_integers")
            module.register_buffer(node.target, _attribute(module, name))
    for name in [name for name, _ in module.named_buffers() if name.startswith(FROZEN)]:
        delattr(module, name)


def _attribute(module: GraphModule, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value
