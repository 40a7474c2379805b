"""Every mistake in a recipe, target or option is one message: what, where, and the good values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolchain import catalog, options, words
from toolchain import jobs as pairing
from toolchain.errors import UserError
from toolchain.tests.projects import RECIPE, write_recipe

ROOT = Path(__file__).parents[2]
TARGETS = ROOT / "targets"


NOTHING: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("targets", "recipes", "variants", "backend_names", "device_names"), ()
)


def jobs(folder: Path, *, targets_folder: Path = TARGETS, **asked: Any):
    known = catalog.read(folder, targets_folder)
    wanted = {**NOTHING, **asked}
    return pairing.plan(known, devices_file=folder / "devices.toml", **wanted).jobs


def test_our_own_recipes_are_read():
    read = catalog.read(ROOT / "recipes", TARGETS)
    assert {"digits", "mobilenet_v2"} <= set(read.recipes)


def test_a_job_for_each_variant_on_the_default_device(tmp_path):
    write_recipe(tmp_path / "tiny")
    made = jobs(tmp_path)
    assert [(job.variant_name, job.device.name) for job in made] == [
        ("float", "qemu:cortex-a72"),
        ("int8", "qemu:cortex-a72"),
    ]
    assert made[0].checks.parity is None
    assert made[1].checks.parity == "exact"


def test_what_is_built_by_name_has_to_be_named(tmp_path):
    text = RECIPE.replace('scheme = "int8_static"', 'scheme = "int8_static"\nby_name = true')
    write_recipe(tmp_path / "tiny", text)
    assert [job.variant_name for job in jobs(tmp_path)] == ["float"]
    assert [job.variant_name for job in jobs(tmp_path, variants=("int8",))] == ["int8"]
    assert [job.variant_name for job in jobs(tmp_path, variants=("all",))] == ["float", "int8"]
    with pytest.raises(UserError, match="'int9'"):
        jobs(tmp_path, variants=("all", "int9"))
    text = text.replace('scheme = "float"', 'scheme = "float"\nby_name = true')
    write_recipe(tmp_path / "tiny", text)
    with pytest.raises(UserError, match=r"built by name only[^$]*tiny: float, int8"):
        jobs(tmp_path)


def test_a_recipe_that_is_built_by_name_has_to_be_named(tmp_path):
    text = RECIPE.replace("targets", "by_name = true\ntargets", 1)
    write_recipe(tmp_path / "slow", text)
    assert jobs(tmp_path), "the only one is meant"
    write_recipe(tmp_path / "tiny")
    assert {job.entry.name for job in jobs(tmp_path)} == {"tiny"}
    assert {job.entry.name for job in jobs(tmp_path, recipes=("slow",))} == {"slow"}
    assert {job.entry.name for job in jobs(tmp_path, recipes=("all",))} == {"slow", "tiny"}


def test_several_devices_multiply_the_jobs(tmp_path):
    write_recipe(tmp_path / "tiny")
    made = jobs(tmp_path, variants=("int8",), device_names=("qemu:cortex-a53", "qemu:cortex-a76"))
    assert [job.device.cpu for job in made] == ["cortex-a53", "cortex-a76"]


def test_a_recipe_folder_itself_may_be_given(tmp_path):
    assert len(jobs(write_recipe(tmp_path / "tiny"))) == 2


def test_a_variants_own_settings_lie_over_the_recipes(tmp_path):
    text = RECIPE + "max_model_bytes = 7\n[checks]\nmax_drop = 0.5\nmax_model_bytes = 9\n"
    write_recipe(tmp_path / "tiny", text)
    floating, int8 = jobs(tmp_path)
    assert (floating.checks.max_model_bytes, floating.checks.max_drop) == (9, 0.5)
    assert (int8.checks.max_model_bytes, int8.checks.max_drop) == (7, 0.5)


RECIPE_MISTAKES = {
    "unknown key": ('metric = "agreement"', 'metrik = "top1"', ["[data].metrik", "'metric'"]),
    "unknown section": ("[data]", "[date]\nx = 1\n[data]", ["unknown key 'date'", "'data'"]),
    "unknown scheme": ('"int8_static"', '"int8_statik"', [".scheme", "'int8_static'"]),
    "unknown scheme option": (
        'scheme = "int8_static"',
        'scheme = "int8_static"\nobservr = "minmax"',
        ["[variants.int8]", "'observr'", "'observer'"],
    ),
    "wrong option value": (
        'scheme = "int8_static"',
        'scheme = "int8_static"\nobserver = "histo"',
        ["observer", "histo", "histogram"],
    ),
    "wrong type": ("shape = [1, 4]", 'shape = "1x4"', ["[model.inputs.0].shape", "1x4"]),
    "negative size": ("shape = [1, 4]", "shape = [1, -4]", ["inputs", "-4"]),
    "unknown dtype": (
        "shape = [1, 4]",
        'shape = [1, 4], dtype = "float23"',
        ["dtype", "float23", "float32"],
    ),
    "unknown target": ('["arm64"]', '["arm46"]', ["targets", "'arm46'", "'arm64'"]),
    "no target": ('["arm64"]', "[]", ["targets", "not empty"]),
    "missing key": ('evaluation = "data.py:evaluation"', "", ["[data].evaluation", "missing"]),
    "missing file": ("model.py:build", "modell.py:build", ["modell.py", "'model.py'"]),
    "no function": ("model.py:build", "model.py", ["names no function", "file.py:function"]),
    "factory and program": (
        'factory = "model.py:build"',
        'factory = "model.py:build"\nprogram = "x.pt2"',
        ["either 'factory' or 'program'"],
    ),
    "neither factory nor program": ('factory = "model.py:build"', "", ["either"]),
    "missing weights": (
        'factory = "model.py:build"',
        'factory = "model.py:build"\nweights = "w.pt"',
        ["no such file 'w.pt'", "[model].weights"],
    ),
    "malformed digest": (
        'factory = "model.py:build"',
        'factory = "model.py:build"\nsha256 = "12"',
        ["[model].sha256"],
    ),
    "no calibration data": (
        'calibration = "data.py:calibration"',
        "",
        ["needs calibration data", "[variants.int8]"],
    ),
    "unknown metric": ('metric = "agreement"', 'metric = "top2"', ["metric", "top2", "top1"]),
    "reserved variant": ("[variants.float]", "[variants.spec]", ["'spec'", "build tree"]),
    "variant named all": ("[variants.float]", "[variants.all]", ["'all'"]),
    "what a backend cannot do": (
        'scheme = "int8_static"',
        'scheme = "int8_dynamic"\ngranularity = "per_tensor"',
        ["'xnnpack' cannot do granularity = 'per_tensor'", "it can do: 'per_channel'"],
    ),
    "no training": (
        'scheme = "int8_static"',
        'scheme = "int8_qat"',
        ["trains the model", "[training] samples"],
    ),
    "training without its samples": (
        "[data]",
        "[training]\nepochs = 3\nrate = 0.1\n[data]",
        ["[training].samples", "missing"],
    ),
    "unknown loss": (
        "[data]",
        '[training]\nsamples = "data.py:evaluation"\nepochs = 3\nrate = 0.1\nloss = "l2"\n[data]',
        ["[training].loss", "unknown loss 'l2'", "cross_entropy"],
    ),
    "missing package": (
        'factory = "model.py:build"',
        'factory = "model.py:build"\npackages = ["no-such-package"]',
        ["[model].packages", "'no-such-package' is not installed", "pip install"],
    ),
    "two limits": (
        'scheme = "int8_static"',
        'scheme = "auto"\nmax_drop = 0.1\nmin_metric = 0.9',
        ["recipe.toml: [variants.int8]: {", "max_drop or min_metric, not both"],
    ),
    "malformed variant": ("[variants.float]", '[variants."a/b"]', ["'a/b'", "cannot name"]),
    "not TOML": ("[model]", "[model", ["is not TOML", "line"]),
    "wrong parity": ('parity = "exact"', 'parity = "exakt"', ["parity", "exakt"]),
    "no samples": (
        "[variants.float]",
        "[measure]\nsamples = 0\n[variants.float]",
        ["[measure].samples"],
    ),
}


@pytest.mark.parametrize("case", RECIPE_MISTAKES)
def test_mistakes_in_a_recipe(tmp_path, case):
    right, wrong, told = RECIPE_MISTAKES[case]
    assert right in RECIPE
    write_recipe(tmp_path / "tiny", RECIPE.replace(right, wrong, 1))
    with pytest.raises(UserError) as caught:
        jobs(tmp_path)
    message = str(caught.value)
    assert "recipe.toml" in message
    for part in told:
        assert part in message, message


SELECTION_MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "target": ({"targets": ("arm46",)}, "'arm64'"),
    "recipe": ({"recipes": ("tyni",)}, "'tiny'"),
    "variant": ({"variants": ("int9",)}, "'int8'"),
    "board": ({"device_names": ("qemu:cortex-a7",)}, "cortex-a72"),
    "device": ({"device_names": ("rpi",)}, "rpi"),
    "board without its kind": ({"device_names": ("cortex-a53",)}, "device=qemu:cortex-a53"),
}


@pytest.mark.parametrize("case", SELECTION_MISTAKES)
def test_unknown_names_are_refused_with_the_nearest(tmp_path, case):
    write_recipe(tmp_path / "tiny")
    asked, told = SELECTION_MISTAKES[case]
    with pytest.raises(UserError, match=told):
        jobs(tmp_path, **asked)


def test_a_device_of_another_target_is_refused(tmp_path):
    write_recipe(tmp_path / "tiny")
    (tmp_path / "known").write_text("")
    (tmp_path / "devices.toml").write_text(
        '[srv]\ntarget = "x86_64"\nhost = "h"\nuser = "u"\nknown_hosts = "known"\n'
    )
    with pytest.raises(UserError, match="target 'x86_64', not of 'arm64'"):
        jobs(tmp_path, device_names=("srv",))


def test_two_devices_never_share_a_folder(tmp_path):
    write_recipe(tmp_path / "tiny")
    (tmp_path / "known").write_text("")
    (tmp_path / "devices.toml").write_text('[qemu-cortex-a72]\nhost = "h"\nknown_hosts = "known"')
    with pytest.raises(UserError, match="another name"):
        jobs(tmp_path, device_names=("qemu:cortex-a72", "qemu-cortex-a72"))


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('backends       = ["xnnpack"]', 'backends = ["xnnpak"]', "'xnnpack'"),
        ('"aarch64"', '"arch64"', "aarch64"),
        ("triple ", "tripel ", "'triple'"),
    ],
)
def test_mistakes_in_a_target(tmp_path, right, wrong, told):
    write_recipe(tmp_path / "recipes/tiny")
    (tmp_path / "targets").mkdir()
    text = (TARGETS / "arm64.toml").read_text()
    assert right in text
    (tmp_path / "targets/arm64.toml").write_text(text.replace(right, wrong, 1))
    with pytest.raises(UserError, match=told):
        jobs(tmp_path / "recipes", targets_folder=tmp_path / "targets")


def test_a_folder_without_recipes(tmp_path):
    with pytest.raises(UserError, match="holds no recipe"):
        jobs(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        jobs(tmp_path / "none")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"taget": "arm64"}, "'target'"),
        ({"recipe": ""}, "recipe=: has no value"),
        ({"remeasure": "yes"}, "neither 0 nor 1"),
        ({"build": "a$b"}, "SCons would expand"),
    ],
)
def test_mistakes_in_options(arguments, told):
    with pytest.raises(UserError, match=told):
        options.read(arguments)


def test_paths_count_from_where_the_caller_stood(tmp_path, monkeypatch):
    monkeypatch.setenv(words.CALLED_FROM, str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path)
    read = options.read({"recipes": "own", "cache": "/var/cache"})
    assert read.recipes == Path("mine/own")
    assert read.cache == Path("/var/cache")
    assert read.build == Path("build"), "what is not given stays in the repository"


def test_an_unknown_goal_is_refused(tmp_path):
    with pytest.raises(UserError, match="'bundles'"):
        options.check_goals(["bundels"], tmp_path)
    options.check_goals(["bundles", str(tmp_path / "a/b.json")], tmp_path)
