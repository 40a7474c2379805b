"""nn.LSTM and nn.GRU as linear layers, so that a backend quantizes and delegates them as such.

Export keeps each of these modules as one operator, which no quantizer has a pattern for. Here it
becomes, for each layer and direction, one linear layer that projects the inputs of all time steps,
and one for each step that projects the state before it; all steps have the same weight. Of the two
biases, that of the state is added to that of the input where the formulas allow it.

The formulas are those of PyTorch's documentation, gates in its order:
https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolchain.errors import UserError
from toolchain.selection import module_of

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

LSTM, GRU = "aten.lstm.input", "aten.gru.input"

# A state is a list of tensors, (h, c) of an LSTM and (h) of a GRU, each with a time dimension of 1;
# or None, if it is zero: nothing is computed from it. Tensors are proxies: what is written with
# them becomes a graph.
State = list[Any] | None


@dataclass(frozen=True)
class Cell:
    """Weights of one layer in one direction, H values of state.

    source: [gates * H, input], state: [gates * H, h], bias: [gates * H] of both.
    kept: the part of the state's bias that belongs to the state, [gates * H], zero but for the last
    gate; first: this gate's, [H]. Of a GRU. projection: [h, H] or None. Of an LSTM.
    """

    size: int
    source: Any
    state: Any
    bias: Any = None
    kept: Any = None
    first: Any = None
    projection: Any = None


def recurrent(model: ExportedProgram) -> list[str]:
    """Names of the modules that are LSTM or GRU operators of a program."""
    return [module_of(node) for node in model.graph.nodes if str(node.target) in (LSTM, GRU)]


def unrolled(model: ExportedProgram) -> ExportedProgram:
    """The same model without LSTM and GRU operators; `model` itself if it has none.

    The new operators belong to the module that they are made from: `skip` and reports find them.
    """
    import torch

    from toolchain.pt2e import example

    if not recurrent(model):
        return model
    module = model.module(check_guards=False)
    for node in list(module.graph.nodes):
        if str(node.target) in (LSTM, GRU):
            _replace(module, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, example(model))


def _replace(module: GraphModule, node: Node) -> None:
    """Put linear layers in the place of one operator, whose results are (output, *last states)."""
    from torch.fx import Proxy
    from torch.fx.node import map_arg
    from torch.fx.proxy import GraphAppendingTracer

    arguments: Any = node.args
    source, starts, weights, biased, layers, dropout, training, both, batch_first = arguments
    if training and dropout:
        raise UserError(
            f"'{module_of(node)}' drops values out between its layers, as in training",
            hint="export the model in evaluation mode: model.eval()",
        )
    is_lstm = str(node.target) == LSTM
    starts = starts if is_lstm else [starts]
    time = 1 if batch_first else 0
    steps = int(source.meta["val"].shape[time])
    zero = all(map(_is_zero, starts))
    tracer = GraphAppendingTracer(node.graph)

    def proxy(of: Node) -> Any:
        return Proxy(of, tracer)

    known = set(node.graph.nodes)
    with node.graph.inserting_before(node):
        directions = 2 if both else 1
        each = len(weights) // (layers * directions)
        cells = [
            _cell(module, f"_{node.name}_{k}", weights[k * each : (k + 1) * each], biased, is_lstm)
            for k in range(layers * directions)
        ]
        cells, source, starts = map_arg((cells, source, starts), proxy)
        results = _layers(
            _lstm_step if is_lstm else _gru_step,
            source,
            None if zero else starts,
            [Cell(*cell) for cell in cells],
            directions=directions,
            time=time,
            steps=steps,
        )
    for new in set(node.graph.nodes) - known:
        new.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
    for user in list(node.users):
        user.replace_all_uses_with(results[user.args[1]].node)  # type: ignore[index]
        node.graph.erase_node(user)
    node.graph.erase_node(node)


def _cell(
    module: GraphModule, name: str, weights: Sequence[Any], biased: bool, is_lstm: bool
) -> tuple[Any, ...]:
    """Fields of a Cell, as nodes. weights: (input's, state's, their biases, projection)."""
    import torch

    def constant(what: str, value: torch.Tensor) -> Any:
        module.register_buffer(f"{name}_{what}", value)
        return weights[0].graph.get_attr(f"{name}_{what}")

    source, state = weights[:2]
    size = source.meta["val"].shape[0] // (4 if is_lstm else 3)
    projection = weights[-1] if len(weights) % 2 else None
    if not biased:
        return (size, source, state, None, None, None, projection)
    of_source, of_state = (module.get_parameter(bias.target).detach() for bias in weights[2:4])
    if is_lstm:
        bias = constant("bias", of_source + of_state)
        return (size, source, state, bias, None, None, projection)
    kept = torch.cat([torch.zeros(2 * size), of_state[2 * size :]])
    return (
        size,
        source,
        state,
        constant("bias", of_source + of_state - kept),
        constant("kept", kept),
        constant("first", of_state[2 * size :].clone()),
        None,
    )


def _layers(
    step: Callable[[Any, State, Cell], list[Any]],
    source: Any,
    starts: State,
    cells: Sequence[Cell],
    *,
    directions: int,
    time: int,
    steps: int,
) -> list[Any]:
    """The output and the last states.

    source: [T, N, size] or, where `time` is 1, [N, T, size]; steps: T.
    starts: of all cells, [cells, N, H]. cells: of each layer, forward and backward.
    """
    import torch

    ends: list[list[Any]] = []
    for layer in range(len(cells) // directions):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            start = None
            if starts is not None:
                start = [state.narrow(0, number, 1) for state in starts]
                if time:
                    start = [state.transpose(0, 1) for state in start]
            output, end = _sequence(
                step, source, start, cells[number], time, steps, backward=direction == 1
            )
            outputs.append(output)
            ends.append([state.transpose(0, 1) for state in end] if time else end)
        source = outputs[0] if directions == 1 else torch.cat(outputs, -1)
    return [source, *(torch.cat(list(of_cells), 0) for of_cells in zip(*ends, strict=True))]


def _sequence(
    step: Callable[[Any, State, Cell], list[Any]],
    source: Any,
    state: State,
    cell: Cell,
    time: int,
    steps: int,
    *,
    backward: bool,
) -> tuple[Any, list[Any]]:
    """One layer in one direction: the hidden states of all steps, and the last state."""
    import torch
    from torch.nn.functional import linear

    projected = linear(source, cell.source, cell.bias)
    hidden: list[Any] = []
    for k in reversed(range(steps)) if backward else range(steps):
        state = step(projected.narrow(time, k, 1), state, cell)
        hidden.append(state[0])
    assert state is not None
    return torch.cat(hidden[::-1] if backward else hidden, time), state


def _lstm_step(projected: Any, state: State, cell: Cell) -> list[Any]:
    """(h, c) after one step."""
    import torch
    from torch.nn.functional import linear

    if state is not None:
        projected = projected + linear(state[0], cell.state)
    take, forget, new, give = _gates(projected, 4, cell)
    memory = torch.sigmoid(take) * torch.tanh(new)
    if state is not None:
        memory = torch.sigmoid(forget) * state[1] + memory
    hidden = torch.sigmoid(give) * torch.tanh(memory)
    if cell.projection is not None:
        hidden = linear(hidden, cell.projection)
    return [hidden, memory]


def _gru_step(projected: Any, state: State, cell: Cell) -> list[Any]:
    """(h) after one step: (1 - update) * candidate + update * h, without the constant."""
    import torch
    from torch.nn.functional import linear

    reset, update, new = _gates(projected, 3, cell)
    if state is None:
        if cell.first is not None:
            new = new + torch.sigmoid(reset) * cell.first
        candidate = torch.tanh(new)
        return [candidate - torch.sigmoid(update) * candidate]
    of_reset, of_update, of_new = _gates(linear(state[0], cell.state, cell.kept), 3, cell)
    candidate = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
    return [candidate + torch.sigmoid(update + of_update) * (state[0] - candidate)]


def _gates(values: Any, count: int, cell: Cell) -> list[Any]:
    return [values.narrow(-1, k * cell.size, cell.size) for k in range(count)]


def _is_zero(state: Node) -> bool:
    return str(state.target).startswith("aten.zeros.")
