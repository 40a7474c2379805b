"""What runs programs on a device: the runtimes, and what of each is shipped.

    backend ─ RUNTIME ─┬─ headers and libraries of an installed distribution, or of its wheel
                       └─ toolchain/runner/<name>: its adapter, compiled with toolchain/runner/core

The libraries of a runtime are named here one by one: what is not named is not shipped.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

RUNNER = Path(__file__).parent / "runner"


@dataclass(frozen=True)
class Runtime:
    """name: folder of `toolchain/runner` that holds its adapter.
    package: the distribution, and the folder in it, whose headers and libraries are used.
    include, lib: folders in the package.
    flags: with which the libraries were built, so that classes are laid out the same here.
    linked: libraries that the runner cannot do without, those included that are loaded by name.
    registered: of `linked`, those that nothing refers to: they register themselves when loaded.
    optional: libraries that only some programs need (`--load-library`).
    apart: large: a device gets it once, under its digest, not in each bundle.
    """

    name: str
    package: str
    include: tuple[str, ...]
    lib: str
    flags: tuple[str, ...]
    linked: tuple[str, ...]
    registered: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    apart: bool = False

    @property
    def libraries(self) -> tuple[str, ...]:
        return (*self.linked, *self.optional)

    def sources(self) -> list[Path]:
        """The runner's C++ files for this runtime."""
        folders = (RUNNER / "core", RUNNER / self.name)
        return sorted(path for folder in folders for path in folder.glob("*.[ch]*"))


KERNELS_OPTIMIZED = "libexecutorch_kernels_optimized.so"
KERNELS_QUANTIZED = "libexecutorch_kernels_quantized.so"

EXECUTORCH = Runtime(
    name="executorch",
    package="executorch",
    include=("include", "include/executorch/runtime/core/portable_type/c10"),
    lib="lib",
    # EXECUTORCH_COMPILE_DEFINITIONS of the wheel's CMake configuration
    flags=(
        "-DC10_USING_CUSTOM_GENERATED_MACROS",
        "-DET_EVENT_TRACER_ENABLED",
        "-DET_USE_THREADPOOL",
    ),
    linked=(
        "libexecutorch.so",
        "libexecutorch_backend_xnnpack.so",
        "libexecutorch_threadpool.so",
        "libexecutorch_etdump.so",
    ),
    registered=("libexecutorch_backend_xnnpack.so",),
    optional=(KERNELS_OPTIMIZED, KERNELS_QUANTIZED),
)

TORCH = Runtime(
    name="torch",
    package="torch",
    include=("include", "include/torch/csrc/api/include"),
    lib="lib",
    flags=(),
    linked=("libtorch_cpu.so", "libc10.so", "libgomp.so.1"),
    apart=True,
)

# Without libtbbbind and libtbbmalloc, which TBB looks for and can do without: with the first one a
# small program's inference costs twice as much, and 20 MB more memory.
OPENVINO = Runtime(
    name="openvino",
    package="openvino",
    include=("include",),
    lib="libs",
    flags=(),
    linked=(
        "libopenvino.so.2641",
        "libopenvino_intel_cpu_plugin.so",
        "libopenvino_ir_frontend.so.2641",
        "libtbb.so.12",
    ),
    apart=True,
)

ALL = {runtime.name: runtime for runtime in (EXECUTORCH, TORCH, OPENVINO)}

# Not kernels: calls of a delegate, tuple access, and what libexecutorch.so itself holds.
_NO_KERNEL = ("getitem", "executorch_call_delegate", "executorch_prim::")


def kernels_for(undelegated: Iterable[str]) -> tuple[str, ...]:
    """ExecuTorch's libraries for operators such as `aten::mean.out`, in the order of loading."""
    needed = {
        KERNELS_QUANTIZED if "quantized_decomposed" in name else KERNELS_OPTIMIZED
        for name in undelegated
        if not any(word in name for word in _NO_KERNEL)
    }
    return tuple(sorted(needed))


# AOTInductor's packages do not tell their inputs: this entry of their metadata does.
TORCH_INPUTS = "slipway_inputs"


def torch_inputs(specs: Iterable[tuple[str, Sequence[int]]]) -> str:
    """The entry for inputs of these dtypes and shapes: `float32:1x3x224x224 int64:1x32 bool:`."""
    return " ".join(f"{dtype}:{'x'.join(str(size) for size in shape)}" for dtype, shape in specs)


def is_native(arch: str) -> bool:
    """Whether programs for `arch` can run here, so that installed libraries are the target's."""
    return arch == platform.machine()
