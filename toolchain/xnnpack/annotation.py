"""ExecuTorch's quantizer for XNNPACK, kept from two things that it does too much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.weights import operator

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node


def floats_only() -> Any:
    """An XNNPACKQuantizer that leaves integer arithmetic alone.

    It turns the numbers in `x + 1` into tensors, to observe them, and all of them into float ones:
    an index that is computed so would be no index any more.
    """
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer

    class FloatsOnly(XNNPACKQuantizer):  # type: ignore[misc]
        def transform_for_annotation(self, model: GraphModule) -> GraphModule:
            graph, numbers = model.graph, 0
            for node in graph.nodes:
                if operator(node) not in ("aten.add", "aten.mul") or not _is_float(node):
                    continue
                for position, argument in enumerate(node.args):
                    if not isinstance(argument, (int, float)):
                        continue
                    value = torch.tensor(float(argument), dtype=node.meta["val"].dtype)
                    name, numbers = f"_number_{numbers}", numbers + 1
                    model.register_buffer(name, value)
                    with graph.inserting_before(node):
                        constant = graph.get_attr(name)
                    constant.meta["val"] = node.meta["val"].fake_mode.from_tensor(
                        value, static_shapes=True
                    )
                    node.update_arg(position, constant)
            model.recompile()
            return model

    return FloatsOnly()


def has_dynamic_kernel(node: Node) -> bool:
    """Whether XNNPACK has the operator for activations whose scale is found at run time.

    Of convolutions, those in two dimensions that are not depthwise.
    """
    if "conv" not in operator(node):
        return True
    weight: Any = node.args[1]
    groups = node.args[6] if len(node.args) > 6 else 1
    return bool(operator(node) == "aten.conv2d" and groups == 1 and weight.meta["val"].dim() == 4)


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return bool(getattr(getattr(value, "dtype", None), "is_floating_point", False))
