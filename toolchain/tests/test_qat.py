"""Quantization-aware training: what is trained is what is lowered, and it wins back what rounding
lost."""

from __future__ import annotations

import dataclasses
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from toolchain import backends, programs, pt2e, training
from toolchain.errors import UserError
from toolchain.material import Material
from toolchain.material import Training as Given
from toolchain.schema import Data, Model, Training, Variant, decode, read_toml
from toolchain.schemes import int8_qat, int8_static
from toolchain.steps import data as data_step
from toolchain.steps import export
from toolchain.tests.test_steps import call

DIGITS = Path(__file__).parents[2] / "recipes/digits"

# What torch and its friends warn of while they are imported is the matter of test_steps.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def _torch_is_ready():
    programs.prepare_torch()


@pytest.fixture(scope="module")
def xnnpack():
    return backends.load("xnnpack")


def network():
    """Convolutions, batch-norms with constants that are not the default ones, dropout, linear."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(2, 8, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(8, eps=0.1, momentum=0.5)
            self.last = nn.Conv2d(8, 8, 1)
            self.norm2 = nn.BatchNorm2d(8, eps=0.2)
            self.drop = nn.Dropout(0.1)
            self.linear = nn.Linear(8, 3)
            with torch.no_grad():
                for norm in (self.norm, self.norm2):
                    norm.running_mean = torch.randn(8)
                    norm.running_var = torch.rand(8) + 0.1
                    norm.bias.normal_()

        def forward(self, x):
            x = torch.relu(self.norm(self.conv(x)))
            x = torch.relu(self.norm2(self.last(x)))
            x = nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)
            return self.linear(self.drop(x))

    return Network()


def inference():
    import torch

    return torch.export.export(network().eval(), (torch.zeros(1, 2, 4, 4),))


def given(count=64, loss=training.cross_entropy, **settings):
    """Samples of three classes, and the network in training mode."""
    import torch

    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 3
    inputs = torch.randn(count, 2, 4, 4, generator=generator) + labels[:, None, None, None]
    table = {"samples": "data.py:samples", "epochs": 40, "rate": 1.0, "batch": 16} | settings
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(
        network().train(), (torch.zeros(2, 2, 4, 4),), dynamic_shapes=({0: batch},)
    )
    return Given(program, decode(Training, table, "here"), (inputs,), labels, loss)


def trained(xnnpack, options, made=None):
    """A module after all of its training, and the notes of it."""
    made = made or given()
    module = int8_qat.prepared(made.model, options, xnnpack)
    int8_qat.observe(module, made)
    training.train(module, made, 2, 0.01, int8_qat.freezing(module, options))
    return module


def at_inference(module):
    flags = {n: flag for n in module.graph.nodes if (flag := int8_qat._training_flag(n))}
    int8_qat._switch(module, flags, False)
    for _, observer in int8_qat._observers(module):
        observer.disable_observer()
    return module


def outputs(module, samples):
    import torch

    with torch.no_grad():
        return torch.cat([module(sample[None]) for sample in samples])


# --- what is trained ----------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_without_rounding_it_is_the_float_model_with_its_own_constants(xnnpack, granularity):
    made = given()
    module = at_inference(
        int8_qat.prepared(made.model, int8_qat.Options(granularity=granularity), xnnpack)
    )
    for _, observer in int8_qat._observers(module):
        observer.disable_fake_quant()
    exact = pt2e.folded(inference()).module()
    samples = made.inputs[0][:8]
    np.testing.assert_allclose(
        outputs(module, samples), outputs(exact, samples), rtol=1e-4, atol=1e-5
    )
    norms = int8_qat.batch_norms(module)
    assert [norm.args[6:8] for norm in norms] == [(0.5, 0.1), (0.1, 0.2)]


def test_observing_leaves_weights_statistics_and_the_mode_alone(xnnpack):
    made = given()
    module = int8_qat.prepared(made.model, int8_qat.Options(), xnnpack)
    before = {name: value.clone() for name, value in made.model.state_dict.items()}
    code = module.code
    int8_qat.observe(module, made)
    after = module.state_dict()
    counters = {name for name in before if name.endswith("num_batches_tracked")}
    assert all((after[name] == before[name]).all() for name in before.keys() - counters)
    assert module.code == code
    scales = [float(observer.scale.max()) for _, observer in int8_qat._observers(module)]
    assert 1.0 not in scales  # what they begin with
    assert all(observer.fake_quant_enabled[0] == 1 for _, observer in int8_qat._observers(module))


def test_ranges_and_statistics_move_until_they_are_frozen(xnnpack):
    made = given()
    options = int8_qat.Options(freeze_batch_norm=0.25, freeze_observers=0.5)
    module = int8_qat.prepared(made.model, options, xnnpack)
    int8_qat.observe(module, made)
    freeze = int8_qat.freezing(module, options)
    scales, means, weights = [], [], []

    def watched(done):
        freeze(done)
        scales.append([o.scale.clone() for _, o in int8_qat._observers(module)])
        state = module.state_dict()
        means.append(state["norm.running_mean"].clone())
        weights.append(state["conv.weight"].clone())

    training.train(module, made, 2, 0.1, watched)  # 8 steps
    moved = [
        [bool((one != two).any()) for one, two in zip(*pair, strict=True)]
        for pair in pairwise(scales)
    ]
    assert all(any(step[k] for step in moved[:4]) for k in range(len(scales[0])))
    assert not any(any(step) for step in moved[4:])
    still = [bool((one == two).all()) for one, two in pairwise(means)]
    assert still == [False, False, True, True, True, True, True]
    assert (weights[-1] != weights[-2]).any()


@pytest.mark.parametrize(
    "chosen",
    [
        {"granularity": "per_channel"},
        {"granularity": "per_tensor"},
        {"only": ("Conv2d",)},  # and the ReLU after it
    ],
)
def test_the_program_computes_what_was_trained(xnnpack, chosen):
    options = int8_qat.Options(**chosen)
    module = trained(xnnpack, options)
    program = int8_qat.carried_over(module, inference(), options, xnnpack)
    samples = given().inputs[0]
    ours, theirs = outputs(program.module(), samples), outputs(at_inference(module), samples)
    last = int8_qat._observers(module)[-1][1]
    apart = ((ours - theirs) / last.scale).abs()
    assert apart.max() < 1.01  # a tie, rounded the other way
    assert (apart > 0.01).float().mean() < 0.02


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_it_has_the_operators_of_static_quantization(xnnpack, granularity):
    made, model = given(), inference()
    kept = {name: value.clone() for name, value in model.state_dict.items()}
    samples = [(sample[None],) for sample in made.inputs[0][:4]]
    options = int8_qat.Options(granularity=granularity, epochs=1)
    qat = int8_qat.quantize(model, options, xnnpack, Material((), made)).program
    static = int8_static.quantize(
        model, int8_static.Options(granularity=granularity), xnnpack, Material(samples)
    ).program
    ours, theirs = (
        [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        for program in (qat, static)
    )
    assert ours == theirs
    assert not [name for name in ours if "batch_norm" in name]
    assert not [n for n in qat.graph.nodes if int8_qat._training_flag(n) is not None]  # dropout
    shapes = [node.meta["val"].shape for node in qat.graph.nodes if node.op == "placeholder"]
    assert shapes[-1] == (1, 2, 4, 4)
    for program in (model, made.model):  # what was given is as it was
        assert all((program.state_dict[name] == value).all() for name, value in kept.items())


def test_what_is_skipped_stays_float_without_its_batch_norm(xnnpack):
    options = int8_qat.Options(skip=("last",))
    program = int8_qat.quantize(inference(), options, xnnpack, Material((), given())).program
    convolutions = [n for n in program.graph.nodes if str(n.target) == "aten.conv2d.default"]
    assert ["dequantize" in str(node.args[1].target) for node in convolutions] == [True, False]
    assert not [n for n in program.graph.nodes if "batch_norm" in str(n.target)]


def test_a_channel_that_a_batch_norm_switches_off(xnnpack):
    """torchao divides by the batch-norm's factor."""
    import torch

    made, model = given(), inference()
    with torch.no_grad():
        for program in (made.model, model):
            program.state_dict["norm.weight"][0] = 0.0
    found = int8_qat.quantize(model, int8_qat.Options(epochs=1), xnnpack, Material((), made))
    assert found.notes["history"][0]["loss"] < 10


