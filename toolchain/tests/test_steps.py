"""The steps from a recipe to a program: samples as they should be, and each mistake told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from toolchain.errors import UserError
from toolchain.schema import Data, Model, Recipe, Tensor, Training, Variant, decode, read_toml
from toolchain.steps import data as data_step

ROOT = Path(__file__).parents[2]


def write_specs(folder: Path, recipe: Recipe) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(recipe.model.canonical())
    (folder / "data.json").write_text(recipe.data.canonical())
    for name, variant in recipe.variants.items():
        (folder / f"{name}.json").write_text(json.dumps(variant.model_dump(mode="json")))


def call(verb: str, hash_seed: int = 0, **arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a step as the build does."""
    options = [f"--{name}={value}" for name, value in arguments.items()]
    return subprocess.run(
        [sys.executable, "-m", f"toolchain.steps.{verb}", *options],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def build(recipe: Path, out: Path, variants: tuple[str, ...], hash_seed: int = 0) -> None:
    """All files up to the host's outputs; each step has to end well and say nothing."""
    write_specs(out, decode(Recipe, read_toml(recipe / "recipe.toml"), "recipe.toml"))
    model, program = out / "model.pt2", "program.pte"
    given = {"model": out / "model.json", "folder": recipe}
    steps: list[tuple[str, dict[str, object]]] = [("export", {**given, "out": model})]
    for kind in ("calibration", "evaluation"):
        file = out / f"{kind}.safetensors"
        steps.append(
            ("data", {**given, "data": out / "data.json", "kind": kind, "out": file}),
        )
    evaluation = out / "evaluation.safetensors"
    steps.append(
        ("reference", {"model": model, "data": evaluation, "out": out / "reference.safetensors"})
    )
    for name in variants:
        at = out / name
        quantized, lowered = at / "quantized.pt2", at / program
        static = name != "float"
        calibration = {"calibration": out / "calibration.safetensors"} if static else {}
        steps += [
            (
                "quantize",
                {
                    "model": model,
                    "variant": out / f"{name}.json",
                    "backend": "xnnpack",
                    "out": quantized,
                    "notes": at / "notes.json",
                    **calibration,
                },
            ),
            (
                "lower",
                {
                    "quantized": quantized,
                    "backend": "xnnpack",
                    "out": lowered,
                    "report": at / "lower.json",
                },
            ),
            (
                "host",
                {
                    "program": lowered,
                    "backend": "xnnpack",
                    "data": evaluation,
                    "out": at / "host.safetensors",
                },
            ),
            (
                "analyze",
                {
                    "variant": out / f"{name}.json",
                    "model": model,
                    "quantized": quantized,
                    "notes": at / "notes.json",
                    "data": evaluation,
                    "reference": out / "reference.safetensors",
                    "host": at / "host.safetensors",
                    "backend": "xnnpack",
                    "metric": read_toml(recipe / "recipe.toml")["data"]["metric"],
                    "folder": recipe,
                    "out": at / "quantize.json",
                },
            ),
        ]
    for verb, arguments in steps:
        done = call(verb, hash_seed, **arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), verb


# --- export -------------------------------------------------------------------------------------

BUILD = "import torch\nfrom torch import nn\n"
EXPORT_MISTAKES: dict[str, tuple[str, dict, list[str]]] = {
    "wrong shape": (
        "def build():\n    return nn.Linear(5, 2)\n",
        {},
        ["does not run on the inputs of the recipe, [1, 4] float32", "[model].inputs"],
    ),
    "too many inputs": (
        "class M(nn.Module):\n    def forward(self, a, b):\n        return a + b\n"
        "def build():\n    return M()\n",
        {},
        ["does not run on the inputs", "missing 1 required positional argument: 'b'"],
    ),
    "no module": ("def build():\n    return 3\n", {}, ["gave int", "torch.nn.Module"]),
    "factory raises": ("def build():\n    return [][1]\n", {}, ["model.py:4: IndexError"]),
    "no function": ("def biuld():\n    pass\n", {}, ["'biuld'"]),
    "data-dependent branch": (
        "class M(nn.Module):\n    def forward(self, x):\n"
        "        return x if x.sum() > 0 else -x\ndef build():\n    return M()\n",
        {},
        ["torch.export cannot export the model", "branch on a tensor's value"],
    ),
    "output is no tensor": (
        "class M(nn.Module):\n    def forward(self, x):\n        return x, 'word'\n"
        "def build():\n    return M()\n",
        {},
        ["output has to be tensors", "str"],
    ),
    "no weights file": (
        "def build():\n    return nn.Linear(4, 2)\n",
        {"weights": "none.pt"},
        ["no such file", "none.pt", "[model].weights"],
    ),
    "corrupt program": (
        "",
        {"factory": None, "program": "model.py"},
        ["model.py: is not an exported program"],
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", EXPORT_MISTAKES)
def test_mistakes_in_a_model(tmp_path, case):
    from toolchain.steps import export

    text, changed, told = EXPORT_MISTAKES[case]
    (tmp_path / "model.py").write_text(BUILD + text)
    model: dict = {"factory": "model.py:build", "inputs": [{"shape": [1, 4]}]} | changed
    (tmp_path / "model.json").write_text(json.dumps(model))
    with pytest.raises(UserError) as caught:
        export.run(model=tmp_path / "model.json", folder=tmp_path, out=tmp_path / "out.pt2")
    for part in told:
        assert part in str(caught.value), str(caught.value)
    assert not (tmp_path / "out.pt2").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_taken_as_it_is(tmp_path):
    import torch

    from toolchain import programs
    from toolchain.steps import export

    layer = torch.nn.Linear(4, 2)
    torch.export.save(torch.export.export(layer, (torch.ones(1, 4),)), tmp_path / "m.pt2")

    def run(shape: tuple[int, ...]) -> None:
        model = Model(program="m.pt2", inputs=(Tensor(shape=shape),))
        (tmp_path / "model.json").write_text(model.canonical())
        export.run(model=tmp_path / "model.json", folder=tmp_path, out=tmp_path / "out.pt2")

    run((1, 4))
    given = torch.ones(1, 4)
    loaded = programs.from_file(tmp_path / "out.pt2").module()(given)
    assert torch.equal(loaded, layer(given))
    with pytest.raises(UserError, match=r"takes \[1, 4\] float32, the recipe says \[2, 4\]"):
        run((2, 4))
    whole = (tmp_path / "m.pt2").read_bytes()
    (tmp_path / "m.pt2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"m\.pt2: is not an exported program"):
        run((1, 4))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_factory_without_weights_gives_the_same_model_each_time(tmp_path):
    from toolchain.steps import export

    (tmp_path / "model.py").write_text(BUILD + "def build():\n    return nn.Linear(4, 2)\n")
    model = Model(factory="model.py:build", inputs=(Tensor(shape=(1, 4)),))
    (tmp_path / "model.json").write_text(model.canonical())
    for name in ("a", "b"):
        export.run(model=tmp_path / "model.json", folder=tmp_path, out=tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


NORMALIZED = (
    "class M(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)\n"
    "    def forward(self, x):\n        return self.drop(self.norm(x))\n"
    "def build():\n    return M()\n"
)


def export_for_training(folder: Path, text: str, *shapes: tuple[int, ...]):
    from toolchain import programs
    from toolchain.steps import export

    (folder / "model.py").write_text(BUILD + text)
    model = Model(factory="model.py:build", inputs=tuple(Tensor(shape=shape) for shape in shapes))
    (folder / "model.json").write_text(model.canonical())
    out = folder / "training.pt2"
    export.run(model=folder / "model.json", folder=folder, out=out, mode="training")
    return programs.from_file(out)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_for_training_takes_any_batch_and_uses_its_statistics(tmp_path):
    import torch

    program = export_for_training(tmp_path, NORMALIZED, (1, 4))
    state = program.state_dict
    assert (state["norm.running_mean"] == 0).all()  # nothing has run in training mode
    assert (state["norm.running_var"] == 1).all()
    module = program.module()
    torch.manual_seed(0)
    for size in (2, 7):
        given = torch.randn(size, 4) + 3
        got = module(given)
        normalized = torch.nn.functional.batch_norm(given, None, None, training=True)
        kept = got != 0
        torch.testing.assert_close(got[kept], (normalized * 2)[kept])  # dropout drops half
    assert 0 < kept.float().mean() < 1
    assert (module.norm.running_mean != 0).all()


@pytest.mark.slow
def test_a_model_for_training_is_the_same_in_each_process(tmp_path):
    (tmp_path / "model.py").write_text(BUILD + NORMALIZED)
    model = Model(factory="model.py:build", inputs=(Tensor(shape=(1, 4)),))
    (tmp_path / "model.json").write_text(model.canonical())
    for seed in (1, 2):
        done = call(
            "export",
            seed,
            model=tmp_path / "model.json",
            folder=tmp_path,
            mode="training",
            out=tmp_path / f"{seed}.pt2",
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "1.pt2").read_bytes() == (tmp_path / "2.pt2").read_bytes()


FUNCTION = (
    "class M(nn.Module):\n    def forward(self, *x):\n        {}\ndef build():\n    return M()\n"
)
TRAINING_EXPORT_MISTAKES: dict[str, tuple[str, list[tuple[int, ...]], list[str]]] = {
    "a batch of one": (
        "return x[0].view(1, 4).sum(1)",
        [(1, 4)],
        ["does not run on the inputs", "[2, 4] float32", "x.flatten(1)", "not x.view(1, -1)"],
    ),
    "a constant size": (
        "return x[0].expand(int(x[0].shape[0]) // 2 * 2, 4) if len(x[0]) == 2 else x[0]",
        [(1, 4)],
        ["with any number of samples in a batch", "batch", "x.flatten(1)"],
    ),
    "inputs of several sizes": (
        "return x[0] + x[1]",
        [(1, 4), (3, 4)],
        ["needs a batch dimension", "[1, 4] float32, [3, 4] float32", "[model].inputs"],
    ),
    "no dimension": ("return x[0]", [()], ["needs a batch dimension, the first"]),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", TRAINING_EXPORT_MISTAKES)
def test_mistakes_in_a_model_for_training(tmp_path, case):
    body, shapes, told = TRAINING_EXPORT_MISTAKES[case]
    with pytest.raises(UserError) as caught:
        export_for_training(tmp_path, FUNCTION.format(body), *shapes)
    for part in told:
        assert part in str(caught.value), str(caught.value)
    assert not (tmp_path / "training.pt2").exists()


def test_an_exported_program_is_not_for_training(tmp_path):
    from toolchain.steps import export

    model = Model(program="m.pt2", inputs=(Tensor(shape=(1, 4)),))
    (tmp_path / "model.json").write_text(model.canonical())
    given = {"model": tmp_path / "model.json", "folder": tmp_path, "out": tmp_path / "out"}
    with pytest.raises(UserError, match="an exported program cannot be trained"):
        export.run(**given, mode="training")
    with pytest.raises(UserError, match=r"unknown mode 'trainin'\n.*'training'"):
        export.run(**given, mode="trainin")


# --- quantize -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_scheme_that_reaches_nothing_or_lacks_its_data_is_refused(tmp_path):
    import torch
    from safetensors.torch import save_file

    from toolchain import programs
    from toolchain.steps import quantize

    programs.prepare_torch()
    program = torch.export.export(torch.nn.Sigmoid(), (torch.ones(1, 4),))
    (tmp_path / "model.pt2").write_bytes(programs.to_bytes(program))
    save_file({"input.0": torch.randn(8, 1, 4)}, tmp_path / "calibration.safetensors")
    (tmp_path / "variant.json").write_text(Variant(scheme="int8_static").canonical())
    given = {
        "model": tmp_path / "model.pt2",
        "variant": tmp_path / "variant.json",
        "backend": "xnnpack",
        "out": tmp_path / "out.pt2",
        "notes": tmp_path / "notes.json",
    }
    with pytest.raises(UserError, match=r"found nothing to quantize[^$]*aten\.conv2d"):
        quantize.run(**given, calibration=tmp_path / "calibration.safetensors")
    with pytest.raises(UserError, match="'int8_static' needs it"):
        quantize.run(**given)
    assert not (tmp_path / "out.pt2").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_sample_does_not_hold_on_to_all_others(tmp_path):
    """A view of all samples would be saved whole with a program that it is an example of."""
    from safetensors.numpy import save_file

    from toolchain import programs

    given = {"input.1": np.arange(5)[:, None], "input.0": np.ones((5, 1, 3), "float32")}
    save_file({**given, "label": np.arange(5)}, tmp_path / "samples.safetensors")
    samples = programs.samples(tmp_path / "samples.safetensors")
    assert len(samples) == 5
    assert [tuple(tensor.shape) for tensor in samples[3]] == [(1, 3), (1,)]
    assert samples[3][1].item() == 3
    for tensor in samples[3]:
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["Dropout", "BatchNorm1d"])
def test_a_program_in_training_mode_is_refused(tmp_path, layer):
    import torch

    from toolchain.steps import export

    module = getattr(torch.nn, layer)(4 if layer == "BatchNorm1d" else 0.5)
    exported = torch.export.export(module.train(), (torch.ones(2, 4),))
    torch.export.save(exported, tmp_path / "m.pt2")
    model = Model(program="m.pt2", inputs=(Tensor(shape=(2, 4)),))
    (tmp_path / "model.json").write_text(model.canonical())
    with pytest.raises(UserError, match="training mode"):
        export.run(model=tmp_path / "model.json", folder=tmp_path, out=tmp_path / "out.pt2")


# --- data ---------------------------------------------------------------------------------------


def materialize(
    folder: Path,
    text: str,
    kind: str = "evaluation",
    inputs: tuple[Tensor, ...] = (Tensor(shape=(1, 2)),),
    metric: str = "agreement",
) -> dict[str, np.ndarray]:
    (folder / "data.py").write_text("import numpy as np\n" + text)
    data = Data(calibration="data.py:samples", evaluation="data.py:samples", metric=metric)
    (folder / "data.json").write_text(data.canonical())
    (folder / "model.json").write_text(Model(factory="m.py:f", inputs=inputs).canonical())
    data_step.run(
        data=folder / "data.json",
        model=folder / "model.json",
        folder=folder,
        kind=kind,
        out=folder / "out.safetensors",
    )
    return load_file(folder / "out.safetensors")


X = "x = np.ones((1, 2), 'float32')\n"


def test_samples_are_stacked(tmp_path):
    text = "def samples():\n    for k in range(3):\n        yield k * x, k\n"
    found = materialize(tmp_path, X + text)
    assert found["input.0"].shape == (3, 1, 2)
    assert found["input.0"].dtype == np.float32
    assert found["input.0"][2].tolist() == [[2, 2]]
    assert found["label"].dtype == np.int64
    assert found["label"].tolist() == [0, 1, 2]


def test_a_buffer_that_is_filled_again_is_copied(tmp_path):
    text = "def samples():\n    for k in range(3):\n        x[:] = k\n        yield x, k\n"
    found = materialize(tmp_path, X + text)
    assert found["input.0"][:, 0, 0].tolist() == [0, 1, 2]


def test_labels_may_be_missing_numbers_or_arrays(tmp_path):
    assert "label" not in materialize(tmp_path, X + "def samples(): return [(x, None)]\n")
    found = materialize(tmp_path, X + "def samples(): return [(x, 0.5), (x, 1)]\n")
    assert found["label"].dtype == np.float32
    found = materialize(tmp_path, X + "def samples(): return [(x, np.array([1, 2]))] * 3\n")
    assert found["label"].shape == (3, 2)


def test_several_inputs_of_several_types(tmp_path):
    two = (Tensor(shape=(1, 2)), Tensor(shape=(1, 3), dtype="int64"))
    text = X + "y = np.array([[1, 2, 3]])\n"
    found = materialize(tmp_path, text + "def samples(): return [(x, y)] * 2\n", "calibration", two)
    assert found["input.1"].shape == (2, 1, 3)
    assert found["input.1"].dtype == np.int64
    found = materialize(tmp_path, text + "def samples(): return [((x, y), 1)]\n", "evaluation", two)
    assert found.keys() == {"input.0", "input.1", "label"}


def test_tensors_are_taken_too(tmp_path):
    text = "import torch\ndef samples(): return [torch.ones(1, 2, requires_grad=True)]\n"
    assert materialize(tmp_path, text, "calibration")["input.0"].tolist() == [[[1, 1]]]


def test_draws_without_a_seed_repeat(tmp_path):
    text = "def samples(): return [np.random.rand(1, 2).astype('float32')]\n"
    first = materialize(tmp_path, text, "calibration")["input.0"]
    assert (first == materialize(tmp_path, text, "calibration")["input.0"]).all()


DATA_MISTAKES = {
    "no samples": ("def samples(): return []", ["gave no samples for evaluation"]),
    "not iterable": ("def samples(): return 3", ["gave int", "iterable"]),
    "no pair": ("def samples(): return [x]", ["sample 0 is [1, 2] float32", "(inputs, label)"]),
    "no batch": (
        "def samples(): return [(x, 1), (x[0], 1)]",
        ["sample 1: is [2] float32", "declares [1, 2] float32", "sample[None]"],
    ),
    "shape": ("def samples(): return [(x.T, 1)]", ["sample 0: is [2, 1] float32"]),
    "type": (
        "def samples(): return [(x.astype('float64'), 1)]",
        ["is [1, 2] float64", "astype('float32')"],
    ),
    "no numbers": ("def samples(): return [('word', 1)]", ["sample 0: is str", "numpy arrays"]),
    "inputs": ("def samples(): return [((x, x), 1)]", ["is a tuple of 2", "has 1 input"]),
    "nan": ("def samples(): return [(x, 1), (x * np.nan, 1)]", ["sample 1: holds NaN"]),
    "infinite label": ("def samples(): return [(x, np.inf)]", ["label is NaN or infinite"]),
    "some labels": ("def samples(): return [(x, 1), (x, None)]", ["sample 1 has no label"]),
    "word label": ("def samples(): return [(x, 'cat')]", ["label of sample 0 is str"]),
    "ragged labels": (
        "def samples(): return [(x, 1), (x, np.ones(2))]",
        ["label of sample 1 is [2] float64"],
    ),
    "raises late": (
        "def samples():\n    yield x, 1\n    raise OSError('no such image')",
        ["data.py:5: OSError: no such image"],
    ),
    "no function": ("def sample(): return []", ["no function 'samples'", "'sample'"]),
}


@pytest.mark.parametrize("case", DATA_MISTAKES)
def test_mistakes_in_data(tmp_path, case):
    text, told = DATA_MISTAKES[case]
    with pytest.raises(UserError) as caught:
        materialize(tmp_path, X + text + "\n")
    for part in told:
        assert part in str(caught.value), str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_top1_without_labels_is_told_before_anything_is_built(tmp_path):
    with pytest.raises(UserError, match="the metric 'top1' needs them"):
        materialize(tmp_path, X + "def samples(): return [(x, None)]\n", metric="top1")


def test_training_samples_come_from_the_training_of_the_recipe(tmp_path):
    (tmp_path / "data.py").write_text(
        f"import numpy as np\n{X}def samples(): return [(x, 1), (2 * x, 0)]\n"
        "def unlabeled(): return [(x, None)]\n"
    )
    model = Model(factory="model.py:build", inputs=(Tensor(shape=(1, 2)),))
    (tmp_path / "model.json").write_text(model.canonical())

    def run(samples: str):
        wanted = Training(samples=f"data.py:{samples}", epochs=1, rate=0.1)
        (tmp_path / "training.json").write_text(wanted.canonical())
        data_step.run(
            data=tmp_path / "training.json",
            model=tmp_path / "model.json",
            folder=tmp_path,
            kind="training",
            out=tmp_path / "out.safetensors",
        )
        return load_file(tmp_path / "out.safetensors")

    found = run("samples")
    assert found["input.0"].tolist() == [[[1, 1]], [[2, 2]]]
    assert found["label"].tolist() == [1, 0]
    with pytest.raises(UserError, match="gave no labels, and training needs them"):
        run("unlabeled")
