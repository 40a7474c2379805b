"""The backend `inductor` without compiling: floors, packages, reports, and what is refused."""

from __future__ import annotations

import json
import os
import zipfile

import pytest

from toolchain import backends, isa, schemes
from toolchain.errors import InfraError, UserError
from toolchain.inductor import archive, calls, child, floor
from toolchain.schema import Isa

V3, V4 = Isa(level="x86-64-v3"), Isa(level="x86-64-v4")
VNNI = Isa(level="x86-64-v4", extensions=("avx512_vnni",))
AMX = Isa(level="x86-64-v4", extensions=("avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"))

WRAPPER = """
void AOTInductorModel::_const_run_impl() {
    aoti_torch_cpu_mkldnn__reorder_linear_weight(weight);
}
void AOTInductorModel::run_impl(
    AtenTensorHandle* input_handles) {
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(4, sizes, strides, &buf0));
    cpp_fused_quantize_per_tensor_0((const float*)(arg.data_ptr()), (uint8_t*)(buf0.data_ptr()));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu__qconv_pointwise_tensor(buf0, scale, &buf1));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu__qlinear_pointwise_tensor(buf1, scale, &buf2));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_bmm_out(buf3, buf2, buf2));
    aoti_torch_call_dispatcher("aten::sort", "stable", stack);
    cpp_fused_quantize_per_tensor_0((const float*)(buf3.data_ptr()), (uint8_t*)(buf4.data_ptr()));
} // AOTInductorModel::run_impl
// aoti_torch_cpu_addmm_out(
"""


@pytest.mark.parametrize(
    ("target", "onednn", "bits", "march"),
    [
        (None, "SSE41", 1, "x86-64"),
        (V3, "AVX2", 256, "x86-64-v3"),
        (Isa(level="x86-64-v3", extensions=("avx_vnni",)), "AVX2_VNNI", 256, "x86-64-v3"),
        (V4, "AVX512_CORE", 512, "x86-64-v4"),
        (VNNI, "AVX512_CORE_VNNI", 512, "x86-64-v4"),
        (AMX, "AVX512_CORE_AMX", 512, "x86-64-v4"),
    ],
)
def test_a_floor_in_the_words_of_all_who_obey_it(target, onednn, bits, march):
    assert backends.load("inductor").environment(target) == {"ONEDNN_MAX_CPU_ISA": onednn}
    assert floor.vector_bits(target) == bits
    assert floor.march(target) == march


def test_a_host_below_the_floor_is_refused_before_anything_is_run(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("flags : " + " ".join(isa.LEVELS["x86-64-v4"]))
    monkeypatch.setattr(isa, "CPUINFO", tmp_path / "cpuinfo")
    inductor = backends.load("inductor")
    with pytest.raises(UserError, match=r"p\.pt2: this host cannot run it: .*lacks avx512_vnni"):
        inductor.run(tmp_path / "p.pt2", [], 1, VNNI)
    with pytest.raises(UserError, match=r"lower: this host cannot pack weights .* avx512_vnni"):
        inductor.lower(None, VNNI)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scheme", "options", "message"),
    [
        ("int8_static", {"granularity": "per_tensor"}, r"granularity = 'per_tensor'"),
        ("int8_weight_only", {}, r"cannot do the scheme 'int8_weight_only'"),
        ("float16", {}, r"cannot do the scheme 'float16'"),
    ],
)
def test_what_it_cannot_do_is_refused(scheme, options, message):
    able = backends.load("inductor").ABILITIES
    with pytest.raises(UserError, match=message):
        schemes.check_able(scheme, options, "inductor", able, "here")


def test_calls_are_sorted_by_who_computes():
    found = calls.found(WRAPPER)
    assert found.compiled == {"cpp_fused_quantize_per_tensor_0": 2}
    assert found.onednn == {"_qconv_pointwise_tensor": 1, "_qlinear_pointwise_tensor": 1}
    assert found.aten == {"aten::bmm_out": 1, "aten::sort.stable": 1}


def test_what_should_be_integer_and_is_not_is_undelegated():
    report = calls.report(calls.found(WRAPPER), wanted=5, weight_bits=8)
    assert report["integer"] == {"wanted": 5, "computed": 2, "weight_bits": 8}
    left = report["operators"]["undelegated"]
    assert left["on integers in the program, in float here"] == 3
    assert report["operators"]["delegated"] == 4
    assert report["delegated_share"] == pytest.approx(4 / 9)


def package(file, key, library=b"ELF"):
    with zipfile.ZipFile(file, "w") as made:
        folder = f"{file.stem}/data/aotinductor/model/"
        made.writestr(f"{folder}{key}.wrapper.so", library)
        made.writestr(f"{folder}{key}.wrapper.cpp", f"// {file}")
        made.writestr(f"{folder}{key}.wrapper_metadata.json", "{}")
        made.writestr(f"{folder}{key}k.kernel_metadata.json", "{}")
        made.writestr(f"{file.stem}/archive_format", "pt2")
        made.writestr(f"{file.stem}/.data/serialization_id", key)
    return file


def test_packages_differ_in_nothing_but_the_library(tmp_path):
    one, two = package(tmp_path / "a.pt2", "c4yg"), package(tmp_path / "b.pt2", "ctak")
    made = archive.canonical(one, b"stripped")
    assert made == archive.canonical(two, b"stripped")
    (tmp_path / "made.pt2").write_bytes(made)
    inductor = backends.load("inductor")
    assert list(inductor.machine_code(tmp_path / "made.pt2")) == [("model.wrapper.so", b"stripped")]
    with zipfile.ZipFile(tmp_path / "made.pt2") as archived:
        assert archived.namelist() == [
            "program/archive_format",
            "program/data/aotinductor/model/model.wrapper.so",
            "program/data/aotinductor/model/model.wrapper_metadata.json",
        ]


def test_what_is_no_package_is_refused(tmp_path):
    (tmp_path / "p.pt2").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"p\.pt2: is no package of AOTInductor"):
        list(backends.load("inductor").machine_code(tmp_path / "p.pt2"))


def test_a_child_has_its_environment_and_gives_errors_back():
    assert child.call(os.getenv, "ONEDNN_MAX_CPU_ISA", environment=floor.environment(V3)) == "AVX2"
    with pytest.raises(UserError, match=r"\[isa\]\.level: unknown level 'x'"):
        child.call(isa.features, Isa(level="x"), environment={})
    with pytest.raises(InfraError, match=r"abort: the process that torch worked in has died"):
        child.call(os.abort, environment={})


def test_a_profile_is_read_slowest_first(tmp_path):
    rows = [
        {"name": "cpp_fused_add_0", "type": "compiled", "calls": 2, "ns": 30},
        {"name": "aoti_torch_cpu__qconv", "type": "library", "calls": 1, "ns": 900},
    ]
    (tmp_path / "profile.json").write_text(json.dumps({"schema": 1, "operators": rows}))
    found = backends.load("inductor").profile(tmp_path / "profile.json")
    assert [(row["type"], row["calls"], row["ns"]) for row in found] == [
        ("_qconv", 1, 900),
        ("cpp_fused_add", 2, 30),
    ]
