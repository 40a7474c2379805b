"""Linear layers with int8 weights and float inputs as XNNPACK's own kernel, f32-qc8w-gemm.

XNNPACK has it (xnn_define_fully_connected with fp32 input and output and a qcint8 filter);
ExecuTorch's partitioner takes a quantized weight only where the input is quantized too.
https://github.com/google/XNNPACK/blob/master/include/xnnpack.h

The layer's bias has to be an addition of its own (see `toolchain.xnnpack.forms`): the kernel adds
the bias to the sums of products before it multiplies them with the channel's scale, and ExecuTorch
hands it on as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


def partitioner() -> Any:
    """XnnpackPartitioner that also takes linear layers of which only the weight is quantized."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.gemm_configs import LinearConfig
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.utils.quant_utils import tag_as_implicit_q_dq
    from executorch.backends.xnnpack.utils.utils import is_param_node

    class Config(LinearConfig):  # type: ignore[misc]
        def get_deps(self, node: Node, ep: ExportedProgram) -> tuple[bool, list[Node]]:
            if not takes_float(node):
                return super().get_deps(node, ep)  # type: ignore[no-any-return]
            dequantize: Any = node.args[1]
            constants = dequantize.all_input_nodes
            if len(node.args) > 2 or not all(is_param_node(ep, n) for n in constants):
                return False, []
            tag_as_implicit_q_dq(dequantize)
            return True, [dequantize, *constants]

    configs = [config for config in ALL_PARTITIONER_CONFIGS if config is not LinearConfig]
    return XnnpackPartitioner(configs=[Config, *configs])


def takes_float(node: Node) -> bool:
    """Whether a linear layer has a weight with a scale for each channel, and a float input."""
    from executorch.backends.xnnpack.utils.quant_utils import is_dequant

    source, dequantize, *_ = node.all_input_nodes
    return "dequantize_per_channel.default" in str(dequantize.target) and not is_dequant(source)
