"""Layer normalization that is written out in its arithmetic, as the one operator that it is.

Models that are made for another runtime write it as means, a difference and an inverse root.
OpenVINO has a kernel for the whole (MVN) and finds it in few of these forms by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.weights import operator

if TYPE_CHECKING:
    from torch.fx import Graph, Node


def gather(graph: Graph) -> int:
    """Put `layer_norm` in the place of what is equal to it; tell how often.

    That is (x - mean) * rsqrt(mean((x - mean)^2) + eps). The means are over the last dimensions of
    x, and keep them.
    """
    import torch

    found = 0
    for root in [node for node in graph.nodes if operator(node) == "aten.rsqrt"]:
        normal = _normalized(root)
        if normal is None:
            continue
        product, x, dims, eps = normal
        shape, idle = _without_last_ones(x, dims)
        with graph.inserting_before(product):
            source = x.args[0] if idle else x
            new = graph.call_function(
                torch.ops.aten.layer_norm.default, (source, shape, None, None, eps)
            )
            new.meta = {k: v for k, v in product.meta.items() if k != "val"}
            if idle:
                new = graph.call_function(torch.ops.aten.unsqueeze.default, (new, -1))
                new.meta = {k: v for k, v in product.meta.items() if k != "val"}
        product.replace_all_uses_with(new)
        found += 1
    if found:
        graph.eliminate_dead_code()
    return found


def _normalized(root: Node) -> tuple[Node, Node, list[int], float] | None:
    """The product that ends a normalization, x, the dimensions of its means, and eps."""
    total: Any = root.args[0]
    if operator(total) != "aten.add" or not isinstance(total.args[1], float):
        return None
    variance = total.args[0]
    if not _keeps(variance) or not _is_square(variance.args[0]):
        return None
    centered: Any = variance.args[0].args[0]
    if operator(centered) != "aten.sub":
        return None
    x, mean = centered.args[:2]
    if not (_keeps(mean) and mean.args[0] is x and mean.args[1] == variance.args[1]):
        return None
    products = [
        user
        for user in root.users
        if operator(user) == "aten.mul" and set(user.all_input_nodes) == {root, centered}
    ]
    rank = x.meta["val"].dim()
    dims = sorted(int(d) % rank for d in variance.args[1])
    if len(products) != 1 or dims != list(range(rank - len(dims), rank)):
        return None
    return products[0], x, dims, total.args[1]


def _keeps(node: Any) -> bool:
    """Whether it is a mean over some dimensions that keeps them."""
    return operator(node) == "aten.mean" and len(node.args) > 2 and node.args[2] is True


def _is_square(node: Any) -> bool:
    if operator(node) == "aten.mul":
        return bool(node.args[0] is node.args[1])
    return bool(operator(node) == "aten.pow" and node.args[1] == 2)


def _without_last_ones(x: Node, dims: list[int]) -> tuple[list[int], bool]:
    """The sizes to normalize over, and whether x only has a 1 added behind what has them."""
    shape = [int(x.meta["val"].shape[d]) for d in dims]
    idle = operator(x) == "aten.unsqueeze" and x.args[1] in (-1, x.meta["val"].dim() - 1)
    return (shape[:-1], True) if idle and len(shape) > 1 else (shape, False)
