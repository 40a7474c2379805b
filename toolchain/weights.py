"""int8 weights beside float arithmetic: a PT2E quantizer that annotates weights, nothing else.

q = round(w / scale), symmetric, one scale for each output channel (for each row of an embedding's
table) or one for the tensor: Krishnamoorthi, "Quantizing deep convolutional networks for efficient
inference" (arXiv:1806.08342), section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

EMBEDDING = "aten.embedding"
POSITION = {EMBEDDING: 0}  # of the weight among an operator's arguments; else 1
EPS = 2**-23  # least scale: weights are as small as training made them


def quantizer(operators: frozenset[str], *, granularity: str, takes: Callable[[Any], bool]) -> Any:
    """A PT2E quantizer for the constant weights of `operators` (such as `aten.linear`)."""
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    spec = int8_spec(granularity)

    class WeightQuantizer(Quantizer):  # type: ignore[misc]
        def annotate(self, model: GraphModule) -> GraphModule:
            for node in model.graph.nodes:
                if operator(node) in operators and takes(node) and weight(node).op == "get_attr":
                    node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
                        input_qspec_map={weight(node): spec}, _annotated=True
                    )
            return model

        def validate(self, model: GraphModule) -> None:
            pass

    return WeightQuantizer()


def together(*quantizers: Any) -> Any:
    """One quantizer that annotates as each of them does; they have no operator in common."""
    from torchao.quantization.pt2e.quantizer import ComposableQuantizer

    return ComposableQuantizer(list(quantizers))


def int8_spec(granularity: str) -> Any:
    """How weights are rounded: int8 in -127..127, by their extremes."""
    import torch
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    per_channel = granularity == "per_channel"
    observer = PerChannelMinMaxObserver if per_channel else MinMaxObserver
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if per_channel else None,
        observer_or_fake_quant_ctr=observer.with_args(eps=EPS),
    )


def operator(node: Node) -> str:
    """`aten.linear` of aten.linear.default; empty for what is no operator."""
    return ".".join(str(node.target).split(".")[:2]) if node.op == "call_function" else ""


def weight(node: Node) -> Any:
    return node.args[POSITION.get(operator(node), 1)]
