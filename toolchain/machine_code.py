"""Which CPU features the instructions of an x86-64 ELF file need, read from the instructions.

    machine_code.check(library, isa.features(target.isa), "program.pt2: model.so")

Compiler flags promise a floor; headers, intrinsics and prebuilt objects may break it, and then a
lesser CPU ends the program with SIGILL. Features are named as /proc/cpuinfo names them.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

import iced_x86
from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from toolchain import isa
from toolchain.errors import UserError

MACHINE = "EM_X86_64"
WORST = 3  # instructions that a message names
# iced's names of what every x86-64 CPU has, or takes for a no-operation.
BASELINE = frozenset(
    "CET_IBT CET_SS CLFSH CPUID FPU FPU287 FPU387 INTEL8086 INTEL186 INTEL286 INTEL386 INTEL486 "  # noqa: SIM905 (a list of 20 words)
    "MONITOR MSR MULTIBYTENOP PAUSE PREFETCHW RDPMC TSC X64".split()
)
# iced's names where they are not /proc/cpuinfo's in capitals.
NAMES = {
    "AVX512_IFMA": "avx512ifma",
    "AVX512_VBMI": "avx512vbmi",
    "CMPXCHG16B": "cx16",
    "LZCNT": "abm",
    "SHA": "sha_ni",
    "SSE3": "pni",
}


@dataclass(frozen=True)
class Need:
    """An instruction beyond the baseline: its text, where it stands, and what it needs."""

    instruction: str
    address: int
    function: str
    features: frozenset[str]

    def __str__(self) -> str:
        place = f"{self.function} " if self.function else ""
        return f"'{self.instruction}' at {place}{self.address:#x} needs {_listed(self.features)}"


def check(elf: bytes, allowed: frozenset[str], where: str) -> None:
    """Refuse an x86-64 ELF file with an instruction that needs a feature outside `allowed`.

    The baseline of the architecture is always allowed. UserError names the feature, how often it
    is needed, and the first instructions that need it.
    """
    above = [n for n in _needs(elf, where) if not n.features <= allowed]
    if not above:
        return
    missing = frozenset().union(*(need.features - allowed for need in above))
    raise UserError(
        f"{len(above)} instructions need what the target's CPUs may lack: {_listed(missing)}",
        where=where,
        hint="\n  ".join(
            [*map(str, above[:WORST]), "raise [isa] of the target, or compile for it"]
        ),
    )


def used(elf: bytes) -> frozenset[str]:
    """The features that the code uses beyond the x86-64 baseline."""
    return frozenset().union(*(need.features for need in _needs(elf, "an ELF file")))


def _needs(elf: bytes, where: str) -> Iterator[Need]:
    """All instructions that need more than the baseline."""
    try:
        file = ELFFile(io.BytesIO(elf))
        if file["e_machine"] != MACHINE:
            raise UserError(f"is for {file['e_machine']}, not {MACHINE}", where=where)
        functions = _functions(file)
        formatter = iced_x86.Formatter(iced_x86.FormatterSyntax.INTEL)
        for address, code in _executable(file):
            for instruction in iced_x86.Decoder(64, code, ip=address):
                if found := _features(instruction.code):
                    at = instruction.ip
                    text = formatter.format(instruction)
                    yield Need(text, at, _function(functions, at), found)
    except ELFError as error:
        raise UserError(f"is not an ELF file that can be read: {error}", where=where) from None


def _executable(file: ELFFile) -> Iterator[tuple[int, bytes]]:
    """Address and content of what can be executed: sections, or segments where there are none."""
    sections = [s for s in file.iter_sections() if s["sh_type"] == "SHT_PROGBITS"]
    if sections:
        for section in sections:
            if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR:
                yield section["sh_addr"], section.data()
        return
    for segment in file.iter_segments("PT_LOAD"):
        if segment["p_flags"] & 1:
            yield segment["p_vaddr"], segment.data()


def _functions(file: ELFFile) -> list[tuple[int, int, str]]:
    """Address, size and name of the functions that the file has symbols of, by address."""
    tables = [s for s in file.iter_sections() if isinstance(s, SymbolTableSection)]
    symbols: Iterator[Any] = (symbol for table in tables for symbol in table.iter_symbols())
    found = {
        (int(s["st_value"]), int(s["st_size"]), str(s.name))
        for s in symbols
        if s["st_info"]["type"] == "STT_FUNC" and s["st_value"]
    }
    return sorted(found)


def _function(functions: list[tuple[int, int, str]], address: int) -> str:
    """`name+0x1c` of the function around an address; empty if no symbol tells."""
    place = bisect_right(functions, address, key=itemgetter(0)) - 1
    if place < 0:
        return ""
    start, size, name = functions[place]
    return f"{name}+{address - start:#x}" if address < start + size else ""


@cache
def _features(code: Any) -> frozenset[str]:
    """Features beyond the baseline that an instruction, one of iced's codes, needs."""
    info = iced_x86.OpCodeInfo(code)
    if info.mnemonic == iced_x86.Mnemonic.TZCNT:
        return frozenset()  # compilers write it for BSF, which is what older CPUs take it for
    instruction = iced_x86.Instruction()
    instruction.code = code
    names = {_feature_names()[number] for number in instruction.cpuid_features()}
    flags = {NAMES.get(name, name.lower()) for name in names - BASELINE}
    return frozenset(flags) - isa.LEVELS["x86-64-v1"]


@cache
def _feature_names() -> dict[int, str]:
    kinds = vars(iced_x86.CpuidFeature)
    return {number: name for name, number in kinds.items() if name.isupper()}


def _listed(features: frozenset[str]) -> str:
    return ", ".join(sorted(features))
