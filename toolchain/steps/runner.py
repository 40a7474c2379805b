"""Compile the runner of one runtime for a target, and strip it and its libraries.

    installed distribution ─┬─ include/ ─┐
    (or its wheel, for      └─ lib/*.so ─┴─ <triple>-g++ ── runner     loads from $ORIGIN/lib
    another architecture)                └─ <triple>-strip ─ lib/*.so  beside it

The same sources, libraries and compiler give the same bytes, wherever they stand.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from toolchain import runtimes
from toolchain.atomic import replacing, write_json
from toolchain.errors import InfraError, UserError
from toolchain.runtimes import Runtime
from toolchain.schema import Target, decode_json
from toolchain.steps.main import NONE, step

SCHEMA = 1
# No -march: the runner starts on any CPU of the architecture, and says what it lacks.
FLAGS = ("-std=c++20", "-O2", "-Wall", "-Wextra")


def run(
    *,
    target: Path,
    runtime: str,
    version: str,
    source: list[Path],
    out: Path,
    report: Path,
    wheel: Path = NONE,
) -> None:
    """Compile `source` into `out`, put the stripped libraries into `lib` beside it, and list them.

    version: of the runtime's package. wheel: it, for a target of another architecture than this
    host's; none, and the installed package is taken.
    """
    triple = decode_json(Target, target).triple
    kind = runtimes.ALL[runtime]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sdk = installed(kind, version) if wheel == NONE else _unpacked(kind, wheel, folder)
        files = {}
        for name in kind.libraries:
            with replacing(out.parent / "lib" / name) as partial:
                _strip(triple, sdk / kind.lib / name, partial, "--strip-unneeded")
                files[name] = _facts(partial)
        compile_runner(triple, kind, source, sdk, folder / "runner")
        with replacing(out) as partial:
            _strip(triple, folder / "runner", partial, "--strip-all")
            partial.chmod(0o755)
    digests = [[name, facts["sha256"]] for name, facts in sorted(files.items())]
    write_json(
        report,
        {
            "schema": SCHEMA,
            "name": kind.name,
            "package": kind.package,
            "version": version,
            "apart": kind.apart,
            "digest": hashlib.sha256(json.dumps(digests).encode()).hexdigest(),
            "bytes": sum(int(facts["bytes"]) for facts in files.values()),
            "files": files,
        },
    )


def installed(kind: Runtime, version: str) -> Path:
    """The folder of the installed package, which has to be of `version`."""
    distribution = metadata.distribution(kind.package)
    if distribution.version != version:
        raise UserError(
            f"{kind.package} {distribution.version} is installed, not {version}",
            where="runner",
            hint="run scons again: it reads the versions when it starts",
        )
    return Path(str(distribution.locate_file(kind.package)))


def compile_runner(
    triple: str,
    kind: Runtime,
    sources: Sequence[Path],
    sdk: Path,
    out: Path,
    extra: Sequence[str] = (),
) -> None:
    """Compile and link, unstripped. sdk: the folder of the package."""
    folders = sorted({path.parent.absolute() for path in sources})
    maps = [f"-ffile-prefix-map={folder}=runner" for folder in folders]
    own = [f"-I{folder}" for folder in folders]
    theirs = [word for folder in kind.include for word in ("-isystem", str(sdk / folder))]
    by_name = sorted(sources, key=lambda path: path.name)  # whatever folders they are in
    files = [str(path.absolute()) for path in by_name if path.suffix == ".cpp"]
    referred = [f"-l:{name}" for name in kind.linked if name not in kind.registered]
    registered = [f"-l:{name}" for name in kind.registered]
    libraries = [
        f"-L{sdk / kind.lib}",
        f"-Wl,-rpath-link,{sdk / kind.lib}",
        "-Wl,--as-needed",
        *referred,
        "-Wl,--no-as-needed",
        *registered,
        "-Wl,-rpath,$ORIGIN/lib",
    ]
    arguments = [*FLAGS, *kind.flags, *extra, *maps, *own, *theirs, *files, *libraries]
    _tool(triple, "g++", [*arguments, "-o", str(out)])


def _unpacked(kind: Runtime, wheel: Path, folder: Path) -> Path:
    """The headers of a wheel, and those of its libraries that are used."""
    libraries = [f"{kind.package}/{kind.lib}/{name}" for name in kind.libraries]
    headers = tuple(f"{kind.package}/{name}/" for name in kind.include)
    try:
        with zipfile.ZipFile(wheel) as archive:
            wanted = [name for name in archive.namelist() if name.startswith(headers)]
            archive.extractall(folder, wanted + libraries)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InfraError(
            f"this wheel of {kind.package} does not hold its C++ libraries: {error.args[0]}",
            where=str(wheel),
            hint="a wheel of this version and platform has none, or the download is damaged: "
            "delete it here and in the cache folder, then run scons again",
        ) from None
    return folder / kind.package


def _facts(file: Path) -> dict[str, int | str]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


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
