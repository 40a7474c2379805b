"""Which operators of a quantized program compute on integers, and why others do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.selection import Selection, module_of
from toolchain.simulation import FUSED, is_constant, is_format, is_weight

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


def is_quantized(program: ExportedProgram) -> bool:
    """Whether anything of a program was quantized."""
    return any(map(is_format, program.graph.nodes))


def reached(
    program: ExportedProgram, quantizable: frozenset[str], selection: Selection
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Operators on real numbers: those that were quantized, and the others, with why.

    In PT2E's form of a quantized graph, an operator computes in integers if the numbers that it
    takes come out of dequantize nodes and the backend has a pattern for it, or it only moves them
    (flatten); or if it is an activation that is fused with such an operator. With integer weights
    alone it computes in float. quantizable: operators that the scheme can take on the backend;
    empty for a scheme that quantizes nothing.
    """
    done: list[dict[str, str]] = []
    left: list[dict[str, str]] = []
    integer: set[Node] = set()
    graph = program.module(check_guards=False).graph
    for node in graph.nodes:
        if node.op != "call_function" or not _is_float(node):
            continue
        if is_format(node) or is_constant(node):
            continue
        operator = str(node.target)
        has_pattern = ".".join(operator.split(".")[:2]) in quantizable
        row = {"operator": operator, "module": module_of(node)}
        if _has_float_weight(node):
            left.append(row | {"why": _why(node, quantizable, selection, has_pattern)})
        elif _takes_integers(node, has_pattern) or _is_fused(node, integer):
            integer.add(node)
            done.append(row | {"arithmetic": "integer"})
        elif any(map(is_weight, node.all_input_nodes)):
            done.append(row | {"arithmetic": "float"})
        else:
            left.append(row | {"why": _why(node, quantizable, selection, has_pattern)})
    return done, left


def _why(node: Node, quantizable: frozenset[str], selection: Selection, has_pattern: bool) -> str:
    if not quantizable:
        return "the scheme keeps float"
    if not has_pattern:
        return "the backend's quantizer has no pattern for it"
    return selection.left_out(node) or "the quantizer left it out"


def _takes_integers(node: Node, has_pattern: bool) -> bool:
    """Whether all real numbers that are computed with come out of dequantize nodes."""
    taken = [n for n in node.all_input_nodes if n.op != "get_attr" and _is_float(n)]
    activations = [n for n in taken if not is_weight(n)]
    return bool(activations) and all(
        is_format(source) and (has_pattern or _keeps_format(source, node)) for source in activations
    )


def _keeps_format(dequantize: Node, node: Node) -> bool:
    """Whether a node gives its numbers on with the scale and zero point that they came with."""
    return any(is_format(u) and u.args[1:3] == dequantize.args[1:3] for u in node.users)


def _is_fused(node: Node, integer: set[Node]) -> bool:
    """Whether it is an activation between an integer operator and what rounds its result."""
    before, rounded = node.all_input_nodes, any(map(is_format, node.users))
    return (
        str(node.target).startswith(FUSED)
        and rounded
        and before[0] in integer
        and len(before[0].users) == 1
    )


def _has_float_weight(node: Node) -> bool:
    """Whether an operator's second argument is a constant of real numbers, as it was."""
    second: Any = node.args[1] if len(node.args) > 1 else None
    return getattr(second, "op", None) == "get_attr" and _is_float(second)


def _is_float(node: Node) -> bool:
    value: Any = node.meta.get("val")
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return bool(getattr(getattr(first, "dtype", None), "is_floating_point", False))
