"""ONNX Runtime on its own CPU kernels (MLAS), with models of torch's ONNX exporter.

quantize_static in the QDQ format, as its guide asks for, twice: as it comes (int8 activations, one
scale for each tensor), and with uint8 activations and a scale for each channel of weights, for
which x86 has instructions. quantize_dynamic, which the guide advises for transformers, too.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolchain.benchmarks.peers import ANY, LINEARS, Array, Operators, Samples

PACKAGES = ("onnxruntime", "onnx", "onnxscript", "torch")
SUFFIX = ".onnx"
FORMS = {
    "float": ANY,
    "int8 static, default": ANY,
    "int8 static, u8s8 per channel": ANY,
    # A mask of large numbers, quantized like all else, takes the scale of attention's scores.
    "int8 static, u8s8, products only": frozenset({LINEARS}),
    "int8 dynamic": frozenset({LINEARS}),
    "int8 dynamic, per channel": frozenset({LINEARS}),
}
PROFILES = True
OPSET = 20  # the first with Gelu as one operator


def convert(program: Any, samples: Samples, form: str, out: Path) -> None:
    import torch

    exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    assert exported is not None
    exported.optimize()
    if form == "float":
        exported.save(out, external_data=False)
        return
    with tempfile.TemporaryDirectory() as name:
        plain, prepared = Path(name) / "plain.onnx", Path(name) / "prepared.onnx"
        exported.save(plain, external_data=False)
        _prepare(plain, prepared)
        _quantize(prepared, samples, form, out)


def _prepare(plain: Path, prepared: Path) -> None:
    """Shapes and fusions that the quantizer wants to see."""
    from onnxruntime.quantization import (  # type: ignore[import-not-found]
        quant_pre_process,
    )

    # Its symbolic shapes are for models without fixed ones, and fail on some operators.
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)


def _quantize(model: Path, samples: Samples, form: str, out: Path) -> None:
    from onnxruntime import quantization as q  # type: ignore[import-not-found]

    whole = {"per_channel": True, "weight_type": q.QuantType.QInt8}
    if form == "int8 dynamic":
        q.quantize_dynamic(model, out)
    elif form == "int8 dynamic, per channel":
        q.quantize_dynamic(model, out, **whole)
    elif form == "int8 static, default":
        q.quantize_static(model, out, _reader(model, samples))
    else:
        only = ["MatMul", "Gemm"] if form.endswith("products only") else None
        q.quantize_static(
            model,
            out,
            _reader(model, samples),
            activation_type=q.QuantType.QUInt8,
            op_types_to_quantize=only,
            **whole,
        )


def _reader(model: Path, samples: Samples) -> Any:
    import onnx  # type: ignore[import-not-found]
    from onnxruntime import quantization

    names = [given.name for given in onnx.load(model, load_external_data=False).graph.input]
    rows: Iterator[dict[str, Array]] = (dict(zip(names, s, strict=True)) for s in samples)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(rows, None)

    return Reader()


def open(model: Path, threads: int, profiled: bool) -> _Session:
    return _Session(model, threads, profiled)


class _Session:
    def __init__(self, model: Path, threads: int, profiled: bool) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        if profiled:
            options.enable_profiling = True
            self._folder = tempfile.TemporaryDirectory()
            options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]
        self._values: list[Any] = []
        self._binding = self._session.io_binding()
        self._ort = ort

    def give(self, inputs: Sequence[Array]) -> None:
        if self._values:
            for value, array in zip(self._values, inputs, strict=True):
                value.update_inplace(array)
            return
        self._values = [self._ort.OrtValue.ortvalue_from_numpy(array.copy()) for array in inputs]
        for name, value in zip(self._names, self._values, strict=True):
            self._binding.bind_ortvalue_input(name, value)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name)
        # The first outputs are allocated; those that follow go into the same memory.
        self._session.run_with_iobinding(self._binding)
        for output, value in zip(
            self._session.get_outputs(), self._binding.get_outputs(), strict=True
        ):
            self._binding.bind_ortvalue_output(output.name, value)

    def infer(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def take(self) -> list[Array]:
        return [value.numpy().copy() for value in self._binding.get_outputs()]

    def operators(self) -> Operators:
        events = json.loads(Path(self._session.end_profiling()).read_bytes())
        times: dict[tuple[str, str], list[float]] = defaultdict(list)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                name = event["name"].removesuffix("_kernel_time")
                times[name, event["args"]["op_name"]].append(event["dur"])
        rows = [
            {"name": name, "type": kind, "calls": 1, "ns": round(1000 * us[-1])}
            for (name, kind), us in times.items()
        ]
        return sorted(rows, key=lambda row: -row["ns"])
