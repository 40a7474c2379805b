"""Layers switched to float and back: the simulation is as real programs, and skips no change."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from toolchain import backends, layer_errors, programs, pt2e, reach, schemes, sensitivity
from toolchain.errors import UserError
from toolchain.material import Material
from toolchain.metrics import sqnr_db
from toolchain.selection import Selection
from toolchain.simulation import Simulation, is_constant

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def network():
    """Two convolutions with batch-norm, a residual addition, an in-place ReLU, a linear layer."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
            self.two = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
            self.last = nn.ReLU(inplace=True)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            y = self.one(x)
            z = self.last(self.two(y) + y)
            return self.head(nn.functional.adaptive_avg_pool2d(z, 1).flatten(1))

    return Network().eval()


def samples(count, seed=1):
    import torch

    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(1, 3, 8, 8, generator=generator),) for _ in range(count)]


def quantized(model, **options):
    scheme, backend = schemes.load("int8_static"), backends.load("xnnpack")
    material = Material(calibration=samples(16))
    return scheme.quantize(model, scheme.Options(**options), backend, material).program


@pytest.fixture(scope="module")
def model():
    import torch

    programs.prepare_torch()
    return torch.export.export(network(), samples(1)[0])


@pytest.fixture(scope="module")
def simulation(model):
    return Simulation(quantized(model), pt2e.folded(model))


def outputs(program, given):
    import torch

    with torch.no_grad():
        return [program.module()(*sample).detach() for sample in given]


def test_layers_are_the_modules_with_weights_in_their_order(simulation):
    assert list(simulation.layers) == ["one.0", "two.0", "head"]
    assert [layer.operator for layer in simulation.layers.values()] == [
        "conv2d", "conv2d", "linear",
    ]  # fmt: skip


def test_nothing_quantized_is_the_float_model_and_everything_the_program(model, simulation):
    program = quantized(model)
    for sample, exact, rounded in zip(
        samples(3, 7), outputs(model, samples(3, 7)), outputs(program, samples(3, 7)), strict=True
    ):
        none = simulation.run(sample, frozenset()).outputs[0]
        assert sqnr_db(exact.numpy(), none.numpy()) > 100
        assert simulation.run(sample, simulation.everything).outputs[0].equal(rounded)


@pytest.mark.parametrize("name", ["one.0", "two.0", "head"])
def test_all_but_one_layer_equals_a_program_that_skips_it(model, simulation, name):
    """Quantizing anew with `skip` gives, but for the ranges of what is near, the same program."""
    real = quantized(model, skip=(name,))
    weights = Simulation(real, pt2e.folded(model)).layers
    assert name not in weights
    assert len(weights) == 2
    sample = samples(1, 7)[0]
    ours = simulation.run(sample, simulation.everything - simulation.layers[name].nodes).outputs[0]
    theirs = real.module()(*sample).detach()
    assert sqnr_db(theirs.numpy(), ours.numpy()) > 30


@pytest.mark.parametrize("name", ["one.0", "two.0", "head"])
def test_what_is_taken_from_another_run_changes_nothing(simulation, name):
    sample, nodes = samples(1, 9)[0], simulation.layers[name].nodes
    exact = simulation.run(sample, frozenset())
    full = simulation.run(sample, simulation.everything)
    for chosen, base in ((nodes, exact), (simulation.everything - nodes, full)):
        fast, slow = simulation.run(sample, chosen, base), simulation.run(sample, chosen)
        assert fast.outputs[0].equal(slow.outputs[0])
    only = simulation.run(sample, nodes, exact)
    assert not only.outputs[0].equal(exact.outputs[0]), "the layer has no effect"


def test_errors_of_layers_are_those_of_an_independent_computation(model, simulation):
    rows = {row["layer"]: row for row in layer_errors.compared(simulation, samples(4, 3))}
    weight = model.state_dict["head.weight"].detach().double().numpy()
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127  # symmetric, -127 to 127
    rounded = np.clip(np.round(weight / scale), -127, 127) * scale
    assert rows["head"]["weights"]["sqnr_db"] == pytest.approx(sqnr_db(weight, rounded), abs=0.05)
    assert rows["head"]["weights"]["mse"] == pytest.approx(
        ((weight - rounded) ** 2).mean(), rel=0.02
    )
    assert rows["head"]["weights"]["scale_max"] == pytest.approx(scale.max(), rel=1e-4)
    exact, got = (
        np.concatenate([t.numpy() for t in outputs(p, samples(4, 3))])
        for p in (model, quantized(model))
    )
    assert rows["head"]["output"]["sqnr_db"] == pytest.approx(sqnr_db(exact, got), abs=1e-3)


