"""ISA floors: what they demand, what is refused, and how it compares with this host."""

from __future__ import annotations

import platform

import pytest

from toolchain import isa
from toolchain.errors import UserError
from toolchain.schema import Isa


def test_levels_include_each_other():
    below: frozenset[str] = frozenset()
    for name in ("x86-64-v1", "x86-64-v2", "x86-64-v3", "x86-64-v4"):
        assert below < isa.LEVELS[name]
        below = isa.LEVELS[name]


def test_no_floor_demands_nothing():
    assert isa.features(None) == frozenset()


def test_an_extension_demands_what_it_implies():
    floor = isa.features(Isa(level="x86-64-v3", extensions=("avx512_vnni",)))
    assert {"avx512_vnni", "avx512f", "avx2"} <= floor
    assert "amx_tile" in isa.features(Isa(level="x86-64-v4", extensions=("amx_int8",)))
    assert "avx512f" not in isa.features(Isa(level="x86-64-v3", extensions=("avx_vnni",)))


@pytest.mark.parametrize(
    ("floor", "message"),
    [
        (Isa(level="x86-64-v5"), r"\[isa\]\.level: unknown level 'x86-64-v5'\n.*'x86-64-v4'"),
        (
            Isa(level="x86-64-v4", extensions=("avx512vnni",)),
            r"\[isa\]\.extensions: unknown extension 'avx512vnni'\n.*'avx512_vnni'",
        ),
    ],
)
def test_unknown_words_are_refused_with_the_nearest(floor, message):
    with pytest.raises(UserError, match=message):
        isa.features(floor)


def test_flags_are_read_as_the_kernel_writes_them(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu sse2 avx2\nbugs\t\t: sysret\n")
    monkeypatch.setattr(isa, "CPUINFO", file)
    assert isa.of_this_host() == {"fpu", "sse2", "avx2"}
    file.write_text("processor\t: 0\nFeatures\t: fp asimd\n")  # an Arm machine's
    assert isa.of_this_host() == frozenset()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="this host is no x86-64 machine")
def test_names_are_those_of_this_hosts_kernel():
    assert isa.LEVELS["x86-64-v1"] <= isa.of_this_host()
