"""AOTInductor's package, `.pt2`: a zip file around one shared library, always the same bytes.

    program/data/aotinductor/model/model.wrapper.so               code and weights
    program/data/aotinductor/model/model.wrapper_metadata.json
    program/archive_format, archive_version, byteorder, .data/version

torch names files by hashes of paths, keeps the generated C++ with the compiler's command line in
it, and the library its symbols; none of this is needed to run it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from toolchain.errors import UserError
from toolchain.schema import shown

ROOT = "program"
FOLDER = "data/aotinductor/model/"
KEPT = (".wrapper.so", ".wrapper_metadata.json")
DROPPED = (".data/serialization_id",)  # a random number
EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip file's first time
LIBRARY = f"{ROOT}/{FOLDER}model.wrapper.so"


def canonical(package: Path, library: bytes) -> bytes:
    """A package's content with `library` in the place of its own."""
    made = io.BytesIO()
    with zipfile.ZipFile(package) as given, zipfile.ZipFile(made, "w") as new:
        content = {_name(name): given.read(name) for name in given.namelist()}
        content[LIBRARY] = library
        for name in sorted(name for name in content if name):
            # Weights hardly shrink, and a stored file can be read where it lies.
            new.writestr(zipfile.ZipInfo(name, EPOCH), content[name])
    return made.getvalue()


def library(package: Path) -> tuple[str, bytes]:
    """Name and content of the shared library; UserError if there is none."""
    try:
        with zipfile.ZipFile(package) as archive:
            name = next(n for n in archive.namelist() if n.endswith(KEPT[0]))
            return name.rpartition("/")[2], archive.read(name)
    except (OSError, zipfile.BadZipFile, StopIteration):
        raise UserError(
            "is no package of AOTInductor",
            where=shown(package),
            hint="it is cut short, or something else; delete it and build again",
        ) from None


def libraries(package: Path) -> Iterator[tuple[str, bytes]]:
    """All ELF files in it, by name: one."""
    yield library(package)


def _name(name: str) -> str:
    """Where a file of torch's package belongs; empty if it is not kept."""
    inner = name.partition("/")[2]
    if not inner.startswith(FOLDER):
        return "" if inner in DROPPED else f"{ROOT}/{inner}"
    suffix = next((suffix for suffix in KEPT if inner.endswith(suffix)), None)
    return f"{ROOT}/{FOLDER}model{suffix}" if suffix else ""
