"""What of an x86-64 CPU a target's programs may use: a level of the psABI, and extensions.

    [isa]
    level      = "x86-64-v4"
    extensions = ["avx512_vnni"]

CPU features are named as /proc/cpuinfo names them. Levels: x86-64 psABI, table 3.1,
https://gitlab.com/x86-psABIs/x86-64-ABI
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from toolchain import schema
from toolchain.errors import UserError, nearest

CPUINFO = Path("/proc/cpuinfo")

_V1 = frozenset(["cmov", "cx8", "fpu", "fxsr", "mmx", "sse", "sse2", "syscall"])
_V2 = _V1 | frozenset(["cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"])
_V3 = _V2 | frozenset(["abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"])
_V4 = _V3 | frozenset(["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"])

LEVELS: Mapping[str, frozenset[str]] = {
    "x86-64-v1": _V1,
    "x86-64-v2": _V2,
    "x86-64-v3": _V3,
    "x86-64-v4": _V4,
}

# Extension -> what no CPU with it is without.
EXTENSIONS: Mapping[str, frozenset[str]] = {
    "avx_vnni": _V3,
    "avx512_vnni": _V4,
    "avx512_bf16": _V4,
    "avx512_fp16": _V4,
    "avx512ifma": _V4,
    "avx512vbmi": _V4,
    "avx512_vbmi2": _V4,
    "avx512_bitalg": _V4,
    "avx512_vpopcntdq": _V4,
    "amx_tile": _V4,
    "amx_int8": _V4 | {"amx_tile"},
    "amx_bf16": _V4 | {"amx_tile"},
    "gfni": _V2,
    "vaes": _V3 | {"aes"},
    "vpclmulqdq": _V3 | {"pclmulqdq"},
}
# Of these, any adds products of integers in 32 bits.
DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def features(isa: schema.Isa | None) -> frozenset[str]:
    """All CPU features that a floor demands, those included that its extensions imply.

    None demands nothing. UserError for a level or an extension that is not known.
    """
    if isa is None:
        return frozenset()
    if isa.level not in LEVELS:
        raise UserError(
            f"unknown level '{isa.level}'", where="[isa].level", hint=nearest(isa.level, LEVELS)
        )
    found = set(LEVELS[isa.level])
    for extension in isa.extensions:
        if extension not in EXTENSIONS:
            raise UserError(
                f"unknown extension '{extension}'",
                where="[isa].extensions",
                hint=nearest(extension, EXTENSIONS),
            )
        found |= {extension, *EXTENSIONS[extension]}
    return frozenset(found)


def has_dot_product(isa: schema.Isa | None) -> bool:
    """Whether sums of products u8 s8 are exact; else each pair of them has to fit 16 bits."""
    return not DOT_PRODUCTS.isdisjoint(features(isa))


def check_host(isa: schema.Isa | None, purpose: str, where: str) -> None:
    """Refuse a purpose, such as to run a program, that asks for more than this host's CPU has."""
    if missing := features(isa) - of_this_host():
        raise UserError(
            f"this host cannot {purpose}: its CPU lacks {', '.join(sorted(missing))}",
            where=where,
            hint="the target's [isa] asks for them: build on a host that has them, or for a "
            "target with a lower floor",
        )


def of_this_host() -> frozenset[str]:
    """The CPU features of this host; empty if it is no x86 machine."""
    for line in CPUINFO.read_text("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
