"""Metrics of a model's outputs. More is better. Torch-free, and numpy only where it is called.

A metric takes (outputs, labels, reference): `outputs` and `reference` are lists of arrays of shape
[N, ...], one for each output of the model, from the program that is judged and from the float
model; `labels` has shape [N, ...], or is None. A recipe's own metric (`file.py:function`) takes
(outputs, labels), or all three.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Metric = Callable[[list[Array], Array | None, list[Array]], float]


def top1(outputs: list[Array], labels: Array | None, _reference: list[Array]) -> float:
    """Share of answers that are right: the largest score, in the first output, is at the label.

    outputs[0]: scores [N, ..., classes]; labels: class numbers, as many as there are answers.
    """
    if labels is None:
        raise UserError(
            "the metric 'top1' needs labels, and the evaluation data has none",
            where="[data].metric",
            hint='yield (inputs, label) there, or use metric = "agreement"',
        )
    answers = _classes(outputs[0])
    if answers.size != labels.size:
        raise UserError(
            f"the metric 'top1' finds {answers.size} answers in the first output, of shape "
            f"{list(outputs[0].shape)}, and {labels.size} labels",
            where="[data].metric",
            hint="the recipe needs a metric of its own: file.py:function",
        )
    classes = outputs[0].shape[-1]
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f"labels go from {labels.min()} to {labels.max()}, and the first output has "
            f"{classes} classes",
            where="[data].evaluation",
            hint=f"labels are class numbers, from 0 to {classes - 1}",
        )
    return float((answers == labels.ravel()).mean())


def agreement(outputs: list[Array], _labels: Array | None, reference: list[Array]) -> float:
    """Share of answers that are the float model's, by the first output [N, ..., classes]."""
    return float((_classes(outputs[0]) == _classes(reference[0])).mean())


METRICS: dict[str, Metric] = {"agreement": agreement, "top1": top1}


def find(name: str, folder: Path) -> Metric:
    """A metric by name, or the recipe's own, `file.py:function` beside it."""
    if ":" not in name:
        check_name(name, "[data].metric")
        return METRICS[name]
    return _own(name, folder)


def check_name(name: str, where: str) -> None:
    """Refuse a name that is neither a metric's nor a function's."""
    if ":" not in name and name not in METRICS:
        raise UserError(
            f"unknown metric '{name}'",
            where=where,
            hint=nearest(name, METRICS) + "; or your own: file.py:function",
        )


def sqnr_db(reference: Array, actual: Array) -> float:
    """Signal to quantization noise in dB: 10 log10(sum(reference^2) / sum((reference - actual)^2)).

    Two arrays of one shape. inf when they are equal; nan where either holds NaN or infinity.
    """
    import numpy as np

    signal, other = np.asarray(reference, np.float64), np.asarray(actual, np.float64)
    if not (np.isfinite(signal).all() and np.isfinite(other).all()):
        return float("nan")
    noise = float(((signal - other) ** 2).sum())
    power = float((signal**2).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(power / noise)) if power else float("-inf")


def min_cosine(reference: Array, actual: Array) -> float:
    """Least cosine between two arrays [N, ...], sample by sample; 1 where both are all zero."""
    import numpy as np

    one, two = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (reference, actual))
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        return float("nan")
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    equal = (one == two).all(axis=1)
    cosines = np.where(equal, 1.0, (one * two).sum(axis=1) / np.where(lengths > 0, lengths, np.inf))
    return float(cosines.min())


def _classes(scores: Array) -> Array:
    """The number of the largest score, over all but the last dimension."""
    if scores.shape[-1] < 2 or scores.dtype.kind != "f":
        raise UserError(
            f"the first output, {list(scores.shape)} {scores.dtype}, holds no scores of classes",
            where="[data].metric",
            hint="the recipe needs a metric of its own: file.py:function",
        )
    return scores.reshape(-1, scores.shape[-1]).argmax(-1)  # type: ignore[no-any-return]


def _own(name: str, folder: Path) -> Metric:
    from toolchain.loading import blamed, importable, load

    function = load(name, folder)
    takes_reference = len(inspect.signature(function).parameters) > 2

    def metric(outputs: list[Array], labels: Array | None, reference: list[Array]) -> float:
        given = (outputs, labels, reference) if takes_reference else (outputs, labels)
        with importable(folder), blamed(name, folder):
            value = function(*given)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise UserError(
                f"gave a {type(value).__name__}, and a metric is one number", where=name
            ) from None
        if not math.isfinite(number):
            raise UserError(f"gave {number}, and a metric is a finite number", where=name)
        return number

    return metric
