"""How near a contender's outputs are to the float model's, over all evaluation samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import stats
from toolchain.errors import CheckFailed
from toolchain.samples import Array, ordered
from toolchain.schema import Checks

if TYPE_CHECKING:
    from toolchain.metrics import Metric

Figures = dict[str, Any]


def figures(
    outputs: Mapping[str, Array],
    reference: Mapping[str, Array],
    data: Mapping[str, Array],
    metric: Metric,
) -> Figures:
    """`stats.quality`, as in a verdict. CheckFailed for outputs that cannot be compared."""
    ours, floats = ordered(outputs, "output."), ordered(reference, "output.")
    given, wanted = ([f"{a.dtype} {a.shape}" for a in some] for some in (ours, floats))
    if given != wanted:
        raise CheckFailed(f"its outputs are {given}, the model's {wanted}")
    if not all(np.isfinite(array).all() for array in ours):
        raise CheckFailed("its outputs hold NaN or infinity")
    return stats.quality(ours, floats, data.get("label"), metric)


LIMITS = ("max_drop", "min_metric", "min_sqnr", "min_cosine")


def limited(checks: Checks) -> bool:
    """Whether a recipe says how exact its programs have to be."""
    return any(getattr(checks, name) is not None for name in LIMITS)


def below(found: Figures, checks: Checks) -> str:
    """Why it does not hold the recipe's own limits of accuracy; empty if it does."""
    sqnr = math.inf if found["equal"] else found["sqnr_db"]
    if checks.max_drop is not None and found["drop"] > checks.max_drop:
        return f"it drops {found['drop']:.3f}, at most {checks.max_drop:g} is allowed"
    if checks.min_metric is not None and found["accuracy"] < checks.min_metric:
        return f"its metric is {found['accuracy']:.3f}, at least {checks.min_metric:g} is wanted"
    if checks.min_sqnr is not None and (sqnr is None or sqnr < checks.min_sqnr):
        return f"it has {_told(sqnr, '.1f')} dB, at least {checks.min_sqnr:g} are wanted"
    cosine = found["min_cosine"]
    if checks.min_cosine is not None and (cosine is None or cosine < checks.min_cosine):
        return f"its cosine is {_told(cosine, '.4f')}, at least {checks.min_cosine:g} is wanted"
    return ""


def _told(figure: float | None, form: str) -> str:
    return "no finite number of" if figure is None else format(figure, form)