def test_a_slip_in_skip_is_told(xnnpack):
    with pytest.raises(UserError, match="'lst' matches no module"):
        int8_qat.quantize(
            inference(), int8_qat.Options(skip=("lst",)), xnnpack, Material((), given())
        )


# --- how it is trained --------------------------------------------------------------------------


def test_settings_are_shares_of_the_original_training(xnnpack, capsys):
    notes = int8_qat.quantize(inference(), int8_qat.Options(), xnnpack, Material((), given())).notes
    assert (notes["epochs"], notes["rate"]) == (4, 0.01)  # of 40 and 1.0
    assert [set(epoch) for epoch in notes["history"]] == [{"loss", "rate"}] * 4
    assert notes["history"][0]["rate"] == training.rate_at(3 / 16, 0.01)  # the last of 4 steps
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"  epoch {k} of 4" for k in (1, 2, 3, 4)
    ]


def test_the_rate_falls_along_a_cosine():
    assert training.rate_at(0, 2.0) == 2.0
    assert training.rate_at(0.5, 2.0) == pytest.approx(1.01)
    assert training.rate_at(1, 2.0) == pytest.approx(0.02)


def test_a_small_set_is_one_batch_and_a_remainder_is_left_out():
    assert training.steps_per_epoch(given(count=9)) == 1
    assert training.batch_size(given(count=9)) == 9
    made = given(count=35)
    found = [labels for _, labels in training.batches(made)]
    assert [len(labels) for labels in found] == [16, 16]


