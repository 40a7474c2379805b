"""ExecuTorch programs whose operators run in XNNPACK: the CPU of every target.

Operators that XNNPACK's partitioner does not take stay behind as ExecuTorch kernels; they are all
listed in the report, for each one splits the program and costs a kernel library in the bundle.
https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-overview.html
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolchain import observers, programs, runtimes, weights
from toolchain.backends import Abilities
from toolchain.errors import UserError
from toolchain.expands import without_idle_expands
from toolchain.recurrent import unrolled
from toolchain.schema import shown
from toolchain.xnnpack import forms, linears
from toolchain.xnnpack.annotation import floats_only, has_dynamic_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import torch
    from torch.export import ExportedProgram

    from toolchain.schema import Isa

SUFFIX = ".pte"
RUNTIME = runtimes.EXECUTORCH
PER_TARGET = False  # the kernels are XNNPACK's, which asks the CPU what it can
TOOLS: tuple[str, ...] = ()
ABILITIES: Abilities = {
    "float": {},
    "static": {},
    # XNNPACK gives dynamic activations a scale and a zero point for each token, whatever the
    # program says, and takes weights with a scale for each channel beside them.
    "dynamic": {
        "granularity": ("per_channel",),
        "mapping": ("affine",),
        "activations": ("per_token",),
    },
    "float16": {},
    "weight_only": {},
    "int4_groups": {"group_size": (32, 64, 128, 256)},  # multiples of 32
    "training": {},
}
# Operators that it has kernels for, where they are not all that its quantizer has patterns for:
# depthwise convolutions on dynamic activations, and convolutions with int8 weights on float ones,
# have none.
DYNAMIC = frozenset({"aten.linear", "aten.conv2d", "aten.embedding"})
WEIGHT_ONLY = frozenset({"aten.linear", "aten.embedding"})
# Events that hold others: the whole inference, and a call of a delegate.
AROUND = ("Method::execute", "DELEGATE_CALL", "OPERATOR_CALL")
NOT_COUNTED = ("getitem", "quantize_", "choose_qparams")
SCHEMA = 1
EPS = 2**-12  # least scale that XNNPACK takes


def prepare(model: ExportedProgram) -> ExportedProgram:
    """LSTM and GRU as linear layers, which XNNPACK has, and no `expand` that changes nothing."""
    return without_idle_expands(unrolled(model))


def quantizer(
    *,
    activations: str,
    granularity: str,
    takes: Callable[[Any], bool],
    observer: str = "minmax",
    mapping: str = "affine",
    training: bool = False,
) -> Any:
    """An XNNPACKQuantizer: activations per tensor, weights symmetric by their extremes."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        get_symmetric_quantization_config,
    )

    config = get_symmetric_quantization_config(
        is_per_channel=granularity == "per_channel",
        is_dynamic=activations == "dynamic",
        is_qat=training,
    )
    if activations == "static" and not training:
        activation = replace(
            config.input_activation,
            qscheme=torch.per_tensor_symmetric
            if mapping == "symmetric"
            else torch.per_tensor_affine,
            observer_or_fake_quant_ctr=observers.load(observer).constructor(eps=EPS),
        )
        # One object for both: what flows from one operator into the next is observed once.
        config = replace(config, input_activation=activation, output_activation=activation)
    if activations == "dynamic":
        # The input's scale is not folded into the weight's, which may be as small as it has to be.
        config = replace(config, weight=weights.int8_spec(granularity))
        return (
            floats_only()
            .set_global(config)
            .set_filter_function(lambda node: takes(node) and has_dynamic_kernel(node))
        )
    return floats_only().set_global(config).set_filter_function(takes)


def quantizable(needs: str = "static") -> frozenset[str]:
    if needs == "dynamic":
        return DYNAMIC
    if needs in ("weight_only", "int4_groups"):
        return WEIGHT_ONLY
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer

    patterns = XNNPACKQuantizer.SUPPORTED_PATTERNS
    operators = {str(operator) for pattern in patterns for operator in pattern.op_overloads}
    return frozenset(".".join(name.split(".")[:2]) for name in operators)


