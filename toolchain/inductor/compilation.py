"""A program in machine code: AOTInductor with frozen weights, under an ISA floor.

Runs in a process of its own (see `toolchain.inductor.child`). Nothing of what comes out may depend
on the folder, the process or the time: paths and addresses are kept out of it.
https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import isa, programs, pt2e, runtimes, saturation, schema
from toolchain.errors import UserError
from toolchain.inductor import archive, calls, floor, forms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.export import ExportedProgram

COMPILER, STRIP = "g++", "strip"
LINES = 12  # of what the compiler says when it fails
# Of a library, what only tools look at; the build's identity is a hash of what is stripped.
SECTIONS = ("--remove-section=.note.gnu.build-id", "--remove-section=.comment")
# Named by their kind, where Inductor names them by hashes of paths.
SOURCES = {"*.kernel.cpp": "kernel.cpp", "*.wrapper.cpp": "model.cpp"}
# What torch tells Inductor of this host's CPU, and the features that a target has to have for it.
CPU = {
    "_is_avx2_supported": {"avx2"},
    "_is_avx512_supported": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "_is_avx512_bf16_supported": {"avx512_bf16"},
    "_is_vnni_supported": {"avx512_vnni"},
    "_is_amx_tile_supported": {"amx_tile"},
    "_is_amx_fp16_supported": {"amx_fp16"},
}


def compiled(model: Path, target: schema.Isa | None) -> tuple[bytes, dict[str, Any]]:
    """The `.pt2` package of an exported program for a floor, and the report of its calls.

    UserError with the compiler's last lines if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-inductor-") as name:
        folder = Path(name)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "cache")
        programs.prepare_torch()
        # Inductor copies a zero point in a way that torch has made superfluous.
        warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)
        exact = isa.has_dot_product(target)
        program, wanted = forms.adapted(programs.from_file(model), exact=exact)
        package = folder / "package.pt2"
        _see_target_cpu(target)
        with _configured(_compiler(folder), target, _metadata(program)):
            _compile(program, package)
        (wrapper,) = (folder / "cache").rglob("*.wrapper.cpp")
        found = calls.found(wrapper.read_text("utf-8"))
        report = calls.report(found, wanted, weight_bits=8 if exact else 7)
        if wanted and not exact:
            report["remarks"] = [saturation.REMARK]
        return archive.canonical(package, _stripped(package, folder)), report


def _metadata(program: ExportedProgram) -> dict[str, str]:
    """What the runner has to know of a program's inputs."""
    example = pt2e.example(program)
    specs = [(str(tensor.dtype).removeprefix("torch."), tensor.shape) for tensor in example]
    return {runtimes.TORCH_INPUTS: runtimes.torch_inputs(specs)}


def _compile(program: ExportedProgram, package: Path) -> None:
    import torch
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import CppCompileError, InductorError

    try:
        with torch.no_grad():
            aoti_compile_and_package(program, package_path=str(package))
    except (CppCompileError, InductorError) as error:
        last = "\n  ".join(str(error).strip().splitlines()[-LINES:])
        raise UserError(
            f"AOTInductor cannot compile it:\n  {last}",
            where="lower",
            hint="the compiler is g++; write the model without what it stumbles over",
        ) from None


@contextmanager
def _configured(
    compiler: Path, target: schema.Isa | None, metadata: dict[str, str]
) -> Iterator[None]:
    """Inductor's settings, for a compiler and a floor. metadata: goes into the package."""
    import torch._inductor.config

    # Its passes that put oneDNN's integer kernels in place are torchao's, and register themselves.
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # noqa: F401

    settings = {
        "freezing": True,
        "compile_threads": 1,
        "size_asserts": False,  # they hold memory addresses, as text
        "cpp_cache_precompile_headers": False,  # kept outside of the cache folder, used once
        "aot_inductor.precompile_headers": False,
        "cpp.cxx": (None, str(compiler)),
        "cpp.march": floor.march(target),
        "cpp.simdlen": floor.vector_bits(target),
        "cpp.vec_isa_ok": True,  # not asked of this host
        "cpp.dynamic_threads": True,  # whoever runs it says how many
        # Names of kernels for the profile: 0.9 us for each call of one (digits: 88 to 93 us).
        "cpp.enable_kernel_profile": True,
        "aot_inductor.metadata": metadata,
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.enable_frame_pointer": False,
    }
    with torch._inductor.config.patch(settings):
        yield


def _see_target_cpu(target: schema.Isa | None) -> None:
    """Let Inductor see the target's CPU where it asks for this host's, in the whole process."""
    import torch.cpu
    from torch._inductor.cpu_vec_isa import VecISA

    features = isa.features(target)
    for name, asked in CPU.items():
        setattr(torch.cpu, name, lambda able=asked <= features: able)
    # It compiles a probe, and loads it here.
    VecISA.check_build = lambda *_: True  # type: ignore[method-assign]


def _compiler(folder: Path) -> Path:
    """A program that calls the compiler so that it writes no path of this machine.

    It has the compiler's name, by which Inductor knows what it can do.
    """
    import torch

    home = Path(torch.__file__).parent
    cases = "\n".join(
        f'    {pattern}) set -- "$@" "-ffile-prefix-map=$word={name}" ;;'
        for pattern, name in SOURCES.items()
    )
    script = folder / COMPILER
    script.write_text(
        f"#!/bin/sh\nfor word; do\n  case $word in\n{cases}\n  esac\ndone\n"
        f'exec {COMPILER} -ffile-prefix-map={shlex.quote(f"{home}=torch")} "$@"\n'
    )
    script.chmod(0o755)
    return script


def _stripped(package: Path, folder: Path) -> bytes:
    """The package's library without symbols that nothing links against, and build identity."""
    file = folder / "model.so"
    file.write_bytes(archive.library(package)[1])
    command = [STRIP, "--strip-unneeded", *SECTIONS, str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return file.read_bytes()
