"""The runners of libtorch and OpenVINO, compiled for this machine, on real programs."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from toolchain import elf, runtimes
from toolchain.isa import EXTENSIONS, LEVELS, of_this_host
from toolchain.samples import from_bin, to_bin
from toolchain.steps import runner as step
from toolchain.tests.projects import TRIPLE, target_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="these runtimes are for x86-64"),
]

SUFFIX = {"torch": ".pt2", "openvino": ".ir.tar"}
PROGRAMS = ("convolution", "pick", "every_dtype", "mixed")


@pytest.fixture(scope="session", params=list(SUFFIX))
def kind(request):
    return runtimes.ALL[request.param]


@pytest.fixture(scope="session")
def runner(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp(kind.name)
    out = folder / "runner"
    step.run(
        target=target_json(folder / "t.json"),
        runtime=kind.name,
        version=metadata.version(kind.package),
        source=kind.sources(),
        out=out,
        report=folder / "runtime.json",
    )
    return out


@pytest.fixture(scope="session")
def programs(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    command = [sys.executable, "-m", "toolchain.tests.tiny_programs", str(folder), kind.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@dataclass
class Ran:
    status: int
    report: dict[str, Any]
    outputs: Path
    err: str

    @property
    def last(self) -> str:
        return self.err.strip().splitlines()[-1]


Execute = Callable[..., Ran]


@pytest.fixture
def execute(kind, runner, programs, tmp_path) -> Execute:
    """Run a program: `execute("pick", "--threads", 2)`, with its samples."""

    def ran(
        name: str | Path, *options: object, inputs: bytes = b"", before: Any = (), **how: Any
    ) -> Ran:
        program = programs / f"{name}{SUFFIX[kind.name]}" if isinstance(name, str) else name
        inputs = inputs or to_bin(load_file(programs / f"{name}.safetensors"))
        folder = how.pop("folder", tmp_path)
        (tmp_path / "inputs.bin").write_bytes(inputs)
        argv = [*before, runner, "--program", program, "--inputs", tmp_path / "inputs.bin"]
        argv += ["--outputs", folder / "outputs.bin", *options]
        settings: dict[str, Any] = {
            "capture_output": True,
            "timeout": 60,
            "check": False,
            "env": {},
        }
        done = subprocess.run([str(word) for word in argv], **(settings | how))
        report = json.loads(done.stdout) if done.stdout else {}
        return Ran(done.returncode, report, folder / "outputs.bin", done.stderr.decode())

    return ran


@pytest.mark.parametrize("name", PROGRAMS)
def test_outputs_are_those_of_eager_torch(execute, programs, name, tmp_path):
    tensors = load_file(programs / f"{name}.safetensors")
    ran = execute(name, "--warmup", 1, "--iterations", 2)
    assert ran.status == 0, ran.err
    outputs = from_bin(ran.outputs.read_bytes(), ran.report["outputs"])
    wanted = {key: value for key, value in tensors.items() if key.startswith("output.")}
    assert outputs.keys() == wanted.keys()
    for key, value in wanted.items():
        assert outputs[key].dtype == value.dtype
        np.testing.assert_allclose(outputs[key], value, rtol=1e-5, atol=1e-6)
        assert outputs[key].shape == value.shape
    for k, spec in enumerate(ran.report["inputs"]):
        assert spec == {
            "dtype": tensors[f"input.{k}"].dtype.name,
            "shape": list(tensors[f"input.{k}"].shape[1:]),
        }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.bin", "outputs.bin"]


def test_the_report_tells_of_every_inference(execute):
    report = execute("convolution", "--threads", 2, "--warmup", 3, "--iterations", 5).report
    assert report["schema"] == 2
    assert report["threads"] == 2
    assert report["cpus"] is None
    assert len(report["samples"]["wall_ns"]) == 3
    assert len(report["iterations"]["wall_ns"]) == 5
    guards = report["guards"]
    assert guards["involuntary_switches"] >= 0
    assert guards["run_delay_ns"] is None or guards["run_delay_ns"] >= 0
    for times in guards["yardstick_ns"].values():
        assert len(times) == 5
        assert min(times) > 100_000


def test_nothing_is_guarded_that_is_not_repeated(execute):
    assert execute("convolution", "--warmup", 2).report["guards"] is None


@pytest.mark.parametrize("threads", [1, 2])
def test_it_stays_on_the_last_cpus(execute, threads):
    available = sorted(os.sched_getaffinity(0))
    report = execute("convolution", "--threads", threads, "--pin", 1, "--set", "A=b").report
    assert report["cpus"] == available[-threads:]
    assert report["threads"] == threads


def test_pinning_wants_a_number_of_threads(execute):
    ran = execute("convolution", "--pin", 1)
    assert (ran.status, "--pin wants --threads" in ran.last) == (2, True)


def test_a_feature_that_is_not_known(execute):
    ran = execute("convolution", "--needs", "avx2,avx9")
    assert (ran.status, "unknown CPU feature 'avx9'" in ran.last) == (2, True)


def test_features_are_those_that_the_kernel_tells(execute):
    """All that a floor may demand (`toolchain.isa`) is known, and judged as /proc/cpuinfo does."""
    known = {*LEVELS["x86-64-v4"], *EXTENSIONS}.union(*EXTENSIONS.values())
    there, lacking = sorted(known & of_this_host()), sorted(known - of_this_host())
    ran = execute("convolution", "--needs", ",".join(there))
    assert ran.status == 0, ran.err
    ran = execute("convolution", "--needs", ",".join([*there, *lacking]))
    assert ran.status == (3 if lacking else 0)
    assert not lacking or f"this CPU lacks {', '.join(lacking)}, which" in ran.last


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="apt-get install qemu-user")
def test_a_lesser_cpu_is_refused_before_anything_is_loaded(execute):
    haswell = ("qemu-x86_64", "-cpu", "Haswell")
    ran = execute("convolution", "--needs", "avx2,avx512f,fma,avx512_vnni", before=haswell)
    assert ran.status == 3
    assert ran.last == (
        "runner: this CPU lacks avx512f, avx512_vnni, which the program was compiled for"
    )
    ran = execute("none", "--needs", "avx2,fma", before=haswell, inputs=b"x")
    assert (ran.status, "this CPU lacks" not in ran.last) == (3, True), ran.err
    assert "No such file" in ran.last


def test_the_environment_is_there_before_the_libraries(execute, tmp_path):
    """glibc's loader reads LD_DEBUG before anything of the runner runs."""
    ran = execute("convolution", "--set", "LD_DEBUG=statistics", "--set", f"X={tmp_path} =")
    assert ran.status == 0
    assert "linker statistics" in ran.err