def test_saturation_is_the_share_beyond_the_range(model, simulation):
    loud = [(sample * 50,) for (sample,) in samples(2, 5)]
    rows = {row["layer"]: row["output"] for row in layer_errors.compared(simulation, loud)}
    calm = {row["layer"]: row["output"] for row in layer_errors.compared(simulation, samples(16))}
    exact = np.concatenate([t.numpy().ravel() for t in outputs(model, loud)])
    low = (-128 - rows["head"]["zero_point"]) * rows["head"]["scale"]
    high = (127 - rows["head"]["zero_point"]) * rows["head"]["scale"]
    beyond = ((exact < low) | (exact > high)).mean()
    assert rows["head"]["saturated"] > 0.1
    assert abs(rows["head"]["saturated"] - beyond) < 0.4
    assert calm["head"]["saturated"] < 0.05


def test_sensitivity_ranks_a_layer_that_was_spoiled_first():
    import torch

    net = network()
    with torch.no_grad():  # one huge weight on a channel that is silent: a scale for all is coarse
        net.two[0].weight[:, 0, 0, 0] = 40.0
        net.one[1].weight[0], net.one[1].bias[0] = 0.0, 0.0
    model = torch.export.export(net, samples(1)[0])
    simulation = Simulation(quantized(model, granularity="per_tensor"), pt2e.folded(model))
    assert sensitivity.ranking(simulation, samples(4, 3))[0] == "two.0"
    found = sensitivity.effect_of_each(
        simulation.layers,
        sensitivity.stacked([sensitivity.effects(simulation, s) for s in samples(4, 3)]),
        lambda ours, floats: float((ours[0].argmax(-1) == floats[0].argmax(-1)).mean()),
    )
    rows = {row["layer"]: row for row in found["layers"]}
    assert [rows[name]["rank"] for name in ("two.0",)] == [1]
    assert rows["two.0"]["only_sqnr_db"] < rows["head"]["only_sqnr_db"] - 10
    assert rows["two.0"]["without_sqnr_db"] > found["sqnr_db"] + 10, "leaving it out buys it back"
    assert found["drop"] >= rows["two.0"]["without_drop"]


def test_what_was_skipped_is_listed_with_its_reason(model):
    program = quantized(model, skip=("two.*", "Linear"))
    able = backends.load("xnnpack").quantizable("static")
    done, left = reach.reached(program, able, Selection(skip=("two.*", "Linear")))
    assert {(row["module"], row["why"]) for row in left} == {
        ("two.0", "skip = 'two.*'"),
        ("head", "skip = 'Linear'"),
    }
    assert "one.0" in {row["module"] for row in done}
    done, left = reach.reached(quantized(model, only=("one",)), able, Selection(only=("one",)))
    assert {row["module"] for row in done if "conv" in row["operator"]} == {"one.0"}
    assert "not in 'only'" in {row["why"] for row in left}


def test_a_pattern_that_matches_nothing_is_refused(model):
    with pytest.raises(UserError, match=r"skip: 'haed' matches no module[^$]*'head'"):
        quantized(model, skip=("haed",))


def test_a_batch_norm_without_a_convolution_stays_and_is_listed():
    import torch

    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 4, 1)).eval()
    program = quantized(torch.export.export(net, samples(1)[0]))
    _, left = reach.reached(program, backends.load("xnnpack").quantizable("static"), Selection())
    assert [row["operator"] for row in left] == ["aten.batch_norm.default"]


def test_a_batch_norm_that_should_have_been_folded_is_refused(model):
    with pytest.raises(UserError, match=r"batch-norm 'one\.1' was not folded into 'one\.0'"):
        pt2e.check_fused(model.module(check_guards=False))


def scaled():
    """Numbers that become quantized constants, and a parameter in a list of operands."""
    import torch

    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)
            self.token = torch.nn.Parameter(torch.randn(1, 4, 1, 6))

        def forward(self, x):
            return torch.cat([self.token, self.conv(x) * 0.3 + 1.7], 2)

    return Scaled()


