"""The quantizer for what OpenVINO's CPU plugin computes with integers.

It takes u8 activations and i8 weights into convolutions and matrix products, whose results are
float until what reads them rounds them: the rounding is computed together with the operator before
it. So it is inputs that are annotated here, and what nobody takes as integers stays float.

    convolutions, linear layers      input u8 (or i8: symmetric), weights i8
    embedding tables                 weights i8, with a scale for each row
    sums and products by element,    all inputs, if integers are wanted of the result
    means
    what only moves numbers          input and output alike, if integers are wanted of the result;
    (reshape, max_pool, cat)         the rounding then is done once, before it

The products inside attention stay float: the plugin makes one kernel of them and the softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolchain import observers, weights
from toolchain.weights import operator

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

CONVOLUTIONS = frozenset({"aten.conv1d", "aten.conv2d", "aten.conv3d"})
TRANSPOSED = frozenset({"aten.conv_transpose2d"})
WEIGHTED = CONVOLUTIONS | TRANSPOSED | {"aten.linear"}
PRODUCTS = frozenset({"aten.bmm", "aten.matmul"})
ON_WISH = frozenset(  # computed with integers if the result is wanted so
    {
        "aten.add",
        "aten.add_",
        "aten.mul",
        "aten.mean",
        "aten.avg_pool2d",
        "aten.adaptive_avg_pool2d",
    }
)
MOVES = frozenset(
    {
        "aten.cat",
        "aten.clone",
        "aten.contiguous",
        "aten.dropout",
        "aten.expand",
        "aten.flatten",
        "aten.max_pool2d",
        "aten.permute",
        "aten.reshape",
        "aten.select",
        "aten.slice",
        "aten.squeeze",
        "aten.transpose",
        "aten.unsqueeze",
        "aten.upsample_nearest2d",
        "aten.view",
    }
)
ACTIVATIONS = frozenset(  # fused with the operator before them
    {"aten.relu", "aten.relu_", "aten.hardtanh", "aten.hardtanh_", "aten.clamp"}
)
STATIC = WEIGHTED | ON_WISH | {weights.EMBEDDING}
DYNAMIC = frozenset({"aten.linear"})
# Weights of a convolution of float inputs would be widened to float anew at each inference.
WEIGHT_ONLY = DYNAMIC | {weights.EMBEDDING}
EPS = 2**-23  # least scale


def quantizer(
    *, granularity: str, takes: Callable[[Any], bool], observer: str, mapping: str, training: bool
) -> Any:
    """A PT2E quantizer: see `Backend.quantizer`."""
    from torchao.quantization.pt2e.quantizer import Quantizer

    activation = activation_spec(observer, mapping, training)
    weight = weight_spec(granularity, training)
    table = weight_spec("per_channel", training)

    class OpenVINOQuantizer(Quantizer):  # type: ignore[misc]
        def annotate(self, model: GraphModule) -> GraphModule:
            # Backwards: whether integers are wanted of a result is known when it is met.
            for node in reversed(model.graph.nodes):
                annotate(node, takes, activation, weight, table)
            return model

        def validate(self, model: GraphModule) -> None:
            pass

    return OpenVINOQuantizer()


def dynamic_quantizer(*, granularity: str, takes: Callable[[Any], bool]) -> Any:
    """The same for linear layers whose inputs are rounded as they come."""
    from torchao.quantization.pt2e.quantizer import Quantizer

    activation, weight = dynamic_spec(), weight_spec(granularity, training=False)

    class DynamicQuantizer(Quantizer):  # type: ignore[misc]
        def annotate(self, model: GraphModule) -> GraphModule:
            for node in model.graph.nodes:
                if operator(node) in DYNAMIC and takes(node) and node.args[1].op == "get_attr":
                    _annotate(node, {_first(node): activation, node.args[1]: weight})
            return model

        def validate(self, model: GraphModule) -> None:
            pass

    return DynamicQuantizer()


def annotate(
    node: Node, takes: Callable[[Any], bool], activation: Any, weight: Any, table: Any
) -> None:
    """Annotate one node, all users of which are annotated.

    activation, weight, table: how activations, weights and embedding tables are rounded.
    """
    name = operator(node)
    if not _is_float(node):
        return
    if name in WEIGHTED and takes(node):
        if node.args[1].op == "get_attr":  # type: ignore[union-attr]
            _annotate(node, {_first(node): activation, node.args[1]: _by_channel(weight, node)})
    elif name == weights.EMBEDDING and takes(node):
        if node.args[0].op == "get_attr":  # type: ignore[union-attr]
            _annotate(node, {node.args[0]: table})
    elif name in ON_WISH and takes(node) and _is_wanted(node):
        inputs = _activations(node)
        if len(inputs) == sum(_is_node(argument) for argument in node.args):
            _annotate(node, dict.fromkeys(inputs, activation))
    elif name in MOVES and takes(node) and _is_wanted_by_all(node) and not _is_mixed(node):
        _annotate_move(node, activation)


def activation_spec(observer: str, mapping: str, training: bool) -> Any:
    """u8 with a zero point, or i8 without: per tensor."""
    import torch
    from torchao.quantization.pt2e import FusedMovingAvgObsFakeQuantize, MovingAverageMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    symmetric = mapping == "symmetric"
    constructor = (
        FusedMovingAvgObsFakeQuantize.with_args(observer=MovingAverageMinMaxObserver, eps=EPS)
        if training
        else observers.load(observer).constructor(eps=EPS)
    )
    return QuantizationSpec(
        dtype=torch.int8 if symmetric else torch.uint8,
        quant_min=-128 if symmetric else 0,
        quant_max=127 if symmetric else 255,
        qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
        observer_or_fake_quant_ctr=constructor,
    )


def dynamic_spec() -> Any:
    """i8, by the extremes of what comes."""
    import torch
    from torchao.quantization.pt2e import PlaceholderObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        is_dynamic=True,
        observer_or_fake_quant_ctr=PlaceholderObserver.with_args(eps=EPS),
    )


def weight_spec(granularity: str, training: bool) -> Any:
    """i8 in -127..127, by their extremes as they are, in training too."""
    spec = weights.int8_spec(granularity)
    if not training:
        return spec
    from torchao.quantization.pt2e import (
        FusedMovingAvgObsFakeQuantize,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
    )

    per_channel = granularity == "per_channel"
    observer = MovingAveragePerChannelMinMaxObserver if per_channel else MovingAverageMinMaxObserver
    constructor = FusedMovingAvgObsFakeQuantize.with_args(observer=observer, eps=EPS)
    return replace(spec, observer_or_fake_quant_ctr=constructor)


def _annotate(node: Node, inputs: dict[Any, Any], output: Any = None) -> None:
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
        input_qspec_map=inputs, output_qspec=output, _annotated=True
    )


def _annotate_move(node: Node, activation: Any) -> None:
    """One scale for all that goes in and for what comes out."""
    from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec

    first, *others = _activations(node)
    shared = SharedQuantizationSpec((first, node))
    _annotate(node, {first: activation} | dict.fromkeys(others, shared), shared)


def _by_channel(spec: Any, node: Node) -> Any:
    """The spec of a weight, whose output channels are in the second dimension if transposed."""
    if spec.ch_axis is None or operator(node) not in TRANSPOSED:
        return spec
    return replace(spec, ch_axis=1)


def _is_wanted(node: Node) -> bool:
    """Whether integers are taken of what it gives, of all of it, possibly after an activation."""
    users = list(node.users)
    if len(users) == 1 and operator(users[0]) in ACTIVATIONS:
        return _is_wanted(users[0])
    return bool(users) and any(_rounds(user, node) for user in users)


def _is_wanted_by_all(node: Node) -> bool:
    return bool(node.users) and all(_rounds(user, node) for user in node.users)


def _is_mixed(node: Node) -> bool:
    """Whether it moves what a product of two activations gave: part of the kernel of attention."""
    source = node.all_input_nodes[0]
    while operator(source) in MOVES and operator(source) != "aten.cat":
        source = source.all_input_nodes[0]
    return operator(source) in PRODUCTS


def _rounds(user: Node, node: Node) -> bool:
    """Whether a node is annotated to take another one's numbers as integers."""
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    annotation = user.meta.get(Q_ANNOTATION_KEY)
    return annotation is not None and node in annotation.input_qspec_map


def _first(node: Node) -> Any:
    return node.args[0]


def _activations(node: Node) -> list[Node]:
    """Real numbers that it takes and that are no constants of the model."""
    return [n for n in node.all_input_nodes if n.op != "get_attr" and _is_float(n)]


def _is_node(argument: Any) -> bool:
    return hasattr(argument, "all_input_nodes")


def _is_float(node: Node) -> bool:
    import torch

    return getattr(node.meta.get("val"), "dtype", None) is torch.float32