def test_settings_have_a_name(execute):
    ran = execute("convolution", "--set", "=1")
    assert (ran.status, "--set wants NAME=VALUE, not '=1'" in ran.last) == (2, True)


def test_the_profile_names_what_ran(execute, kind, tmp_path):
    plain = execute("convolution").outputs.read_bytes()
    ran = execute("convolution", "--profile", tmp_path / "profile.json")
    assert (ran.status, ran.outputs.read_bytes()) == (0, plain), ran.err
    profile = json.loads((tmp_path / "profile.json").read_bytes())
    assert profile["schema"] == 1
    rows = {row["name"]: row for row in profile["operators"]}
    assert all(row["calls"] >= 1 and row["ns"] >= 0 and row["type"] for row in rows.values())
    wanted = {"torch": "mkldnn__convolution", "openvino": "convolution"}[kind.name]
    assert any(wanted in name for name in rows), rows
    if kind.name == "torch":
        assert any("cpp_fused" in name and rows[name]["type"] == "compiled" for name in rows)
        assert rows["not told of"]["type"] == "rest"


def test_truncated_programs_are_refused(execute, kind, programs, tmp_path):
    whole = (programs / f"pick{SUFFIX[kind.name]}").read_bytes()
    inputs = to_bin(load_file(programs / "pick.safetensors"))
    content = len(whole.rstrip(b"\0"))
    for size in (0, 1, 21, 22, 511, 512, 600, content // 3, content // 2, content - 1):
        cut = tmp_path / "cut"
        cut.write_bytes(whole[:size])
        ran = execute(cut, inputs=inputs)
        assert (ran.status, f"{cut}: cannot be loaded: " in ran.last) == (3, True), (size, ran.err)
        assert not ran.outputs.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "inputs.bin"]