def test_training_wins_back_what_rounding_lost(xnnpack, tmp_path):
    """The digits' float function, with channels of which some are 64 times as large as others."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "digits"
    shutil.copytree(DIGITS, folder)
    weights = load_file(folder / "weights.safetensors")
    generator = torch.Generator().manual_seed(3)
    for k in (0, 1):
        channels = len(weights[f"features.{k}.1.weight"])
        factor = 2 ** (torch.rand(channels, generator=generator) * 6 - 3)
        weights[f"features.{k}.1.weight"] *= factor
        weights[f"features.{k}.1.bias"] *= factor
        weights[f"features.{k + 1}.0.weight"] /= factor[:, None, None]
    save_file(weights, folder / "weights.safetensors")
    made = files(tmp_path, folder, read_toml(folder / "recipe.toml"))

    exact = programs.from_file(made["model"])
    static = int8_static.quantize(
        exact,
        int8_static.Options(granularity="per_tensor"),
        xnnpack,
        Material(programs.samples(made["calibration"])),
    ).program
    qat = int8_qat.quantize(
        exact,
        int8_qat.Options(granularity="per_tensor", epochs=4, rate=0.001),
        xnnpack,
        Material((), material(made, folder)),
    )
    history = [epoch["loss"] for epoch in qat.notes["history"]]
    assert history[-1] < history[0]

    evaluation = load_file(made["evaluation"])
    floating, rounded, learnt = (
        float(
            (
                outputs(program.module(), evaluation["input.0"][:, 0]).argmax(1)
                == evaluation["label"]
            )
            .float()
            .mean()
        )
        for program in (exact, static, qat.program)
    )
    assert floating > 0.98
    assert rounded < 0.7
    assert learnt > 0.9


# --- what the recipe gives ----------------------------------------------------------------------

TWO_INPUTS = """
import torch
from torch import nn

class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)
    def forward(self, x, y):
        return {"sum": self.b(torch.relu(self.a(x) + y))}

def build():
    return M()
