"""Our own recipes on every kind of board: what they promise holds there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.tests.conftest import Project, copied

pytestmark = [pytest.mark.slow, pytest.mark.board]

ROOT = Path(__file__).parents[2]
BOARDS = ("qemu:cortex-a53", "qemu:cortex-a72", "qemu:cortex-a76", "qemu:neoverse-n1")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Both recipes' int8 variants, measured on all boards in one build."""
    made = copied(tmp_path_factory.mktemp("boards") / "slipway")
    shutil.rmtree(made.folder / "recipes")
    shutil.copytree(ROOT / "recipes", made.folder / "recipes")
    said = made.scons(
        "target=arm64",
        "recipe=digits,mobilenet_v2",
        "variant=int8",
        f"device={','.join(BOARDS)}",
        timeout=1500,
    )
    assert said.status == 0, said.out + said.err
    return made


@pytest.fixture(scope="module")
def rows(project) -> dict[tuple[str, str], dict]:
    listed = json.loads(project.file("build/summary.json").read_bytes())
    return {(row["recipe"], row["device"]): row for row in listed}


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("recipe", ["digits", "mobilenet_v2"])
def test_integer_programs_are_bit_exact(rows, recipe, board):
    row = rows[recipe, board]
    assert row["verdict"] == "pass"
    assert row["parity"]["exact"]
    assert row["load"]["undelegated"] == {}
    assert row["samples"] == row["samples_available"]


@pytest.mark.parametrize("board", BOARDS)
def test_digits_keep_their_accuracy(rows, board):
    row = rows["digits", board]
    assert row["samples"] > 300
    assert row["accuracy_float"] > 0.97
    assert row["accuracy"] >= 0.98 * row["accuracy_float"]


def test_mobilenet_is_small(rows):
    row = rows["mobilenet_v2", "qemu:cortex-a72"]
    assert row["model_bytes"] < 3_800_000
    assert row["bundle_bytes"] < 8_000_000
    assert row["metric"] == "agreement"
    assert any("agreement with the float model" in finding for finding in row["findings"])


def test_dot_products_are_used_where_the_cpu_has_them(rows):
    """Half the instructions: the board really is the CPU that it says."""
    without, having = (
        rows["mobilenet_v2", board]["instructions_per_inference"]
        for board in ("qemu:cortex-a72", "qemu:cortex-a76")
    )
    assert having < 0.7 * without


def test_the_checks_run_by_hand(project):
    """pytest device_tests --bundle … --device …, as a person types it."""
    bundle = "build/digits/int8/xnnpack/arm64/bundle.tar"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "device_tests", "-rs"),
            *("--bundle", bundle, "--device", "qemu:cortex-a53"),
        ],
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    unknown = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "device_tests"),
            *("--bundle", bundle, "--device", "qemu:cortex-a5"),
        ],
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert unknown.returncode == 2
    assert "cortex-a53" in unknown.stdout + unknown.stderr
