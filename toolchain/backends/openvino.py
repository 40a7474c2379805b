"""OpenVINO's CPU plugin: its IR, whose operators it makes into kernels for the CPU that it finds.

A program is compiled when it is loaded, so that one is right for all x86-64 machines. The whole
model is OpenVINO's: an operator that it has no translation for is an error, and none is left
undelegated. Activations are u8 where they are integers, weights i8; half precision is how weights
are stored, and is computed in float32.
https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain import profiles, runtimes, saturation, weights
from toolchain.backends import Abilities
from toolchain.expands import without_idle_expands
from toolchain.isa import check_host, has_dot_product
from toolchain.openvino_ir import annotation, archive, conversion, execution, forms
from toolchain.recurrent import unrolled
from toolchain.schema import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import torch
    from torch.export import ExportedProgram

    from toolchain.schema import Isa

SUFFIX = ".ir.tar"
RUNTIME = runtimes.OPENVINO
PER_TARGET = True  # without VNNI, weights have seven bits
TOOLS: tuple[str, ...] = ()
ABILITIES: Abilities = {
    "float": {},
    "float16": {},
    "static": {},
    "weight_only": {},
    "training": {},
    # Each 32 numbers of a token have a scale of their own and no zero point, whatever the program
    # says: that is finer than a scale for each token.
    "dynamic": {
        "granularity": ("per_channel",),
        "mapping": ("symmetric",),
        "activations": ("per_token",),
    },
}
SCHEMA = 1


def prepare(model: ExportedProgram) -> ExportedProgram:
    """Layer normalization and attention in one piece; LSTM and GRU as linear layers."""
    return forms.adapted(without_idle_expands(unrolled(model)))


def quantizer(
    *,
    activations: str,
    granularity: str,
    takes: Callable[[Any], bool],
    observer: str = "minmax",
    mapping: str = "affine",
    training: bool = False,
) -> Any:
    """Static activations, u8 or (symmetric) i8 per tensor; see `openvino_ir.annotation`."""
    if activations == "dynamic":
        return annotation.dynamic_quantizer(granularity=granularity, takes=takes)
    return annotation.quantizer(
        granularity=granularity,
        takes=takes,
        observer=observer,
        mapping=mapping,
        training=training,
    )


def quantizable(needs: str = "static") -> frozenset[str]:
    if needs == "dynamic":
        return annotation.DYNAMIC | {weights.EMBEDDING}
    return annotation.WEIGHT_ONLY if needs == "weight_only" else annotation.STATIC


def lower(model: ExportedProgram, isa: Isa | None = None) -> tuple[bytes, dict[str, Any]]:
    """The tar of the IR, and what kernels the CPU plugin of this host makes of it."""
    program, dynamic = forms.without_dynamic(model)
    halved = 0
    if isa is not None and not has_dot_product(isa):
        program, halved = forms.halved(program)
    made = conversion.converted(program, dynamic)
    found = execution.report(made)
    operators = found.pop("operators")
    report = {
        "schema": SCHEMA,
        "operators": {"delegated": operators, "undelegated": {}},
        "delegates": 1,
        "delegated_share": 1.0,
        "kernels": found,
        "remarks": [saturation.REMARK] if halved else [],
    }
    return archive.packed(made), report


def run(
    program: Path,
    samples: Sequence[tuple[torch.Tensor, ...]],
    threads: int,
    isa: Isa | None = None,
) -> list[tuple[torch.Tensor, ...]]:
    """The outputs for each sample, with the settings of the runner."""
    check_host(isa, "run it", shown(program))
    return execution.outputs(program, samples, threads)


def environment(_isa: Isa | None) -> dict[str, str]:
    return {}


def optional_libraries(_report: Mapping[str, Any]) -> tuple[str, ...]:
    return ()


def machine_code(_program: Path) -> Iterator[tuple[str, bytes]]:
    return iter(())


def profile(file: Path) -> list[dict[str, Any]]:
    """Kernels by the name of the operator that they were made of."""
    return profiles.read(file)