"""
ITS_DATA = """
import numpy as np

def samples():
    random = np.random.RandomState(0)
    for _ in range(48):
        x, y = random.randn(1, 3).astype("f4"), random.randn(1, 4).astype("f4")
        yield (x, y), float(x.sum() + y.sum())

def calibration():
    return [inputs for inputs, _ in samples()]

def augment(x, y):
    import torch
    return x + torch.rand(()) * 1e-3, y

def loss(outputs, labels):
    return ((outputs["sum"][:, 0] - labels) ** 2).mean()
"""


def two_inputs(folder, **training_table):
    folder.mkdir()
    (folder / "model.py").write_text(TWO_INPUTS)
    (folder / "data.py").write_text(ITS_DATA)
    table = {"samples": "data.py:samples", "loss": "data.py:loss", "augment": "data.py:augment"}
    return {
        "model": {"factory": "model.py:build", "inputs": [{"shape": [1, 3]}, {"shape": [1, 4]}]},
        "data": {"calibration": "data.py:calibration", "evaluation": "data.py:samples"},
        "training": table | {"epochs": 20, "rate": 1.0, "batch": 8} | training_table,
    }


def files(at, folder, recipe):
    """What the steps before `quantize` make of a recipe."""
    model = decode(Model, recipe["model"], "here")
    settings = decode(Training, recipe["training"], "here")
    data = decode(Data, recipe["data"], "here")
    specs = {"model": model, "settings": settings, "data": data}
    made = {name: at / f"{name}.json" for name in specs}
    for name, value in specs.items():
        made[name].write_text(value.canonical())
    given, spec = {"model": made["model"], "folder": folder}, made.pop("model")
    for name, mode in (("model", "inference"), ("training", "training")):
        made[name] = at / f"{name}.pt2"
        export.run(model=spec, folder=folder, out=made[name], mode=mode)
    for name in ("calibration", "evaluation", "training"):
        key = "samples" if name == "training" else name
        source = made["settings" if name == "training" else "data"]
        made[key] = at / f"{name}.safetensors"
        data_step.run(**given, data=source, kind=name, out=made[key])
    return made


def material(made, folder):
    return training.material(made["training"], made["samples"], made["settings"], folder)


def test_two_inputs_and_an_own_loss(xnnpack, tmp_path):
    folder = tmp_path / "recipe"
    made = files(tmp_path, folder, two_inputs(folder))
    used = material(made, folder)
    assert [list(tensor.shape) for tensor in used.inputs] == [[48, 3], [48, 4]]
    qat = int8_qat.quantize(
        programs.from_file(made["model"]),
        int8_qat.Options(epochs=10, rate=0.02),
        xnnpack,
        Material((), used),
    )
    assert (qat.notes["epochs"], qat.notes["rate"]) == (10, 0.02)  # and not shares
    history = [epoch["loss"] for epoch in qat.notes["history"]]
    assert history[-1] < 0.8 * history[0]


def test_a_sample_that_is_a_batch_counts_as_several(tmp_path):
    from safetensors.torch import save_file

    made = given()
    x, y = made.inputs[0].reshape(16, 4, 2, 4, 4), made.labels.reshape(16, 4)
    save_file({"input.0": x, "label": y}, tmp_path / "x.safetensors")
    inputs, labels = training._stacked(tmp_path / "x.safetensors", "data.py:samples")
    assert (inputs[0] == made.inputs[0]).all()
    assert (labels == made.labels).all()
    save_file({"input.0": x, "label": y[:, 0].clone()}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"a label is \[\], and a sample is a batch of 4"):
        training._stacked(tmp_path / "x.safetensors", "data.py:samples")


MISTAKES = {
    "loss of no graph": (
        "def loss(outputs, labels): return outputs['sum'].detach().sum()",
        ["no parameter of the model has a part in the loss", "data.py:loss", ".detach()"],
    ),
    "loss of many": (
        "def loss(outputs, labels): return outputs['sum'] - labels[:, None]",
        ["data.py:loss: gave [8, 1], and a tensor of no dimensions is wanted"],
    ),
    "loss raises": (
        "def loss(outputs, labels): return outputs['sums'].mean()",
        ["KeyError: 'sums'", "data.py:"],
    ),
    "loss runs away": (
        "def loss(outputs, labels): return outputs['sum'].mean() / 0",
        ["training runs away: the loss is", "than 0.01, such as rate = 0.001"],
    ),
    "augmentation cuts": (
        "def augment(x, y): return x[:, :2], y",
        ["data.py:augment: made [8, 2] float32, [8, 4] float32 of [8, 3] float32, [8, 4] float32"],
    ),
    "augmentation forgets": (
        "def augment(x, y): return x",
        ["made [8, 3] float32 of [8, 3] float32, [8, 4] float32"],
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_in_training(xnnpack, tmp_path, case):
    text, told = MISTAKES[case]
    folder = tmp_path / "recipe"
    made = files(tmp_path, folder, two_inputs(folder))
    (folder / "data.py").write_text(f"{ITS_DATA}\n{text}\n")
    with pytest.raises(UserError) as caught:
        int8_qat.quantize(
            programs.from_file(made["model"]),
            int8_qat.Options(),
            xnnpack,
            Material((), material(made, folder)),
        )
    for part in told:
        assert part in str(caught.value), str(caught.value)


def test_a_rate_that_is_too_large_is_told(xnnpack):
    with pytest.raises(UserError, match=r"(?s)rate: training runs away.*such as rate = 1e\+19"):
        int8_qat.quantize(inference(), int8_qat.Options(rate=1e20), xnnpack, Material((), given()))


def test_cross_entropy_tells_what_it_takes(xnnpack):
    made = given()
    wrong = dataclasses.replace(made, labels=made.labels + 1)
    with pytest.raises(UserError, match=r"scores \[16, 3\] with labels \[16\] int64"):
        int8_qat.quantize(inference(), int8_qat.Options(), xnnpack, Material((), wrong))


def test_one_sample_is_too_few(tmp_path):
    from safetensors.torch import save_file

    made = given()
    save_file(
        {"input.0": made.inputs[0][:1, None].clone(), "label": made.labels[:1].clone()},
        tmp_path / "x.safetensors",
    )
    with pytest.raises(UserError, match="gave 1 sample, and training needs more"):
        training._stacked(tmp_path / "x.safetensors", "data.py:samples")


def test_the_same_bytes_in_another_process(tmp_path):
    folder = tmp_path / "recipe"
    made = files(tmp_path, folder, two_inputs(folder, epochs=10))
    variant = Variant(scheme="int8_qat", options=int8_qat.Options().model_dump(mode="json"))
    (tmp_path / "variant.json").write_text(variant.canonical())
    contents = []
    for seed in (1, 2):
        out, notes = tmp_path / f"{seed}.pt2", tmp_path / f"{seed}.json"
        names = ("model", "training", "samples", "settings")
        done = call(
            "quantize",
            seed,
            **{name: made[name] for name in names},
            variant=tmp_path / "variant.json",
            backend="xnnpack",
            folder=folder,
            out=out,
            notes=notes,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("  epoch 1 of 1: loss ")
        contents.append((out.read_bytes(), notes.read_bytes()))
    assert contents[0] == contents[1]
    assert json.loads(contents[0][1])["epochs"] == 1


def test_recurrent_layers_are_refused(xnnpack):
    import torch

    class Recurrent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.memory = torch.nn.LSTM(4, 4)

        def forward(self, x):
            return self.memory(x)[0]

    program = torch.export.export(Recurrent(), (torch.randn(3, 1, 4),))
    settings = Training(samples="data.py:training", epochs=1, rate=0.1)
    given = Given(program, settings, (), torch.zeros(2), lambda *_: torch.zeros(()))
    with pytest.raises(UserError, match="does not train recurrent layers: memory"):
        int8_qat.quantize(program, int8_qat.Options(), xnnpack, Material((), given))
