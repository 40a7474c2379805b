"""`expand` nodes that change nothing, which transformers' models are full of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.weights import operator

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def without_idle_expands(model: ExportedProgram) -> ExportedProgram:
    """The model without `expand`s to the shape that is there: copies, and each parts a delegate."""
    graph = model.graph_module.graph
    outputs = set(graph.output_node().all_input_nodes)
    for node in list(graph.nodes):
        if operator(node) == "aten.expand" and node not in outputs:
            source = node.args[0]
            if source.meta["val"].shape == node.meta["val"].shape:
                node.replace_all_uses_with(source)
                graph.erase_node(node)
    model.graph_module.recompile()
    return model
