"""No quantization: the float model as it is, the measure of all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain import schema
from toolchain.material import Material, Quantized

if TYPE_CHECKING:
    import torch

    from toolchain.backends import Backend

NEEDS = "float"
USES: frozenset[str] = frozenset()


class Options(schema.Frozen):
    """There are none."""


def quantize(
    model: torch.export.ExportedProgram,
    options: Options,  # noqa: ARG001 (all schemes are called alike)
    backend: Backend,  # noqa: ARG001
    material: Material,  # noqa: ARG001
) -> Quantized:
    """`model` itself."""
    return Quantized(model)
