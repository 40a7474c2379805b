"""Bytes that one inference moves between memory and processor, read off a quantized graph.

They are what an operator's arithmetic is divided by in the roofline model (Williams, Waterman and
Patterson, "Roofline: An Insightful Visual Performance Model", CACM 52(4), 2009), and the bound of
most layers at batch 1. Unlike a count of instructions they rank float against int8: a number takes
4 bytes or 1. They are the same on every machine, for they assume

- no caches: an operator reads each input and each weight once, and writes its output once;
- numbers as they are stored: integers of 8 (or 4) bits where a quantize or dequantize node stands,
  with the scales of channels and groups; else the type that the graph says;
- an operator computes on integers if all of its activations are such, and its weights, or its
  output where it has none. Between those and others there is a conversion, which reads and writes;
  one whose scale is chosen anew for each inference reads twice, first for the range;
- a clamping activation (relu) is one with the operator before it, a batch-norm with a convolution;
- views move nothing; what picks or reorders elements (slice, permute, embedding) reads as many as
  it writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolchain.selection import module_of
from toolchain.simulation import is_dynamic, is_format, operator_name

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

FREE = frozenset({
    "view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "alias",
    "detach", "contiguous", "dropout", "lift_fresh_copy", "getitem",
})  # fmt: skip
MOVES = frozenset({
    "slice", "select", "split", "split_with_sizes", "chunk", "unbind", "narrow", "permute",
    "transpose", "t", "expand", "repeat", "index", "index_select", "gather", "pad",
    "constant_pad_nd",
})  # fmt: skip
CLAMPS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"})
SCALE_BITS = 32


@dataclass(frozen=True)
class Moved:
    """Bytes of one operator, or of a conversion (`quantize`, `dequantize`)."""

    operator: str
    module: str
    activations: int
    weights: int
    output: int

    @property
    def total(self) -> int:
        return self.activations + self.weights + self.output


def bytes_moved(program: ExportedProgram) -> int:
    """Of one inference, over all operators."""
    return sum(row.total for row in moved(program))


def moved(program: ExportedProgram) -> list[Moved]:
    """Each operator and conversion of a program in PT2E's form, in the order of the graph."""
    graph = program.module(check_guards=False).graph
    dequantized: set[Node] = set()
    rows: list[Moved] = []
    for node in graph.nodes:
        if node.op == "output" or _computes(node):
            rows += _dequantizations(node, dequantized)
        if _is_conversion(node):
            rows.append(_quantization(node))
        elif _computes(node) and _first(node) is node:
            rows.append(_operator(node))
    return rows


def _operator(node: Node) -> Moved:
    last = _last(node)
    integer, name = _on_integers(node), operator_name(node)
    written = _output_bytes(last, integer)
    if name in MOVES:
        return Moved(name, module_of(node), written, 0, written)
    activations = weights = 0
    for position, argument in enumerate(_tensor_arguments(node)):
        origin, through = _origin(argument)
        if origin.op != "get_attr":
            stored = _bits(argument, through if integer else None)
            activations += _bytes(_elements(argument), stored)
        elif name == "embedding" and position == 0:
            weights += _rows(argument, _elements(node))
        else:
            weights += _bytes(_elements(argument), _bits(argument, through))
            weights += _scale_bytes(through)
    return Moved(name, module_of(node), activations, weights, written)


def _output_bytes(node: Node, integer: bool) -> int:
    """What an operator writes: integers if all that read it take them, and it computes on them."""
    formats = [user if _is_static_quantize(user) else None for user in _readers(node)]
    if integer and formats and all(formats):
        distinct = {str(quantize.args[1:]): quantize for quantize in formats if quantize}
        return sum(_bytes(_elements(node), _bits(q, q)) for q in distinct.values())
    return _bytes(_elements(node), _bits(node, None))


def _quantization(node: Node) -> Moved:
    source: Any = node.args[0]
    reads = 1 if _is_static_quantize(node) else 2
    taken = reads * _bytes(_elements(source), _bits(source, None))
    return Moved("quantize", module_of(node), taken, 0, _bytes(_elements(node), _bits(node, node)))


def _dequantizations(node: Node, done: set[Node]) -> Iterator[Moved]:
    """Conversions to float for an operator that computes in float, once for each value."""
    if node.op != "output" and _on_integers(node):
        return
    for argument in node.all_input_nodes:
        origin, through = _origin(argument)
        if through is None or origin.op == "get_attr" or origin in done:
            continue
        done.add(origin)
        read = _bytes(_elements(argument), _bits(argument, through))
        written = _bytes(_elements(argument), _bits(argument, None))
        yield Moved("dequantize", module_of(origin), read, 0, written)


