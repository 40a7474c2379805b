"""Bundles: what is packed, always the same bytes, and nothing taken from a damaged one."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import platform
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from toolchain import bundle, elf, samples
from toolchain.bundle import Bundle
from toolchain.errors import InfraError, UserError
from toolchain.runtimes import KERNELS_OPTIMIZED, KERNELS_QUANTIZED, kernels_for
from toolchain.schema import Target
from toolchain.steps import package

XNNPACK = "libexecutorch_backend_xnnpack.so"
INPUTS: dict[str, samples.Array] = {
    "input.0": np.arange(6 * 4, dtype=np.float32).reshape(6, 1, 4),
    "input.1": np.arange(6, dtype=np.int64),
    "label": np.zeros(6, np.int64),
}
RUNTIME = {
    "name": "executorch", "package": "executorch", "version": "1", "digest": "0" * 64, "bytes": 9,
    "apart": False, "files": {},
}  # fmt: skip
OUTPUTS = {"output.0": np.arange(12, dtype=np.float32).reshape(6, 2)}


@pytest.fixture
def packing(tmp_path):
    """Arguments of the step. A library stands for the runner: it needs two others."""
    found = importlib.util.find_spec("executorch")
    assert found is not None
    lib = Path(next(iter(found.submodule_search_locations or []))) / "lib"
    shutil.copytree(lib, tmp_path / "runtime/lib", ignore=shutil.ignore_patterns("cmake"))
    shutil.copyfile(lib / XNNPACK, tmp_path / "runtime/runner")
    (tmp_path / "program.pte").write_bytes(b"program" * 1000)
    save_file(INPUTS, tmp_path / "evaluation.safetensors")
    save_file(OUTPUTS, tmp_path / "host.safetensors")
    target = {
        "summary": "", "arch": platform.machine(), "triple": "t", "wheel_platform": "p",
        "backends": ["xnnpack"], "device": {"default": "qemu:cortex-a72"},
    }  # fmt: skip
    (tmp_path / "target.json").write_text(
        Target.model_validate_json(json.dumps(target)).canonical()
    )
    (tmp_path / "python.json").write_text('{"torch": "2.13.0"}')
    (tmp_path / "compiler.json").write_text('{"compiler": "g++ 12"}')
    (tmp_path / "runtime/runtime.json").write_text(json.dumps(RUNTIME))
    lowered(tmp_path, {})
    quantized(tmp_path, "int8_static")
    return {
        "recipe": "digits",
        "variant": "int8",
        "backend": "xnnpack",
        "target_name": "arm64",
        "target": tmp_path / "target.json",
        "program": tmp_path / "program.pte",
        "quantized": tmp_path / "quantize.json",
        "lowered": tmp_path / "lower.json",
        "samples": tmp_path / "evaluation.safetensors",
        "expected": tmp_path / "host.safetensors",
        "runner": tmp_path / "runtime/runner",
        "runtime": tmp_path / "runtime/runtime.json",
        "tools": [tmp_path / "python.json", tmp_path / "compiler.json"],
        "out": tmp_path / "bundle.tar",
    }


LEFT = [{"operator": "aten.elu.default", "module": "a", "why": "no pattern"}] * 2


def quantized(folder: Path, scheme: str) -> None:
    report = {"scheme": scheme, "not_quantized": LEFT}
    (folder / "quantize.json").write_text(json.dumps(report))


def lowered(folder: Path, undelegated: dict[str, int]) -> None:
    operators = {"delegated": 9, "undelegated": undelegated}
    (folder / "lower.json").write_text(json.dumps({"operators": operators, "delegates": 2}))


def test_what_stayed_in_float_is_told_unless_that_was_the_scheme(packing):
    assert packed(packing).manifest["not_quantized"] == {"aten.elu.default (no pattern)": 2}
    quantized(packing["quantized"].parent, "float")
    assert packed(packing).manifest["not_quantized"] == {}


def packed(packing) -> Bundle:
    package.run(**packing)
    return Bundle.open(packing["out"])


def test_the_manifest_tells_everything(packing):
    made = packed(packing)
    told = made.manifest
    named = ("recipe", "variant", "scheme", "backend", "target", "arch", "program")
    assert [told[key] for key in named] == [
        "digits", "int8", "int8_static", "xnnpack", "arm64", platform.machine(), "program.pte",
    ]  # fmt: skip
    assert told["tools"]["torch"] == "2.13.0"
    assert told["tools"]["compiler"] == "g++ 12"
    assert told["inputs"] == [
        {"dtype": "float32", "shape": [1, 4]},
        {"dtype": "int64", "shape": []},
    ]
    assert told["outputs"] == [{"dtype": "float32", "shape": [2]}]
    assert (told["delegates"], told["delegated_share"], told["undelegated"]) == (2, 1.0, {})
    assert made.sha256 == hashlib.sha256(packing["out"].read_bytes()).hexdigest()


def test_only_libraries_that_are_needed_are_shipped(packing):
    names = set(packed(packing).manifest["files"])
    assert names == {
        "runner",
        "lib/libexecutorch.so",
        "lib/libexecutorch_threadpool.so",
        "program.pte",
        "self_test/inputs.bin",
        "self_test/expected.bin",
    }


@pytest.mark.parametrize(
    ("operators", "kernels"),
    [
        ([], []),
        (["aten::mean.out"], [KERNELS_OPTIMIZED]),
        (["quantized_decomposed::quantize_per_tensor.out"], [KERNELS_QUANTIZED]),
        (
            ["quantized_decomposed::embedding_byte.out", "aten::add.out"],
            [KERNELS_OPTIMIZED, KERNELS_QUANTIZED],
        ),
        (["getitem", "executorch_call_delegate", "executorch_prim::add.Scalar"], []),
    ],
)
def test_undelegated_operators_bring_their_kernels(packing, operators, kernels):
    assert list(kernels_for(operators)) == kernels
    lowered(packing["lowered"].parent, dict.fromkeys(operators, 1))
    made = packed(packing)
    assert made.manifest["load_libraries"] == [f"lib/{name}" for name in kernels]
    assert {f"lib/{name}" for name in kernels} <= made.manifest["files"].keys()
    loaded = [a for a in made.argv(outputs="o") if "kernels" in a]
    assert loaded == made.manifest["load_libraries"]
    assert made.manifest["delegated_share"] == pytest.approx(9 / (9 + len(operators)))


def test_sizes_are_those_of_the_files_by_part(packing):
    told = packed(packing).manifest
    assert told["bytes"]["program"] == 7000
    assert told["bytes"]["runner"] == packing["runner"].stat().st_size
    assert told["bytes"]["self_test"] == 4 * (16 + 8) + 4 * 8
    parts = [n for name, n in told["bytes"].items() if name != "total"]
    assert told["bytes"]["total"] == sum(parts) == sum(f["bytes"] for f in told["files"].values())


def test_the_floor_is_that_of_all_that_is_shipped(packing):
    floor = packed(packing).manifest["abi_floor"]
    shipped = [packing["runner"], packing["runner"].parent / "lib/libexecutorch.so"]
    assert floor["glibc"] == elf.glibc_floor(shipped)
    assert floor["glibcxx"].startswith("3.4.")


def test_a_large_sample_is_one_sample(packing):
    large = {"input.0": np.zeros((6, 200_000), np.float32)}
    save_file(large, packing["samples"])
    made = packed(packing)
    assert made.manifest["self_test_samples"] == 1
    assert made.manifest["files"]["self_test/inputs.bin"]["bytes"] == 800_000


def test_the_same_files_give_the_same_bytes(packing, tmp_path, monkeypatch):
    first = packed(packing).path.read_bytes()
    moved = tmp_path / "elsewhere"
    shutil.copytree(packing["runner"].parent, moved)
    packing["runner"] = moved / "runner"
    assert packed(packing).path.read_bytes() == first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert packed(packing).path.read_bytes() != first
    with tarfile.open(packing["out"]) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["manifest.json", *sorted(m.name for m in members[1:])]
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(1700000000, 0, 0, "")}
    assert {m.name: m.mode for m in members}["runner"] == 0o755
    assert {m.mode for m in members if m.name != "runner"} == {0o644}


def test_another_machines_libraries_are_refused(packing):
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()]
    text = packing["target"].read_text()
    packing["target"].write_text(text.replace(platform.machine(), other))
    with pytest.raises(UserError, match=f"is for {platform.machine()}, the target is {other}"):
        package.run(**packing)
    assert not packing["out"].exists()


def test_extracted_files_are_those_that_were_packed(packing, tmp_path):
    made = packed(packing)
    made.extract(tmp_path / "out")
    for name, said in made.manifest["files"].items():
        data = (tmp_path / "out" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == said["sha256"]
    assert (tmp_path / "out/runner").stat().st_mode & 0o777 == 0o755
    assert json.loads((tmp_path / "out/manifest.json").read_bytes()) == made.manifest
    inputs = samples.from_bin(made.read("self_test/inputs.bin"), made.manifest["inputs"], "input.")
    np.testing.assert_array_equal(inputs["input.1"], INPUTS["input.1"][:4])


def test_each_changed_byte_of_a_file_is_noticed(packing, tmp_path):
    made = packed(packing)
    whole = made.path.read_bytes()
    for wanted in (b"programprogram", b"\x7fELF", INPUTS["input.0"][0].tobytes()):
        bad = bytearray(whole)
        bad[whole.index(wanted) + 3] ^= 1
        made.path.write_bytes(bad)
        with pytest.raises(UserError, match="the bundle is damaged: the digest of"):
            Bundle.open(made.path).extract(tmp_path / "out")


@pytest.mark.parametrize("size", [0, 100, 5000, 100_000])
def test_a_cut_bundle_is_damaged(packing, tmp_path, size):
    made = packed(packing)
    made.path.write_bytes(made.path.read_bytes()[:size])
    with pytest.raises(UserError, match="the bundle is damaged"):
        Bundle.open(made.path).extract(tmp_path / "out")


def changed(made: Bundle, change) -> Bundle:
    """The bundle with a tar that `change(tar, file of manifest)` added to."""
    with tarfile.open(made.path, "a") as tar:
        change(tar)
    return Bundle.open(made.path)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "odd",
    [
        member("../outside"),
        member("/tmp/outside"),
        member("lib/../../outside"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard", tarfile.LNKTYPE, "runner"),
        member("folder", tarfile.DIRTYPE),
        member("unknown"),
        member("runner"),
    ],
    ids=lambda info: info.name,
)
def test_what_does_not_belong_is_refused(packing, tmp_path, odd):
    made = changed(packed(packing), lambda tar: tar.addfile(odd))
    with pytest.raises(UserError, match="the bundle is damaged: "):
        made.extract(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(packing, tmp_path):
    made = packed(packing)
    with tarfile.open(made.path) as tar:
        kept = {m.name: made.read(m.name) for m in tar.getmembers()}
    del kept["program.pte"], kept["manifest.json"]
    made.path.write_bytes(bundle.write(kept, made.manifest))
    with pytest.raises(UserError, match=r"'program\.pte' is missing"):
        Bundle.open(made.path).extract(tmp_path / "out")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "holds no manifest.json"),
        (b"{", "holds no manifest.json"),
        (b"[]", "schema is None"),
        (b'{"schema": 99}', "schema is 99; this version reads 2"),
        (b'{"schema": 2}', "lists no files"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, manifest, message):
    file = tmp_path / "bundle.tar"
    with tarfile.open(file, "w") as tar:
        if manifest is not None:
            info = member("manifest.json")
            info.size = len(manifest)
            tar.addfile(info, io.BytesIO(manifest))
    with pytest.raises(UserError, match=message) as caught:
        Bundle.open(file)
    assert "scons" in str(caught.value) or "damaged" in str(caught.value)


def test_no_bundle_names_the_next_command(tmp_path):
    with pytest.raises(UserError, match="scons bundles"):
        Bundle.open(tmp_path / "none.tar")


def test_samples_go_there_and_back():
    tensors: dict[str, samples.Array] = {
        "input.10": np.array([[1], [2]], np.int8),
        "input.2": np.array([[1.5, 2.5], [3.5, 4.5]], np.float16),
        "input.0": np.array([7, 8], ">i8"),
        "label": np.array([0, 0]),
    }
    data = samples.to_bin(tensors)
    assert data[:8] == (7).to_bytes(8, "little")
    assert len(data) == 2 * (8 + 4 + 1)
    specs = samples.specs_of(tensors, "input.")
    back = samples.from_bin(data, specs, "input.")
    np.testing.assert_array_equal(back["input.0"], [7, 8])
    np.testing.assert_array_equal(back["input.1"], tensors["input.2"])
    np.testing.assert_array_equal(back["input.2"], tensors["input.10"])


def test_bfloat16_is_widened():
    data = np.array([1.0, -2.5], np.float32).view(np.uint32) >> 16
    made = samples.from_bin(data.astype("<u2").tobytes(), [{"dtype": "bfloat16", "shape": [2]}])
    np.testing.assert_array_equal(made["output.0"], np.array([[1.0, -2.5]], np.float32))


@pytest.mark.parametrize("size", [3, 5])
def test_outputs_of_a_wrong_size_are_refused(size):
    with pytest.raises(InfraError, match=f"{size} bytes are no whole number of samples of 4 bytes"):
        samples.from_bin(b"\0" * size, [{"dtype": "float32", "shape": []}])


def test_samples_must_be_equally_many():
    with pytest.raises(UserError, match="different numbers of samples"):
        samples.to_bin({"input.0": np.zeros((2, 1)), "input.1": np.zeros((3, 1))})
