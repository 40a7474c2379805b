"""A quantized program whose layers can be switched to float and back, one by one, without export.

PT2E's form of a quantized program holds both: operators compute in float, between nodes that
quantize and dequantize. Left out around one operator, with its float weights in place of the
rounded ones, that operator is the float model's. So the effect of each layer alone can be seen in
one program, and an operator that nothing changed before is not computed again.

    simulation = Simulation(quantized, folded)        # folded: `pt2e.folded` of the same model
    exact = simulation.run(sample, frozenset())       # the float model
    full = simulation.run(sample, simulation.everything)
    only = simulation.run(sample, simulation.layers["features.3.conv"].nodes, exact)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from toolchain import programs
from toolchain.selection import module_of

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

    Nodes = frozenset[Node]

FORMAT = ("quantize_", "choose_qparams")  # dequantize_ too
FUSED = ("aten.relu", "aten.hardtanh", "aten.clamp", "aten.hardswish", "aten.hardsigmoid")
WEIGHTED = ("conv", "linear", "embedding", "matmul", "mm", "bmm", "addmm")
WHOLE_MODEL = "(model)"  # name of a layer whose operator stands in no submodule


@dataclass(frozen=True)
class Layer:
    """Operators of one module with quantized weights, and what is fused with them.

    nodes: all of them; weighted: those that have the weights; output: the last.
    """

    name: str
    operator: str
    nodes: Nodes
    weighted: tuple[Node, ...]
    output: Node


@dataclass(frozen=True)
class Run:
    """Values of one sample. outputs: the program's. values: of each operator, dequantized."""

    quantized: Nodes
    values: Mapping[Node, Any]
    outputs: tuple[torch.Tensor, ...]


