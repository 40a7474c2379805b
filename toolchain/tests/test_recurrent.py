"""LSTM and GRU as linear layers: the same numbers, under the same names."""

from __future__ import annotations

import pytest

from toolchain.errors import UserError
from toolchain.selection import surroundings

pytestmark = pytest.mark.filterwarnings("ignore")

INPUT, HIDDEN, TIME, BATCH = 6, 5, 4, 3
LSTM_PROJECTION = {"proj_size": 3, "batch_first": True}
SHAPES = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False, "batch_first": True},
    {"num_layers": 2, "bidirectional": True, "bias": False, "batch_first": True},
]


def network(kind, **options):
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.memory = getattr(torch.nn, kind)(INPUT, HIDDEN, **options)

        def forward(self, x, *state):
            return self.memory(x, *state)

    return Network().eval()


def inputs(kind, given, **options):
    import torch

    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, TIME) if options.get("batch_first") else (TIME, BATCH)
    x = torch.randn(*shape, INPUT, generator=generator)
    cells = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    sizes = [options.get("proj_size", HIDDEN), HIDDEN][: 2 if kind == "LSTM" else 1]
    state = [torch.randn(cells, BATCH, size, generator=generator) for size in sizes]
    if not given:
        return (x,)
    return (x, tuple(state)) if kind == "LSTM" else (x, state[0])


def unrolled(model, sample):
    import torch

    from toolchain.recurrent import unrolled

    return unrolled(torch.export.export(model, sample))


def linears(program):
    return [n for n in program.graph.nodes if "aten.linear" in str(n.target)]


@pytest.mark.parametrize("given", [False, True], ids=["zeros", "given"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, options) for kind in ("LSTM", "GRU") for options in SHAPES]
    + [("LSTM", LSTM_PROJECTION)],
    ids=str,
)
def test_the_results_are_those_of_the_module(kind, options, given):
    import torch
    from torch.utils import _pytree

    model, sample = network(kind, **options), inputs(kind, given, **options)
    program = unrolled(model, sample)
    assert not [n for n in program.graph.nodes if str(n.target).startswith(("aten.lstm", "aten.g"))]
    with torch.no_grad():
        wanted, found = (_pytree.tree_leaves(f(*sample)) for f in (model, program.module()))
    assert len(wanted) == len(found) == (3 if kind == "LSTM" else 2)
    for one, other in zip(wanted, found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-5)


def test_inputs_of_all_steps_are_projected_at_once():
    program = unrolled(network("LSTM"), inputs("LSTM", given=False))
    rows = sorted(node.args[0].meta["val"].shape[0] for node in linears(program))
    assert rows == [1] * (TIME - 1) + [TIME]  # the first step's state is zero


def test_layers_keep_the_name_of_their_module():
    program = unrolled(network("GRU"), inputs("GRU", given=False))
    for node in linears(program):
        assert {"memory", "GRU"} <= set(surroundings(node))


def test_other_models_are_left_alone():
    import torch

    from toolchain.recurrent import unrolled

    program = torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),))
    assert unrolled(program) is program


def test_dropout_between_layers_is_refused():
    model = network("LSTM", num_layers=2, dropout=0.5).train()
    with pytest.raises(UserError, match=r"'memory' drops values out.*\n.*model\.eval\(\)"):
        unrolled(model, inputs("LSTM", given=False))
