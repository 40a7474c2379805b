"""4-bit weights in groups, and activations that are rounded to int8 as they come: "8da4w".

Of each row of a linear layer's weight, so many neighbors share a scale: symmetric, -8..7. The
activations have a scale and a zero point for each token. The weights are rounded by torchao,
Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(n)):
https://docs.pytorch.org/ao/stable/workflows/inference.html
Layers whose rows cannot be divided into groups get int8 weights, as `int8_dynamic` makes them.

    [variants.int4]
    scheme     = "int8_dynamic_int4_weight"
    group_size = 32
    embeddings = true
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from toolchain import pt2e, tokens, weights
from toolchain.material import Material, Quantized
from toolchain.schemes import int8_dynamic
from toolchain.selection import Selection, module_of

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

    from toolchain.backends import Backend

NEEDS = "int4_groups"
USES: frozenset[str] = frozenset()


class Options(Selection):
    """group_size: how many weights share a scale; XNNPACK takes multiples of 32.
    embeddings: whether embedding tables are int8, with a scale for each row.
    skip, only: see `toolchain.selection`.
    """

    group_size: PositiveInt = 32
    embeddings: bool = False


def quantize(
    model: torch.export.ExportedProgram, options: Options, backend: Backend, _material: Material
) -> Quantized:
    """`model` with 4-bit linear layers in torchao's operators for groups; the others in PT2E's."""
    import torch

    def grouped(node: Any) -> bool:
        return options.takes(node) and _rows_divide(node, options.group_size)

    rest = int8_dynamic.quantizer(
        backend, lambda node: options.takes(node) and not grouped(node), options.embeddings
    )
    # Observers of weights are filled by any input.
    begun = pt2e.post_training(model, rest, options, [pt2e.example(model)])
    module = tokens.per_token(begun).module(check_guards=False)
    rounded: dict[str, tuple[Any, ...]] = {}
    taken = [n for n in module.graph.nodes if weights.operator(n) == "aten.linear"]
    taken = list(filter(options.takes, taken))
    four = list(filter(grouped, taken))
    for node in four:
        _round(module, node, options.group_size, rounded)
    module.graph.eliminate_dead_code()
    module.recompile()
    with torch.no_grad():
        program = torch.export.export(module, pt2e.example(model))
    eight = dict.fromkeys(module_of(node) for node in taken if node not in four)
    return Quantized(program, {"int8_weights": list(eight)})


def _rows_divide(node: Node, group_size: int) -> bool:
    if weights.operator(node) != "aten.linear" or weights.weight(node).op != "get_attr":
        return False
    return bool(weights.weight(node).meta["val"].shape[1] % group_size == 0)


def _round(
    module: GraphModule, node: Node, group_size: int, rounded: dict[str, tuple[Any, ...]]
) -> None:
    """Round the input of a linear layer for each token, and its weight, once, for each group.

    rounded: of weights by name, their integers, scales and zero points; the steps of an unrolled
    LSTM have theirs in common.
    """
    import torch

    graph, name = node.graph, str(weights.weight(node).target)
    if name not in rounded:
        made = _groups(_attribute(module, name), group_size)
        rounded[name] = tuple(
            _constant(module, f"_{node.name}_{what}", tensor)
            for what, tensor in zip(("int4", "scale", "zero"), made, strict=True)
        )
    with graph.inserting_before(node):
        integers, scales, zeros = (graph.get_attr(constant) for constant in rounded[name])
        weight = graph.call_function(
            torch.ops.torchao.dequantize_affine.default,
            (integers, [1, group_size], scales, zeros, torch.int8, -8, 7),
        )
    weight.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
    node.update_arg(1, weight)
    tokens.round_input(node, node.args[0])


def _groups(weight: torch.Tensor, group_size: int) -> tuple[torch.Tensor, ...]:
    """Integers [out, in] int8, scales and zero points [out, in / group_size]."""
    import torch
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)
    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        weight_granularity=PerGroup(group_size),
    )
    quantize_(layer, config)
    made: Any = layer.weight
    return made.qdata, made.scale, made.zero_point


def _attribute(module: GraphModule, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _constant(module: GraphModule, name: str, value: torch.Tensor) -> str:
    module.register_buffer(name, value)
    return name
