"""What lowers a quantized model to a program. One file is one backend, named as targets name it.

A backend's module imports torch only inside its functions. It knows its quantizer: a recipe names a
scheme, and how this backend wants it annotated is the backend's own business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from toolchain import plugins

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch


class Backend(Protocol):
    """What each file of this folder has.

    SUFFIX: of its programs.
    ABILITIES: what schemes may need of it (their `NEEDS`):
        static: `static_quantizer`.
    SCHEMES: those that it can do, which follow from its abilities.
    """

    __file__: str
    SUFFIX: str
    ABILITIES: frozenset[str]
    SCHEMES: frozenset[str]

    def static_quantizer(self, *, observer: str, per_channel: bool) -> Any:
        """A PT2E quantizer for int8 weights and activations."""

    def quantizable(self) -> frozenset[str]:
        """Operators that its quantizers have a pattern for, such as `aten.conv2d`."""

    def lower(self, model: torch.export.ExportedProgram) -> tuple[bytes, dict[str, Any]]:
        """The program, and a report of what was delegated."""

    def run(
        self, program: Path, samples: Sequence[tuple[torch.Tensor, ...]], threads: int
    ) -> list[tuple[torch.Tensor, ...]]:
        """The program's outputs on this host, for each sample."""


def names() -> list[str]:
    return plugins.names(__path__)


def load(name: str) -> Backend:
    return cast(Backend, plugins.load(__name__, __path__, name))