class Simulation:
    """quantized, folded: programs of the same operators, one with integers and one without."""

    def __init__(self, quantized: ExportedProgram, folded: ExportedProgram) -> None:
        self.module = functional(quantized).module(check_guards=False)
        reference = functional(folded).module(check_guards=False)
        graph = list(self.module.graph.nodes)
        self._inputs = [node for node in graph if node.op == "placeholder"]
        self._output = next(node for node in graph if node.op == "output")
        self.operators = [n for n in graph if n.op == "call_function" and not is_format(n)]
        self._constants = {
            node: _attribute(self.module, node) for node in graph if node.op == "get_attr"
        }
        self._floats = _float_constants(self.operators, reference)
        self._weights: dict[Node, Any] = {}
        self.everything: Nodes = frozenset(self.operators)
        self.layers: dict[str, Layer] = {layer.name: layer for layer in self._find_layers()}

    def run(self, sample: Sequence[torch.Tensor], quantized: Nodes, base: Run | None = None) -> Run:
        """The program with only the operators in `quantized` computing on rounded numbers.

        A value between two operators is rounded if either is quantized: the first one rounds what
        it gives, the second what it takes. base: another run of the same sample; what is equal in
        both is taken from it.
        """
        import torch

        with torch.no_grad():
            return self._run(sample, quantized, base)

    def _run(self, sample: Sequence[torch.Tensor], quantized: Nodes, base: Run | None) -> Run:
        # Copies: a program may write into its inputs.
        copies = [tensor.clone() for tensor in sample]
        values: dict[Node, Any] = dict(zip(self._inputs, copies, strict=True))
        changed = self._changed(quantized, base)
        rounded: dict[Node, Any] = {}
        for node in self.operators:
            if base is not None and node not in changed:
                values[node] = base.values[node]
                continue
            values[node] = node.target(
                *self._arguments(node, node.args, quantized, values, rounded),
                **self._arguments(node, node.kwargs, quantized, values, rounded),
            )
        outputs = self._arguments(self._output, self._output.args, quantized, values, rounded)
        return Run(quantized, values, programs.leaves(outputs))

    def weights(self, node: Node) -> Iterator[tuple[Node, torch.Tensor, torch.Tensor]]:
        """Of each constant that is stored as integers: its dequantize node, its float values, and
        those that the integers stand for."""
        exact = self._floats.get(node, {})
        for place, argument in enumerate(_leaves(node)):
            if is_weight(argument) and hasattr(exact.get(place), "shape"):
                yield argument, exact[place], self._rounded_weight(argument)

    def rounds(self, node: Node) -> Node | None:
        """The node that quantizes what an operator gives; None if it stays float."""
        found = [user for user in node.users if operator_name(user).startswith("quantize_")]
        return found[0] if found else None

    def rounded(self, quantize: Node, value: torch.Tensor) -> torch.Tensor:
        """What `value` is after it went through a quantize node and back."""
        source, _ = _origin(quantize)
        dequantize = next(user for user in quantize.users if is_format(user))
        found: torch.Tensor = self._formatted(dequantize, {source: value})
        return found

    def scale(self, dequantize: Node) -> list[float]:
        """The scales of a weight: one, or one for each channel or group."""
        import torch

        scale = dequantize.args[1]
        if operator_name(dequantize) == "dequantize_affine":  # (input, block_size, scale, ...)
            scale = dequantize.args[2]
        constant = self._constants.get(scale, scale)
        return torch.as_tensor(constant).double().flatten().tolist()

    def _changed(self, quantized: Nodes, base: Run | None) -> set[Node]:
        """Operators whose values differ from those of `base`."""
        if base is None:
            return set(self.operators)
        flipped = quantized ^ base.quantized
        changed: set[Node] = set()
        for node in self.operators:
            if node in flipped or any(
                source in changed
                or (through is not None and source in flipped and not is_dynamic(through))
                for source, through in map(_origin, node.all_input_nodes)
            ):
                changed.add(node)
        return changed

    def _arguments(
        self,
        node: Node,
        arguments: Any,
        quantized: Nodes,
        values: Mapping[Node, Any],
        rounded: dict[Node, Any],
    ) -> Any:
        from torch.fx.node import map_arg
        from torch.utils._pytree import tree_flatten, tree_unflatten

        exact = self._floats.get(node, {}) if node not in quantized else {}

        def value(argument: Node) -> Any:
            if argument in self._constants:
                return self._constants[argument]
            source, through = _origin(argument)
            if through is None:
                return values[source]
            if source.op == "get_attr":
                return self._rounded_weight(argument)
            if node in quantized or (source in quantized and not is_dynamic(through)):
                if argument not in rounded:
                    rounded[argument] = self._formatted(argument, values)
                return rounded[argument]
            return values[source]

        if isinstance(arguments, Mapping):
            return map_arg(dict(arguments), value)
        leaves, structure = tree_flatten(arguments)
        return tree_unflatten(
            [exact[k] if k in exact else map_arg(leaf, value) for k, leaf in enumerate(leaves)],
            structure,
        )

    def _rounded_weight(self, dequantize: Node) -> Any:
        if dequantize not in self._weights:
            self._weights[dequantize] = self._formatted(dequantize, {})
        return self._weights[dequantize]

    def _formatted(self, node: Node, values: Mapping[Node, Any]) -> Any:
        """What a chain of quantize and dequantize nodes makes of the value at its start."""
        from torch.fx.node import map_arg

        def value(argument: Node) -> Any:
            if argument in self._constants:
                return self._constants[argument]
            if is_format(argument):
                return self._formatted(argument, values)
            return values[argument]

        call: Any = node.target
        return call(*map_arg(node.args, value), **map_arg(node.kwargs, value))

    def _find_layers(self) -> Iterator[Layer]:
        """Layers in the order of the network."""
        found: dict[str, list[Node]] = {}
        for node in self.operators:
            if operator_name(node).startswith(WEIGHTED) and any(self.weights(node)):
                found.setdefault(module_of(node) or WHOLE_MODEL, []).append(node)
        for name, weighted in found.items():
            chains = [self._with_fused(node) for node in weighted]
            nodes = frozenset(node for chain in chains for node in chain)
            yield Layer(
                name, operator_name(weighted[0]), nodes, tuple(weighted), output=chains[-1][-1]
            )

    def _with_fused(self, node: Node) -> list[Node]:
        """An operator and the activation that it is fused with: nothing is rounded between."""
        users = list(node.users)
        if (
            len(users) == 1
            and str(users[0].target).startswith(FUSED)
            and self.rounds(users[0]) is not None
        ):
            return [node, users[0]]
        return [node]


