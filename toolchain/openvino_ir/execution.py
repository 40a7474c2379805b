"""Programs on this host, as `toolchain/runner/openvino` runs them on a device."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from toolchain.errors import UserError
from toolchain.openvino_ir.archive import model_in
from toolchain.openvino_ir.library import openvino
from toolchain.schema import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

DEVICE = "CPU"
INTEGERS = ("i8", "u8")
# Of a model's graph, what is no operator: constants, borders, and the numbers' format.
FORMS = frozenset({"Constant", "Parameter", "Result", "Convert", "FakeQuantize"})
WEIGHTED = frozenset(
    {
        "Convolution",
        "GroupConvolution",
        "ConvolutionBackpropData",
        "GroupConvolutionBackpropData",
        "MatMul",
    }
)


def settings(threads: int) -> dict[str, Any]:
    """The runner's own. Float is float32, also where a CPU has bfloat16."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }


def outputs(
    program: Path, samples: Sequence[tuple[torch.Tensor, ...]], threads: int
) -> list[tuple[torch.Tensor, ...]]:
    """The program's outputs for each sample, in the order of the exported program."""
    import torch

    ov = openvino()
    core = ov.Core()
    model = model_in(program, core)
    try:
        compiled = core.compile_model(model, DEVICE, settings(threads))
        request = compiled.create_infer_request()
        found = []
        for sample in samples:
            for number, tensor in enumerate(sample):
                request.set_input_tensor(number, ov.Tensor(tensor.contiguous().numpy()))
            request.infer()
            results = (request.get_output_tensor(k).data for k in range(len(compiled.outputs)))
            found.append(tuple(torch.from_numpy(result.copy()) for result in results))
    except RuntimeError as error:
        raise UserError(
            f"OpenVINO cannot run it on this host: {str(error).strip().splitlines()[-1]}",
            where=shown(program),
            hint="do the samples have the shapes and types of the model's inputs?",
        ) from None
    return found


def report(model: Any) -> dict[str, Any]:
    """How the CPU plugin of this host computes an `openvino.Model`.

    operators: of the model. integer, float: kernels that were made of them, by their type.
    in_float: operators with integers on both sides of a product that are computed in float still.
    """
    compiled = openvino().Core().compile_model(model, DEVICE, settings(1))
    integer: Counter[str] = Counter()
    others: Counter[str] = Counter()
    exact: set[str] = set()  # operators that were made into kernels on float
    for node in compiled.get_runtime_model().get_ops():
        said = node.get_rt_info()
        kind, precision = (said[key].astype(str) for key in ("layerType", "runtimePrecision"))
        if kind in ("Const", "Input", "Output", "Reorder"):
            continue
        if precision in INTEGERS:
            integer[kind] += 1
        else:
            others[kind] += 1
            exact.update(said["originalLayersNames"].astype(str).split(","))
    return {
        "operators": sum(n.get_type_name() not in FORMS for n in model.get_ops()),
        "integer": dict(sorted(integer.items())),
        "float": dict(sorted(others.items())),
        "in_float": sorted(
            node.get_friendly_name()
            for node in model.get_ops()
            if node.get_type_name() in WEIGHTED
            and node.get_friendly_name() in exact
            and all(map(_is_rounded, node.input_values()))
        ),
    }


def _is_rounded(value: Any) -> bool:
    """Whether integers stand behind a value."""
    node = value.get_node()
    while node.get_type_name() in ("Multiply", "Subtract", "Convert", "Reshape", "Transpose"):
        node = node.input_value(0).get_node()
    return bool(
        node.get_type_name() == "FakeQuantize"
        or (node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8")
    )
