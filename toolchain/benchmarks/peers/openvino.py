"""OpenVINO on its CPU plugin, with models that it converts itself and NNCF quantizes.

As its guide says: the preset MIXED for networks with other activations than ReLU, PERFORMANCE
else, and model_type TRANSFORMER for transformers. In float32: on CPUs that have bf16 it would
round to that by itself, and then answers another question.
https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolchain.benchmarks.peers import ANY, CONVOLUTIONS, LINEARS, Array, Operators, Samples

PACKAGES = ("openvino", "nncf", "torch")
SUFFIX = ".xml"
FORMS = {
    "float": ANY,
    "int8 performance": frozenset({CONVOLUTIONS}),
    "int8 mixed": frozenset({CONVOLUTIONS}),
    "int8 transformer": frozenset({LINEARS}),
}
PROFILES = True


def convert(program: Any, samples: Samples, form: str, out: Path) -> None:
    import openvino

    model = openvino.convert_model(program)
    # It takes sizes of the input for open where torch's graph does not fix them.
    shapes = {
        given: list(array.shape) for given, array in zip(model.inputs, samples[0], strict=True)
    }
    model.reshape(shapes)
    if form != "float":
        model = _quantized(model, samples, form)
    openvino.save_model(model, out, compress_to_fp16=False)


def _quantized(model: Any, samples: Samples, form: str) -> Any:
    import nncf  # type: ignore[import-not-found]

    mixed, fast = nncf.QuantizationPreset.MIXED, nncf.QuantizationPreset.PERFORMANCE
    return nncf.quantize(
        model,
        nncf.Dataset(samples, lambda sample: dict(enumerate(sample))),
        preset=fast if form == "int8 performance" else mixed,
        model_type=nncf.ModelType.TRANSFORMER if form == "int8 transformer" else None,
        subset_size=len(samples),
    )


def open(model: Path, threads: int, profiled: bool) -> _Session:
    return _Session(model, threads, profiled)


class _Session:
    def __init__(self, model: Path, threads: int, profiled: bool) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # all contenders are pinned in the same way, from outside
            "PERF_COUNT": profiled,
        }
        compiled = openvino.Core().compile_model(model, "CPU", settings)
        self._request = compiled.create_infer_request()

    def give(self, inputs: Sequence[Array]) -> None:
        for k, array in enumerate(inputs):
            self._request.get_input_tensor(k).data[:] = array

    def infer(self) -> None:
        self._request.infer()

    def take(self) -> list[Array]:
        return [tensor.data.copy() for tensor in self._request.output_tensors]

    def operators(self) -> Operators:
        rows = [
            {
                "name": info.node_name,
                "type": f"{info.node_type} {info.exec_type}",
                "calls": 1,
                "ns": round(info.real_time.total_seconds() * 1e9),
            }
            for info in self._request.profiling_info
            if info.real_time
        ]
        return sorted(rows, key=lambda row: -row["ns"])
