"""The graph, by real SCons: what is built again, what is not, and what the user is told."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolchain.tests.conftest import Project, copied

pytestmark = [pytest.mark.slow, pytest.mark.board]


@contextmanager
def edited(project: Project, name: str, old: str, new: str) -> Iterator[None]:
    """A file of the project with `old` replaced; put back, and built again, afterwards."""
    file = project.file(name)
    text = file.read_text()
    assert old in text, f"{name} does not hold {old!r}"
    file.write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        file.write_text(text)
        assert project.scons("target=arm64").status == 0


def digests(folder: Path) -> dict[str, str]:
    """Digests of all that a build makes, measurements aside."""
    taken = ("samples.json", "verdict.json", "summary.json", "outputs.safetensors")
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and file.name not in taken
    }


def summary(project: Project) -> list[dict]:
    rows: list[dict] = json.loads(project.file("build/summary.json").read_bytes())
    return rows


def test_the_summary_tells_everything(built):
    rows = summary(built)
    assert [(row["recipe"], row["variant"]) for row in rows] == [
        ("tiny", "float"),
        ("tiny", "int8"),
    ]
    for row in rows:
        assert row["verdict"] == "pass"
        assert row["reasons"] == []
        assert row["device"] == "qemu:cortex-a72"
        assert row["latency_ms"] is None
        assert row["instructions_per_inference"] > 1000
        assert row["peak_rss_bytes"] > 1_000_000
        assert row["bundle_bytes"] > row["model_bytes"] > 500
        assert row["accuracy_float"] == 1.0
        for digest in ("bundle_sha256", "recipe_sha256", "evaluation_sha256"):
            assert len(row["provenance"][digest]) == 64
        assert "torch" in row["provenance"]["tools"]
        assert row["provenance"]["device"]["cpu"]
    assert rows[1]["parity"]["exact"]


def test_a_second_build_does_nothing_and_never_imports_torch(built):
    done = subprocess.run(
        [
            *built.command("target=arm64")[:1],
            "-X",
            "importtime",
            *built.command("target=arm64")[1:],
        ],
        cwd=built.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "up to date" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "SCons" in imported
    assert not imported & {"torch", "torchao", "executorch", "numpy", "paramiko", "pytest"}


def test_a_comment_in_the_data_rebuilds_only_the_data(built):
    with edited(built, "recipes/tiny/data.py", "import torch", "# a remark\nimport torch"):
        said = built.scons("target=arm64", "--debug=explain")
        assert said.status == 0
        assert said.verbs == {"data"}
        assert said.reasons == {"`recipes/tiny/data.py' changed"}


def test_other_evaluation_data_does_not_touch_the_program(built):
    with edited(built, "recipes/tiny/data.py", "samples(2)", "samples(3)"):
        said = built.scons("target=arm64")
        assert said.status == 0
        assert said.verbs == {
            "data", "reference", "host", "analyze", "package", "measure", "judge", "summary",
        }  # fmt: skip


def test_a_changed_threshold_judges_again_without_a_board(built):
    limit = '[variants.int8.checks]\nparity = "exact"'
    with edited(built, "recipes/tiny/recipe.toml", limit, limit + "\nmax_model_bytes = 10"):
        said = built.scons("target=arm64", "--debug=explain")
        assert said.status == 1
        assert said.verbs == {"judge", "summary"}
        limits = "`build/tiny/int8/xnnpack/arm64/spec/checks.json' changed"
        assert limits in said.reasons
        assert "the program is" in said.out
        assert "over the limit of 10 bytes" in said.out
        rows = summary(built)
        assert [row["verdict"] for row in rows] == ["pass", "fail"]
        again = built.scons("target=arm64")
        assert again.status == 1, "a failed check fails the next build too"
        assert again.verbs == {"summary"}
    assert [row["verdict"] for row in summary(built)] == ["pass", "pass"]


def test_a_comment_in_a_step_does_not_rebuild_what_follows(built):
    with edited(built, "toolchain/steps/lower.py", '"""', '"""Edited. '):
        said = built.scons("target=arm64", "--debug=explain")
        assert said.status == 0
        assert said.verbs == {"lower"}
        assert said.reasons == {"`toolchain/steps/lower.py' changed"}


def test_an_edited_helper_is_named_as_the_reason(built):
    with edited(built, "toolchain/schemes/int8_static.py", '"""', '"""Edited. '):
        said = built.scons("target=arm64", "--debug=explain")
        assert said.status == 0
        assert said.steps == ["quantize tiny int8 xnnpack", "analyze tiny int8 xnnpack"]
        assert said.reasons == {"`toolchain/schemes/int8_static.py' changed"}


def test_another_option_of_a_variant_rebuilds_that_variant_only(built):
    scheme = 'scheme = "int8_static"'
    with edited(built, "recipes/tiny/recipe.toml", scheme, scheme + '\nobserver = "minmax"'):
        said = built.scons("target=arm64")
        assert said.status == 0
        assert "quantize tiny int8 xnnpack" in said.steps
        assert not [step for step in said.steps if "float" in step]


def test_remeasure_measures_again(built):
    said = built.scons("target=arm64", "remeasure=1")
    assert said.status == 0
    assert said.verbs >= {"measure", "summary"}
    assert not said.verbs & {"export", "quantize", "lower", "package"}


def test_instructions_are_the_same_in_three_runs_and_under_load(built):
    taken = []
    for busy in (0, 0, 2):
        burners = [
            subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(busy)
        ]  # fmt: skip
        try:
            assert built.scons("target=arm64", "remeasure=1").status == 0
        finally:
            for burner in burners:
                burner.kill()
                burner.wait()
        taken.append([row["instructions_per_inference"] for row in summary(built)])
    assert taken[0] == taken[1] == taken[2]


def test_two_clean_builds_give_the_same_bytes(built, tmp_path):
    other = copied(tmp_path / "another/place")
    other.environment = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    assert (
        other.scons("target=arm64", "-j1", "bundles", "build/tiny/reference.safetensors").status
        == 0
    )
    ours, theirs = digests(built.folder / "build"), digests(other.folder / "build")
    assert theirs, "nothing was built"
    assert {name: ours.get(name) for name in theirs} == theirs
    assert any(name.endswith("bundle.tar") for name in theirs)


def test_a_cache_gives_back_everything_but_measurements(built, tmp_path):
    cache = f"cache={tmp_path / 'cache'}"
    assert built.scons("target=arm64", cache, "build=first").status == 0
    built.scons("build=first", "-c", "target=arm64")
    said = built.scons("target=arm64", cache, "build=first")
    assert said.status == 0
    assert "Retrieved" in said.out
    assert said.verbs == {"measure", "judge", "summary"}


def test_a_device_that_is_off_is_an_infra_error_and_is_asked_again(built):
    built.file("known_hosts").write_text("")
    built.file("devices.toml").write_text(
        '[gone]\ntarget = "arm64"\nhost = "127.0.0.1"\nport = 1\nknown_hosts = "known_hosts"\n'
    )
    for _ in range(2):  # such a result is never taken for done
        said = built.scons("target=arm64", "device=gone")
        assert said.status == 3, said.out + said.err
        assert said.verbs == {"measure", "race", "compare", "judge", "summary"}
        assert [row["verdict"] for row in summary(built)] == ["infra-error", "infra-error"]
        assert all(row["accuracy"] is None for row in summary(built))
        assert all(row["model_bytes"] > 0 for row in summary(built))
        assert "127.0.0.1" in summary(built)[0]["reasons"][0]
        assert "Traceback" not in said.out + said.err
    assert built.scons("target=arm64").status == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["taget=arm64"], "did you mean 'target'"),
        (["target=arm46"], "did you mean 'arm64'"),
        (["target=arm64", "device=qemu:cortex-a71"], "cortex-a72"),
        (["bundels"], "did you mean 'bundles'"),
        (["recipes=none"], "no such folder"),
    ],
)
def test_mistakes_end_with_status_2_and_no_traceback(built, arguments, told):
    said = built.scons(*arguments)
    assert said.status == 2
    assert told in said.err
    assert "Traceback" not in said.out + said.err


def test_an_error_of_a_step_ends_with_status_2_and_leaves_no_old_summary(built):
    with edited(built, "recipes/tiny/model.py", "def build", "def other"):
        said = built.scons("target=arm64")
        assert said.status == 2
        assert "build" in said.err
        assert "Traceback" not in said.out + said.err
        assert not built.file("build/summary.json").exists()


def test_a_killed_build_is_followed_by_a_right_one(built, tmp_path):
    """SIGKILL at ten random moments; then the result is what an undisturbed build gave."""
    project = copied(tmp_path / "killed")
    moments = random.Random(1)
    for _ in range(10):
        process = subprocess.Popen(
            project.command("target=arm64"),
            cwd=project.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moments.uniform(0.3, 20))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert project.scons("target=arm64").status == 0
    ours, undisturbed = digests(project.folder / "build"), digests(built.folder / "build")
    assert ours == {name: digest for name, digest in undisturbed.items() if name in ours}
    assert len([name for name in ours if name.endswith("bundle.tar")]) == 2
    keep = ("verdict", "accuracy", "parity", "instructions_per_inference", "peak_rss_bytes")
    assert [[row[k] for k in keep] for row in summary(project)] == [
        [row[k] for k in keep] for row in summary(built)
    ]
    for _ in range(20):
        if not emulators(project.folder):
            break
        time.sleep(0.5)
    assert emulators(project.folder) == []


def emulators(folder: Path) -> list[int]:
    """QEMU processes that work for a build in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"qemu-system" in command and (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def test_a_damaged_file_of_the_build_is_named(built):
    """Something else than a step was at it: a full disk, a person, a crash of the machine."""
    for name in (
        "tiny/evaluation.safetensors",
        "tiny/int8/xnnpack/quantized.pt2",
        "tiny/int8/xnnpack/arm64/bundle.tar",
        "tiny/int8/xnnpack/arm64/qemu-cortex-a72/samples.json",
        "tiny/int8/xnnpack/arm64/qemu-cortex-a72/verdict.json",
    ):
        file = built.file(f"build/{name}")
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        try:
            said = built.scons("target=arm64")
            assert said.status == 2, (name, said.out + said.err)
            assert "defect of Slipway" not in said.err
            assert f"build/{name}: " in said.err, said.err
        finally:
            file.write_bytes(whole)
            assert built.scons("target=arm64").status == 0