def lower(model: ExportedProgram, _isa: Isa | None = None) -> tuple[bytes, dict[str, Any]]:
    """The `.pte` file's content, and what XNNPACK took over of it."""
    import executorch.kernels.quantized  # noqa: F401 (what of quantized operators is left undelegated)
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(forms.adapted(model), partitioner=[linears.partitioner()])
    delegated = _delegated(edge.exported_program().graph_module)
    try:
        executable = edge.to_executorch()
    except RuntimeError as error:
        if "Missing out variants" not in str(error):
            raise
        raise UserError(
            f"ExecuTorch has no kernel for an operator that XNNPACK does not take: {error}",
            where="lower",
            hint="write the model without it, or keep it out of the quantization",
        ) from None
    undelegated, delegates = _left(executable.executorch_program)
    total = delegated + undelegated.total()
    report = {
        "schema": SCHEMA,
        "operators": {"delegated": delegated, "undelegated": dict(sorted(undelegated.items()))},
        "delegates": delegates,
        "delegated_share": delegated / total if total else 0.0,
    }
    return bytes(executable.buffer), report


def _delegated(graph_module: Any) -> int:
    """Operators inside delegates.

    Quantize and dequantize nodes are not counted: in a delegate they are the numbers' format,
    folded into the operators, and would flatter the share.
    """
    from executorch.exir.lowered_backend_module import get_lowered_submodules

    return sum(
        node.op == "call_function" and not any(word in str(node.target) for word in NOT_COUNTED)
        for _, lowered, _ in get_lowered_submodules(graph_module)
        for node in lowered.original_module.graph.nodes
    )


def _left(program: Any) -> tuple[Counter[str], int]:
    """Kernel calls of the finished program by name, such as `aten::mean.out`; calls of delegates.

    Read from the instructions that the device will execute, not from a graph before them.
    """
    calls: Counter[str] = Counter()
    delegates = 0
    for plan in program.execution_plan:
        for instruction in (i for chain in plan.chains for i in chain.instructions):
            call = instruction.instr_args
            if type(call).__name__ == "KernelCall":
                operator = plan.operators[call.op_index]
                calls[f"{operator.name}.{operator.overload}".rstrip(".")] += 1
            elif type(call).__name__ == "DelegateCall":
                delegates += 1
    return calls, delegates


def run(
    program: Path,
    samples: Sequence[tuple[torch.Tensor, ...]],
    threads: int,
    _isa: Isa | None = None,
) -> list[tuple[torch.Tensor, ...]]:
    """The outputs for each sample, by the runtime of the wheel with its own kernels."""
    with _told_on_failure():
        # The kernels of quantized operators register themselves; aten's are there already.
        import executorch.kernels.quantized  # noqa: F401
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime, Verification

        _unsafe_reset_threadpool(threads)  # safe: nothing has run yet
        try:
            method = (
                Runtime.get()
                .load_program(program, verification=Verification.InternalConsistency)
                .load_method("forward")
            )
        except RuntimeError as error:
            raise UserError(
                f"ExecuTorch cannot load it: {error}",
                where=shown(program),
                hint="it is cut short, or of another version; delete it and build again",
            ) from None
        try:
            return [tuple(method.execute(list(sample))) for sample in samples]
        except RuntimeError as error:
            raise UserError(
                f"ExecuTorch cannot run it on this host: {error}",
                where=shown(program),
                hint="the reason stands above; an operator that is left undelegated is the usual "
                "one (see lower.json)",
            ) from None


def environment(_isa: Isa | None) -> dict[str, str]:
    return {}


def optional_libraries(report: Mapping[str, Any]) -> tuple[str, ...]:
    return runtimes.kernels_for(report["operators"]["undelegated"])


def machine_code(_program: Path) -> Iterator[tuple[str, bytes]]:
    return iter(())


def profile(file: Path) -> list[dict[str, Any]]:
    """Of an ETDump; operators inside a delegate are named by XNNPACK.

    https://docs.pytorch.org/executorch/stable/model-inspector.html
    """
    programs.prepare_torch()
    with _told_on_failure():
        from executorch.devtools import Inspector

        blocks = Inspector(etdump_path=str(file)).event_blocks
    rows = [
        {
            "name": event.name,
            "type": _kind(event.name),
            "calls": 1,
            "ns": round(event.perf_data.raw[-1] * 1e6),  # ms of the last inference
        }
        for block in blocks
        if block.name == "Execute"
        for event in block.events
        if event.perf_data is not None and event.name not in AROUND
    ]
    return sorted(rows, key=lambda row: -row["ns"])


def _kind(name: str) -> str:
    """`Fully Connected (NC, QD8, F32, QC8W) GEMM` of the third such operator, `… #3`."""
    return name.partition(" #")[0]


@contextmanager
def _told_on_failure() -> Iterator[None]:
    """Show what the C++ runtime writes to stderr only if something fails.

    It tells of its CPU detection each time and has no log level; it writes to the descriptor, or by
    way of Python's sys.stderr, which keeps some of it.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