def constant():
    """Constants that are computed while tracing, or from parameters."""
    import torch

    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Conv2d(3, 3, 1) for _ in range(5))
            self.shift = torch.nn.Parameter(torch.randn(3))

        def forward(self, x):
            for k, layer in enumerate(self.layers):
                x = torch.relu(layer(x) + (torch.tensor([0.5]) if k == 2 else self.shift[0]))
            return x

    return Constant()


def in_place():
    """The input is written to; two outputs."""
    import torch

    class InPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x.sub_(0.5).div_(0.5)).flatten(1), x.mean()

    return InPlace()


@pytest.mark.parametrize("written", [scaled, constant, in_place])
def test_networks_that_are_written_otherwise(written):
    import torch

    torch.manual_seed(0)
    net = written().eval()
    model = torch.export.export(net, samples(1)[0])
    simulation = Simulation(quantized(model), pt2e.folded(model))
    assert all("conv" in layer.operator for layer in simulation.layers.values())
    sample = samples(1, 5)[0]
    wanted = net(sample[0].clone())
    found = simulation.run(sample, frozenset()).outputs
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for ours, exact in zip(found, wanted, strict=True):
        assert torch.allclose(ours, exact, atol=1e-5), (
            "with nothing quantized it is the float model"
        )
    again = simulation.run(sample, frozenset()).outputs
    assert all(a.equal(b) for a, b in zip(found, again, strict=True)), "the sample was written to"
    rows = layer_errors.compared(simulation, samples(3, 6))
    assert all(row["output"]["sqnr_db"] > 20 for row in rows), rows


def test_values_that_are_not_finite_have_no_figure():
    import torch

    error = layer_errors.Error()
    error.add(torch.tensor([1.0, float("-inf")]), torch.tensor([1.0, -3.0]))
    assert error.figures() == {"sqnr_db": None, "mse": None, "equal": False}
    error = layer_errors.Error()
    error.add(torch.ones(2), torch.ones(2))
    assert error.figures() == {"sqnr_db": None, "mse": 0.0, "equal": True}
    broken = {"float": [np.ones((2, 1))], "quantized": [np.full((2, 1), np.nan)]}
    found = sensitivity.effect_of_each({}, broken)
    assert sensitivity.decibels(found) == -math.inf, "NaN is the worst, not no loss"


def test_what_computes_in_float_between_dynamic_layers_is_listed():
    import torch
    from torch import nn

    net = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Softmax(-1), nn.Linear(8, 4)).eval()
    backend, scheme = backends.load("xnnpack"), schemes.load("int8_dynamic")
    model = torch.export.export(net, (torch.randn(1, 8),))
    program = scheme.quantize(model, scheme.Options(), backend, Material()).program
    done, left = reach.reached(program, backend.quantizable("dynamic"), Selection())
    assert [(row["module"], row["arithmetic"]) for row in done] == [
        ("0", "integer"), ("3", "integer"),
    ]  # fmt: skip
    assert [row["operator"] for row in left] == ["aten.gelu.default", "aten.softmax.int"]
    scheme = schemes.load("int8_weight_only")
    program = scheme.quantize(model, scheme.Options(), backend, Material()).program
    done, left = reach.reached(program, backend.quantizable("weight_only"), Selection())
    assert {row["arithmetic"] for row in done} == {"float"}
    assert len(left) == 2


def test_a_convolution_with_a_computed_weight_is_refused():
    import torch

    class Computed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 3, 1, 1))
            self.norm = torch.nn.BatchNorm2d(4)

        def forward(self, x):
            return self.norm(torch.nn.functional.conv2d(x, self.weight * 2))

    with pytest.raises(UserError, match=r"is computed, so that the batch-norm 'norm' cannot"):
        quantized(torch.export.export(Computed().eval(), samples(1)[0]))


def test_no_loss_is_the_best_rank():
    exact = {"float": [np.ones((2, 1))], "quantized": [np.ones((2, 1))]}
    found = sensitivity.effect_of_each({}, exact)
    assert found == {"sqnr_db": None, "equal": True, "drop": None, "samples": 2, "layers": []}
    assert sensitivity.decibels(found) == math.inf


def test_a_graph_may_be_deeper_than_the_stack_of_python():
    import torch

    graph = torch.fx.Graph()
    given, constant = graph.placeholder("x"), graph.get_attr("w")
    for _ in range(2 * sys.getrecursionlimit()):
        given = graph.call_function(torch.relu, (given,))
        constant = graph.call_function(torch.relu, (constant,))
    both = graph.call_function(torch.add, (constant, given))
    assert is_constant(constant)
    assert not is_constant(both)
