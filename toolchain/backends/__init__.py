"""What lowers a quantized model to a program. One file is one backend, named as targets name it.

A backend's module imports torch only inside its functions. It knows its quantizer: a recipe names a
scheme, and how this backend wants it annotated is the backend's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from toolchain import plugins

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch
    from torch.export import ExportedProgram

    from toolchain.runtimes import Runtime
    from toolchain.schema import Isa

# What schemes may need (their `NEEDS`) -> option -> the values that it can do; an option that is
# not named can have any.
Abilities = Mapping[str, Mapping[str, tuple[Any, ...]]]


class Backend(Protocol):
    """What each file of this folder has.

    SUFFIX: of its programs.
    ABILITIES: what schemes may need of it, of: float, float16, static, dynamic, weight_only,
        training, int4_groups.
    RUNTIME: what runs its programs on a device.
    TOOLS: programs on PATH that it lowers with; another version lowers again.
    PER_TARGET: whether its programs are for one target: they rely on its ISA floor.
    """

    __file__: str
    SUFFIX: str
    ABILITIES: Abilities
    RUNTIME: Runtime
    PER_TARGET: bool
    TOOLS: tuple[str, ...]

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

    def lower(self, model: ExportedProgram, isa: Isa | None = None) -> tuple[bytes, dict[str, Any]]:
        """The program, and a report of what was delegated. isa: the floor, if `PER_TARGET`."""

    def run(
        self,
        program: Path,
        samples: Sequence[tuple[torch.Tensor, ...]],
        threads: int,
        isa: Isa | None = None,
    ) -> list[tuple[torch.Tensor, ...]]:
        """The program's outputs on this host, for each sample."""

    def environment(self, isa: Isa | None) -> dict[str, str]:
        """What the runtime has to find in its environment, for a program of that floor."""

    def optional_libraries(self, report: Mapping[str, Any]) -> tuple[str, ...]:
        """Of `RUNTIME.optional`, what a program with this report of `lower` needs."""

    def machine_code(self, program: Path) -> Iterator[tuple[str, bytes]]:
        """Name and content of each ELF file inside a program."""

    def profile(self, file: Path) -> list[dict[str, Any]]:
        """Time of each operator, from what the runner wrote; the slowest first.

        name, type: of the operator. calls. ns: in all of them, of one inference.
        """


def names() -> list[str]:
    return plugins.names(__path__)


def load(name: str) -> Backend:
    return cast(Backend, plugins.load(__name__, __path__, name))
