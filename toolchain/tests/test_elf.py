"""What an ELF file needs, told of the libraries of the installed ExecuTorch."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain import elf
from toolchain.errors import UserError

EXECUTORCH = importlib.util.find_spec("executorch")
assert EXECUTORCH is not None
LIB = Path(next(iter(EXECUTORCH.submodule_search_locations or []))) / "lib"


def test_the_machine_is_named_as_uname_does():
    assert elf.machine(Path(sys.executable)) == platform.machine()


def test_needed_libraries_are_in_order():
    names = elf.needed(LIB / "libexecutorch_backend_xnnpack.so")
    assert names[:2] == ["libexecutorch_threadpool.so", "libexecutorch.so"]
    assert "libc.so.6" in names


def test_a_closure_stays_in_its_folder():
    assert elf.closure(LIB / "libexecutorch_backend_xnnpack.so", LIB) == [
        "libexecutorch.so",
        "libexecutorch_threadpool.so",
    ]


def test_floors_are_compared_as_numbers(monkeypatch):
    said = {"a": [("glibc", (2, 4)), ("glibc", (2, 34))], "b": [("glibc", (2, 9))]}
    monkeypatch.setattr(elf, "_versions", lambda path: iter(said[str(path)]))
    assert elf.floors([Path("a"), Path("b")]) == {"glibc": "2.34"}
    assert elf.glibc_floor([Path("b")]) == "2.9"
    assert elf.glibc_floor([]) == "0"


def test_floors_are_those_that_objdump_sees():
    path = LIB / "libexecutorch.so"
    said = subprocess.run(["readelf", "-V", path], capture_output=True, text=True, check=True)
    names = {word for word in said.stdout.split() if word.startswith("GLIBC_2")}
    highest = max(names, key=lambda n: [int(p) for p in n.removeprefix("GLIBC_").split(".")])
    assert elf.glibc_floor([path]) == highest.removeprefix("GLIBC_")
    assert elf.floors([path])["glibcxx"].startswith("3.4.")


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF"])
def test_what_is_no_elf_file_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="is not an ELF file") as caught:
        elf.needed(tmp_path / "x")
    assert str(tmp_path / "x") in str(caught.value)
