"""Which backends, targets and devices a recipe is built for, and what is left out and why."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from toolchain import catalog, isa
from toolchain import jobs as pairing
from toolchain.errors import UserError
from toolchain.tests.projects import RECIPE, write_recipe

TARGETS = Path(__file__).parents[2] / "targets"
X86 = RECIPE.replace('["arm64"]', '["arm64", "x86_64"]')
here = pytest.mark.skipif(platform.machine() != "x86_64", reason="device=local is of no x86 target")


def plan(tmp_path, text=X86, **asked):
    write_recipe(tmp_path / "tiny", text)
    known = catalog.read(tmp_path, TARGETS)
    wanted = dict.fromkeys(("targets", "recipes", "variants", "backend_names", "device_names"), ())
    return pairing.plan(known, devices_file=tmp_path / "devices.toml", **{**wanted, **asked})


def pairs(made):
    return [(job.target_name, job.variant_name, job.backend) for job in made.jobs]


@here
def test_each_variant_is_built_on_each_backend_of_the_target(tmp_path):
    made = plan(tmp_path, targets=("x86_64",))
    assert pairs(made) == [
        ("x86_64", variant, backend)
        for variant in ("float", "int8")
        for backend in ("xnnpack", "inductor", "openvino")
    ]
    assert made.left_out == ()


@here
def test_what_a_variant_does_not_say_is_left_to_the_backend(tmp_path):
    """XNNPACK's dynamic activations are affine, OpenVINO's symmetric."""
    text = X86.replace("int8_static", "int8_dynamic")
    made = plan(tmp_path, text, targets=("x86_64",), variants=("int8",))
    assert [backend for _, _, backend in pairs(made)] == ["xnnpack", "inductor", "openvino"]
    text = text.replace('"int8_dynamic"\n', '"int8_dynamic"\nmapping = "symmetric"\n')
    made = plan(tmp_path, text.replace('"arm64", ', ""), targets=("x86_64",), variants=("int8",))
    assert [backend for _, _, backend in pairs(made)] == ["openvino"]


@here
def test_a_backend_can_be_chosen(tmp_path):
    made = plan(tmp_path, targets=("x86_64",), backend_names=("inductor",))
    assert {backend for _, _, backend in pairs(made)} == {"inductor"}
    with pytest.raises(UserError, match="unknown backend 'inducter'"):
        plan(tmp_path, backend_names=("inducter",))


@here
@pytest.mark.parametrize("place", ["recipe", "variant"])
def test_recipe_and_variant_can_pin_a_backend(tmp_path, place):
    line = 'backends = ["xnnpack"]\n'
    text = (
        X86.replace("[model]", line + "[model]")
        if place == "recipe"
        else X86.replace('scheme = "int8_static"\n', 'scheme = "int8_static"\n' + line)
    )
    made = plan(tmp_path, text, targets=("x86_64",), variants=("int8",))
    assert pairs(made) == [("x86_64", "int8", "xnnpack")]


@here
def test_a_target_without_the_pinned_backend_is_left_out(tmp_path):
    line = 'scheme = "int8_static"\nbackends = ["inductor"]\n'
    made = plan(tmp_path, X86.replace('scheme = "int8_static"\n', line), variants=("int8",))
    assert pairs(made) == [("x86_64", "int8", "inductor")]
    assert made.left_out == ("tiny int8: it is for backends that arm64 has not",)


@pytest.mark.parametrize("name", ["xnnpak", "x86_64"])
def test_a_pin_names_a_backend_of_a_target(tmp_path, name):
    text = RECIPE.replace("[model]", f'backends = ["{name}"]\n[model]')
    with pytest.raises(UserError, match=f"unknown backend '{name}'"):
        plan(tmp_path, text)


@here
def test_what_a_backend_cannot_do_is_left_out_and_told(tmp_path):
    text = X86.replace("int8_static", "int8_dynamic_int4_weight")
    made = plan(tmp_path, text, targets=("x86_64",), variants=("int8",))
    assert pairs(made) == [("x86_64", "int8", "xnnpack")]
    assert any("'inductor' cannot do" in reason for reason in made.left_out)
    with pytest.raises(UserError, match="nothing to do: tiny int8: the backend 'inductor' cannot"):
        plan(tmp_path, text, targets=("x86_64",), variants=("int8",), backend_names=("inductor",))


def test_a_pinned_backend_has_to_be_able(tmp_path):
    lines = 'scheme = "int8_dynamic_int4_weight"\nbackends = ["xnnpack", "inductor"]\n'
    text = X86.replace('scheme = "int8_static"\n', lines)
    with pytest.raises(UserError, match="the backend 'inductor' cannot do"):
        plan(tmp_path, text)


@here
def test_targets_that_are_built_by_name_have_to_be_named(tmp_path):
    text = X86.replace('"x86_64"', '"x86_64", "x86_64_v4"')
    assert {target for target, _, _ in pairs(plan(tmp_path, text))} == {"arm64", "x86_64"}
    named = plan(tmp_path, text, targets=("x86_64_v4",))
    assert {target for target, _, _ in pairs(named)} == {"x86_64_v4"}


@here
def test_a_device_of_another_architecture_is_left_out_or_refused(tmp_path):
    made = plan(tmp_path, device_names=("local",))
    assert {target for target, _, _ in pairs(made)} == {"x86_64"}
    assert made.left_out == ("target arm64: 'local' is x86_64, the target is aarch64",)
    with pytest.raises(UserError, match="'qemu:cortex-a72' is aarch64, the target is x86_64"):
        plan(tmp_path, targets=("x86_64",), device_names=("qemu:cortex-a72",))


@here
def test_settings_on_a_place_hold_there_only(tmp_path):
    text = X86 + (
        "[variants.int8.on.inductor.checks]\nmin_sqnr = 20.0\n"
        "[on.x86_64.measure]\nlatency_samples = 64\nthreads = 2\n"
    )
    made = {
        (job.target_name, job.variant_name, job.backend): job for job in plan(tmp_path, text).jobs
    }
    assert made["x86_64", "int8", "inductor"].checks.min_sqnr == 20.0
    assert made["x86_64", "int8", "inductor"].checks.parity == "exact", "the variant's own stay"
    assert made["x86_64", "int8", "xnnpack"].checks.min_sqnr is None
    assert made["x86_64", "float", "xnnpack"].measure.latency_samples == 64
    assert made["x86_64", "float", "xnnpack"].measure.threads == 2
    assert made["arm64", "float", "xnnpack"].measure.latency_samples == 1024


def test_settings_name_a_place_of_the_recipe(tmp_path):
    text = RECIPE + "[variants.int8.on.inductr.checks]\nmin_sqnr = 20.0\n"
    with pytest.raises(UserError, match="'inductr' is neither a backend nor a target"):
        plan(tmp_path, text)


@here
def test_each_target_takes_the_devices_that_are_its_own(tmp_path):
    names = ("qemu:cortex-a72", "local")
    made = plan(
        tmp_path, targets=("arm64", "x86_64"), device_names=names, backend_names=("xnnpack",)
    )
    assert {(job.target_name, job.device.name) for job in made.jobs} == {
        ("arm64", "qemu:cortex-a72"),
        ("x86_64", "local"),
    }
    with pytest.raises(UserError, match=r"device=local: is of none of the chosen targets"):
        plan(tmp_path, targets=("arm64",), device_names=names)


@here
def test_a_target_without_a_backend_that_is_asked_for_is_told(tmp_path):
    made = plan(tmp_path, backend_names=("inductor",))
    assert {target for target, _, _ in pairs(made)} == {"x86_64"}
    assert made.left_out == ("target arm64 has no backend inductor; it has xnnpack",)
    with pytest.raises(UserError, match="target arm64 has no backend inductor"):
        plan(tmp_path, targets=("arm64",), backend_names=("inductor",))


@here
def test_this_host_is_no_device_of_a_target_above_it(tmp_path, monkeypatch):
    monkeypatch.setattr(isa, "of_this_host", lambda: isa.LEVELS["x86-64-v3"])
    text = X86.replace('"x86_64"', '"x86_64", "x86_64_v4"')
    with pytest.raises(UserError, match=r"'local' lacks avx512\w+, .* of the target's \[isa\]"):
        plan(tmp_path, text, targets=("x86_64_v4",))
    assert plan(tmp_path, text, targets=("x86_64",)).jobs
