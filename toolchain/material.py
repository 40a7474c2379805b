"""What a scheme works with beside the model, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolchain import schema

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    Sample = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Training:
    """What quantization-aware training works with.

    model: exported in training mode, its batch dimension dynamic.
    inputs: one tensor [N, *shape without the batch dimension] for each input of the model.
    labels: [N, ...]. loss: (outputs, labels) -> scalar. augment: (*inputs) -> inputs.
    """

    model: ExportedProgram
    settings: schema.Training
    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor
    loss: Callable[[Any, torch.Tensor], torch.Tensor]
    augment: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Material:
    """calibration: inputs as the model takes them, for each sample. Empty or None: not used."""

    calibration: Sequence[Sample] = ()
    training: Training | None = None


@dataclass(frozen=True)
class Quantized:
    """program: in PT2E's form, integers between quantize and dequantize nodes.
    notes: what the scheme has to say of how it came about, as JSON.
    """

    program: ExportedProgram
    notes: Mapping[str, Any] = field(default_factory=dict)
