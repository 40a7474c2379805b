"""What a device says of itself."""

from __future__ import annotations

import pytest

from toolchain.devices import facts

PI = """
@machine
aarch64

@kernel
6.6.31 #1

@model
Raspberry Pi 4 Model B Rev 1.4

@cpuinfo
processor : 0
Features\t: fp asimd
CPU implementer\t: 0x41
CPU part\t: 0xd08

processor : 1
CPU implementer\t: 0x41
CPU part\t: 0xd08

@meminfo
MemTotal:        3884396 kB

@cores
2

@libc
ldd (Debian GLIBC 2.36-9+rpt2+deb12u4) 2.36
"""


def test_facts_of_a_raspberry_pi():
    found = facts.parse(PI)
    assert found["cpu"] == "Cortex-A72"
    assert found["libc"] == "2.36"
    assert found["memory"] == str(3884396 * 1024)
    assert found["model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert found["cpu_flags"] == "asimd fp"


@pytest.mark.parametrize(
    ("said", "libc"),
    [
        ("glibc 2.28", "2.28"),
        ("GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.", "2.36"),
        ("", "unknown"),
    ],
)
def test_the_version_of_libc(said, libc):
    assert facts.parse(f"@libc\n{said}\n")["libc"] == libc


def test_big_and_little_cores_are_both_named():
    text = "@cpuinfo\n" + "".join(
        f"CPU implementer : 0x41\nCPU part : {part}\n" for part in ("0xd05", "0xd0b", "0xfff")
    )
    assert facts.parse(text)["cpu"] == "Cortex-A55 + Cortex-A76 + implementer 0x41 part 0xfff"


def test_flags_are_those_that_all_cores_have():
    text = "@cpuinfo\nflags\t\t: fpu avx2 avx512f\nflags\t\t: avx2 fpu\nvmx flags : vnmi\n"
    assert facts.parse(text)["cpu_flags"] == "avx2 fpu"
    assert facts.parse("@cpuinfo\nprocessor : 0\n")["cpu_flags"] == "unknown"