def _on_integers(node: Node) -> bool:
    activations, weights = [], []
    for argument in _tensor_arguments(node):
        origin, through = _origin(argument)
        if not _is_real(argument):
            continue
        if origin.op != "get_attr":
            activations.append(through is not None)
        elif len(argument.meta["val"].shape) > 1:  # biases stay as they are
            weights.append(through is not None)
    written = [_is_static_quantize(user) for user in _readers(_last(node))]
    return bool(activations) and all(activations) and all(weights or written)


def _computes(node: Node) -> bool:
    return (
        node.op == "call_function"
        and not is_format(node)
        and operator_name(node) not in FREE
        and bool(_values(node))
    )


def _is_conversion(node: Node) -> bool:
    """Whether a quantize node works by itself: on numbers that no operator gives as integers."""
    if not operator_name(node).startswith("quantize_") or node.op != "call_function":
        return False
    origin, through = _origin(node.args[0])
    if through is not None or origin.op == "get_attr":
        return False
    first = _first(origin)
    if not (_is_static_quantize(node) and _computes(first) and _on_integers(first)):
        return True
    return not all(map(_is_static_quantize, _readers(origin)))


def _last(node: Node) -> Node:
    """The end of what is computed along with an operator: a batch-norm, an activation."""
    users = list(node.users)
    if len(users) == 1 and _joins(users[0], node):
        return _last(users[0])
    return node


def _first(node: Node) -> Node:
    """The operator that a node is computed along with; the node itself for others."""
    before: Any = node.args[0] if node.args else None
    if hasattr(before, "users") and len(before.users) == 1 and _joins(node, before):
        return _first(before)
    return node


def _joins(node: Node, before: Node) -> bool:
    if not _computes(node) or not _computes(before) or node.args[0] is not before:
        return False
    name, other = operator_name(node), operator_name(before)
    if name == "batch_norm":  # folded into the weights
        return "conv" in other
    return name.rstrip("_") in CLAMPS and other not in MOVES


def _origin(node: Any) -> tuple[Node, Node | None]:
    """Where a value was made, behind views and formats, and the format node nearest to here."""
    through = None
    while is_format(node) or (node.op == "call_function" and operator_name(node) in FREE):
        if is_format(node) and through is None:
            through = node
        if operator_name(node) == "getitem" and not is_format(node):
            return node, through  # one of several outputs
        node = node.args[0]
    return node, through


def _readers(node: Node) -> Iterator[Node]:
    """What takes a value, behind views."""
    for user in node.users:
        if user.op == "call_function" and operator_name(user) in FREE:
            yield from _readers(user)
        elif "choose_qparams" not in str(user.target):  # the quantize node counts what that reads
            yield user


def _is_static_quantize(node: Node) -> bool:
    if node.op != "call_function" or not operator_name(node).startswith("quantize_"):
        return False
    return not is_dynamic(node)


def _tensor_arguments(node: Node) -> list[Node]:
    return [argument for argument in node.all_input_nodes if _values(argument)]


def _values(node: Node) -> list[Any]:
    """The tensors that a node gives."""
    value = node.meta.get("val")
    several = value if isinstance(value, (tuple, list)) else [value]
    return [tensor for tensor in several if hasattr(tensor, "element_size")]


def _is_real(node: Node) -> bool:
    return any(tensor.dtype.is_floating_point for tensor in _values(node))


def _elements(node: Node) -> int:
    return sum(int(tensor.numel()) for tensor in _values(node))


def _bits(node: Node, through: Node | None) -> int:
    """Bits of a stored element: of the integers that a format node tells, or of the type."""
    if through is None:
        return 8 * int(_values(node)[0].element_size())
    low, high = (_named(through, name) for name in ("quant_min", "quant_max"))
    if low is None or high is None:  # all of the type is used
        stored: Any = through if operator_name(through).startswith("quantize_") else through.args[0]
        return 8 * int(_values(stored)[0].element_size())
    return math.ceil(math.log2(high - low + 1))


def _scale_bytes(through: Node | None) -> int:
    """Of a weight's scales, if they are more than one number."""
    if through is None:
        return 0
    scale = _named(through, "scale") or _named(through, "scales")
    if not hasattr(scale, "meta"):
        return 0
    return _bytes(_elements(scale), SCALE_BITS)


def _rows(table: Node, elements: int) -> int:
    """The rows of an embedding's table that are looked up, with their scales."""
    _, through = _origin(table)
    width = int(table.meta["val"].shape[-1])
    scales = elements // width if _scale_bytes(through) else 0
    return _bytes(elements, _bits(table, through)) + _bytes(scales, SCALE_BITS)


def _named(node: Node, name: str) -> Any:
    """An argument by its name in the operator's schema."""
    target: Any = node.target
    for position, argument in enumerate(target._schema.arguments):
        if argument.name == name:
            return node.args[position] if position < len(node.args) else node.kwargs.get(name)
    return None


def _bytes(elements: int, bits: int) -> int:
    return math.ceil(elements * bits / 8)
