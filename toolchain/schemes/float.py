"""No quantization: the float model as it is, the measure of all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from toolchain.backends import Backend

NEEDS: frozenset[str] = frozenset()
NEEDS_CALIBRATION = False


class Options(schema.Frozen):
    """There are none."""


def quantize(
    model: torch.export.ExportedProgram,
    options: Options,  # noqa: ARG001 (all schemes are called alike)
    backend: Backend,  # noqa: ARG001
    calibration: Sequence[tuple[torch.Tensor, ...]],  # noqa: ARG001
) -> torch.export.ExportedProgram:
    """`model` itself."""
    return model
