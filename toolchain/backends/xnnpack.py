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

from toolchain import schemes
from toolchain.errors import UserError
from toolchain.schema import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch

SUFFIX = ".pte"
ABILITIES = frozenset({"static"})
SCHEMES = schemes.within(ABILITIES)
SCHEMA = 1
EPS = 2**-12  # least scale that XNNPACK takes


def static_quantizer(*, observer: str, per_channel: bool) -> Any:
    """An XNNPACKQuantizer: activations affine per tensor, weights symmetric by their extremes.

    observer: of the activations. per_channel: whether weights have a scale for each output channel.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization import pt2e

    kinds = {
        "histogram": pt2e.HistogramObserver,
        "minmax": pt2e.MinMaxObserver,
        "moving_average": pt2e.MovingAverageMinMaxObserver,
    }
    config = get_symmetric_quantization_config(is_per_channel=per_channel)
    activation = replace(
        config.input_activation,
        observer_or_fake_quant_ctr=kinds[observer].with_args(eps=EPS),
    )
    return XNNPACKQuantizer().set_global(
        # One object for both: what flows from one operator into the next is observed once.
        replace(config, input_activation=activation, output_activation=activation)
    )


def quantizable() -> frozenset[str]:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer

    patterns = XNNPACKQuantizer.SUPPORTED_PATTERNS
    operators = {str(operator) for pattern in patterns for operator in pattern.op_overloads}
    return frozenset(".".join(name.split(".")[:2]) for name in operators)


def lower(model: torch.export.ExportedProgram) -> tuple[bytes, dict[str, Any]]:
    """The `.pte` file's content, and what XNNPACK took over of it."""
    import executorch.kernels.quantized  # noqa: F401 (what of quantized operators is left undelegated)
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(model, partitioner=[XnnpackPartitioner()])
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
        node.op == "call_function"
        and "getitem" not in str(node.target)
        and "quantized_decomposed" not in str(node.target)
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
    program: Path, samples: Sequence[tuple[torch.Tensor, ...]], threads: int
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