def test_flipped_bytes_never_end_in_a_bare_signal(execute, kind, programs, tmp_path):
    whole = (programs / f"pick{SUFFIX[kind.name]}").read_bytes()
    inputs = to_bin(load_file(programs / "pick.safetensors"))
    chance = random.Random(7)
    refused = 0
    for _ in range(12):
        bad = bytearray(whole)
        for _ in range(chance.choice((1, 4, 16))):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        (tmp_path / "bad").write_bytes(bad)
        ran = execute(tmp_path / "bad", inputs=inputs)
        assert ran.status in (0, 3, 4), ran.err
        assert ran.status == 0 or ran.last.startswith("runner: "), ran.err
        refused += ran.status != 0
    assert refused > 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("content", [b"PK\x05\x06" + bytes(18), bytes(1024), b"{}" * 600])
def test_other_files_are_refused(execute, content, tmp_path):
    (tmp_path / "other").write_bytes(content)
    ran = execute(tmp_path / "other", inputs=b"x")
    assert (ran.status, "cannot be loaded: it " in ran.last) == (3, True), ran.err


@pytest.mark.parametrize("size", [1, 63, 65])
def test_a_size_that_is_no_number_of_samples(execute, size):
    ran = execute("pick", inputs=b"\0" * size)
    assert ran.status == 5
    assert f"{size} bytes are no whole number of samples of 64 bytes" in ran.last
    assert not ran.outputs.exists()


def test_an_inference_that_fails_tells_why(execute, kind, tmp_path):
    inputs = np.zeros((2, 5), np.float32).tobytes() + np.array([0, 3, 99], np.int64).tobytes()
    ran = execute("pick", inputs=inputs)
    if kind.name == "openvino" and ran.status == 0:
        pytest.skip("OpenVINO does not check indices")
    assert ran.status == 4, ran.err
    assert ran.last.startswith("runner: ")
    assert not ran.outputs.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.bin"]


def test_libraries_of_kernels_are_refused(execute):
    ran = execute("pick", "--load-library", "x.so")
    assert (ran.status, "this runtime takes none" in ran.last) == (3, True)


def test_what_is_shipped_is_all_that_is_needed(kind, runner):
    """Each library of the package that one of ours refers to is one of ours."""
    folder = step.installed(kind, metadata.version(kind.package)) / kind.lib
    ours = {path.name for path in (runner.parent / "lib").iterdir()}
    assert ours == set(kind.libraries)
    for path in [runner, *(runner.parent / "lib").iterdir()]:
        assert set(elf.closure(path, folder)) <= ours, path


def test_runtime_json_lists_what_is_there(kind, runner):
    facts = json.loads((runner.parent / "runtime.json").read_bytes())
    sizes = {path.name: path.stat().st_size for path in (runner.parent / "lib").iterdir()}
    assert {name: file["bytes"] for name, file in facts["files"].items()} == sizes
    assert facts["bytes"] == sum(sizes.values())
    assert (facts["name"], facts["apart"]) == (kind.name, True)
    assert facts["version"] == metadata.version(kind.package)
    assert len(facts["digest"]) == 64


def test_the_sources_compile_without_warnings(kind, tmp_path):
    sdk = step.installed(kind, metadata.version(kind.package))
    options = ["-Werror", "-fsyntax-only", "-Wshadow", "-Wconversion", "-Wpedantic"]
    step.compile_runner(TRIPLE, kind, kind.sources(), sdk, tmp_path / "runner", options)
