"""What an ELF file needs of the machine that loads it: libraries, symbol versions, ISA."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from toolchain.errors import UserError

MACHINES = {"EM_AARCH64": "aarch64", "EM_X86_64": "x86_64", "EM_ARM": "armv7l", "EM_RISCV": "riscv"}
_VERSION = re.compile(r"^([A-Z]+)_([0-9]+(?:\.[0-9]+)*)$")  # GLIBC_2.34, but not GLIBC_PRIVATE


@contextmanager
def _opened(path: Path) -> Iterator[ELFFile]:
    try:
        with path.open("rb") as file:
            yield ELFFile(file)
    except (OSError, ELFError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"is not an ELF file that can be read: {reason}", where=str(path)) from None


def machine(path: Path) -> str:
    """The ISA as `uname -m` names it: `aarch64`, `x86_64`, …"""
    with _opened(path) as elf:
        code = str(elf["e_machine"])
    return MACHINES.get(code, code)


def needed(path: Path) -> list[str]:
    """Names of the libraries that the loader looks for (DT_NEEDED), in order."""
    with _opened(path) as elf:
        section = elf.get_section_by_name(".dynamic")
        if not isinstance(section, DynamicSection):
            return []
        tags: Iterable[Any] = section.iter_tags("DT_NEEDED")  # pyelftools adds `needed` to these
        return [str(tag.needed) for tag in tags]


def closure(path: Path, folder: Path) -> list[str]:
    """The libraries in `folder` that `path` needs, directly or through others of them; sorted."""
    found: set[str] = set()
    waiting = [path]
    while waiting:
        for name in needed(waiting.pop()):
            if name not in found and (folder / name).is_file():
                found.add(name)
                waiting.append(folder / name)
    return sorted(found)


def floors(paths: Iterable[Path]) -> dict[str, str]:
    """The highest version needed of each versioned interface: {"glibc": "2.34", "glibcxx": …}."""
    highest: dict[str, tuple[int, ...]] = {}
    for path in paths:
        for name, version in _versions(path):
            highest[name] = max(highest.get(name, ()), version)
    return {name: ".".join(map(str, version)) for name, version in sorted(highest.items())}


def glibc_floor(paths: Iterable[Path]) -> str:
    """The oldest glibc with every symbol that the files need, such as `2.34`; `0` if none do."""
    return floors(paths).get("glibc", "0")


def _versions(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    with _opened(path) as elf:
        section = elf.get_section_by_name(".gnu.version_r")
        if not isinstance(section, GNUVerNeedSection):
            return
        for _library, symbols in section.iter_versions():
            for symbol in symbols:
                if match := _VERSION.match(str(symbol.name)):
                    yield match[1].lower(), tuple(int(part) for part in match[2].split("."))
