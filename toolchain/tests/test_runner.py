"""The runner, compiled for this machine, on real programs; and the step that compiles it."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from toolchain import machine_code
from toolchain.bundle import Bundle
from toolchain.errors import InfraError, UserError
from toolchain.runtimes import EXECUTORCH, KERNELS_OPTIMIZED
from toolchain.samples import from_bin, to_bin
from toolchain.steps import package
from toolchain.steps import runner as step
from toolchain.tests.projects import TRIPLE, target_json

pytestmark = pytest.mark.slow

SOURCES = EXECUTORCH.sources()
NAMES = (
    "delegated",
    "pick",
    "unplanned",
    "channels_last_out",
    "channels_last_in",
    "scalars",
    "every_dtype",
    "passed_through",
    "data_dependent",
)


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The installed ExecuTorch, found without importing it."""
    if shutil.which(f"{TRIPLE}-g++") is None:
        pytest.skip(f"no native compiler here: apt-get install {step.package_of(TRIPLE)}")
    found = importlib.util.find_spec("executorch")
    assert found is not None
    return Path(next(iter(found.submodule_search_locations or [])))


@pytest.fixture(scope="session")
def wheel(sdk, tmp_path_factory):
    """The installed ExecuTorch, packed as the wheel that it came from."""
    file = tmp_path_factory.mktemp("wheel") / "executorch.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path in [*sdk.glob("include/**/*.h"), *sdk.glob("lib/*.so")]:
            archive.write(path, f"executorch/{path.relative_to(sdk)}")
    return file


@pytest.fixture(scope="session")
def runner(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runtime")
    out = folder / "build/runner"
    build(folder, out, wheel)
    return out


def build(folder: Path, out: Path, wheel: Path, **how: Any) -> None:
    """Let the step make the runner `out`, and `runtime.json` beside it."""
    arguments: dict[str, Any] = {
        "target": target_json(folder / "t.json"),
        "runtime": EXECUTORCH.name,
        "version": metadata.version("executorch"),
        "source": SOURCES,
        "out": out,
        "report": out.parent / "runtime.json",
        "wheel": wheel,
    }
    step.run(**(arguments | how))


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    module = "toolchain.tests.tiny_programs"
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@dataclass
class Ran:
    status: int
    report: dict
    outputs: Path
    err: str

    @property
    def last(self) -> str:
        return self.err.strip().splitlines()[-1]


@pytest.fixture
def execute(runner, programs, tmp_path):
    """Run a program: `execute("pick", "--threads", 2)`, with its samples and with kernels."""

    def ran(
        name: str | Path,
        *options: object,
        inputs: bytes | None = None,
        outputs: Path = tmp_path / "outputs.bin",
        kernels: bool = True,
        **how,
    ) -> Ran:
        program = programs / f"{name}.pte" if isinstance(name, str) else name
        if inputs is None:
            inputs = to_bin(load_file(program.with_suffix(".safetensors")))
        (tmp_path / "inputs.bin").write_bytes(inputs)
        argv = [runner, "--program", program, "--inputs", tmp_path / "inputs.bin"]
        argv += ["--outputs", outputs, *options]
        if kernels:
            argv += ["--load-library", runner.parent / "lib" / KERNELS_OPTIMIZED]
        how = {"capture_output": True, "timeout": 60, "check": False} | how
        done: Any = subprocess.run([os.fsencode(str(a)) for a in argv], **how)
        report = json.loads(done.stdout) if done.stdout else {}
        return Ran(done.returncode, report, outputs, done.stderr.decode(errors="replace"))

    return ran


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_eager_torch(execute, programs, name):
    tensors = load_file(programs / f"{name}.safetensors")
    ran = execute(name, "--warmup", 1, "--iterations", 2)
    assert ran.status == 0, ran.err
    outputs = from_bin(ran.outputs.read_bytes(), ran.report["outputs"])
    wanted = {key: value for key, value in tensors.items() if key.startswith("output.")}
    assert outputs.keys() == wanted.keys()
    for key, value in wanted.items():
        assert outputs[key].dtype == value.dtype
        assert outputs[key].shape == value.shape
        np.testing.assert_allclose(outputs[key], value, rtol=1e-5, atol=1e-6)
    for k, spec in enumerate(ran.report["inputs"]):
        assert spec == {
            "dtype": tensors[f"input.{k}"].dtype.name,
            "shape": list(tensors[f"input.{k}"].shape[1:]),
        }


def test_the_report_has_a_figure_for_each_inference(execute):
    report = execute("pick", "--threads", 2, "--warmup", 3, "--iterations", 5).report
    assert report["schema"] == 2
    assert report["threads"] == 2
    assert len(report["samples"]["wall_ns"]) == 3
    assert len(report["iterations"]["wall_ns"]) == 5
    assert min(report["iterations"]["wall_ns"]) > 0
    assert report["load_ns"] > 1000
    for part in ("samples", "iterations"):
        counts = report[part]["instructions"]
        if report["instructions_unavailable"]:
            assert counts is None
        else:
            assert min(counts) > 100


def test_nothing_is_repeated_unless_wanted(execute):
    assert execute("pick").report["iterations"]["wall_ns"] == []


@pytest.mark.parametrize("threads", [1, 3])
def test_the_pool_has_the_threads_that_were_asked_for(execute, threads):
    assert execute("delegated", "--threads", threads).report["threads"] == threads


def test_peak_memory_is_the_runners_own(execute):
    ballast = b"x" * 300_000_000  # a process inherits the peak of the one that started it
    peak = execute("delegated", kernels=False).report["peak_rss_bytes"]
    assert 1_000_000 < peak < len(ballast) // 3


def test_a_delegated_program_needs_no_kernels(execute):
    assert execute("delegated", kernels=False).status == 0


def test_missing_kernels_are_named(execute):
    ran = execute("pick", kernels=False)
    assert ran.status == 3
    assert "Error::OperatorMissing" in ran.last
    assert "aten::sum.IntList_out" in ran.last
    assert not ran.outputs.exists()


def test_a_missing_library_is_named(execute):
    ran = execute("pick", "--load-library", "lib/none.so")
    assert (ran.status, "lib/none.so: cannot open" in ran.last) == (3, True)


@pytest.mark.parametrize("size", [0, 1, 63, 65])
def test_a_size_that_is_no_number_of_samples(execute, size):
    ran = execute("pick", inputs=b"\0" * size)
    assert ran.status == 5
    assert f"{size} bytes are no whole number of samples of 64 bytes" in ran.last
    assert not ran.outputs.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not_a_tensor", "input 1 is not a tensor"),
        ("no_input", "takes no input"),
        ("none", "cannot be loaded: Error::AccessFailed"),
    ],
)
def test_programs_that_cannot_be_used(execute, name, message):
    ran = execute(name, inputs=b"\0" * 64)
    assert (ran.status, message in ran.last) == (3, True), ran.err


def test_a_shape_that_changes_between_samples_is_an_error(execute):
    inputs = np.array([[1, 0, 2], [1, 1, 2]], np.float32)
    ran = execute("data_dependent", inputs=inputs.tobytes())
    assert ran.status == 4
    assert "changed from sample 0 to sample 1" in ran.last
    assert not ran.outputs.exists()


def test_an_inference_that_fails_tells_why(execute):
    inputs = np.zeros((2, 5), np.float32).tobytes() + np.array([0, 3, 99], np.int64).tobytes()
    ran = execute("pick", inputs=inputs)
    assert (ran.status, "inference failed: Error::" in ran.last) == (4, True), ran.err
    assert not ran.outputs.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--treads", "2"], "unknown option '--treads'"),
        (["--threads"], "no value after '--threads'"),
        (["--threads", "0"], "whole number from 1 on, not '0'"),
        (["--iterations", "-1"], "not '-1'"),
        (["--warmup", "2x"], "not '2x'"),
        (["--iterations", "99999999999"], "not '99999999999'"),
    ],
)
def test_bad_command_lines(execute, options, message):
    ran = execute("pick", *options, kernels=False)
    assert (ran.status, message in ran.last) == (2, True), ran.err


def test_a_missing_option_is_named(runner):
    done = subprocess.run([runner, "--program", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, "--inputs is missing" in done.stderr) == (2, True)


def test_a_full_disk_is_an_error(execute):
    ran = execute("pick", outputs=Path("/dev/full"))
    assert (ran.status, "/dev/full: cannot be written: No space left" in ran.last) == (5, True)
    assert Path("/dev/full").is_char_device()


def test_a_report_that_cannot_be_written_is_an_error(execute):
    with Path("/dev/full").open("wb") as full:
        ran = execute("pick", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (ran.status, "the report on stdout" in ran.last) == (5, True)


def test_half_an_output_is_removed(execute):
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))  # less than two samples of 32 bytes

    ran = execute("pick", preexec_fn=small_files_only, restore_signals=False)
    assert (ran.status, "outputs.bin: cannot be written: File too large" in ran.last) == (5, True)
    assert not ran.outputs.exists()


@pytest.mark.parametrize("missing", ["--inputs", "--outputs"])
def test_files_that_cannot_be_opened(execute, missing):
    ran = execute("pick", missing, "none/x.bin")
    assert (ran.status, "none/x.bin: cannot be" in ran.last) == (5, True)


def test_the_report_is_json_whatever_names_are(execute, programs, tmp_path):
    odd = tmp_path / os.fsdecode(b'a "quote"\\, a\nline, \xc3\xa9 and \xff\xed\xa0\x80.pte')
    shutil.copyfile(programs / "pick.pte", odd)
    ran = execute(odd, inputs=to_bin(load_file(programs / "pick.safetensors")))
    assert ran.report["program"].endswith('a "quote"\\, a\nline, é and ����.pte')


def test_the_profile_names_the_delegates_operators(execute, tmp_path):
    plain = execute("delegated").outputs.read_bytes()
    ran = execute("delegated", "--profile", tmp_path / "dump", "--iterations", 2)
    assert (ran.status, ran.outputs.read_bytes()) == (0, plain)
    code = (
        "from executorch.devtools import Inspector; import sys;"
        "print([e.name for b in Inspector(etdump_path=sys.argv[1]).event_blocks for e in b.events])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "dump"], capture_output=True, text=True, check=True
    )
    assert "Fully Connected" in said.stdout
    assert "Method::execute" in said.stdout


@pytest.mark.parametrize("name", ["delegated", "pick"])
def test_truncated_programs_are_refused(execute, programs, tmp_path, name):
    whole = (programs / f"{name}.pte").read_bytes()
    for size in (0, 1, 7, 8, 40, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        cut = tmp_path / "cut.pte"
        cut.write_bytes(whole[:size])
        ran = execute(cut, inputs=to_bin(load_file(programs / f"{name}.safetensors")))
        assert (ran.status, "cannot be loaded: Error::" in ran.last) == (3, True), (size, ran.err)
        assert not ran.outputs.exists()


@pytest.mark.parametrize("name", ["delegated", "pick"])
def test_flipped_bytes_never_end_in_a_bare_signal(execute, programs, tmp_path, name):
    whole = (programs / f"{name}.pte").read_bytes()
    inputs = to_bin(load_file(programs / f"{name}.safetensors"))
    chance = random.Random(7)
    verified, crashed = 0, 0
    for _ in range(60):
        bad = bytearray(whole)
        for _ in range(chance.choice((1, 4, 16))):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        (tmp_path / "bad.pte").write_bytes(bad)
        ran = execute(tmp_path / "bad.pte", inputs=inputs)
        assert ran.status in (0, 3, 4), ran.err
        assert ran.status == 0 or ran.last.startswith("runner: "), ran.err
        verified += "Verification failed" in ran.err
        crashed += "the runtime crashed" in ran.err
    assert verified > 20, "the structure is looked into before it is used"
    assert crashed < 3


def native_library(folder: Path, source: str) -> Path:
    (folder / "x.c").write_text(source)
    command = [f"{TRIPLE}-g++", "-x", "c", "-shared", "-fPIC", "x.c", "-o", "x.so"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "x.so"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGILL", "SIGABRT"])
def test_a_crash_has_its_line(execute, tmp_path, name):
    library = native_library(
        tmp_path,
        "#include <signal.h>\n"
        f"__attribute__((constructor)) static void crash(void) {{ raise({name}); }}",
    )
    ran = execute("pick", "--load-library", library)
    assert ran.status == 3
    assert ran.last.startswith(f"runner: the runtime crashed ({name}) while loading the program")


COUNTER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { FD = 777 };
static uint64_t count = 0;
long syscall(long number, ...) {
  va_list rest;
  va_start(rest, number);
  long a[6];
  for (int i = 0; i < 6; ++i) a[i] = va_arg(rest, long);
  va_end(rest);
  if (number == SYS_perf_event_open) return FD;
  long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
ssize_t read(int fd, void* to, size_t size) {
  if (fd != FD) return ((ssize_t(*)(int, void*, size_t))dlsym(RTLD_NEXT, "read"))(fd, to, size);
  uint64_t now[3] = {count += STEP, 9, RUNNING};
  memcpy(to, now, sizeof now);
  return sizeof now;
}
"""


@pytest.mark.parametrize(
    ("step", "running", "counts", "reason"),
    [
        (7, "9", [7, 7], None),
        (0, "9", None, "stands still"),
        (7, "count < 30 ? 9 : 5", None, "shared with another user"),
    ],
)
def test_instructions_are_the_difference_of_two_readings(
    execute, tmp_path, step, running, counts, reason
):
    source = COUNTER.replace("STEP", str(step)).replace("RUNNING", running)
    library = native_library(tmp_path, source)
    ran = execute("pick", "--iterations", 2, env={"LD_PRELOAD": str(library)})
    assert ran.status == 0, ran.err
    assert ran.report["iterations"]["instructions"] == counts
    assert (reason or "") in (ran.report["instructions_unavailable"] or "")
    assert (ran.report["instructions_unavailable"] is None) == (reason is None)


def test_the_sources_compile_without_warnings(sdk, tmp_path):
    options = ["-Werror", "-fsyntax-only", "-Wshadow", "-Wconversion", "-Wpedantic"]
    step.compile_runner(TRIPLE, EXECUTORCH, SOURCES, sdk, tmp_path / "runner", options)


def test_the_same_sources_elsewhere_give_the_same_bytes(runner, wheel, tmp_path):
    moved = [Path(shutil.copy2(path, tmp_path)) for path in SOURCES]
    out = tmp_path / "elsewhere/deep/runner"
    build(tmp_path, out, wheel, source=moved)
    names = [f"lib/{library}" for library in EXECUTORCH.libraries]
    for name in ("runner", "runtime.json", *names):
        assert (out.parent / name).read_bytes() == (runner.parent / name).read_bytes(), name
    assert str(Path(__file__).parents[2]).encode() not in runner.read_bytes()


def test_a_missing_compiler_names_its_package(wheel, tmp_path):
    target = target_json(tmp_path / "other.json", "mips64-linux-gnuabi64")
    with pytest.raises(UserError, match="apt-get install g\\+\\+-mips64-linux-gnuabi64"):
        build(tmp_path, tmp_path / "runner", wheel, target=target)
    assert not (tmp_path / "runner").exists()


def test_compile_errors_are_shown_in_full(sdk, tmp_path):
    (tmp_path / "bad.cpp").write_text("int f() { return one; }\nint g() { return two; }\n")
    with pytest.raises(UserError) as caught:
        step.compile_runner(TRIPLE, EXECUTORCH, [tmp_path / "bad.cpp"], sdk, tmp_path / "out")
    assert "bad.cpp:1" in str(caught.value)
    assert "bad.cpp:2" in str(caught.value)
    assert "'two'" in str(caught.value) or "‘two’" in str(caught.value)  # noqa: RUF001 (g++ does)


@pytest.mark.parametrize("content", [b"not a zip", None])
def test_a_wheel_without_libraries_is_an_infra_error(tmp_path, content):
    bad = tmp_path / "bad.whl"
    if content is None:
        with zipfile.ZipFile(bad, "w") as archive:
            archive.writestr("executorch/include/a.h", "")
    else:
        bad.write_bytes(content)
    with pytest.raises(InfraError, match="does not hold its C\\+\\+ libraries"):
        build(tmp_path, tmp_path / "runner", bad, source=[])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its features are those of x86-64")
def test_a_runner_starts_on_any_cpu_of_its_architecture(runner):
    """And so can refuse a program. It asks cpuid before it uses xgetbv, which is of xsave."""
    assert machine_code.used(runner.read_bytes()) <= {"xsave"}


@pytest.mark.parametrize(("name", "undelegated"), [("delegated", {}), ("pick", {"aten::sum.x": 1})])
def test_a_bundle_passes_its_self_test(runner, programs, tmp_path, name, undelegated):
    """From the packing to the outputs, as a device would do it."""
    tensors = load_file(programs / f"{name}.safetensors")
    for kind in ("input", "output"):
        save_file({k: v for k, v in tensors.items() if kind in k}, tmp_path / f"{kind}.safetensors")
    lowered = {"operators": {"delegated": 5, "undelegated": undelegated}, "delegates": 1}
    (tmp_path / "lower.json").write_text(json.dumps(lowered))
    (tmp_path / "quantize.json").write_text('{"scheme": "float", "not_quantized": []}')
    package.run(
        recipe="r", variant="v", backend="xnnpack", target_name="here",
        target=target_json(tmp_path / "t.json"), program=programs / f"{name}.pte",
        quantized=tmp_path / "quantize.json", lowered=tmp_path / "lower.json",
        samples=tmp_path / "input.safetensors",
        expected=tmp_path / "output.safetensors", runner=runner, tools=[],
        runtime=runner.parent / "runtime.json",
        out=tmp_path / "bundle.tar",
    )  # fmt: skip
    bundle = Bundle.open(tmp_path / "bundle.tar")
    bundle.extract(tmp_path / "device")
    done = subprocess.run(
        bundle.argv(outputs="out.bin", iterations=2),
        cwd=tmp_path / "device",
        env={},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["outputs"] == bundle.manifest["outputs"]
    assert report["inputs"] == bundle.manifest["inputs"]
    made = from_bin((tmp_path / "device/out.bin").read_bytes(), report["outputs"])
    wanted = from_bin(bundle.read("self_test/expected.bin"), bundle.manifest["outputs"])
    for key, value in wanted.items():
        np.testing.assert_allclose(made[key], value, rtol=1e-5, atol=1e-6)
