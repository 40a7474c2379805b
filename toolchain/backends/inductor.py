"""Programs in machine code for x86-64: AOTInductor, with oneDNN for what has weights.

Inductor compiles all operators between convolutions and linear layers into loops of its own, and
oneDNN computes those on integers. Both obey the target's ISA floor. What neither takes is left to
ATen, and listed in the report.
https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import profiles, runtimes
from toolchain.atomic import write_bytes
from toolchain.backends import Abilities
from toolchain.expands import without_idle_expands
from toolchain.inductor import annotation, archive, child, compilation, execution, floor
from toolchain.isa import check_host
from toolchain.recurrent import unrolled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from torch.export import ExportedProgram

    from toolchain.schema import Isa

SUFFIX = ".pt2"
RUNTIME = runtimes.TORCH
PER_TARGET = True
TOOLS: tuple[str, ...] = ("g++", "strip")
# oneDNN takes weights with a scale for each channel. There is no kernel for half precision below
# avx512_fp16, none for float activations on int8 weights, none for 4-bit weights on int8 ones.
ABILITIES: Abilities = {
    "float": {},
    "static": {"granularity": ("per_channel",)},
    "dynamic": {
        "granularity": ("per_channel",),
        "mapping": ("affine",),
        "activations": ("per_token",),
    },
    "training": {"granularity": ("per_channel",)},
}


def prepare(model: ExportedProgram) -> ExportedProgram:
    """LSTM and GRU as linear layers, and nothing that is idle, or of which nothing comes."""
    model = without_idle_expands(unrolled(model))
    model.graph_module.graph.eliminate_dead_code()
    model.graph_module.recompile()
    return model


def quantizer(
    *,
    activations: str,
    granularity: str,  # noqa: ARG001 (only one: see ABILITIES)
    takes: Callable[[Any], bool],
    observer: str = "minmax",
    mapping: str = "affine",
    training: bool = False,
) -> Any:
    """torchao's X86InductorQuantizer: uint8 activations per tensor, int8 weights per channel."""
    return annotation.quantizer(
        activations=activations,
        takes=takes,
        observer=observer,
        mapping=mapping,
        training=training,
    )


def quantizable(needs: str = "static") -> frozenset[str]:
    return annotation.DYNAMIC if needs == "dynamic" else annotation.STATIC


def lower(model: ExportedProgram, isa: Isa | None = None) -> tuple[bytes, dict[str, Any]]:
    """The `.pt2` file's content, and what was compiled, left to oneDNN, and left to ATen."""
    from toolchain import programs

    check_host(isa, "pack weights for the target", "lower")
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "model.pt2"
        write_bytes(file, programs.to_bytes(model))
        return child.call(compilation.compiled, file, isa, environment=environment(isa))


def run(
    program: Path,
    samples: Sequence[tuple[torch.Tensor, ...]],
    threads: int,
    isa: Isa | None = None,
) -> list[tuple[torch.Tensor, ...]]:
    """The outputs for each sample; UserError if this host's CPU lacks what the floor asks for."""
    import safetensors.torch
    import torch

    check_host(isa, "run it", str(program))
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "samples.safetensors"
        columns = {f"input.{k}": torch.stack(c) for k, c in enumerate(zip(*samples, strict=True))}
        write_bytes(file, safetensors.torch.save(columns))
        found = child.call(
            execution.outputs, program.resolve(), file, threads, environment=environment(isa)
        )
    tensors = safetensors.torch.load(found)
    outputs = [tensors[f"output.{k}"] for k in range(len(tensors))]
    return [tuple(row) for row in zip(*outputs, strict=True)]


def environment(isa: Isa | None) -> dict[str, str]:
    """oneDNN's limit: weights are packed for the kernels that it allows."""
    return floor.environment(isa)


def optional_libraries(report: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def machine_code(program: Path) -> Iterator[tuple[str, bytes]]:
    """The program's shared library."""
    return archive.libraries(program)


def profile(file: Path) -> list[dict[str, Any]]:
    """libtorch's calls, and compiled kernels without their numbers."""
    return [{**row, "type": _kind(row["name"], row["type"])} for row in profiles.read(file)]


def _kind(name: str, of: str) -> str:
    """`_qconv_pointwise_tensor` of the library's call, `cpp_fused_add` of a compiled kernel's."""
    short = name.removeprefix("aoti_torch_cpu_")
    return re.sub(r"_\d+$", "", short) if of == "compiled" else short
