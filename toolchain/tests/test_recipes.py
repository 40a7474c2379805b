"""The recipes that come with Slipway: no leakage, weights as good as said, outputs that differ."""

from __future__ import annotations

import hashlib
import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from toolchain import metrics
from toolchain.errors import UserError
from toolchain.loading import importable, load
from toolchain.schema import Model, Tensor, decode_json
from toolchain.tests.test_steps import build

ROOT = Path(__file__).parents[2]
DIGITS, MOBILENET = ROOT / "recipes/digits", ROOT / "recipes/mobilenet_v2"


def called(folder: Path, reference: str):
    with importable(folder):
        return load(reference, folder)()


def test_no_digit_is_on_both_sides():
    train, evaluation = called(DIGITS, "data.py:split")
    calibration = called(DIGITS, "data.py:calibration_indices")
    assert len(train) + len(evaluation) == 1797
    assert len(set(evaluation)) == len(evaluation)
    assert 350 <= len(evaluation) <= 370
    assert not set(train) & set(evaluation)
    assert not set(calibration) & set(evaluation)
    assert len(set(calibration)) == len(calibration) == 128
    again = called(DIGITS, "data.py:split")
    assert (again[0] == train).all()
    assert (again[1] == evaluation).all()


def test_no_evaluation_image_is_seen_in_training_under_another_index():
    train, evaluation = called(DIGITS, "data.py:split")
    images = called(DIGITS, "data.py:images")
    seen = {images[i].tobytes() for i in train}
    assert not [i for i in evaluation if images[i].tobytes() in seen]
    calibration = [sample.tobytes() for sample in called(DIGITS, "data.py:calibration")]
    held_out = {inputs.tobytes() for inputs, _ in called(DIGITS, "data.py:evaluation")}
    assert not held_out & set(calibration)


