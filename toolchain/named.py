"""What a recipe names beside itself: files and functions, checked before anything is built."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from toolchain import metrics
from toolchain.errors import UserError, nearest
from toolchain.schema import Data, Model, Recipe, shown


def check_model(folder: Path, model: Model, where: str) -> None:
    if (model.factory is None) == (model.program is None):
        raise UserError(
            "needs either 'factory' or 'program', not both",
            where=where,
            hint='factory = "model.py:build" or program = "exported.pt2"',
        )
    if model.program is not None and model.weights is not None:
        raise UserError(
            "weights cannot be loaded into an exported program",
            where=f"{where}.weights",
            hint="an exported program carries its own; leave the key out",
        )
    if model.sha256 is not None and model.weights is None and model.program is None:
        raise UserError("names no file to check", where=f"{where}.sha256", hint="add 'weights'")
    _check_reference(folder, model.factory, f"{where}.factory")
    for key, name in (("program", model.program), ("weights", model.weights)):
        _check_file(folder, name, f"{where}.{key}")
    if model.weights is not None and Path(model.weights).suffix not in (".safetensors", ".pt"):
        raise UserError(
            f"'{model.weights}' is of no known kind",
            where=f"{where}.weights",
            hint="known: .safetensors, .pt (a state dict)",
        )
    for name in model.files:
        _check_file(folder, name, f"{where}.files")
    for name in model.packages:
        _check_package(name, f"{where}.packages")


def check_training(folder: Path, recipe: Recipe, where: str) -> None:
    training = recipe.training
    assert training is not None
    if recipe.model.factory is None:
        raise UserError(
            "an exported program cannot be trained",
            where=where,
            hint="give the model as a factory: [model] factory",
        )
    _check_reference(folder, training.samples, f"{where}.samples")
    _check_reference(folder, training.augment, f"{where}.augment")
    if ":" in training.loss:
        _check_reference(folder, training.loss, f"{where}.loss")
    elif training.loss != "cross_entropy":
        raise UserError(
            f"unknown loss '{training.loss}'",
            where=f"{where}.loss",
            hint="known: cross_entropy; or your own: file.py:function",
        )


def check_data(folder: Path, data: Data, where: str) -> None:
    _check_reference(folder, data.calibration, f"{where}.calibration")
    _check_reference(folder, data.evaluation, f"{where}.evaluation")
    if ":" in data.metric:
        _check_reference(folder, data.metric, f"{where}.metric")
    else:
        metrics.check_name(data.metric, f"{where}.metric")
    for name in data.files:
        _check_file(folder, name, f"{where}.files")


def _check_reference(folder: Path, reference: str | None, where: str) -> None:
    """`file.py:function` names a file that exists; `package.module:function` is looked up later."""
    if reference is None:
        return
    module, colon, function = reference.partition(":")
    if not (module and colon and function.isidentifier()):
        raise UserError(
            f"'{reference}' names no function",
            where=where,
            hint="write file.py:function, or package.module:function",
        )
    if module.endswith(".py"):
        _check_file(folder, module, where)


def _check_file(folder: Path, name: str | None, where: str) -> None:
    if name is not None and not (folder / name).is_file():
        siblings = [p.name for p in folder.iterdir() if p.suffix == Path(name).suffix]
        raise UserError(
            f"no such file '{name}' in {shown(folder)}", where=where, hint=nearest(name, siblings)
        )


def _check_package(name: str, where: str) -> None:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"the package '{name}' is not installed", where=where, hint=f"pip install {name}"
        ) from None
