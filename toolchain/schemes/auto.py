"""The cheapest program that holds the accuracy, found by trying: see `toolchain.search`.

    [variants.auto]
    scheme   = "auto"
    max_drop = 0.005

The search is a step of the build. What it finds is an ordinary variant, one scheme with its
options, and that is built as any other; so nothing is quantized by this scheme itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator
from pydantic_core import PydanticCustomError

from toolchain import schema
from toolchain.errors import UserError
from toolchain.material import Material, Quantized
from toolchain.schemes.int8_static import Observer

if TYPE_CHECKING:
    import torch

    from toolchain.backends import Backend

NEEDS = "float"  # there is always an answer: the float model
USES = frozenset({"search"})

MAX_DROP = 0.01


# Squared error first, as the default of int8_static has it; then what clips less, and more.
OBSERVERS = ("histogram", "mse", "minmax", "percentile", "entropy", "moving_average")


class Options(schema.Frozen):
    """max_drop: largest loss of the metric against the float model, over the evaluation samples;
        0.01 unless it or `min_metric` is given.
    min_metric: least value of the metric, instead of `max_drop`.
    observers: for static ranges, in the order in which they are tried.
    max_float_layers: at most so many of the most sensitive layers are kept in float.
    train: whether quantization-aware training may be tried, where the recipe has [training].
    """

    max_drop: NonNegativeFloat | None = None
    min_metric: float | None = None
    observers: tuple[Observer, ...] = Field(default=OBSERVERS, min_length=1)
    max_float_layers: NonNegativeInt = 5
    train: bool = True

    @model_validator(mode="after")
    def _one_limit(self) -> Options:
        if self.max_drop is not None and self.min_metric is not None:
            raise PydanticCustomError(
                "limits", "Input should have max_drop or min_metric, not both"
            )
        return self

    @property
    def largest_drop(self) -> float | None:
        """The limit to the drop; None where there is one to the metric itself."""
        return MAX_DROP if self.max_drop is None and self.min_metric is None else self.max_drop


def quantize(
    model: torch.export.ExportedProgram,  # noqa: ARG001 (all schemes are called alike)
    options: Options,  # noqa: ARG001
    backend: Backend,  # noqa: ARG001
    material: Material,  # noqa: ARG001
) -> Quantized:
    """Nothing: a search comes first, and quantization takes what that chose."""
    raise UserError(
        "the scheme 'auto' is a search, and quantizes nothing itself",
        hint="run toolchain.steps.search first, and quantize with the choice.json that it writes",
    )
