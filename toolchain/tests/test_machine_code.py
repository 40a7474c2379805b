"""Instructions above a floor are found in what a compiler makes, and named."""

from __future__ import annotations

import platform
import shutil
import subprocess

import pytest

from toolchain import isa, machine_code
from toolchain.errors import UserError
from toolchain.schema import Isa

SOURCE = """
void scale(float *x, float by) { for (int i = 0; i < 4096; i++) x[i] = x[i] * by + 1; }
int trailing(unsigned x) { return x ? __builtin_ctz(x) : 32; }
"""
V3 = isa.features(Isa(level="x86-64-v3"))
V4 = isa.features(Isa(level="x86-64-v4"))

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("gcc"), reason="needs gcc for x86-64"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "a.c").write_text(SOURCE)

    def compiled(march, *options):
        out = folder / "a.so"
        flags = ["-O3", "-shared", "-fPIC", f"-march={march}", *options]
        subprocess.run(["gcc", *flags, "-o", out, folder / "a.c"], check=True)
        return out.read_bytes()

    return compiled


def test_baseline_needs_nothing(library):
    assert machine_code.used(library("x86-64", "-mtune=generic")) == frozenset()
    machine_code.check(library("x86-64"), frozenset(), "a.so")


def test_a_level_stays_within_itself(library):
    assert {"avx", "fma"} <= machine_code.used(library("x86-64-v3")) <= V3
    wide = library("x86-64-v4", "-mprefer-vector-width=512")
    assert "avx512f" in machine_code.used(wide)
    machine_code.check(wide, V4, "a.so")


def test_what_is_above_the_floor_is_named(library):
    code = library("x86-64-v4", "-mprefer-vector-width=512")
    with pytest.raises(UserError) as refused:
        machine_code.check(code, V3, "program.pt2: a.so")
    said = str(refused.value)
    assert said.startswith("program.pt2: a.so: ")
    assert "avx512f" in said.splitlines()[0]
    assert "zmm" in said
    assert "at scale+0x" in said


def test_without_symbols_the_address_is_left(library, tmp_path):
    file = tmp_path / "a.so"
    file.write_bytes(library("x86-64-v3"))
    subprocess.run(["strip", "-s", file], check=True)
    with pytest.raises(UserError, match=r"' at (scale\+0x[0-9a-f]+ )?0x[0-9a-f]+ needs "):
        machine_code.check(file.read_bytes(), frozenset(), "a.so")


def test_code_without_section_headers_is_read_too(library):
    code = bytearray(library("x86-64-v3"))
    code[0x28:0x30] = bytes(8)  # e_shoff
    code[0x3A:0x40] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    assert {"avx", "fma"} <= machine_code.used(bytes(code))


def test_other_files_are_refused(library):
    with pytest.raises(UserError, match=r"x: is not an ELF file"):
        machine_code.check(b"nothing of the kind", V3, "x")
    code = bytearray(library("x86-64"))
    code[0x12:0x14] = (183).to_bytes(2, "little")  # e_machine: EM_AARCH64
    with pytest.raises(UserError, match="x: is for EM_AARCH64"):
        machine_code.check(bytes(code), V3, "x")