def operator_name(node: Node) -> str:
    """Such as `conv2d` of aten.conv2d.default."""
    words = str(node.target).split(".")
    return words[1] if len(words) > 1 else words[0]


def is_format(node: Node) -> bool:
    """Whether a node only changes how numbers are written: quantize, dequantize, their scales."""
    if node.op != "call_function":
        return False
    name = str(node.target)
    if "getitem" in name:
        return is_format(node.args[0])  # type: ignore[arg-type]
    return any(word in name for word in FORMAT)


def is_weight(node: Any) -> bool:
    """Whether a node dequantizes a constant."""
    if not (hasattr(node, "op") and is_format(node)):
        return False
    return bool(_origin(node)[0].op == "get_attr")


def functional(program: ExportedProgram) -> ExportedProgram:
    """The program without operators that write into their input, such as `relu_`."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and schema is not None and schema.is_mutable:
            made: ExportedProgram = program.run_decompositions({})
            return made
    return program


def _origin(node: Node) -> tuple[Node, Node | None]:
    """Where a value comes from, behind quantize and dequantize nodes, and the quantize node.

    (node, None) for a value that was not rounded; the dequantize node itself for a weight.
    """
    through = None
    while is_format(node):
        through = node
        node = node.args[0]  # type: ignore[assignment]
    return node, through


def is_dynamic(quantize: Node) -> bool:
    """Whether the scale is chosen anew for each inference."""
    return any(is_format(argument) for argument in quantize.all_input_nodes[1:])


def _attribute(module: GraphModule, node: Node) -> Any:
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach() if hasattr(value, "detach") else value


def _leaves(node: Node) -> list[Any]:
    """The arguments of a node, those in lists too, in one row."""
    from torch.utils._pytree import tree_leaves

    return tree_leaves(node.args)


def _float_constants(
    operators: Sequence[Node], reference: GraphModule
) -> dict[Node, dict[int, Any]]:
    """Of each operator the constants of its counterpart in the float program, by place.

    The two programs have the same operators in the same order, but for those that compute a
    constant: one may have their result. A number may have become a constant, to be quantized.
    """
    ours = [node for node in operators if not is_constant(node)]
    theirs = [
        node
        for node in reference.graph.nodes
        if node.op == "call_function" and not is_constant(node)
    ]
    one, two = ([str(node.target) for node in nodes] for nodes in (ours, theirs))
    found: dict[Node, dict[int, Any]] = {}
    for block in SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks():
        for k in range(block.size):
            node, counterpart = ours[block.a + k], theirs[block.b + k]
            found[node] = _constants_of(node, counterpart, reference)
    lost = [n for n in ours if n not in found and any(map(is_weight, n.all_input_nodes))]
    if lost:
        raise RuntimeError(f"no counterpart in the float program: {', '.join(map(str, lost))}")
    return found


def _constants_of(node: Node, counterpart: Node, reference: GraphModule) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for place, (ours, theirs) in enumerate(zip(_leaves(node), _leaves(counterpart), strict=True)):
        if isinstance(theirs, (int, float)) and hasattr(ours, "op"):
            found[place] = theirs
        elif hasattr(theirs, "op") and is_constant(theirs):
            found[place] = _computed(reference, theirs)
    return found


def is_constant(node: Node) -> bool:
    """Whether a node is the same in each inference: a parameter, or computed from parameters."""
    waiting, seen = [node], {node}
    while waiting:  # a graph may be deeper than Python's stack
        one = waiting.pop()
        if one.op == "call_function" and one.all_input_nodes:
            new = [source for source in one.all_input_nodes if source not in seen]
            waiting += new
            seen.update(new)
        elif one.op != "get_attr":
            return False
    return True


def _computed(module: GraphModule, node: Node) -> Any:
    """The value of a constant."""
    import torch
    from torch.fx.node import map_arg

    if node.op == "get_attr":
        return _attribute(module, node)
    call: Any = node.target
    given = map_arg((node.args, node.kwargs), lambda argument: _computed(module, argument))
    with torch.no_grad():
        return call(*given[0], **given[1])
