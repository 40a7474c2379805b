"""Materialize a recipe's samples, each checked against the inputs that its model declares."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from toolchain import loading
from toolchain.atomic import write_bytes
from toolchain.errors import UserError
from toolchain.schema import Data, Model, Tensor, Training, decode_json
from toolchain.steps.main import step

Array = npt.NDArray[Any]

# kind of samples -> the key that names their function
FUNCTIONS = {"calibration": "calibration", "evaluation": "evaluation", "training": "samples"}


def run(*, data: Path, model: Path, folder: Path, kind: str, out: Path) -> None:
    """Write the `kind` samples, calibration, evaluation or training: `input.k` [N, *shape], and
    for the latter two `label` [N, ...].

    data: the recipe's `Data`; for training, its `Training`.
    """
    wanted = decode_json(Training if kind == "training" else Data, data)
    reference = getattr(wanted, FUNCTIONS.get(kind, ""), None)
    if reference is None:
        raise UserError(f"the recipe has no data for '{kind}'", where=str(data))
    inputs = decode_json(Model, model).inputs
    random.seed(0)  # data functions that draw without a seed of their own still repeat
    np.random.seed(0)
    with loading.importable(folder):
        given = list(_samples(reference, folder))
    if not given:
        raise UserError(f"gave no samples for {kind}", where=reference)
    tuples, labels = (given, None) if kind == "calibration" else _split(given, reference)
    checked = [_checked(s, inputs, f"{reference}: sample {i}") for i, s in enumerate(tuples)]
    tensors = {
        f"input.{k}": np.stack(column) for k, column in enumerate(zip(*checked, strict=True))
    }
    if labels is not None:
        tensors["label"] = labels
    elif kind == "training":
        raise UserError(
            "gave no labels, and training needs them",
            where=reference,
            hint="yield (inputs, label): what [training].loss compares the outputs with",
        )
    elif kind == "evaluation" and getattr(wanted, "metric", None) == "top1":
        raise UserError(
            "gave no labels, and the metric 'top1' needs them",
            where=reference,
            hint='yield (inputs, label), or take metric = "agreement"',
        )
    write_bytes(out, save(tensors))


def _samples(reference: str, folder: Path) -> Iterator[Any]:
    """What the recipe's function yields; its errors are its author's, also while it is iterated."""
    function = loading.load(reference, folder)
    with loading.blamed(reference, folder):
        given = function()
        if not isinstance(given, Iterable):
            raise UserError(
                f"gave {type(given).__name__}, and an iterable of samples is wanted",
                where=reference,
            )
        for sample in given:
            yield _copied(sample)


def _copied(value: Any) -> Any:
    """The sample as it is now: a function may fill the same buffer again for the next one."""
    if isinstance(value, (tuple, list)):
        return type(value)(_copied(part) for part in value)
    if hasattr(value, "detach"):
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def _split(given: Sequence[Any], reference: str) -> tuple[list[Any], Array | None]:
    """(inputs, label) pairs as inputs and labels; labels are all None or all numbers."""
    for i, pair in enumerate(given):
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise UserError(
                f"sample {i} is {_described(pair)}",
                where=reference,
                hint="evaluation data is (inputs, label); label may be None",
            )
    inputs, labels = [pair[0] for pair in given], [pair[1] for pair in given]
    without = [i for i, label in enumerate(labels) if label is None]
    if len(without) == len(labels):
        return inputs, None
    if without:
        raise UserError(f"sample {without[0]} has no label, and others have", where=reference)
    arrays = [_array(label) for label in labels]
    for i, array in enumerate(arrays):
        if array is None or array.dtype.kind not in "iubf" or array.shape != _shape(arrays[0]):
            raise UserError(
                f"the label of sample {i} is {_described(labels[i])}",
                where=reference,
                hint="labels are numbers or arrays, all of one shape",
            )
    stacked = np.stack([array for array in arrays if array is not None])
    if not np.isfinite(stacked).all():
        raise UserError("a label is NaN or infinite", where=reference)
    return inputs, stacked.astype(np.float32 if stacked.dtype.kind == "f" else np.int64)


def _checked(sample: Any, inputs: tuple[Tensor, ...], where: str) -> tuple[Array, ...]:
    """A sample as a tuple of arrays of the declared shapes and types, or a UserError."""
    parts = tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)
    if len(parts) != len(inputs):
        raise UserError(
            f"is {_described(sample)}, and the model has {len(inputs)} input(s)", where=where
        )
    arrays = []
    for k, (part, declared) in enumerate(zip(parts, inputs, strict=True)):
        array = _array(part)
        place = f"input {k} " if len(inputs) > 1 else ""
        if array is None or array.shape != declared.shape or array.dtype.name != declared.dtype:
            raise UserError(
                f"{place}is {_described(part)}, "
                f"the recipe declares {list(declared.shape)} {declared.dtype}",
                where=where,
                hint=_remedy(array, declared),
            )
        if not np.isfinite(array).all():
            raise UserError(f"{place}holds NaN or infinity", where=where)
        arrays.append(np.ascontiguousarray(array))
    return tuple(arrays)


def _array(value: Any) -> Array | None:
    """A tensor (known without importing torch), array or number as an array; else None."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic, int, float)) else None
    return None if array is None or array.dtype.kind == "O" else array


def _shape(array: Array | None) -> tuple[int, ...]:
    return () if array is None else array.shape


def _remedy(array: Array | None, declared: Tensor) -> str:
    if array is None:
        return "samples are torch tensors or numpy arrays, or tuples of them"
    if array.shape == declared.shape[1:]:
        return "the declared shape has a batch dimension: add it with sample[None]"
    if array.shape == declared.shape:
        return f"convert it: array.astype('{declared.dtype}') or tensor.to(torch.{declared.dtype})"
    return "mend the data, or [model].inputs in recipe.toml"


def _described(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    array = _array(value)
    return type(value).__name__ if array is None else f"{list(array.shape)} {array.dtype.name}"


if __name__ == "__main__":
    step(run)
