"""Which operators get integers, in PT2E's form: torchao's quantizer for x86, told what to take.

Weights are int8, symmetric, with a scale for each output channel; activations are uint8, as the
dot products of x86 take them (u8 s8 -> s32).
https://docs.pytorch.org/ao/stable/pt2e_quantization/pt2e_quantizer.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolchain import observers, weights
from toolchain.weights import operator

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

EPS = 2**-12  # least scale of activations
LINEAR = "aten.linear"
# Operators with weights; those that only move integers take them where they come.
STATIC = frozenset(
    {
        "aten.conv1d",
        "aten.conv2d",
        LINEAR,
        "aten.max_pool2d",
        "aten.cat",
        "aten.avg_pool2d",
        "aten.adaptive_avg_pool2d",
        "aten.flatten",
    }
)
DYNAMIC = frozenset({LINEAR})


def quantizer(
    *,
    activations: str,
    takes: Callable[[Any], bool],
    observer: str,
    mapping: str,
    training: bool,
) -> Any:
    """An X86InductorQuantizer that annotates the patterns of which all operators are taken."""
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        _global_config_filter,
    )

    operators = DYNAMIC if activations == "dynamic" else STATIC

    def wanted(nodes: list[Node]) -> bool:
        return (
            _global_config_filter(nodes)
            and any(operator(node) in operators for node in nodes)
            and all(map(takes, nodes))
        )

    class Taking(X86InductorQuantizer):  # type: ignore[misc]
        def annotate(self, model: GraphModule) -> GraphModule:
            self._annotate_with_config(model, self.global_config, wanted)
            self._annotate_output_for_int8_in_int8_out_pattern_entry(model)
            return model

    return Taking().set_global(_config(activations, observer, mapping, training))


def _config(activations: str, observer: str, mapping: str, training: bool) -> Any:
    import torch
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        get_default_x86_inductor_quantization_config,
    )

    config = get_default_x86_inductor_quantization_config(
        is_qat=training, is_dynamic=activations == "dynamic"
    )
    if training:
        return config
    config = replace(config, weight=weights.int8_spec("per_channel"))
    if activations == "dynamic":
        return config
    activation = replace(
        config.input_activation,
        qscheme=torch.per_tensor_symmetric if mapping == "symmetric" else torch.per_tensor_affine,
        observer_or_fake_quant_ctr=observers.load(observer).constructor(eps=EPS),
    )
    return replace(config, input_activation=activation, output_activation=activation)
