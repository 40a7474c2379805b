"""The float model in the form that OpenVINO takes best: the same operators, with its own in place
of what was written out for another runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain import saturation
from toolchain.openvino_ir import heads, norms
from toolchain.openvino_ir.annotation import WEIGHTED
from toolchain.weights import operator

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node


def adapted(model: ExportedProgram) -> ExportedProgram:
    """The same program; `model` itself if there is nothing to change."""
    for change in (norms.gather, heads.keep_batch):
        module = model.module(check_guards=False)
        if change(module.graph):
            model = _again(module, model)
    return model


def without_dynamic(model: ExportedProgram) -> tuple[ExportedProgram, bool]:
    """The program without the rounding of activations at run time, and whether there was any.

    OpenVINO is told to round them with an option of the whole program.
    """
    module = model.module(check_guards=False)
    rounded = [
        node
        for node in module.graph.nodes
        if operator(node) == "aten.linear" and _dynamic_source(node.args[0]) is not None
    ]
    if not rounded:
        return model, False
    for node in rounded:
        node.update_arg(0, _dynamic_source(node.args[0]))
    module.graph.eliminate_dead_code()
    return _again(module, model), True


def halved(model: ExportedProgram) -> tuple[ExportedProgram, int]:
    """The program with weights of seven bits where they meet integers, and how many they are."""
    module = model.module(check_guards=False)
    found = [
        node.args[1]
        for node in module.graph.nodes
        if operator(node) in WEIGHTED
        and all("dequantize" in str(source.target) for source in node.args[:2])
    ]
    if not found:
        return model, 0
    saturation.halve(module, found)
    module.graph.eliminate_dead_code()
    return _again(module, model), len(found)


def _dynamic_source(node: Any) -> Node | None:
    """What was rounded, if a node gives back what was rounded with a scale found at run time."""
    if "dequantize" not in str(node.target):
        return None
    quantize = node.args[0]
    if "quantize" not in str(quantize.target):
        return None
    return quantize.args[0] if _is_chosen(quantize) else None


def _is_chosen(quantize: Node) -> bool:
    """Whether the scale of a quantize node is computed."""
    return any("choose_qparams" in str(n.target) for s in quantize.args[1:] for n in _above(s))


def _above(node: Any) -> list[Node]:
    return list(getattr(node, "all_input_nodes", ()))


def _again(module: GraphModule, model: ExportedProgram) -> ExportedProgram:
    import torch

    from toolchain.pt2e import example

    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, example(model))
