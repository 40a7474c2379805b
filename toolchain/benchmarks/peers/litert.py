"""LiteRT (TensorFlow Lite) with XNNPACK, with models of LiteRT Torch and AI Edge Quantizer.

Recipes of the quantizer: static int8 weights and activations for convolutions; for linear layers
the dynamic range, int8 weights with activations quantized in each inference, as its guide advises.
https://ai.google.dev/edge/litert
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolchain.benchmarks.peers import ANY, CONVOLUTIONS, LINEARS, Array, Operators, Samples

PACKAGES = ("ai-edge-litert", "litert-torch", "ai-edge-quantizer", "torch")
SUFFIX = ".tflite"
FORMS = {
    "float": ANY,
    "int8 static": frozenset({CONVOLUTIONS}),
    "int8 dynamic": frozenset({LINEARS}),
}
PROFILES = False


def convert(program: Any, samples: Samples, form: str, out: Path) -> None:
    import litert_torch  # type: ignore[import-not-found]
    import torch

    example = tuple(torch.from_numpy(array.copy()) for array in samples[0])
    made = litert_torch.convert(program.module(), example)
    if form == "float":
        made.export(str(out))
        return
    with tempfile.TemporaryDirectory() as name:
        plain = Path(name) / "plain.tflite"
        made.export(str(plain))
        _quantize(plain, samples, form, out)


def _quantize(plain: Path, samples: Samples, form: str, out: Path) -> None:
    from ai_edge_quantizer import qtyping, quantizer, recipe  # type: ignore[import-not-found]

    static = form == "int8 static"
    chosen = recipe.static_wi8_ai8() if static else recipe.dynamic_wi8_afp32()
    making = quantizer.Quantizer(str(plain), chosen)
    # Inputs and outputs stay float32, as those of all contenders: the conversion is in the times.
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        making.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    calibrated = making.calibrate(_signature(plain, samples)) if static else None
    making.quantize(calibrated).export_model(str(out), overwrite=True)


def _signature(plain: Path, samples: Samples) -> dict[str, list[dict[str, Array]]]:
    """Samples by the name of the model's only signature, and of its inputs."""
    interpreter = _interpreter(plain, 1)
    ((key, names),) = interpreter.get_signature_list().items()
    details = interpreter.get_signature_runner(key).get_input_details()
    return {
        key: [
            {
                n: array.astype(details[n]["dtype"])
                for n, array in zip(names["inputs"], sample, strict=True)
            }
            for sample in samples
        ]
    }


def _interpreter(model: Path, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

    return Interpreter(str(model), num_threads=threads)  # with XNNPACK, by default


def open(model: Path, threads: int, profiled: bool) -> _Session:  # noqa: ARG001
    return _Session(model, threads)


class _Session:
    def __init__(self, model: Path, threads: int) -> None:
        self._interpreter = _interpreter(model, threads)
        self._interpreter.allocate_tensors()
        ((key, _),) = self._interpreter.get_signature_list().items()
        runner = self._interpreter.get_signature_runner(key)
        # Only the signature knows the order: the subgraph's own inputs may stand in another.
        self._inputs = sorted(runner.get_input_details().items(), key=lambda item: _number(item[0]))
        self._outputs = sorted(
            runner.get_output_details().items(), key=lambda item: _number(item[0])
        )

    def give(self, inputs: Sequence[Array]) -> None:
        for (_, detail), array in zip(self._inputs, inputs, strict=True):
            # It has made integers of 64 bits into some of 32.
            told = array.astype(detail["dtype"], casting="same_kind")
            self._interpreter.set_tensor(detail["index"], told)

    def infer(self) -> None:
        self._interpreter.invoke()

    def take(self) -> list[Array]:
        return [self._interpreter.get_tensor(detail["index"]) for _, detail in self._outputs]

    def operators(self) -> Operators:
        return []


def _number(name: str) -> int:
    """`args_1` is the second input, `output_0` the first output."""
    return int(name.rpartition("_")[2])
