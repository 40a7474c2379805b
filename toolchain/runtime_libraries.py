"""The ExecuTorch libraries that a target's runtime has, and which of them a program needs.

The runner links the first four; kernel libraries are loaded by name (`--load-library`), so that a
program whose operators are all delegated ships none of them.
"""

from __future__ import annotations

from collections.abc import Iterable

LINKED = (
    "libexecutorch.so",
    "libexecutorch_backend_xnnpack.so",
    "libexecutorch_threadpool.so",
    "libexecutorch_etdump.so",
)
KERNELS_OPTIMIZED = "libexecutorch_kernels_optimized.so"
KERNELS_QUANTIZED = "libexecutorch_kernels_quantized.so"
LIBRARIES = (*LINKED, KERNELS_OPTIMIZED, KERNELS_QUANTIZED)

# Not kernels: calls of a delegate, tuple access, and what libexecutorch.so itself holds.
_NO_KERNEL = ("getitem", "executorch_call_delegate", "executorch_prim::")


def kernels_for(undelegated: Iterable[str]) -> tuple[str, ...]:
    """Kernel libraries for operators such as `aten::mean.out`, in the order of loading."""
    needed = {
        KERNELS_QUANTIZED if "quantized_decomposed" in name else KERNELS_OPTIMIZED
        for name in undelegated
        if not any(word in name for word in _NO_KERNEL)
    }
    return tuple(sorted(needed))
