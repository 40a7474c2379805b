"""Errors: one message on stderr, the right exit status, no traceback; and steps that keep to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolchain import atomic, errors

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("kind", "status"), [(errors.CheckFailed, 1), (errors.UserError, 2), (errors.InfraError, 3)]
)
def test_each_kind_of_error_has_its_exit_status(capsys, kind, status):
    with pytest.raises(SystemExit) as left, errors.shown():
        raise kind("it is wrong", where="recipe.toml: [data].metric", hint="mend it")
    assert left.value.code == status
    told = capsys.readouterr().err
    assert told == "slipway: recipe.toml: [data].metric: it is wrong\n  mend it\n"


def test_a_defect_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), errors.shown():
        raise ZeroDivisionError


def test_the_nearest_value_comes_first():
    assert errors.nearest("cortex-a71", ["cortex-a72", "neoverse-n1"]).startswith(
        "did you mean 'cortex-a72'?"
    )
    assert errors.nearest("zzz", ["b", "a"]) == "known: a, b"
    assert errors.nearest("zzz", []) == "there are none"


def half_written(path: Path) -> None:
    with atomic.replacing(path) as partial:
        partial.write_text("half")
        raise KeyError


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "folder/file.json"
    atomic.write_json(path, {"a": 1})
    with pytest.raises(KeyError):
        half_written(path)
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]


STEP = """
import sys
from pathlib import Path
from toolchain.errors import InfraError
from toolchain.steps.main import step

def run(*, name: str, given: list[Path], count: int = 3, out: Path) -> None:
    if name == "wait":
        print("ready", flush=True)
        import time; time.sleep(60)
    if name == "break":
        raise InfraError("the cable fell out")
    out.write_text(f"{name} {[p.name for p in given]} {count}")

step(run)
"""


@pytest.fixture
def program(tmp_path) -> list[str]:
    (tmp_path / "thing.py").write_text(STEP)
    return [sys.executable, str(tmp_path / "thing.py"), f"--out={tmp_path / 'out'}"]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_step_is_its_functions_parameters(program, tmp_path):
    command = [*program, "--name=n", "--given=a/x", "--given=b/y"]
    subprocess.run(command, env=ENVIRONMENT, check=True)
    assert (tmp_path / "out").read_text() == "n ['x', 'y'] 3"
    done = subprocess.run(program, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--name" in done.stderr


def test_a_step_that_is_interrupted_is_silent(program):
    with subprocess.Popen(
        [*program, "--name=wait"], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, b"")


def test_a_step_that_breaks_says_so(program):
    done = subprocess.run(
        [*program, "--name=break"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (3, "slipway: the cable fell out\n")


def test_a_step_ends_with_the_build_that_started_it(program):
    """SIGKILL to the parent, which can tell nobody."""
    parent = (
        "import os, subprocess, sys\n"
        "os.environ['SLIPWAY_PARENT'] = str(os.getpid())\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); child.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, *program, "--name=wait"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    for _ in range(50):
        if not alive(child):
            return
        time.sleep(0.1)
    pytest.fail("the step outlived its build")


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
