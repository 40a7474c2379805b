"""What lowers a quantized model to a program. One file is one backend, named as targets name it.

A backend's module imports torch only inside its functions. It knows its quantizer: a recipe names a
scheme, and how this backend wants it annotated is the backend's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from toolchain import plugins

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from torch.export import ExportedProgram

# What schemes may need (their `NEEDS`) -> option -> the values that it can do; an option that is
# not named can have any.
Abilities = Mapping[str, Mapping[str, tuple[Any, ...]]]


class Backend(Protocol):
    """What each file of this folder has.

    SUFFIX: of its programs.
    ABILITIES: what schemes may need of it, of: float, float16, static, dynamic, weight_only,
        training, int4_groups.
    """

    __file__: str
    SUFFIX: str
    ABILITIES: Abilities

    def prepare(self, model: ExportedProgram) -> ExportedProgram:
        """The float model in the form that this backend takes best, before any scheme."""

    def quantizer(
        self,
        *,
        activations: str,
        granularity: str,
        takes: Callable[[Any], bool],
        observer: str = "minmax",
        mapping: str = "affine",
        training: bool = False,
    ) -> Any:
        """A PT2E quantizer for int8 weights, and int8 activations: `static` or `dynamic`.

        takes: whether an fx node is to be quantized. observer, mapping: of static activations.
        training: with fake quantization instead of observers.
        """

    def quantizable(self, needs: str) -> frozenset[str]:
        """Operators, such as `aten.conv2d`, that a scheme with these `NEEDS` can quantize."""

    def lower(self, model: ExportedProgram) -> tuple[bytes, dict[str, Any]]:
        """The program, and a report of what was delegated."""

    def run(
        self, program: Path, samples: Sequence[tuple[torch.Tensor, ...]], threads: int
    ) -> list[tuple[torch.Tensor, ...]]:
        """The program's outputs on this host, for each sample."""


def names() -> list[str]:
    return plugins.names(__path__)


def load(name: str) -> Backend:
    return cast(Backend, plugins.load(__name__, __path__, name))
