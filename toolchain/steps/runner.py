"""Compile the runner for a target against the libraries in its ExecuTorch wheel, and strip all.

    executorch.whl ─┬─ include/ ─┐
                    └─ lib/*.so ─┴─ <triple>-g++ ── runner         loads from $ORIGIN/lib
                                 └─ <triple>-strip ─ lib/*.so      beside it

The same sources, wheel and compiler give the same bytes, wherever they stand.
"""

from __future__ import annotations

import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from toolchain.atomic import replacing
from toolchain.errors import InfraError, UserError
from toolchain.runtime_libraries import LIBRARIES
from toolchain.schema import Target, decode_json
from toolchain.steps.main import step

# The definitions with which the libraries were built (EXECUTORCH_COMPILE_DEFINITIONS of the
# wheel's CMake configuration): without them classes would be laid out differently here and there.
FLAGS = (
    "-std=c++20",
    "-O2",
    "-Wall",
    "-Wextra",
    "-DC10_USING_CUSTOM_GENERATED_MACROS",
    "-DET_EVENT_TRACER_ENABLED",
    "-DET_USE_THREADPOOL",
)
# The backend registers itself when it is loaded; nothing in the runner refers to it.
LINK = (
    "-lexecutorch",
    "-lexecutorch_etdump",
    "-lexecutorch_threadpool",
    "-Wl,--no-as-needed",
    "-lexecutorch_backend_xnnpack",
    "-Wl,--as-needed",
    "-Wl,-rpath,$ORIGIN/lib",
)
SDK = "executorch"  # the folder in the wheel


def run(*, target: Path, wheel: Path, source: list[Path], out: Path) -> None:
    """Compile `source` into `out`, and put the stripped libraries into `lib` beside it."""
    triple = decode_json(Target, target).triple
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _unpack(wheel, folder)
        for name in LIBRARIES:
            with replacing(out.parent / "lib" / name) as partial:
                _strip(triple, folder / SDK / "lib" / name, partial, "--strip-unneeded")
        compile_runner(triple, source, folder / SDK, folder / "runner")
        with replacing(out) as partial:
            _strip(triple, folder / "runner", partial, "--strip-all")
            partial.chmod(0o755)


def compile_runner(
    triple: str, sources: Sequence[Path], sdk: Path, out: Path, extra: Sequence[str] = ()
) -> None:
    """Compile and link, unstripped. sdk: the folder that holds ExecuTorch's include/ and lib/."""
    folders = sorted({path.parent.absolute() for path in sources})
    maps = [f"-ffile-prefix-map={folder}=runner" for folder in folders]
    c10 = sdk / "include/executorch/runtime/core/portable_type/c10"
    include = ["-isystem", str(sdk / "include"), "-isystem", str(c10)]
    files = [str(path.absolute()) for path in sorted(sources) if path.suffix == ".cpp"]
    _tool(
        triple,
        "g++",
        [*FLAGS, *extra, *maps, *include, *files, f"-L{sdk / 'lib'}", *LINK, "-o", str(out)],
    )


def _unpack(wheel: Path, folder: Path) -> None:
    """The headers, and those libraries that are used."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            wanted = [n for n in archive.namelist() if n.startswith(f"{SDK}/include/")]
            archive.extractall(folder, wanted + [f"{SDK}/lib/{name}" for name in LIBRARIES])
    except (zipfile.BadZipFile, KeyError) as error:
        raise InfraError(
            f"this wheel of ExecuTorch does not hold its C++ libraries: {error.args[0]}",
            where=str(wheel),
            hint="a wheel of this version and platform has none, or the download is damaged: "
            "delete it here and in the cache folder, then run scons again",
        ) from None


def _strip(triple: str, file: Path, to: Path, what: str) -> None:
    _tool(triple, "strip", [what, "-o", str(to), str(file)])


def _tool(triple: str, name: str, arguments: Sequence[str]) -> None:
    command = f"{triple}-{name}"
    try:
        done = subprocess.run(
            [command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise UserError(
            f"there is no '{command}'",
            where="cross compiler",
            hint=f"on Debian and Ubuntu: apt-get install {package_of(triple)}",
        ) from None
    if done.returncode:
        raise UserError(
            f"{command} failed with status {done.returncode}:\n{done.stdout.rstrip()}",
            where="runner",
        )


def package_of(triple: str) -> str:
    """The Debian package of the compiler (its binutils come with it)."""
    return f"g++-{triple.replace('_', '-')}"


if __name__ == "__main__":
    step(run)