def test_the_split_is_stratified():
    labels = [label for _, label in called(DIGITS, "data.py:evaluation")]
    counts = np.bincount(labels, minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 37


def test_halves_of_the_photographs_do_not_overlap():
    with importable(MOBILENET):
        halves = load("photographs.py:crops", MOBILENET).__globals__["HALVES"]
    assert halves["left"].stop <= halves["right"].start
    one, two = (called(MOBILENET, f"data.py:{kind}") for kind in ("calibration", "evaluation"))
    first, second = next(one), next(two)[0]
    assert first.shape == second.shape == (1, 3, 224, 224)
    assert first.dtype == np.float32
    assert not np.array_equal(first, second)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("digits")
    build(DIGITS, folder, ("float", "int8"), hash_seed=1)
    return folder


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("mobilenet_v2")
    build(MOBILENET, folder, ("int8",))
    return folder


@pytest.mark.slow
def test_digits_reach_their_accuracy(digits):
    labels = load_file(digits / "evaluation.safetensors")["label"]
    reference = [load_file(digits / "reference.safetensors")["output.0"]]
    floating, int8 = (
        [load_file(digits / name / "host.safetensors")["output.0"]] for name in ("float", "int8")
    )
    accuracy = metrics.top1(reference, labels, reference)
    assert accuracy >= 0.98
    assert metrics.sqnr_db(reference[0], floating[0]) > 100
    assert metrics.top1(int8, labels, reference) >= 0.98 * accuracy
    assert metrics.sqnr_db(reference[0], int8[0]) > 25
    assert (DIGITS / "weights.safetensors").stat().st_size < 200_000
    assert (digits / "int8/program.pte").stat().st_size < 60_000


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["float", "int8"])
def test_digits_are_one_delegate(digits, variant):
    report = json.loads((digits / variant / "lower.json").read_bytes())
    assert report["operators"]["undelegated"] == {}
    assert (report["delegates"], report["delegated_share"]) == (1, 1.0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_every_step_gives_the_same_bytes_in_another_process_folder_and_hash_seed(digits, tmp_path):
    elsewhere = tmp_path / "another/place/digits"
    shutil.copytree(DIGITS, elsewhere)
    text = (elsewhere / "model.py").read_text()
    (elsewhere / "model.py").write_text("# a remark that changes nothing but line numbers\n" + text)
    build(elsewhere, tmp_path / "built", ("int8",), hash_seed=2)
    one, two = contents(digits), contents(tmp_path / "built")
    assert {"int8/program.pte", "model.pt2", "evaluation.safetensors"} < two.keys()
    assert [name for name in two if one[name] != two[name]] == []
    assert str(ROOT).encode() not in one["model.pt2"]


@pytest.mark.slow
def test_all_of_digits_is_quantized(digits):
    report = json.loads((digits / "int8/quantize.json").read_bytes())
    assert report["not_quantized"] == []
    assert report["notes"]["calibration_samples"] == 100, "of the 128 that there are"
    convolution = {"operator": "aten.conv2d.default", "module": "features.1.0"}
    assert {**convolution, "arithmetic": "integer"} in report["quantized"]
    assert [row["layer"] for row in report["layers"]] == [
        "features.0.0", "features.1.0", "features.2.0", "classifier",
    ]  # fmt: skip
    assert all(row["output"]["sqnr_db"] > 30 for row in report["layers"])
    assert report["host"]["drop"] < 0.01
    floating = json.loads((digits / "float/quantize.json").read_bytes())
    assert floating["quantized"] == []
    assert {row["why"] for row in floating["not_quantized"]} == {"the scheme keeps float"}


@pytest.mark.slow
def test_mobilenet_answers_differently_to_different_images(mobilenet):
    scores = load_file(mobilenet / "reference.safetensors")["output.0"][:, 0]
    assert scores.shape == (32, 1000)
    assert len(set(scores.argmax(axis=1))) >= 8
    apart = [metrics.sqnr_db(a, b) for a, b in combinations(scores, 2)]
    assert np.median(apart) < 3, "for most pairs the difference is about as large as the scores"
    assert np.corrcoef(scores)[np.triu_indices(32, 1)].mean() < 0.8


@pytest.mark.slow
def test_mobilenet_in_int8_is_small_whole_and_near_the_float_model(mobilenet):
    assert (mobilenet / "int8/program.pte").stat().st_size < 3_800_000
    report = json.loads((mobilenet / "int8/lower.json").read_bytes())
    assert report["operators"]["undelegated"] == {}
    assert report["delegates"] == 1
    quantized = json.loads((mobilenet / "int8/quantize.json").read_bytes())
    assert quantized["not_quantized"] == []
    convolutions = [r for r in quantized["quantized"] if r["operator"] == "aten.conv2d.default"]
    assert len(convolutions) == 52
    reference = load_file(mobilenet / "reference.safetensors")["output.0"]
    int8 = load_file(mobilenet / "int8/host.safetensors")["output.0"]
    assert metrics.sqnr_db(reference, int8) > 10
    assert metrics.agreement([int8], None, [reference]) > 0.4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mobilenet_is_the_network_of_the_paper():
    model = called(MOBILENET, "model.py:mobilenet_v2")
    assert sum(p.numel() for p in model.parameters()) == 3_504_872  # torchvision's count
    state = model.state_dict()
    assert len(state) == 314
    assert state["features.0.0.weight"].shape == (32, 3, 3, 3)
    assert state["features.1.conv.0.0.weight"].shape == (32, 1, 3, 3)
    assert state["features.1.conv.1.weight"].shape == (16, 32, 1, 1)
    assert state["features.2.conv.3.running_mean"].shape == (24,)
    assert state["features.17.conv.2.weight"].shape == (320, 960, 1, 1)
    assert state["features.18.0.weight"].shape == (1280, 320, 1, 1)
    assert state["classifier.1.weight"].shape == (1000, 1280)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_users_checkpoint_is_loaded_and_its_digest_checked(tmp_path, suffix):
    import torch
    from safetensors.torch import save_file

    from toolchain import programs
    from toolchain.steps import export

    shutil.copytree(MOBILENET, tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__"))
    state = called(MOBILENET, "model.py:mobilenet_v2").state_dict()
    state["classifier.1.bias"] = torch.arange(1000.0) * 100
    weights = tmp_path / f"mine/own{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, weights)

    def run(sha256: str) -> None:
        model = Model(
            factory="model.py:mobilenet_v2",
            inputs=(Tensor(shape=(1, 3, 224, 224)),),
            weights=weights.name,
            sha256=sha256,
        )
        (tmp_path / "model.json").write_text(model.canonical())
        assert decode_json(Model, tmp_path / "model.json") == model
        export.run(
            model=tmp_path / "model.json", folder=tmp_path / "mine", out=tmp_path / "out.pt2"
        )

    with pytest.raises(UserError, match=r"recipe\.toml: \[model\]\.weights: the sha256 of"):
        run("0" * 64)
    assert not (tmp_path / "out.pt2").exists()
    run(hashlib.sha256(weights.read_bytes()).hexdigest())
    module = programs.from_file(tmp_path / "out.pt2").module()
    assert module(torch.zeros(1, 3, 224, 224)).argmax() == 999
