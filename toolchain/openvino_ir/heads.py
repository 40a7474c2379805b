"""Attention in four dimensions, [1, heads, T, size], where a model was written in three.

Models that are made for another runtime drop the leading 1, to multiply with `bmm`. OpenVINO takes
the products, the softmax between them and the transpositions around them as one kernel where the 1
is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.weights import operator

if TYPE_CHECKING:
    from torch.fx import Graph, Node

RESHAPES = ("aten.reshape", "aten.view", "aten.flatten", "aten.squeeze")
ELEMENTWISE = ("aten.mul", "aten.add", "aten.sub", "aten.div")


def keep_batch(graph: Graph) -> int:
    """Let the operators after a dropped leading 1 compute with it; tell of how many products."""
    import torch

    whole: dict[Node, Node] = {}  # [a, b, c] -> the same as [1, a, b, c]
    products = 0
    for node in list(graph.nodes):
        if _drops_batch(node):
            whole[node] = node.all_input_nodes[0]
            continue
        call = _with_batch(node, whole)
        if call is not None:
            with graph.inserting_before(node):
                whole[node] = graph.call_function(*call)
            whole[node].meta = {k: v for k, v in node.meta.items() if k != "val"}
            products += operator(node) == "aten.bmm"
    if products:
        ours = set(whole) | set(whole.values())
        for node, new in whole.items():
            others = [user for user in node.users if user not in ours]
            for user in others:
                if operator(user) in RESHAPES[:2] and user.args[0] is node:
                    user.update_arg(0, new)
            if not _drops_batch(node) and any(user not in ours for user in node.users):
                with graph.inserting_after(new):
                    back = graph.call_function(torch.ops.aten.squeeze.dim, (new, 0))
                node.replace_all_uses_with(back, delete_user_cb=lambda user: user not in ours)
    graph.eliminate_dead_code()
    return products


def _drops_batch(node: Node) -> bool:
    """Whether it takes [1, a, b, c] and gives [a, b, c]."""
    if operator(node) not in RESHAPES:
        return False
    before: Any = node.args[0]
    shape = tuple(before.meta["val"].shape)
    return len(shape) == 4 and shape[0] == 1 and tuple(node.meta["val"].shape) == shape[1:]


def _with_batch(node: Node, whole: dict[Node, Node]) -> tuple[Any, ...] | None:
    """Operator, arguments and keywords that make [1, a, b, c] where a node makes [a, b, c]."""
    import torch

    name, args = operator(node), tuple[Any, ...](node.args)
    if not any(source in whole for source in node.all_input_nodes):
        return None
    if name == "aten.bmm" and all(a in whole for a in args):
        return torch.ops.aten.matmul.default, tuple(whole[a] for a in args)
    if name == "aten.transpose":
        return node.target, (whole[args[0]], *(_shifted(d) for d in args[1:]))
    if name == "aten.softmax":
        return node.target, (whole[args[0]], _shifted(args[1]), *args[2:])
    if name in ELEMENTWISE:  # others have three dimensions at most, aligned at the last
        return node.target, tuple(whole.get(a, a) for a in args), node.kwargs
    return None


def _shifted(dimension: Any) -> int:
    """The same dimension, counted with another one before it."""
    return int(dimension) if dimension < 0 else int(dimension) + 1
