"""An ISA floor in the words of those who make machine code: GCC, Inductor and oneDNN.

Two makers put instructions into a run. GCC compiles what Inductor generates, once. oneDNN makes its
kernels on the device, as wide as the CPU allows; but the weights inside the program are packed for
the kernels of the CPU that packed them, and are packed anew at each inference where the kernels are
others. So oneDNN is held to the floor in both places.
https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
"""

from __future__ import annotations

from toolchain import isa, schema

# Best first: what oneDNN calls a set of features, and those that it asks the CPU for.
ONEDNN: tuple[tuple[str, frozenset[str]], ...] = (
    ("AVX512_CORE_AMX", frozenset({"amx_int8", "amx_bf16"})),
    ("AVX512_CORE_FP16", frozenset({"avx512_fp16", "avx512_bf16", "avx512_vnni"})),
    ("AVX512_CORE_BF16", frozenset({"avx512_bf16", "avx512_vnni"})),
    ("AVX512_CORE_VNNI", frozenset({"avx512_vnni"})),
    ("AVX512_CORE", isa.LEVELS["x86-64-v4"]),
    ("AVX2_VNNI", frozenset({"avx_vnni"})),
    ("AVX2", isa.LEVELS["x86-64-v3"]),
    ("SSE41", frozenset()),
)
VECTORS = (("x86-64-v4", 512), ("x86-64-v3", 256))  # bits that Inductor's vectors have


def environment(floor: schema.Isa | None) -> dict[str, str]:
    """What holds oneDNN to the floor, where weights are packed and where programs run."""
    features = isa.features(floor)
    return {"ONEDNN_MAX_CPU_ISA": next(name for name, asked in ONEDNN if asked <= features)}


def march(floor: schema.Isa | None) -> str:
    """The argument of GCC's -march; the baseline of the architecture without a floor."""
    return "x86-64" if floor is None else floor.level.removesuffix("-v1")


def vector_bits(floor: schema.Isa | None) -> int:
    """Width of the vectors in generated code; 1 for scalars."""
    features = isa.features(floor)
    return next((bits for level, bits in VECTORS if isa.LEVELS[level] <= features), 1)
