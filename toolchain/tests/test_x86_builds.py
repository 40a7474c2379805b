"""The server target by real SCons: three backends raced on this host, and over SSH; ISA floors."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

from toolchain import isa, schema
from toolchain.bundle import Bundle
from toolchain.samples import from_bin
from toolchain.tests import sshd
from toolchain.tests.conftest import Project, Said, copied
from toolchain.tests.projects import write_recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="this host is no x86_64 server"),
]

RECIPE = """
summary = "a convolution and a linear layer"
targets = ["x86_64", "x86_64_v4"]
[model]
factory = "model.py:build"
inputs = [{ shape = [1, 3, 8, 8] }]
[data]
calibration = "data.py:calibration"
evaluation = "data.py:evaluation"
metric = "agreement"
[measure]
latency_samples = 64
rounds = 2
[variants.float]
scheme = "float"
[variants.int8]
scheme = "int8_static"
[variants.small]
scheme = "int8_dynamic_int4_weight"
"""
MODEL = """
import torch


def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(),
        torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(2048, 5),
    )
"""
DATA = """
import torch


def samples(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 3, 8, 8, generator=generator) for _ in range(8)]


def calibration():
    return samples(1)


def evaluation():
    return [(sample, None) for sample in samples(2)]
"""
BACKENDS = ("xnnpack", "inductor", "openvino")
OLD_CPU = "Haswell-noTSX"  # AVX2 and nothing beyond


def ended(said: Said) -> None:
    """A build that did all; on a busy machine times may be inconclusive."""
    assert said.status in (0, 1), said.out + said.err
    assert "All figures" in said.out, said.out + said.err


@pytest.fixture(scope="module")
def raced(tmp_path_factory) -> tuple[Project, Said]:
    """The recipe, on all backends, on this host; with what the build said."""
    project = copied(tmp_path_factory.mktemp("product") / "slipway")
    write_recipe(project.file("recipes/tiny"), RECIPE, MODEL, DATA)
    said = project.scons("target=x86_64", timeout=1800)
    ended(said)
    return project, said


def rows(project: Project) -> dict[tuple[str, str], dict]:
    found = json.loads(project.file("build/summary.json").read_bytes())
    return {(row["variant"], row["backend"]): row for row in found}


def read(project: Project, name: str) -> dict:
    made: dict = json.loads(project.file(name).read_bytes())
    return made


def test_each_variant_runs_on_each_backend_that_can(raced):
    project, said = raced
    found = rows(project)
    pairs = {(variant, backend) for variant in ("float", "int8") for backend in BACKENDS}
    assert set(found) >= pairs | {("small", "xnnpack")}
    for row in found.values():
        assert row["verdict"] in ("pass", "inconclusive"), row["reasons"]
        assert row["latency_ms"]["count"] >= 64
        assert row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
        assert row["parity"]["exact"], "this host measured what this host computed"
        assert row["instructions_per_inference"] or row["instructions_unavailable"]
    assert "Left out: tiny small: the backend 'inductor' cannot do the scheme" in said.out
    for backend in BACKENDS:
        assert found["int8", backend]["sqnr_db"] > 15
        assert found["int8", backend]["model_bytes"] < found["float", backend]["model_bytes"]


def test_the_race_holds_them_against_each_other(raced):
    project, _ = raced
    race = read(project, "build/tiny/race/x86_64/local/race.json")
    assert all(set(one["runs"]) == set(race["programs"]) for one in race["rounds"])
    comparison = read(project, "build/tiny/race/x86_64/local/comparison.json")
    pairs = [pair["variant"] for pair in comparison["backends"]]
    assert (pairs.count("float"), pairs.count("int8")) == (3, 3), "each two of three"
    for pair in comparison["backends"]:
        if pair["variant"] == "float":
            assert pair["parity"]["exact"] or pair["parity"]["sqnr_db"] > 80
        assert pair["ratio"] >= 1
    assert {one["backend"] for one in comparison["pays"] if one["variant"] == "int8"} == {*BACKENDS}
    for program in comparison["programs"].values():
        shares = [row["share"] for row in program["operators"]]
        assert shares == sorted(shares, reverse=True)
        assert 0.5 < sum(shares) <= 1.001, "the profile tells where the time goes"


def test_the_fastest_that_passes_is_chosen(raced):
    project, _ = raced
    for variant in ("float", "int8"):
        passing = [
            r for (v, _), r in rows(project).items() if v == variant and r["verdict"] == "pass"
        ]
        chosen = [row["backend"] for row in passing if row["chosen"]]
        assert len(chosen) == min(1, len(passing))
        faster = [
            pair["faster"]
            for pair in read(project, "build/tiny/race/x86_64/local/comparison.json")["backends"]
            if pair["variant"] == variant and pair["slower"] in chosen
        ]
        assert not {row["backend"] for row in passing} & set(faster)


def test_large_runtimes_are_named_not_packed(raced):
    project, _ = raced
    for backend in BACKENDS:
        bundle = Bundle.open(project.file(f"build/tiny/int8/{backend}/x86_64/bundle.tar"))
        runtime = bundle.manifest["runtime"]
        listed = read(project, f"build/runtime/x86_64/{runtime['name']}/runtime.json")
        assert runtime["digest"] == listed["digest"]
        packed = [name for name in bundle.manifest["files"] if name.startswith("lib/")]
        assert bool(packed) != runtime["apart"]
        assert runtime["apart"] == (backend != "xnnpack")


def test_nothing_is_done_again(raced):
    project, _ = raced
    disturbed = read(project, "build/tiny/race/x86_64/local/comparison.json")["moved"]
    again = {"race", "compare", "judge", "summary"} if disturbed else {"summary"}
    assert project.scons("target=x86_64").verbs <= again


def test_a_changed_limit_judges_without_a_race(raced):
    project, _ = raced
    recipe = project.file("recipes/tiny/recipe.toml")
    text = recipe.read_text()
    recipe.write_text(text + "[variants.int8.on.inductor.checks]\nmax_latency_ms = 0.000001\n")
    try:
        said = project.scons("target=x86_64")
        assert {"judge", "summary"} <= said.verbs <= {"judge", "summary", "race", "compare"}
        assert "judge tiny float xnnpack local" not in said.steps or "race" in said.verbs
        row = rows(project)["int8", "inductor"]
        assert row["verdict"] == "fail"
        assert "over the limit of 1e-06 ms" in row["reasons"][0]
        assert not row["chosen"]
    finally:
        recipe.write_text(text)
        ended(project.scons("target=x86_64"))


@pytest.mark.skipif(sshd.program() is None, reason="openssh-server is not installed")
def test_a_server_behind_ssh_gets_the_runtime_once(raced, tmp_path):
    project, _ = raced
    with sshd.serving(tmp_path) as server:
        asked = (
            "target=x86_64",
            "variant=int8",
            "backend=xnnpack,inductor",
            f"devices={server.devices}",
            f"device={sshd.UNIT}",
        )
        ended(project.scons(*asked))
        found = rows(project)
        assert {row["device"] for row in found.values()} == {sshd.UNIT}
        assert {row["verdict"] for row in found.values()} <= {"pass", "inconclusive"}
        digest = read(project, "build/runtime/x86_64/torch/runtime.json")["digest"]
        stored = [path for path in server.folder.rglob(digest) if path.is_dir()]
        assert len(stored) == 1
        before = {file.name: file.stat().st_ino for file in stored[0].iterdir()}
        assert "libtorch_cpu.so" in before
        again = project.scons(*asked, "remeasure=1")
        ended(again)
        assert {"measure", "race"} <= again.verbs
        assert {file.name: file.stat().st_ino for file in stored[0].iterdir()} == before


def emulated(project: Project, bundle: Path, folder: Path) -> subprocess.CompletedProcess:
    """The self-test of a bundle on an emulated CPU without AVX-512."""
    packed = Bundle.open(bundle)
    packed.extract(folder)
    runtime = packed.manifest["runtime"]
    if runtime["apart"]:
        target = packed.manifest["target"]
        (folder / "lib").symlink_to(project.file(f"build/runtime/{target}/{runtime['name']}/lib"))
    # The runner starts itself again to set these, which QEMU would do on the real CPU.
    environment = packed.manifest["environment"]
    command = ["qemu-x86_64", "-strace", "-cpu", OLD_CPU, *packed.argv(outputs="outputs.bin")]
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "execve" not in done.stderr, "it stayed on the emulated CPU"
    return done


def test_a_program_for_an_old_cpu_runs_on_one(raced, tmp_path):
    """Compiled for AVX2 on a host that may have more, it computes the same without."""
    project, _ = raced
    bundle = project.file("build/tiny/int8/inductor/x86_64/bundle.tar")
    done = emulated(project, bundle, tmp_path)
    assert done.returncode == 0, done.stderr
    specs = json.loads(done.stdout)["outputs"]
    got = from_bin((tmp_path / "outputs.bin").read_bytes(), specs)["output.0"]
    expected = from_bin((tmp_path / "self_test/expected.bin").read_bytes(), specs)["output.0"]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def v4() -> frozenset[str]:
    level = schema.Isa(level="x86-64-v4", extensions=("avx512_vnni",))
    return isa.features(level) - isa.LEVELS["x86-64-v1"]


@pytest.mark.skipif(not v4() <= isa.of_this_host(), reason="this host has no AVX-512 with VNNI")
def test_a_program_for_a_new_cpu_refuses_an_old_one(raced, tmp_path):
    project, _ = raced
    said = project.scons("bundles", "target=x86_64_v4", "backend=inductor", "variant=int8")
    assert said.status == 0, said.out + said.err
    bundle = project.file("build/tiny/int8/inductor/x86_64_v4/bundle.tar")
    assert "avx512f" in Bundle.open(bundle).manifest["needs"]
    done = emulated(project, bundle, tmp_path)
    assert done.returncode == 3
    assert "runner: this CPU lacks avx512" in done.stderr
    assert "avx512_vnni" in done.stderr
    assert not (tmp_path / "outputs.bin").exists()
